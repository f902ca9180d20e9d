"""When a request is sent again, and after how long."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_ASKED_SECONDS = 120.0
"""A server that asks for more patience than this is not waited for."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long a client bears failures in a row. Waits double; half of each is left to chance."""

    patience_seconds: float = 20.0
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    """Returns a number in [0, 1)."""


class Trying:
    """One operation's failures so far."""

    def __init__(self, retries: Retries, *, patience_seconds: float | None = None) -> None:
        self._retries = retries
        self._patience = retries.patience_seconds if patience_seconds is None else patience_seconds
        self._since: float | None = None
        self.failures = 0

    def progressed(self) -> None:
        """Forget earlier failures."""
        self.failures, self._since = 0, None

    def again(self, *, asked_seconds: float | None = None) -> bool:
        """Wait before another try and say yes, or say no at once if patience is at its end.

        What the server asked for is waited whole, once at least, whatever the patience.
        """
        now = self._retries.clock()
        self._since = now if self._since is None else self._since
        self.failures += 1
        whole = min(
            self._retries.longest_wait_seconds,
            self._retries.first_wait_seconds * 2.0 ** (self.failures - 1),
        )
        wait = whole * (1 - self._retries.jitter() / 2)
        if asked_seconds is not None:
            if asked_seconds > LONGEST_ASKED_SECONDS:
                return False
            wait = max(wait, asked_seconds)
        first_asked = asked_seconds is not None and self.failures == 1 and self._patience > 0
        if now - self._since + wait > self._patience and not first_asked:
            return False
        self._retries.sleep(wait)
        return True


def retry_after_seconds(value: str | None) -> float | None:
    """Return what a Retry-After header says, in seconds or as a date; None if nothing."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
