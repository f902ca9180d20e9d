"""Which jobs to look at soon."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Event, Lock


@dataclass
class Pokes:
    """Which jobs to look at soon: said by other loops, taken by the dispatcher."""

    _jobs: set[str] = field(default_factory=set)
    _event: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def add(self, jobs: Iterable[str]) -> None:
        """Have jobs looked at soon."""
        with self._lock:
            self._jobs.update(jobs)
        self._event.set()

    def take(self) -> set[str]:
        """Return who was poked since."""
        with self._lock:
            jobs, self._jobs = self._jobs, set()
            self._event.clear()
        return jobs

    def wait(self, seconds: float) -> bool:
        """Wait for a poke, at most so long."""
        return self._event.wait(seconds)
