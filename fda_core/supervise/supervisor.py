"""Keep a set of processes running; end them in order, and all of them."""

import signal
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
    """When a process that died is started again, and when that is given up.

    Waits grow with short lives in a row. Given up is what ends by itself again and again, not
    what somebody else killed: that says nothing about whether it can run.
    """

    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 15.0
    settled_seconds: float = 5.0
    """A life that lasted so long was no short one."""
    deaths: int = 5
    within_seconds: float = 120.0
    clock: Callable[[], float] = time.monotonic

    def wait_seconds(self, deaths: int) -> float:
        """Return how long to wait after so many short lives in a row (from 1)."""
        return min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (deaths - 1))


@dataclass
class _Watched:
    child: Child
    started_at: float
    short_lives: int = 0
    deaths: deque[float] = field(default_factory=deque)
    """When it ended by itself."""
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
        self._watched.append(_Watched(child, self._restarts.clock()))
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
                watched.start_at, watched.started_at = None, self._restarts.clock()
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
        if status != -signal.SIGKILL:
            self._count(watched, now)
        settled = now - watched.started_at >= self._restarts.settled_seconds
        watched.short_lives = 1 if settled else watched.short_lives + 1
        wait = self._restarts.wait_seconds(watched.short_lives)
        watched.start_at = now + wait
        self._tell(f"{child.command.name} {ending(status)}; started again in {wait:g} s")
        self._on_change()

    def _count(self, watched: _Watched, now: float) -> None:
        """Count a death; the last one too many is raised."""
        deaths = watched.deaths
        deaths.append(now)
        while now - deaths[0] > self._restarts.within_seconds:
            deaths.popleft()
        if len(deaths) >= self._restarts.deaths:
            raise died(watched.child, f"died {len(deaths)} times in {now - deaths[0]:.0f} s")


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
