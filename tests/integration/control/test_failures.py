"""Units that fail, and workers that are lost."""

import pytest
from sqlalchemy import select

from api.db.tables import EventRow
from fda_core.contract.service import names
from fda_core.contract.service.messages import WorkerStatus
from fda_core.engine import layout
from fda_core.errors import LostResult
from tests.support.control import Bench, HandWorker


def test_a_failure_of_the_data_fails_the_job_and_stops_the_others(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    bad, other = worker.take().start(), worker.take().start()
    bad.fail("non_finite")
    bench.step()
    row = bench.job(job)
    assert row.state == "failed"
    assert row.error is not None
    assert (row.error["code"], row.error["unit"]) == ("non_finite", bad.unit)
    assert bench.client.exists(names.stop(job))
    assert worker.take() is None, "nothing more is begun"
    other.give_back()
    bench.step()
    assert bench.units(job)[bad.unit].state == "failed"
    assert bench.units(job)[other.unit].state == "pending"
    assert bench.outcomes(job) == {bad.unit: ["failed"], other.unit: ["returned"]}
    assert bench.outcome(job)["error"]["unit"] == bad.unit


def test_a_failure_that_may_pass_waits_and_succeeds(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    bad = worker.take().start()
    bad.fail("storage_unavailable", retryable=True)
    bench.step()
    unit = bench.units(job)[bad.unit]
    assert unit.state == "pending"
    assert unit.not_before is not None
    wait = (unit.not_before - bench.clock()).total_seconds()
    assert 0 < wait <= 2
    worker.work()
    bench.step()
    assert bench.units(job)[bad.unit].state == "pending", "not before its time"
    assert bench.settle(job, worker) == "succeeded"
    assert bench.outcomes(job)[bad.unit] == ["failed", "done"]
    assert bench.units(job)[bad.unit].tries == 2


def test_a_failure_that_never_passes_fails_the_job_after_five_times(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    for _ in range(40):
        while (trial := worker.take()) is not None:
            trial.start().fail("storage_unavailable", retryable=True)
        bench.step()
        if bench.state(job) == "failed":
            break
        bench.clock.advance(40)
    assert bench.state(job) == "failed"
    assert max(len(found) for found in bench.outcomes(job).values()) == 5


def test_a_worker_that_is_killed_costs_one_try(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    lost = worker.take().start()
    bench.step()
    lost.die()
    bench.step(2)
    assert bench.outcomes(job) == {lost.unit: ["lost"]}
    assert any("lost (1 of 5" in line.text for line in bench.logs(job))
    assert bench.settle(job, worker) == "succeeded"
    assert bench.outcomes(job)[lost.unit] == ["lost", "done"]


@pytest.mark.parametrize("reported", [True, False])
def test_what_was_lost_is_tried_again_before_what_was_never_begun(bench: Bench, reported: bool):
    job = bench.planned()
    bench.planned(bench.folder.recipe("other"))
    worker = HandWorker(bench)
    lost = worker.take()
    if reported:
        lost.start()
    bench.step()
    lost.die()
    bench.step(2)
    assert bench.messages() > 1
    again = worker.take()
    assert (again.message.job, again.unit) == (job, lost.unit)
    assert again.message.priority == lost.message.priority, "what it leads to waits its turn"


def test_a_worker_that_dies_before_its_first_report_is_noticed_too(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    lost = worker.take()
    lost.die()
    bench.step()
    assert bench.outcomes(job) == {lost.unit: ["lost"]}
    lost.start()
    bench.step()
    assert bench.outcomes(job)[lost.unit] == ["lost"], "its late report opens no second try"
    assert bench.settle(job, worker) == "succeeded"


def test_a_unit_that_kills_five_workers_fails_the_job(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    for _ in range(5):
        while (trial := worker.take()) is not None:
            if trial.unit == "construct-000-a":
                trial.start().die()
            else:
                trial.start().finish()
        bench.step(2)
    row = bench.job(job)
    assert row.state == "failed"
    assert row.error is not None
    assert (row.error["code"], row.error["unit"]) == ("worker_died", "construct-000-a")
    assert bench.outcomes(job)["construct-000-a"] == ["lost"] * 5


def test_a_worker_that_died_after_its_record_costs_nothing(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    trial.record()
    trial.die()
    bench.step(2)
    unit = bench.units(job)[trial.unit]
    assert (unit.state, unit.source) == ("done", "journal")
    assert bench.settle(job, worker) == "succeeded"


def test_a_worker_that_died_right_after_publishing_costs_nothing(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    for _ in range(10):
        while (trial := worker.take()) is not None:
            trial.start()
            if trial.unit == "publish":
                trial.record()
                trial.die()
            else:
                trial.finish()
        bench.step()
        bench.clock.advance(1)
    assert bench.state(job) == "succeeded"


def test_a_drained_unit_is_sent_to_another_at_once(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    trial.give_back("drained")
    bench.step()
    assert bench.units(job)[trial.unit].state == "ready"
    assert bench.settle(job, worker) == "succeeded"
    assert bench.outcomes(job)[trial.unit] == ["returned", "done"]


def test_too_little_device_memory_halves_the_microbatch_then_takes_a_larger_device(bench: Bench):
    bench.controller = bench.new_controller(device="gpu")
    job = bench.planned()
    _tell_status(bench, queues=("gpu", "gpu-large"))
    worker = HandWorker(bench)
    seen = []
    for _ in range(4):
        trial = worker.take()
        while trial is not None and trial.unit != "construct-000-a":
            trial.start().finish()
            trial = worker.take()
        if trial is None:
            break
        unit = bench.units(job)[trial.unit]
        seen.append((trial.message.microbatch, unit.queue))
        trial.start().fail("out_of_device_memory")
        bench.step(2)
    assert seen == [(None, "gpu"), (2, "gpu"), (2, "gpu-large"), (1, "gpu-large")]
    assert bench.state(job) == "failed"
    assert (bench.job(job).error or {})["code"] == "out_of_device_memory"


def test_the_device_is_chosen_by_who_is_there(bench: Bench):
    assert bench.job(bench.planned()).device == "cpu"
    _tell_status(bench, queues=("gpu",))
    job = bench.planned(bench.folder.recipe("out2"))
    assert bench.job(job).device == "gpu"
    queues = {unit.kind: unit.queue for unit in bench.units(job).values()}
    assert queues == {"construct": "gpu", "merge": "gpu", "publish": "cpu"}


def test_published_but_not_there_is_done_again(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take()
    while trial is None or trial.unit != "publish":
        if trial is not None:
            trial.start().finish()
        bench.step()
        trial = worker.take()
    trial.start().finish()
    bench.storage.delete(f"{trial.plan.output}/merge_manifest.json")
    bench.step()
    assert bench.state(job) == "publishing"
    assert bench.settle(job, worker) == "succeeded"
    assert bench.outcomes(job)["publish"] == ["failed", "done"]


def test_progress_is_told_at_most_once_a_second_and_reckons_what_is_left(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    for step in range(1, 6):
        trial.step(step)
        bench.step()
    assert len(_progress(bench, job)) == 1
    bench.clock.advance(10)
    bench.step()
    told = _progress(bench, job)
    assert len(told) == 2, "what was held back is told later"
    assert (told[-1]["step"], told[-1]["steps"], told[-1]["layer"]) == (5, 10, 0)
    assert 0 < told[-1]["ratio"] < 1
    left = told[-1]["seconds_left"]
    assert left is not None
    assert told[-1]["reckoned_by"]
    assert left == pytest.approx(10 * (1 - told[-1]["ratio"]) / told[-1]["ratio"], rel=0.2)


def test_lines_of_workers_are_kept_in_order(bench: Bench):
    job = bench.planned()
    trial = HandWorker(bench).take().start()
    for text in ("one", "two"):
        trial.log(text)
    bench.step()
    lines = [line for line in bench.logs(job) if line.worker]
    assert [line.text for line in lines] == ["one", "two"]
    assert lines[0].unit == trial.unit


def _progress(bench: Bench, job: str) -> list[dict]:
    with bench.database.read() as session:
        found = session.scalars(
            select(EventRow)
            .where(EventRow.job_id == job, EventRow.kind == "progress")
            .order_by(EventRow.seq)
        )
        return [event.data for event in found]


def _tell_status(bench: Bench, *, queues: tuple[str, ...]) -> None:
    status = WorkerStatus(
        id="w",
        host="h",
        process=1,
        version="1",
        device="NVIDIA H100",
        device_kind="gpu",
        device_memory_bytes=1,
        device_used_bytes=1,
        host_memory_bytes=1,
        host_used_bytes=1,
        threads=1,
        queues=queues,
        started=0.0,
        at=0.0,
        state="idle",
    )
    bench.client.set(names.worker("w"), status.model_dump_json())


def test_a_try_whose_last_report_is_lost_does_not_run_for_ever(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    bench.step()
    trial.finish(say=False)
    assert bench.settle(job, worker) == "succeeded"
    assert bench.units(job)[trial.unit].state == "done"
    assert bench.outcomes(job)[trial.unit] == ["lost"]


def test_units_whose_results_someone_removed_are_done_again(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    while (trial := worker.take()) is not None and trial.unit.startswith("construct"):
        trial.start().finish()
        bench.step()
    needy = next(u for u in trial.plan.units if u.kind == "merge" and len(u.needs) > 1)
    while trial.unit != needy.id:
        trial.start().finish()
        bench.step()
        trial = worker.take()
    gone = list(needy.needs)
    before = bench.job(job).units_done
    for unit in gone:
        bench.storage.delete(layout.record(trial.plan, unit))
    trial.start().fail(LostResult("gone", units=gone))
    bench.step()
    states = bench.unit_states(job)
    assert {states[unit] for unit in [*gone, needy.id]} <= {"pending", "ready"}
    assert bench.job(job).units_done == before - len(gone)
    assert not set(gone) & set(bench.client.smembers(names.done(job)))
    assert bench.settle(job, worker) == "succeeded"
    assert bench.outcomes(job)[needy.id] == ["failed", "done"]
    assert {bench.outcomes(job)[unit][-1] for unit in gone} == {"done"}
    assert bench.job(job).units_done == bench.job(job).units_total
