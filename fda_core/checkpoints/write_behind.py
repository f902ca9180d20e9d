"""Write and digest on another thread while the next bytes are made."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

BUFFER_BYTES: Final = 2**20
BUFFERS: Final = 4


class WriteBehind:
    """Hands bytes on in order, from a few buffers that are used again.

    A failure of `write` is raised by a later call, at the latest by `flush`. Memory: the
    buffers, 4 MiB.
    """

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._buffers = [memoryview(bytearray(BUFFER_BYTES)) for _ in range(BUFFERS)]
        self._under_way: list[Future[None] | None] = [None] * BUFFERS
        self._number = 0
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, data: memoryview) -> None:
        """Take bytes, which the caller may change afterwards."""
        while data:
            if self._filled == 0:
                self._wait(self._number)
            room = min(BUFFER_BYTES - self._filled, len(data))
            self._buffers[self._number][self._filled : self._filled + room] = data[:room]
            self._filled += room
            data = data[room:]
            if self._filled == BUFFER_BYTES:
                self._hand_on()

    def flush(self) -> None:
        """Return when everything has been written."""
        if self._filled:
            self._hand_on()
        for number in range(BUFFERS):
            self._wait(number)

    def _hand_on(self) -> None:
        filled = self._buffers[self._number][: self._filled]
        self._under_way[self._number] = self._thread.submit(self._write, filled)
        self._number = (self._number + 1) % BUFFERS
        self._filled = 0

    def _wait(self, number: int) -> None:
        written, self._under_way[number] = self._under_way[number], None
        if written is not None:
            written.result()
