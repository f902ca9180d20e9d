"""Trying again: growing, jittered waits with an end, whatever it is that is tried."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fda_core.errors import FdaError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try before giving up.

    Waits double from the first to the longest; each is cut by up to half, so that many
    workers that failed together do not come back together. Eight tries wait 31 s at most.
    """

    tries: int = 8
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 15.0
    total_seconds: float = 120.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    """Returns a number in [0, 1)."""

    def wait_seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row (from 1)."""
        whole = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (failures - 1))
        return whole * (1 - self.jitter() / 2)


class Patience:
    """What is left of a policy for one operation.

    `stop` ends it early: once set, the next failure is raised at once.
    """

    def __init__(self, policy: RetryPolicy, *, stop: threading.Event | None = None) -> None:
        self._policy = policy
        self._stop = stop
        self._failures = 0
        self._since = policy.clock()

    def progressed(self) -> None:
        """Forget earlier failures: something got further since."""
        self._failures = 0
        self._since = self._policy.clock()

    def bear(self, problem: FdaError, *, cause: Exception) -> None:
        """Wait before another try; raise the problem if there is to be none."""
        self._failures += 1
        wait = self._policy.wait_seconds(self._failures)
        spent = self._policy.clock() - self._since
        stopped = self._stop is not None and self._stop.is_set()
        if (
            stopped
            or self._failures >= self._policy.tries
            or (spent + wait > self._policy.total_seconds)
        ):
            tries = f"{self._failures} {'try' if self._failures == 1 else 'tries'}"
            raise type(problem)(
                f"{problem.message}; gave up after {tries} in {spent:.1f} s",
                hint=problem.hint,
                **problem.context,
            ) from cause
        self._policy.sleep(wait)
