"""The life of a job: planned, handed out, folded, published; and what may stand against it."""

import json

from fda_core.contract.service import names
from tests.support.control import Bench, HandWorker


def test_a_job_runs_from_queued_to_a_loadable_output(bench: Bench):
    job = bench.submit()
    worker = HandWorker(bench)
    bench.step()
    for _ in range(6):
        worker.work(real=True)
        bench.step()
    row = bench.job(job)
    assert row.state == "succeeded", row.error
    assert bench.states(job) == ["queued", "validating", "running", "publishing", "succeeded"]
    assert (row.units_done, row.units_total) == (8, 8)
    assert row.bytes_done == row.bytes_total > 0
    assert row.stage == "publish"
    assert set(bench.unit_states(job).values()) == {"done"}
    assert (bench.folder.root / "out" / "model.safetensors").exists()
    assert set(bench.done_events(job)) == set(bench.units(job))
    assert all(outcomes == ["done"] for outcomes in bench.outcomes(job).values())
    assert any(e.kind == "progress" for e in bench.events(job))


def test_the_end_of_a_job_is_kept_in_the_workspace_and_redis_is_clean(bench: Bench):
    job = bench.planned()
    assert bench.settle(job, HandWorker(bench)) == "succeeded"
    outcome = bench.outcome(job)
    assert outcome["state"] == "succeeded"
    assert outcome["timestamps"]["running"]
    assert not bench.client.exists(*names.job_keys(job))
    kept = json.loads(bench.storage.read(names.job_file(bench.workspace, job)))
    assert kept["labels"] == {"kind": "test"}
    assert kept["plan_digest"] == bench.job(job).plan_digest
