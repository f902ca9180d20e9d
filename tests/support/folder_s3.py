"""What planning asks of S3, answered from a folder: stat, ranges and listings, each after a wait.

No real server can hold terabytes of holes, and none has a latency that can be set. Signatures
are not checked and nothing can be written. It runs in a process of its own, so that its work is
not counted as the caller's; it is for figures, and SeaweedFS is for what is right.
"""

import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "models"
_MOST_LISTED = 1000
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@contextmanager
def folder_s3(folder: Path, *, latency_seconds: float) -> Iterator[str]:
    """Serve a folder as the bucket until the block ends; yield the endpoint."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(folder, latency_seconds, theirs), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(folder: Path, latency_seconds: float, told: Connection) -> None:
    class Handler(_Handler):
        root, latency = folder, latency_seconds

    with _Server(("127.0.0.1", 0), Handler) as server:
        told.send(server.server_address[1])
        server.serve_forever()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    root: Path
    latency: float

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        time.sleep(self.latency)
        address = urlsplit(self.path)
        _, _, key = unquote(address.path).lstrip("/").partition("/")
        if not key and with_body:
            query = {name: values[-1] for name, values in parse_qs(address.query).items()}
            self._send(200, self._listing(query), kind="application/xml")
        elif not key:
            self._send(200, b"")
        else:
            self._object(self.root / key, with_body=with_body)

    def _object(self, path: Path, *, with_body: bool) -> None:
        if not path.is_file():
            body = b"<Error><Code>NoSuchKey</Code></Error>"
            self._send(404, body if with_body else b"", kind="application/xml")
            return
        size, tag = path.stat().st_size, _tag(path)
        found = _RANGE.fullmatch(self.headers.get("Range", "")) if with_body else None
        start = int(found[1]) if found else 0
        stop = min(int(found[2]) + 1, size) if found and found[2] else size
        more = {"ETag": tag, "Last-Modified": formatdate(usegmt=True)}
        if found:
            more["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        body = b""
        if with_body:
            with path.open("rb") as file:
                file.seek(start)
                body = file.read(stop - start)
        length = len(body) if with_body else size
        self._send(206 if found else 200, body, more=more, length=length)

    def _listing(self, query: dict[str, str]) -> bytes:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        names = sorted(
            str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()
        )
        names = [name for name in names if name.startswith(prefix) and name > after]
        page = names[:_MOST_LISTED]
        rows = "".join(
            f"<Contents><Key>{escape(name)}</Key><ETag>{escape(_tag(self.root / name))}</ETag>"
            f"<Size>{(self.root / name).stat().st_size}</Size></Contents>"
            for name in page
        )
        more = len(names) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0"?><ListBucketResult>'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        ).encode()

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "binary/octet-stream",
        more: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _tag(path: Path) -> str:
    status = path.stat()
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
