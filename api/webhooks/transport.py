"""One POST to one checked address: no redirects, no proxy, no second look-up, an end in time."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from api.webhooks.addresses import Target

BODY_BYTES = 1024
CONNECT_SECONDS = 5.0


class Timeout(OSError):
    """The receiver took too long."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the receiver said; no more than the first kilobyte of it."""

    status: int
    body: bytes


class Transport:
    """Sends messages. Safe for threads; every message has a connection of its own."""

    def __init__(self, *, seconds: float = 15.0, tls: ssl.SSLContext | None = None) -> None:
        self._seconds = seconds
        self._tls = tls or ssl.create_default_context()

    def post(
        self, target: Target, addresses: Sequence[str], *, headers: Mapping[str, str], body: bytes
    ) -> Response:
        """Send a message to the first address that takes connections.

        Raises OSError (`Timeout` among them) or `http.client.HTTPException`. All in all it
        takes no longer than the seconds given, however slowly the receiver speaks.
        """
        end = time.monotonic() + self._seconds
        connection = http.client.HTTPConnection(target.host, target.port)
        raw = self._connect(target, addresses, end)
        connection.auto_open = 0  # it would look the host up again
        line = _Line(raw)
        watch = threading.Timer(max(0.0, end - time.monotonic()), line.cut)
        watch.daemon = True
        watch.start()
        try:
            raw.settimeout(self._seconds)
            if target.scheme == "https":
                secured = self._tls.wrap_socket(
                    raw, server_hostname=target.host, do_handshake_on_connect=False
                )
                line.socket = secured  # the first object holds the connection no more
                secured.do_handshake()
            connection.sock = line.socket
            connection.putrequest("POST", target.path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", target.host_header)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            connection.endheaders(body)
            with connection.getresponse() as answer:
                if line.late:
                    raise Timeout  # cut off within the headers
                return Response(status=answer.status, body=_first_bytes(answer))
        except (OSError, http.client.HTTPException, ValueError) as problem:
            if line.late or isinstance(problem, TimeoutError):
                raise Timeout(f"no answer within {self._seconds:g} s") from None
            if isinstance(problem, ValueError):
                raise http.client.HTTPException(str(problem)) from None
            raise
        finally:
            watch.cancel()
            connection.close()
            line.socket.close()

    def _connect(self, target: Target, addresses: Sequence[str], end: float) -> socket.socket:
        """Return a connection to the first of the addresses that answers."""
        last: OSError = OSError("no address")
        for address in addresses:
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"no connection within {self._seconds:g} s")
            try:
                return _open(address, target.port, min(left, CONNECT_SECONDS))
            except TimeoutError:
                last = Timeout(f"no connection to {address} port {target.port} in time")
            except OSError as problem:
                last = problem
        raise last


def _open(address: str, port: int, seconds: float) -> socket.socket:
    """Connect to an address; it is never looked up, since it must be one already."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(seconds)
        opened.connect(_numeric(address, port))
    except BaseException:
        opened.close()
        raise
    return opened


def _numeric(address: str, port: int) -> tuple[str, int]:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    host, number = found[0][4][:2]
    return str(host), int(number)


class _Line:
    """A connection that another thread can end."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.late = False

    def cut(self) -> None:
        """End it under the thread that waits on it."""
        self.late = True
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


def _first_bytes(answer: http.client.HTTPResponse) -> bytes:
    """Return the start of a body; one that breaks off changes nothing about the status."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        return answer.read(BODY_BYTES)
    return b""
