"""Two real workers on a real Valkey do a job's units once, with the bytes of a local run."""

from pathlib import Path

import pytest

from fda_core.contract.service import names
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.resolve import storages
from tests.support.valkey import Valkey
from tests.support.workers import Job, Worker, fda, statuses, until

WEIGHTS = "*.safetensors"


def local_run(job: Job, root: Path) -> Path:
    """Run the same recipe in this process, with a workspace of its own."""
    document = {**job.recipe.document(), "output": str(root / "local" / "out")}
    (root / "local").mkdir()
    plan = make_plan(recipe_of(document), storages(), cwd="/")
    run_plan(
        plan,
        storages(),
        options=RunOptions(workers=1, device="cpu"),
        sink=lambda _: None,
        is_cancelled=lambda: False,
    )
    return Path(plan.output)


def test_two_workers_do_every_unit_once_with_the_bytes_of_a_local_run(
    valkey: Valkey, pair: list[Worker], root: Path
) -> None:
    job = Job(valkey, root, method=fda())
    job.start()
    until(lambda: len(job.events("unit_finished")) == len(job.plan.units))
    assert job.is_published()
    ids = sorted(unit.id for unit in job.plan.units)
    assert sorted(event.unit for event in job.events("unit_finished")) == ids
    assert sorted(event.unit for event in job.events("unit_started")) == ids
    assert {int(report.worker.split(":")[1]) for report in job.reports()} <= {w.pid for w in pair}
    assert all(report.attempt == 1 for report in job.reports())
    local = local_run(job, root)
    files = sorted(path.relative_to(local) for path in local.rglob(WEIGHTS))
    assert files
    for file in files:
        assert (job.output / file).read_bytes() == (local / file).read_bytes()
    assert not valkey.client.keys("fda:lease:*")
    assert not valkey.client.exists(names.taken(job.plan.job_id))


@pytest.mark.usefixtures("pair")
def test_bytes_and_steps_are_reported(valkey: Valkey, root: Path) -> None:
    job = Job(valkey, root, method=fda())
    unit = job.plan.units[0]
    job.send(unit.id)
    until(lambda: job.events("unit_finished"))
    moved = job.events("bytes", unit.id)
    record = job.journal.read(unit.id)
    assert sum(event.read_bytes for event in moved) == record.cost.read_bytes > 0
    assert sum(event.write_bytes for event in moved) == record.cost.write_bytes > 0
    assert job.events("step", unit.id)[-1].step == unit.steps


@pytest.mark.parametrize("shards", [False, True])
def test_doubled_and_late_messages_change_no_record(
    valkey: Valkey, pair: list[Worker], root: Path, shards: bool
) -> None:
    job = Job(valkey, root, job_id=f"job-{root.name}", method=fda() if shards else "linear")
    sent = 0

    def tried() -> list[str]:
        lines = [line for worker in pair for line in worker.said("unit_tried")]
        return [line["outcome"] for line in lines if line["job"] == job.plan.job_id]

    for _ in range(3):
        sent += len(job.ready())
        job.start()
    until(job.is_published)
    # Every unit that the journal made ready later was sent once, by who finished the last need.
    sent += sum(bool(unit.needs) for unit in job.plan.units)
    until(lambda: len(tried()) == sent)
    assert tried().count("done") == len(job.plan.units)
    records = {unit.id: job.record(unit.id) for unit in job.plan.units}
    manifest = (job.output / "merge_manifest.json").read_bytes()
    for _ in range(2):
        for unit in job.plan.units:
            job.send(unit.id)
            sent += 1
    until(lambda: len(tried()) == sent)
    assert tried().count("done") == len(job.plan.units)
    assert set(tried()) <= {"done", "already", "held"}
    assert {unit.id: job.record(unit.id) for unit in job.plan.units} == records
    assert (job.output / "merge_manifest.json").read_bytes() == manifest
    assert not valkey.client.exists(names.taken(job.plan.job_id))


def test_workers_tell_who_they_are(valkey: Valkey, pair: list[Worker]) -> None:
    told = until(lambda: len(statuses(valkey)) == 2 and statuses(valkey))
    assert {status.process for status in told} == {worker.pid for worker in pair}
    for status in told:
        assert status.queues == ("cpu",)
        assert (status.state, status.device_kind) == ("idle", "cpu")
        assert status.host_memory_bytes > status.host_used_bytes > 0
