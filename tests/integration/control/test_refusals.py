"""What planning refuses, and what it tries again."""

from datetime import timedelta
from typing import Any

import pytest

from api.control import planner
from fda_core.errors import Unavailable
from tests.support.control import Bench, HandWorker


def test_a_missing_checkpoint_fails_the_job_with_its_name(bench: Bench):
    recipe = bench.folder.recipe()
    recipe["experts"][1]["model"] = str(bench.folder.root / "nowhere")
    job = bench.submit(recipe)
    bench.step()
    row = bench.job(job)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["code"] == "not_found"
    assert "nowhere" in row.error["message"]
    assert bench.states(job) == ["queued", "validating", "failed"]
    assert bench.outcome(job)["error"]["code"] == "not_found"


def test_relative_addresses_are_refused(bench: Bench):
    job = bench.submit({**bench.folder.recipe(), "base": "models/base"})
    bench.step()
    assert "relative" in (bench.job(job).error or {})["message"]


def test_a_recipe_as_text_is_planned(bench: Bench):
    recipe = bench.folder.recipe(method="linear")
    lines = [f"base: {recipe['base']}", "method: linear", f"output: {recipe['output']}", "experts:"]
    lines += [f"  - {{name: {e['name']}, model: {e['model']}}}" for e in recipe["experts"]]
    job = bench.planned("\n".join(lines))
    assert bench.job(job).resolved is not None
    assert bench.job(job).output == recipe["output"]


def test_an_output_that_another_job_writes_is_refused_and_free_after_it(bench: Bench):
    first = bench.planned()
    second, nested = bench.submit(), bench.submit(bench.folder.recipe("out/below"))
    bench.step()
    for job in (second, nested):
        error = bench.job(job).error or {}
        assert error["code"] == "output_exists"
        assert first in error["message"]
    bench.cancel(first)
    bench.clock.advance(2)
    bench.step()
    assert bench.state(first) == "cancelled"
    bench.retry(second)
    bench.step(2)
    assert bench.state(second) == "running"


def test_storage_that_does_not_answer_is_tried_again_with_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    failing = _fail_reads(monkeypatch, times=2)
    job = bench.submit()
    for _ in range(3):
        bench.step()
        bench.clock.advance(10)
    assert failing == []
    assert bench.state(job) == "running"
    assert sum("tried again" in line.text for line in bench.logs(job)) == 2


def test_storage_that_never_answers_fails_the_job_in_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    _fail_reads(monkeypatch, times=1000)
    job = bench.submit()
    for _ in range(6):
        bench.step()
        bench.clock.advance(60)
    assert (bench.job(job).error or {})["code"] == "storage_unavailable"


def test_a_bug_of_ours_fails_one_job_and_not_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("api.control.planner.make_plan", broken)
        job = bench.submit()
        bench.step()
    error = bench.job(job).error or {}
    assert error["code"] == "internal_error"
    assert "ZeroDivisionError" in error["message"]
    bench.planned()


def test_warnings_of_the_plan_become_events(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    real = planner.make_plan

    def warned(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **kwargs).model_copy(update={"warnings": ("look here",)})

    monkeypatch.setattr(planner, "make_plan", warned)
    job = bench.planned()
    assert [e.data for e in bench.events(job) if e.kind == "warning"] == [{"text": "look here"}]


def test_a_deadline_expires_queued_jobs_only(bench: Bench):
    soon = bench.clock() + timedelta(seconds=5)
    running = bench.planned(deadline=soon)
    waiting = bench.submit(bench.folder.recipe("out2"), deadline=soon)
    bench.clock.advance(6)
    bench.step()
    assert bench.state(waiting) == "expired"
    assert bench.outcome(waiting)["state"] == "expired"
    assert bench.state(running) == "running"
    bench.retry(waiting)
    assert bench.state(waiting) == "queued"


def test_urgent_jobs_are_sent_first(bench: Bench):
    bench.planned(bench.folder.recipe("slow"), priority=1)
    urgent = bench.planned(bench.folder.recipe("fast"), priority=9)
    trial = HandWorker(bench).take()
    assert trial is not None
    assert trial.message.job == urgent


def _fail_reads(patch: pytest.MonkeyPatch, *, times: int) -> list[int]:
    left = list(range(times))
    real = planner.make_plan

    def flaky(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()
            raise Unavailable("the bucket does not answer")
        return real(*args, **kwargs)

    patch.setattr(planner, "make_plan", flaky)
    return left
