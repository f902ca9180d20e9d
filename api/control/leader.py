"""Who leads which loop: rows that are held for seconds and taken over when they run out.

Leading saves double work. It is never what keeps things right: a leader that was paused and
goes on beside its successor finds every change guarded.
"""

import os
import socket
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from api.control import repository
from api.db.session import Database
from api.ids import new_id

LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0
PIDS = Path("/proc/self/ns/pid")
"""Which processes this one can see, where the kernel tells."""


def new_holder() -> str:
    """Return a name for this process's leading: where it runs, its process id, a random part."""
    return f"{_here()}:{os.getpid()}:{new_id()[-12:]}"


def is_dead(holder: str) -> bool:
    """Say whether a holder was a process of this very place that is no more."""
    place, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    if place != _here() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return int(pid) == os.getpid()  # an earlier life under our number, as in containers


def _here() -> str:
    """Return the machine, and the part of it whose processes we see."""
    try:
        seen = PIDS.stat().st_ino
    except OSError:
        seen = 0
    return f"{socket.gethostname()}/{seen}"


class Leader:
    """What one controller leads. Holding ends with the lease, whatever the database does."""

    def __init__(
        self,
        database: Database,
        loops: Sequence[str],
        *,
        holder: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._loops = tuple(loops)
        self._holder = holder
        self._clock = clock
        self._until: dict[str, datetime] = {}

    def renew(self) -> None:
        """Prolong what is held and take what is free, in one short transaction.

        What a dead process of this machine holds is free, so that one that was killed and
        started again goes on at once.
        """
        moment = self._clock()
        until = moment + timedelta(seconds=LEASE_SECONDS)
        with self._database.write() as session:
            for holder in repository.holders(session, moment):
                if holder != self._holder and is_dead(holder):
                    repository.end_lead(session, holder=holder, moment=moment)
            held = [
                name
                for name in self._loops
                if repository.take_lead(
                    session, name, holder=self._holder, moment=moment, until=until
                )
            ]
        self._until = dict.fromkeys(held, until)

    def leads(self, name: str) -> bool:
        """Say whether this controller leads a loop now."""
        until = self._until.get(name)
        return until is not None and self._clock() < until

    def release(self) -> None:
        """Let go of everything at once, so that a successor need not wait."""
        self._until = {}
        with self._database.write() as session:
            repository.end_lead(session, holder=self._holder, moment=self._clock())
