"""Notice a worker that no longer hears its queues.

Celery consumers were seen to stay silent after Redis came back (celery/celery#8030, #10302):
the process is up, the loop turns, messages lie there. An idle worker that has taken nothing
for half a minute, while at every look messages waited for it, is deaf and must start anew.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 30.0


class Hearing:
    """Counts what is taken, and judges by it."""

    def __init__(
        self,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._taken = 0
        self._seen = 0
        self._is_busy = False
        self._since: float | None = None

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Note that a message arrived, and is being answered until the block ends."""
        self._taken += 1
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    def forget(self) -> None:
        """Start to count anew: Redis was away."""
        self._since = None

    def is_deaf(self, waiting: int) -> bool:
        """Judge by one look at how many messages wait."""
        if not waiting or self._is_busy or self._taken != self._seen:
            self._seen, self._since = self._taken, None
            return False
        if self._since is None:
            self._since = self._clock()
        return self._clock() - self._since >= self._patience_seconds
