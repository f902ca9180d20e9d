"""Stored tensors of one checkpoint, part by part, in memory that is used again.

While one part is worked on the next is read on another thread: of the same tensor, or the
beginning of the one that comes after it.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import torch
from torch import Tensor

from fda_core.engine.costs.memory import PART_BYTES


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor where it lies: its dtype, its length, and how to read some of it."""

    dtype: torch.dtype
    numel: int
    read: Callable[[int, Tensor], None]
    """Fill flat memory of the dtype with elements from a place on."""


@dataclass
class _Part:
    stored: Stored
    start: int
    elements: Tensor
    buffer: int

    @property
    def stop(self) -> int:
        return self.start + len(self.elements)

    def covers(self, stored: Stored, start: int, stop: int) -> bool:
        return self.stored is stored and self.start <= start and stop <= self.stop


class Window:
    """A view on one tensor after another.

    Memory: two parts of 8 MiB, or of a block where that is longer, and the whole of a longer
    tensor that is to be held.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._buffers = [torch.empty(0, dtype=torch.uint8) for _ in range(3)]
        self._here: _Part | None = None
        self._ahead: tuple[_Part, Future[None]] | None = None
        self._stored: Stored | None = None
        self._next: Stored | None = None
        self._holds = False

    def open(self, stored: Stored, *, then: Stored | None, hold: bool) -> None:
        """Turn to a tensor. `then` comes after it; with `hold` all of it stays in memory."""
        self._stored, self._next = stored, then
        self._holds = hold and stored.numel * stored.dtype.itemsize > PART_BYTES
        if self._holds:
            self._look_ahead(self._part(stored, 0, stored.numel, buffer=2))

    def cut(self, start: int, stop: int) -> Tensor:
        """Return elements [start, stop), at most the tensor's; valid until the next cut."""
        assert self._stored is not None
        here = self._here
        if here is None or not here.covers(self._stored, start, stop):
            here = self._here = self._turn_to(self._stored, start, stop)
        if self._ahead is None:
            self._expect(here, stop - start)
        return here.elements[start - here.start : stop - here.start]

    def close(self) -> None:
        """Wait for what is being read, whatever comes of it, and give the memory back."""
        self._drop_ahead()
        self._here = None
        self._buffers = [torch.empty(0, dtype=torch.uint8) for _ in self._buffers]

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1].exception()
            self._ahead = None

    def _turn_to(self, stored: Stored, start: int, stop: int) -> _Part:
        if self._ahead is not None:
            part, reading = self._ahead
            self._ahead = None
            if part.covers(stored, start, stop):
                reading.result()
                return part
            reading.exception()
        part = self._part(stored, start, stop, buffer=self._free())
        stored.read(start, part.elements)
        return part

    def _expect(self, here: _Part, step: int) -> None:
        """Begin to read what is likely to be asked for when blocks go on at this length."""
        stored, begin = here.stored, here.stop
        if begin < stored.numel:
            begin = here.start + len(here.elements) // step * step
        elif self._next is not None:
            stored, begin = self._next, 0
        if begin < stored.numel:
            stop = min(stored.numel, begin + step)
            self._look_ahead(self._part(stored, begin, stop, buffer=self._free()))

    def _look_ahead(self, part: _Part) -> None:
        self._drop_ahead()
        reading = self._threads.submit(part.stored.read, part.start, part.elements)
        self._ahead = part, reading

    def _free(self) -> int:
        return 1 if self._here is not None and self._here.buffer == 0 else 0

    def _part(self, stored: Stored, start: int, stop: int, *, buffer: int) -> _Part:
        """Return where at least [start, stop) goes, and as much after it as a part takes."""
        fitting = PART_BYTES // stored.dtype.itemsize
        count = min(max(stop - start, fitting), stored.numel - start)
        size = count * stored.dtype.itemsize
        if self._buffers[buffer].numel() < size:
            self._buffers[buffer] = torch.empty(max(size, PART_BYTES), dtype=torch.uint8)
        elements = self._buffers[buffer][:size].view(stored.dtype)
        return _Part(stored, start, elements, buffer)
