"""Remove what nobody needs any more: old idempotency keys, orphans, and anchors if told to."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from api.control import repository
from api.control.plans import Plans
from api.db.session import Database
from api.schedules import repository as fires
from api.webhooks import repository as deliveries
from fda_core.contract.artifacts import CACHE_METRICS_FILE
from fda_core.contract.service.states import ACTIVE
from fda_core.contract.uris import basename, join, parent
from fda_core.engine.journal import Journal

SWEEP_SECONDS = 60.0
HISTORY = timedelta(days=30)
"""How long deliveries of webhooks and fire times of schedules are remembered."""
ANCHORS = "anchors"
"""Note of when each entry of the anchor cache was last seen to be new or in use."""

_log = structlog.get_logger("fda.control.sweeper")


class Sweeper:
    """The loop of retention. `anchor_days` of 0 keeps the anchor cache for ever."""

    def __init__(
        self,
        database: Database,
        plans: Plans,
        *,
        clock: Callable[[], datetime],
        idempotency_hours: int,
        anchor_days: int = 0,
    ) -> None:
        self._database = database
        self._plans = plans
        self._clock = clock
        self._idempotency = timedelta(hours=idempotency_hours)
        self._anchors = timedelta(days=anchor_days)
        self._next_anchors: datetime | None = None

    def step(self) -> int:
        """Sweep once; return how many rows and cache entries went."""
        moment = self._clock()
        with self._database.write() as session:
            gone = repository.sweep_idempotency(session, moment - self._idempotency)
            gone += repository.sweep_orphans(session)
            gone += deliveries.sweep(session, before=moment - HISTORY)
            gone += fires.sweep(session, before=moment - HISTORY)
        if self._anchors and (self._next_anchors is None or self._next_anchors <= moment):
            gone += self._sweep_anchors(moment)
            self._next_anchors = moment + self._anchors / 10
        if gone:
            _log.info("swept", rows=gone)
        return gone

    def _sweep_anchors(self, moment: datetime) -> int:
        """Delete anchors that no active job uses and that were not used for so long.

        A job that takes them up in the very seconds of the sweep constructs them again when
        it is retried.
        """
        storage = self._plans.storage
        folders = {
            basename(parent(info.uri)): parent(info.uri)
            for info in storage.list(join(self._plans.workspace, "anchors"))
            if basename(info.uri) == CACHE_METRICS_FILE
        }
        used = self._used()
        with self._database.write() as session:
            known = repository.locked_note(session, ANCHORS, {})
            seen = {
                key: known.get(key, moment.timestamp()) if key not in used else moment.timestamp()
                for key in folders
            }
            oldest = (moment - self._anchors).timestamp()
            old = [key for key, at in seen.items() if at < oldest]
            repository.set_note(
                session, ANCHORS, {key: at for key, at in seen.items() if key not in old}
            )
        for key in old:
            storage.delete(join(folders[key], CACHE_METRICS_FILE))
            storage.delete_below(folders[key])
        return len(old)

    def _used(self) -> set[str]:
        """Return the cache keys that records of active jobs name."""
        with self._database.read() as session:
            jobs = repository.jobs_in(session, ACTIVE)
        found: set[str] = set()
        for job in jobs:
            plan = self._plans.find(job.id, job.plan_digest)
            if plan is None:
                continue
            units = [unit.id for unit in plan.units if unit.kind == "construct"]
            for record in Journal(plan, self._plans.storage).find_all(among=units).values():
                found |= {basename(parent(file.path)) for file in record.files}
        return found
