"""Who leads which loop: rows that are held for seconds and taken over when they run out.

Leading saves double work. It is never what keeps things right: a leader that was paused and
goes on beside its successor finds every change guarded.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from api.control import repository
from api.db.session import Database

LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0


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
        """Prolong what is held and take what is free, in one short transaction."""
        moment = self._clock()
        until = moment + timedelta(seconds=LEASE_SECONDS)
        with self._database.write() as session:
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
