"""Redis over TLS: whom Celery's half of our connections trusts."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from api.control.queue import sending_app
from tests.support.receiver import certificate
from worker.app import make_app

HOST = "localhost"


@pytest.mark.parametrize("make", [sending_app, make_app], ids=["controller", "worker"])
@pytest.mark.parametrize(
    ("options", "trusted"),
    [("", False), ("?ssl_ca_certs={certificate}", True), ("?ssl_cert_reqs=none", True)],
    ids=["unknown", "named", "any"],
)
def test_certificates_are_checked(
    tmp_path: Path, make: Callable[[str], Celery], options: str, trusted: bool
):
    context, _ = certificate(tmp_path, HOST)
    query = options.format(certificate=tmp_path / "certificate.pem")
    with handshakes(context) as (port, seen):
        app = make(f"rediss://{HOST}:{port}/0{query}")
        with app.connection_for_write() as connection, suppress(OperationalError):
            connection.ensure_connection(max_retries=1, timeout=10)
        app.close()
    assert seen
    assert all(shaken is trusted for shaken in seen)


@contextmanager
def handshakes(context: ssl.SSLContext) -> Iterator[tuple[int, list[bool]]]:
    """Shake hands with whoever comes, and hang up; yield the port and how each one went."""
    seen: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                client.settimeout(10)
                with suppress(OSError), client:
                    try:
                        with context.wrap_socket(client, server_side=True) as secured:
                            seen.append(bool(secured.recv(1)))
                    except ssl.SSLError:
                        seen.append(False)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
