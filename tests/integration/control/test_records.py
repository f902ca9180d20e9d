"""What jobs leave beside their outputs, and who removes it."""

import pytest

from api.control import records
from fda_core.contract.artifacts import ArtifactFile
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.engine.journal import Journal
from tests.support.control import Bench, HandWorker


def test_a_failed_job_keeps_the_shards_of_finished_units_and_a_deleted_one_nothing(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    trial.record()
    plan, storage = trial.plan, bench.storage
    shard = join(layout.staging(plan), "model-00001.safetensors")
    storage.put(shard, b"x")
    storage.put(join(layout.staging(plan), "half-written"), b"y")
    journal = Journal(plan, storage)
    file = ArtifactFile(path=shard, size_bytes=1, sha256="")
    journal.write(journal.read(trial.unit).model_copy(update={"files": (file,)}))
    trial.release(done=True)
    worker.take().start().fail()
    bench.step(2)
    assert bench.state(job) == "failed"
    assert [info.uri for info in storage.list(layout.staging(plan))] == [shard]
    assert Journal(plan, storage).find_all(among=[trial.unit])
    records.remove_job(bench.workspace, job, storage)
    assert not storage.exists(layout.staging(plan))
    assert not storage.exists(layout.job_folder(bench.workspace, job))


def test_a_record_whose_file_is_gone_is_none(bench: Bench):
    bench.planned()
    trial = HandWorker(bench).take().start()
    trial.record()
    path = Journal(trial.plan, bench.storage).read(trial.unit).files[0].path
    bench.storage.delete(path)
    assert bench.storage.exists(layout.record(trial.plan, trial.unit))
    assert Journal(trial.plan, bench.storage).find_all(among=[trial.unit]) == {}


@pytest.mark.parametrize("kept", [True, False])
def test_what_publishers_agreed_on_ends_with_their_attempt(bench: Bench, kept: bool):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    plan, storage = trial.plan, bench.storage
    if kept:
        trial.record()
        shard = join(layout.staging(plan), "model-00001.safetensors")
        storage.put(shard, b"x")
        journal = Journal(plan, storage)
        file = ArtifactFile(path=shard, size_bytes=1, sha256="")
        journal.write(journal.read(trial.unit).model_copy(update={"files": (file,)}))
    storage.put(layout.publication(plan), b"what an attempt that failed had to say")
    trial.fail()
    bench.step(2)
    assert bench.state(job) == "failed"
    assert storage.exists(layout.staging(plan)) is kept
    assert not storage.exists(layout.publication(plan))


def test_no_later_plan_is_published_with_what_was_agreed_on_for_an_earlier_one(bench: Bench):
    job = bench.planned()
    plan, storage = bench.plan(job), bench.storage
    for forget in (
        lambda: records.forget_records(plan, storage),
        lambda: records.remove_job(bench.workspace, job, storage),
    ):
        storage.put(layout.publication(plan), b"of other inputs")
        forget()
        assert not storage.exists(layout.publication(plan))
