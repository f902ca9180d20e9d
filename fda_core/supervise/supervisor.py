"""Keep a set of processes running; end them in order, and all of them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fda_core.errors import ProcessFailed
from fda_core.supervise.child import Child

POLL_SECONDS = 0.1
SHOWN_LINES = 10
KILLED_SECONDS = 10.0
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """When a process that died is started again, and when that is given up."""

    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 15.0
    deaths: int = 5
    within_seconds: float = 120.0
    clock: Callable[[], float] = time.monotonic

    def wait_seconds(self, deaths: int) -> float:
        """Return how long to wait after so many recent deaths (from 1)."""
        return min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (deaths - 1))


@dataclass
class _Watched:
    child: Child
    deaths: deque[float] = field(default_factory=deque)
    start_at: float | None = None
    finished: bool = False


class Supervisor:
    """The processes of one service, in the order they were added."""

    def __init__(
        self,
        *,
        restarts: Restarts | None = None,
        tell: Tell = lambda _text: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._restarts = restarts or Restarts()
        self._tell = tell
        self._on_change = on_change
        self._watched: list[_Watched] = []

    @property
    def children(self) -> list[Child]:
        """Return all processes, running or not."""
        return [watched.child for watched in self._watched]

    def add(self, child: Child) -> None:
        """Start a process and keep it running from now on."""
        self._watched.append(_Watched(child))
        child.start()
        self._on_change()

    def step(self) -> None:
        """Start again what died and may. Raises `ProcessFailed` when one dies too often."""
        for watched in self._watched:
            if watched.finished or watched.child.is_alive():
                continue
            if watched.start_at is None:
                self._died(watched)
            elif self._restarts.clock() >= watched.start_at:
                watched.start_at = None
                watched.child.start()
                self._tell(f"{watched.child.command.name} is started again")
                self._on_change()

    def run(self, stop: threading.Event) -> None:
        """Look after all processes until told to stop."""
        while not stop.wait(POLL_SECONDS):
            self.step()

    def end(self, groups: Sequence[Sequence[str]], *, at_once: Callable[[], bool]) -> None:
        """End the processes, one group of names after the other, the rest last.

        Those of a group are asked together and have their grace; then they are killed, as
        they all are once `at_once` says so. At the end none is left.
        """
        named = {name for group in groups for name in group}
        rest = [child.command.name for child in self.children if child.command.name not in named]
        for group in [*groups, rest]:
            self._end([c for c in self.children if c.command.name in group], at_once)

    def _end(self, children: list[Child], at_once: Callable[[], bool]) -> None:
        for child in children:
            child.terminate()
        until = {
            child.command.name: time.monotonic() + child.command.grace_seconds for child in children
        }
        for child in children:
            while not child.wait(POLL_SECONDS):
                if at_once() or time.monotonic() > until[child.command.name]:
                    break
            if child.is_alive():
                if not at_once():
                    self._tell(f"{child.command.name} did not end in time and is killed")
                child.kill()
                child.wait(KILLED_SECONDS)
            child.reap()
            child.log.close()
            self._on_change()

    def _died(self, watched: _Watched) -> None:
        child, now = watched.child, self._restarts.clock()
        child.reap()
        status = child.exit_status()
        if status == 0 and child.command.may_finish:
            watched.finished = True
            self._tell(f"{child.command.name} has finished and is not started again")
            self._on_change()
            return
        watched.deaths.append(now)
        while now - watched.deaths[0] > self._restarts.within_seconds:
            watched.deaths.popleft()
        deaths = len(watched.deaths)
        if deaths >= self._restarts.deaths:
            raise died(child, f"died {deaths} times in {now - watched.deaths[0]:.0f} s")
        wait = self._restarts.wait_seconds(deaths)
        watched.start_at = now + wait
        self._tell(f"{child.command.name} {ending(status)}; started again in {wait:g} s")
        self._on_change()


def ending(status: int | None) -> str:
    """Return how a process ended, for people."""
    if status is not None and status < 0:
        return f"was killed by signal {-status}"
    return f"ended with {status}"


def died(child: Child, what: str) -> ProcessFailed:
    """Return the error about a process that is given up, with its last words."""
    tail = child.log.tail()[-SHOWN_LINES:]
    words = "".join(f"\n  {line}" for line in tail) or " nothing"
    return ProcessFailed(
        f"{child.command.name} {what}; it {ending(child.exit_status())} after saying:{words}",
        hint=f"Its whole log is {child.log.path}.",
        process=child.command.name,
        log=str(child.log.path),
        tail=tail,
    )
