"""Draining: take no more units, let the running one end or hand it back in time."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """Breaks out of a running unit; nothing in the engine may catch it."""


class Drain:
    """Whether this worker is to end, since when, and whether its patience is over.

    Holds no lock and writes no log, so that a signal handler can use it at any moment.
    """

    def __init__(
        self,
        grace_seconds: float,
        *,
        stop_taking: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_seconds = grace_seconds
        self._stop_taking = stop_taking
        self._clock = clock
        self._began: float | None = None
        self._is_interruptible = False
        self.why = ""
        self.exit_code = 0
        """Set by a second signal."""

    @property
    def begun(self) -> bool:
        """Say whether no more units may be taken."""
        return self._began is not None

    @property
    def is_over(self) -> bool:
        """Say whether a running unit must be handed back now."""
        return self._began is not None and self._clock() - self._began >= self._grace_seconds

    def begin(self, why: str) -> None:
        """Take no more units; the second time changes nothing."""
        if self._began is None:
            self.why = why
            self._began = self._clock()
            self._stop_taking()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a second signal break into the block, which runs in the main thread."""
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False

    def on_signal(self, number: int, _frame: object) -> None:
        """Drain at the first signal; at the second hand the unit back at once; then just end."""
        if not self.begun:
            self.begin(f"signal {number}")
            return
        if self.exit_code:
            os._exit(self.exit_code)
        self.exit_code = 128 + number
        if self._is_interruptible:
            raise Interrupted
