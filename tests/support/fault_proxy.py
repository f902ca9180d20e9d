"""A TCP proxy before an HTTP server that breaks what it is told to break.

It understands just enough of HTTP/1.1 to know where heads and bodies end. Faults are given
with the requests they are for; each takes as many of them as it says, in order, and every
other request goes through untouched.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Kind = Literal["answer", "refuse", "lose", "delay", "cut", "reset", "stall", "lengthen"]

_PIECE = 64 * 1024


@dataclass(kw_only=True)
class Fault:
    """What to do to requests of a method whose target contains some text.

    answer: answer `status` and S3's error `code` without asking the server.
    refuse: close the connection without an answer.
    lose: let the server do it, then close without passing the answer on.
    delay: wait `seconds` before asking the server.
    cut: close the connection after `after` bytes of the answer's body.
    reset: so, but as a crashed server does it: the client sees an error, not an end.
    stall: send no more after `after` bytes, but keep the connection.
    lengthen: say that the body is `after` bytes longer than it is (or shorter).
    `then` is called once the fault has done its work, before the client can go on.
    """

    kind: Kind
    method: str = "GET"
    target: str = ""
    times: int = 1
    after: int = 0
    seconds: float = 0.0
    status: int = 500
    code: str = "InternalError"
    then: Callable[[], object] | None = None
    skip: int = 0
    """Requests of its kind to let through first."""

    def takes(self, request: "Head") -> bool:
        if self.times <= 0 or self.method != request.method or self.target not in request.target:
            return False
        self.skip -= 1
        return self.skip < 0


@dataclass(kw_only=True)
class Head:
    """First line and headers of a request or an answer."""

    first: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    @property
    def target(self) -> str:
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def without(self, name: str) -> "Head":
        return Head(first=self.first, headers=[h for h in self.headers if h[0].lower() != name])

    def encode(self) -> bytes:
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class FaultProxy:
    """A context that proxies a server from a thread of its own. `requests` is what was asked.

    `weather` may break any request for which nothing is scripted; it is called in that thread.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self.requests: list[Head] = []
        self.weather: Callable[[Head], Fault | None] = lambda _request: None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, kind: Kind, **how: Any) -> Fault:
        """Script a fault and return it; `fault.times` tells how often it is still due."""
        fault = Fault(kind=kind, **how)
        self._faults.append(fault)
        return fault

    def count(self, method: str, target: str = "") -> int:
        """Return how many requests of a kind were made."""
        return sum(r.method == method and target in r.target for r in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back.transport.set_write_buffer_limits(0)
        server, forth = await asyncio.open_connection(*self._upstream)
        try:
            while await self._one(client, back, server, forth):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for writer in (back, forth):
                writer.transport.abort()

    async def _one(
        self,
        client: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
    ) -> bool:
        """Serve one request; return whether the connection can serve another."""
        request = await _head(client)
        self.requests.append(request)
        fault = next((f for f in self._faults if f.takes(request)), None)
        if fault is None:
            fault = self.weather(request)
        else:
            fault.times -= 1
        if (request.get("expect") or "").lower() == "100-continue":
            back.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await back.drain()
        body = b"".join([piece async for piece in _body(client, request)])
        if fault is not None and fault.kind in ("refuse", "answer"):
            if fault.kind == "answer":
                await _send(back, _error(fault, with_body=request.method != "HEAD"))
            return await _done(fault)
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        forth.write(request.without("expect").encode() + body)
        await forth.drain()
        answer = await _head(server)
        pieces = _body(server, answer, none=request.method == "HEAD")
        if fault is None or fault.kind == "delay":
            await _send(back, answer.encode())
            async for piece in pieces:
                await _send(back, piece)
            return True
        return await _break(fault, answer, pieces, back)


async def _break(
    fault: Fault, answer: Head, pieces: AsyncIterator[bytes], back: asyncio.StreamWriter
) -> bool:
    """Pass an answer on, broken."""
    if fault.kind == "lose":
        async for _ in pieces:
            pass
        return await _done(fault)
    if fault.kind == "lengthen":
        length = int(answer.get("content-length") or 0) + fault.after
        answer = answer.without("content-length")
        answer.headers.append(("Content-Length", str(length)))
        await _send(back, answer.encode())
        async for piece in pieces:
            await _send(back, piece)
        return await _done(fault)
    await _send(back, answer.encode())
    left = fault.after
    async for piece in pieces:
        await _send(back, piece[:left])
        left -= len(piece)
        if left <= 0:
            break
    if fault.kind == "stall":
        await asyncio.sleep(60)
    if fault.kind == "reset":
        linger = struct.pack("ii", 1, 0)
        back.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return await _done(fault)


async def _done(fault: Fault) -> bool:
    if fault.then is not None:
        await asyncio.get_running_loop().run_in_executor(None, fault.then)
    return False


async def _send(back: asyncio.StreamWriter, data: bytes) -> None:
    back.write(data)
    await back.drain()


async def _head(reader: asyncio.StreamReader) -> Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return Head(first=first, headers=[(key, value.strip()) for key, _, value in pairs])


async def _body(
    reader: asyncio.StreamReader, head: Head, *, none: bool = False
) -> AsyncIterator[bytes]:
    """Yield a body as it is on the wire."""
    if none or (head.first.startswith("HTTP/") and head.status in (204, 304)):
        return
    if (head.get("transfer-encoding") or "").lower() == "chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
            if not size:
                return
    left = int(head.get("content-length") or 0)
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


def _error(fault: Fault, *, with_body: bool) -> bytes:
    text = f"<Error><Code>{fault.code}</Code><Message>scripted</Message></Error>".encode()
    head = Head(
        first=f"HTTP/1.1 {fault.status} Scripted",
        headers=[
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(text) if with_body else 0)),
            ("Connection", "close"),
        ],
    )
    return head.encode() + (text if with_body else b"")
