"""Schedules on a database, with a clock that is told the time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.batches.results import Results
from api.batches.service import BatchService
from api.db.session import Database
from api.db.tables import BatchRow, FireRow
from api.jobs.transitions import ask_to_stop
from api.schedules.firing import Firing
from api.schedules.routes import router
from api.schedules.service import ScheduleService
from fda_core.storage.local import LocalStorage
from tests.support.stand_ins import GATE, Clock, Woken, client_of, recipe, submit


@dataclass
class World:
    database: Database
    clock: Clock
    woken: Woken
    client: TestClient
    firing: Firing
    counted: list[str]
    """Outcomes as they are counted."""

    def make(self, **changes: Any) -> Any:
        """Make a schedule: every night at half past two in Berlin, unless told otherwise."""
        return self.client.post("/v1/schedules", json=self.body(**changes))

    def body(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "nightly",
            "cron": "30 2 * * *",
            "zone": "Europe/Berlin",
            "batch": {"recipe": recipe(), "output": "/merged/{fire_time}"},
            **changes,
        }

    def fires(self) -> list[tuple[str, str, bool]]:
        """Return every fire time with its outcome, and whether it has a batch."""
        with self.database.read() as session:
            rows = session.query(FireRow).order_by(FireRow.fire_at)
            return [
                (row.fire_at.strftime("%d %H:%M"), row.outcome, row.batch_id is not None)
                for row in rows
            ]

    def batches(self) -> int:
        with self.database.read() as session:
            return session.query(BatchRow).count()


MakeWorld = Callable[[Database], World]


@pytest.fixture
def make_world() -> MakeWorld:
    def made(database: Database) -> World:
        clock, woken = Clock(datetime(2026, 10, 20, 12, tzinfo=UTC)), Woken()
        batches = BatchService(
            database,
            submit=submit,
            cancel=ask_to_stop,
            delete_job=lambda *_: None,
            results=Results(LocalStorage()),
            wake=woken,
            clock=clock,
        )
        service = ScheduleService(database, batches, wake=woken, clock=clock)
        outcomes: list[str] = []
        firing = Firing(
            database,
            batches,
            cancel=ask_to_stop,
            wake=woken,
            clock=clock,
            on_outcome=outcomes.append,
        )
        return World(database, clock, woken, client_of(router(GATE, service)), firing, outcomes)

    return made


@pytest.fixture
def world(make_world: MakeWorld, database: Database) -> World:
    return make_world(database)


@pytest.fixture
def either_world(make_world: MakeWorld, either: Database) -> World:
    return make_world(either)
