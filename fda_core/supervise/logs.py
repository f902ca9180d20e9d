"""A process's output: to a file that does not grow for ever, and the last lines kept at hand."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

FILE_BYTES = 5_000_000
FILES = 3
TAIL_LINES = 20
Mirror = Callable[[str, str], None]
"""Takes a process's name and one line."""


class Log:
    """One process's log over all its lives. Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        mirror: Mirror | None = None,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.path = path
        self._name = name
        self._mirror = mirror
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._closed = False
        self._file = self._open()

    def pump(self, stream: BinaryIO) -> None:
        """Write what comes until the stream ends."""
        with stream:
            for line in stream:
                self.write(line)

    def write(self, line: bytes) -> None:
        """Write one line, or lose it: a full disk must not end who speaks, or who listens."""
        text = line.decode(errors="replace").rstrip("\n")
        with self._lock:
            if self._closed:
                return
            self._tail.append(text)
            with suppress(OSError):
                self._append(line if line.endswith(b"\n") else line + b"\n")
        if self._mirror is not None:
            try:
                self._mirror(self._name, text)
            except (OSError, SystemExit):  # rich's answer to a reader who went away
                self._mirror = None

    def tail(self) -> list[str]:
        """Return the last lines."""
        with self._lock:
            return list(self._tail)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self._file.close()

    def _open(self) -> BinaryIO:
        return self.path.open("ab", buffering=0)

    def _append(self, line: bytes) -> None:
        if self._file.closed:
            self._file = self._open()
        self._file.write(line)
        if self._file.tell() > self._file_bytes:
            self._rotate()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(FILES - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else older.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        self._file = self._open()
