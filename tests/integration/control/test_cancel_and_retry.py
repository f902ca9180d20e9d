"""Cancelling wherever a job is, and trying it again."""

import shutil
from dataclasses import replace

from fda_core.contract.service import names
from fda_core.engine import layout
from tests.support.checkpoints import base_model, expert_of
from tests.support.control import Bench, HandWorker


def _grace(bench: Bench) -> None:
    bench.clock.advance(1.5)


def test_cancel_while_queued_is_at_once(bench: Bench):
    job = bench.submit()
    assert bench.cancel(job)
    bench.step()
    assert bench.states(job) == ["queued", "cancelled"]


def test_cancel_while_validating_keeps_nothing_of_the_plan(bench: Bench):
    job = bench.submit()
    planner = bench.controller.planner
    real = planner._made

    def cancelled_meanwhile(row):
        bench.cancel(job)
        return real(row)

    planner._made = cancelled_meanwhile
    planner.step()
    assert bench.state(job) == "cancelling"
    assert bench.units(job) == {}
    bench.step(2)
    assert bench.states(job) == ["queued", "validating", "cancelling", "cancelled"]
    assert bench.messages() == 0


def test_cancel_while_running_waits_for_the_units_under_way(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    bench.step()
    bench.cancel(job)
    _grace(bench)
    bench.step(2)
    assert bench.state(job) == "cancelling"
    assert worker.take() is None, "messages are dropped"
    trial.give_back()
    bench.step()
    assert bench.state(job) == "cancelled"
    assert bench.outcomes(job) == {trial.unit: ["returned"]}
    assert set(bench.unit_states(job).values()) == {"pending"}
    assert bench.outcome(job)["state"] == "cancelled"
    assert bench.client.exists(names.stop(job)), "late messages must find it"


def test_cancel_with_a_dead_worker_ends_when_its_lease_does(bench: Bench):
    job = bench.planned()
    trial = HandWorker(bench).take().start()
    bench.step()
    bench.cancel(job)
    _grace(bench)
    bench.step()
    assert bench.state(job) == "cancelling"
    trial.die()
    bench.step()
    assert bench.state(job) == "cancelled"


def test_a_lost_order_to_stop_is_given_again(bench: Bench):
    job = bench.planned()
    trial = HandWorker(bench).take().start()
    bench.cancel(job)
    bench.client.delete(names.stop(job))
    bench.step()
    assert bench.client.exists(names.stop(job))
    trial.give_back()
    _grace(bench)
    bench.step()
    assert bench.state(job) == "cancelled"


def test_a_cancel_that_loses_against_publishing_ends_in_succeeded(bench: Bench):
    job = bench.planned()
    publish = _up_to_publishing(bench, job)
    bench.cancel(job)
    publish.finish()
    bench.step()
    assert bench.states(job)[-2:] == ["cancelling", "succeeded"]
    assert bench.outcome(job)["state"] == "succeeded"


def test_a_cancel_that_loses_ends_in_succeeded_though_the_report_is_lost(bench: Bench):
    job = bench.planned()
    publish = _up_to_publishing(bench, job)
    bench.cancel(job)
    publish.finish(say=False)
    _grace(bench)
    bench.step(2)
    assert bench.state(job) == "succeeded"
    assert set(bench.unit_states(job).values()) == {"done"}


def test_a_cancel_while_publishing_removes_the_staging(bench: Bench):
    job = bench.planned()
    publish = _up_to_publishing(bench, job)
    staging = layout.staging(publish.plan)
    bench.storage.put(f"{staging}/model.safetensors", b"x")
    bench.cancel(job)
    publish.give_back()
    _grace(bench)
    bench.step(2)
    assert bench.state(job) == "cancelled"
    assert not bench.storage.exists(staging)


def test_a_cancel_of_what_ended_is_refused(bench: Bench):
    job = bench.planned()
    bench.settle(job, HandWorker(bench))
    assert not bench.cancel(job)
    assert bench.state(job) == "succeeded"


def test_retry_keeps_finished_units(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    kept = [worker.take().start() for _ in range(2)]
    for trial in kept:
        trial.finish()
    bench.step()
    worker.take().start().fail()
    bench.step()
    assert bench.state(job) == "failed"
    bench.retry(job)
    bench.step()
    assert bench.state(job) == "running"
    row = bench.job(job)
    assert (row.attempt, row.units_done, row.error) == (2, 2, None)
    for trial in kept:
        unit = bench.units(job)[trial.unit]
        assert (unit.state, unit.source) == ("done", "journal")
    assert bench.settle(job, worker) == "succeeded"
    outcomes = bench.outcomes(job)
    assert all(outcomes[trial.unit] == ["done"] for trial in kept), "they did not run again"


def test_retry_after_the_inputs_changed_throws_old_records_away(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    worker.take().start().finish()
    worker.take().start().fail()
    bench.step()
    shutil.rmtree(bench.folder.root / "a")
    expert_of(base_model(num_hidden_layers=2), 7).save(bench.folder.root / "a")
    bench.retry(job)
    bench.step()
    assert bench.state(job) == "running"
    assert bench.job(job).units_done == 0
    assert "done" not in bench.unit_states(job).values()
    assert any("changed" in line.text for line in bench.logs(job))
    assert bench.settle(job, worker) == "succeeded"


def test_changed_inputs_wait_for_whoever_still_works_on_the_old_ones(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    slow = worker.take().start()
    worker.take().start().fail()
    bench.step()
    assert bench.state(job) == "failed"
    shutil.rmtree(bench.folder.root / "a")
    expert_of(base_model(num_hidden_layers=2), 7).save(bench.folder.root / "a")
    bench.retry(job)
    bench.step()
    assert bench.state(job) == "validating"
    slow.finish()
    bench.clock.advance(1)
    bench.step()
    assert bench.state(job) == "running"
    assert bench.job(job).units_done == 0


def test_reports_of_an_earlier_attempt_change_nothing_but_their_try(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    slow = worker.take().start()
    worker.take().start().fail()
    bench.step()
    bench.retry(job)
    bench.step()
    slow.step(3)
    slow.fail()
    bench.step()
    assert bench.state(job) == "running"
    assert bench.units(job)[slow.unit].state == "ready"
    assert bench.outcomes(job)[slow.unit] == ["failed"]


def test_a_job_whose_output_is_there_already_succeeds_when_retried(bench: Bench):
    job = bench.planned()
    publish = _up_to_publishing(bench, job)
    publish.record()
    publish.fail()
    bench.step()
    assert bench.state(job) == "failed"
    bench.retry(job)
    bench.step(2)
    assert bench.states(job)[-3:] == ["queued", "validating", "succeeded"]


def _up_to_publishing(bench: Bench, job: str):
    worker = HandWorker(bench)
    while True:
        trial = worker.take()
        if trial is None:
            bench.step()
            continue
        trial.start()
        if trial.unit == "publish":
            bench.step()
            assert bench.state(job) == "publishing"
            return trial
        trial.finish()


def test_messages_of_an_earlier_attempt_may_do_all_the_work_of_the_next(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    assert bench.messages() > 0
    bench.cancel(job)
    _grace(bench)
    bench.step(2)
    assert bench.state(job) == "cancelled"
    bench.retry(job)
    bench.step()
    assert bench.state(job) == "running"
    first = worker.take()
    assert first.message.attempt == 1, "it was never taken out of the queue"
    first.start().finish()
    assert bench.settle(job, worker) == "succeeded"
    assert set(bench.unit_states(job).values()) == {"done"}


def test_an_earlier_attempt_that_published_ends_the_next(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    bench.cancel(job)
    _grace(bench)
    bench.step(2)
    bench.retry(job)
    bench.step()
    trial = worker.take().start()
    assert trial.message.attempt == 1
    for unit in trial.plan.units:
        last = replace(trial, message=trial.message.model_copy(update={"unit": unit.id}))
        last.record()
        last.release(done=True)
    bench.storage.delete_below(layout.parts(trial.plan))
    assert bench.settle(job, worker) == "succeeded"
