"""The database is dropped and made again from the workspace."""

import os
import subprocess
import sys
from pathlib import Path

from api.control.rebuild import rebuild
from api.db.session import Database, open_engine
from api.db.tables import Base, JobRow
from fda_core.contract.service import names
from tests.support.control import Bench, HandWorker


def _drop(database: Database) -> None:
    with database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


def test_jobs_of_every_kind_are_made_again_and_running_ones_go_on(bench: Bench):
    worker = HandWorker(bench)
    ended = bench.planned(bench.folder.recipe("ended"), priority=7)
    assert bench.settle(ended, worker) == "succeeded"
    broken = bench.planned(bench.folder.recipe("broken"))
    worker.take().start().fail()
    bench.step(2)
    while worker.take() is not None:
        raise AssertionError("the job has stopped")
    refused = bench.submit({**bench.folder.recipe("refused"), "base": "/nowhere"})
    bench.step(2)
    running = bench.planned(bench.folder.recipe("running"), labels={"team": "x"})
    done = worker.take().start()
    done.finish()
    bench.step()
    before = {job: bench.job(job) for job in (ended, broken, refused, running)}

    _drop(bench.database)
    bench.client.flushall()
    found = rebuild(bench.database, bench.storage, bench.workspace)
    assert sorted(found.made) == sorted(before)

    for job, row in before.items():
        again = bench.job(job)
        for column in ("state", "attempt", "priority", "owner", "labels", "recipe", "plan_digest"):
            assert getattr(again, column) == getattr(row, column), column
        assert (again.error or {}).get("code") == (row.error or {}).get("code")
        assert bench.states(job) == [row.state]
        assert again.units_done == row.units_done
    assert bench.units(running)[done.unit].state == "done"
    assert bench.outcomes(running) == {done.unit: ["done"]}

    bench.controller = bench.new_controller()
    assert bench.settle(running, worker) == "succeeded"
    assert bench.states(running) == ["running", "publishing", "succeeded"]
    assert bench.retry(broken)
    assert bench.settle(broken, worker) == "succeeded"


def test_rebuilding_twice_and_beside_known_jobs_adds_nothing(bench: Bench):
    job = bench.planned()
    found = rebuild(bench.database, bench.storage, bench.workspace)
    assert (found.made, found.known) == ((), (job,))
    _drop(bench.database)
    rebuild(bench.database, bench.storage, bench.workspace)
    assert rebuild(bench.database, bench.storage, bench.workspace).known == (job,)


def test_a_job_that_cannot_be_read_is_told_and_the_others_are_made(bench: Bench):
    job, other = bench.planned(), bench.planned(bench.folder.recipe("out2"))
    bench.storage.put(names.job_file(bench.workspace, other), b"{half")
    _drop(bench.database)
    found = rebuild(bench.database, bench.storage, bench.workspace)
    assert (found.made, found.unreadable) == ((job,), (other,))


def test_a_job_without_a_plan_is_planned_again(bench: Bench):
    job = bench.planned()
    bench.storage.delete(names.plan_file(bench.workspace, job))
    _drop(bench.database)
    bench.client.flushall()
    rebuild(bench.database, bench.storage, bench.workspace)
    assert bench.state(job) == "queued"
    bench.controller = bench.new_controller()
    assert bench.settle(job, HandWorker(bench)) == "succeeded"


def test_the_command_makes_lost_jobs_again(bench: Bench, tmp_path: Path) -> None:
    job = bench.planned()
    environment = {
        **os.environ,
        "FDA_DATABASE_URL": f"sqlite:///{tmp_path / 'anew.db'}",
        "FDA_WORKSPACE": bench.workspace,
    }
    command = [sys.executable, "-m", "api.admin", "rebuild"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1 jobs made again, 0 known, 0 unreadable\n"
    database = Database(open_engine(environment["FDA_DATABASE_URL"]))
    with database.read() as session:
        assert session.get_one(JobRow, job).state == "running"
    database.close()
