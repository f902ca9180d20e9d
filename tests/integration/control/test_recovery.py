"""Nothing is lost and nothing is done twice, whatever is killed, emptied or doubled."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from fda_core.contract.events import UnitStarted
from fda_core.contract.service import names
from fda_core.contract.service.messages import Report
from tests.support.control import Bench, HandWorker, in_threads


class Killed(BaseException):
    """What a controller dies of in these tests: nothing catches it."""


class Bomb:
    """Goes off at the n-th place where a controller writes something somewhere."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.gone_off = False

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.gone_off = True
            raise Killed


def _ticking(bomb: Bomb, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        bomb.tick()
        return real(*args, **kwargs)

    return call


@contextmanager
def _armed(bench: Bench, bomb: Bomb, patch: pytest.MonkeyPatch) -> Iterator[None]:
    real = bench.database.write

    @contextmanager
    def write() -> Iterator[Any]:
        with real() as session:
            yield session
            bomb.tick()
        bomb.tick()

    with patch.context() as inner:
        inner.setattr(bench.database, "write", write)
        for name in ("mark_sent", "mark_done", "give_up", "stop", "allow", "forget"):
            inner.setattr(bench.redis, name, _ticking(bomb, getattr(bench.redis, name)))
        for name in ("put", "delete_below"):
            inner.setattr(bench.storage, name, _ticking(bomb, getattr(bench.storage, name)))
        yield


def _live(bench: Bench, job: str, worker: HandWorker, *, rounds: int = 40) -> None:
    """Lead a job with one lost worker and one failure that passes to its end."""
    for _ in range(rounds):
        while (trial := worker.take()) is not None:
            trial.start()
            if trial.unit == "merge-001" and bench.client.set("lost", 1, nx=True):
                trial.die()
            elif trial.unit == "merge-001" and bench.client.set("failed", 1, nx=True):
                trial.fail("storage_unavailable", retryable=True)
            else:
                trial.finish()
        bench.controller.step()
        if bench.state(job) in ("succeeded", "failed", "cancelled"):
            bench.controller.step()
            return
        bench.clock.advance(4)
    raise AssertionError(f"{bench.state(job)} {bench.unit_states(job)}")


@pytest.mark.slow
def test_a_controller_killed_at_any_write_leaves_a_job_that_its_successor_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    stride = 1 if os.environ.get("FDA_PROVE") else 7
    place = random.randrange(stride)  # `make prove-control` takes every place
    while True:
        place += stride
        bomb = Bomb(place)
        bench.client.flushall()
        bench.controller = bench.new_controller()
        job = bench.submit(bench.folder.recipe(f"out{place}", method="linear"))
        worker = HandWorker(bench)
        with _armed(bench, bomb, monkeypatch), suppress(Killed):
            _live(bench, job, worker)
        bench.controller = bench.new_controller()
        _live(bench, job, worker)
        assert bench.state(job) == "succeeded"
        assert bench.outcome(job)["state"] == "succeeded"
        assert Counter(bench.states(job)) <= Counter(
            ["queued", "validating", "running", "publishing", "succeeded"]
        )
        done = bench.done_events(job)
        assert len(set(done)) == len(done)
        assert not bench.client.exists(*names.job_keys(job))
        if not bomb.gone_off:
            break
    assert place > 25


@pytest.mark.parametrize("when", range(6))
def test_emptying_redis_at_any_time_loses_nothing(bench: Bench, when: int):
    job = bench.planned()
    worker = HandWorker(bench)
    held = None
    for turn in range(60):
        if turn == when:
            held = worker.take()
            if held is not None:
                held.start()
            bench.step()
            bench.client.flushall()
            if held is not None:
                held.finish()
        worker.work()
        bench.step()
        if bench.state(job) == "succeeded":
            break
        bench.clock.advance(3)
    assert bench.state(job) == "succeeded"
    done = bench.done_events(job)
    assert len(set(done)) == len(done)
    bench.events(job)


def test_a_worker_that_lost_its_lease_with_redis_is_not_called_dead(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    for _ in range(4):
        trial = worker.take().start()
        bench.step()
        bench.client.flushall()
        bench.step()
        bench.clock.advance(7)
        bench.step(2)
        assert bench.units(job)[trial.unit].state == "ready"
    assert {row.outcome for row in bench.attempts(job)} == {"returned"}
    assert bench.settle(job, worker) == "succeeded"


def test_messages_that_vanish_are_sent_again(bench: Bench):
    job = bench.planned()
    sent = bench.messages()
    bench.client.delete(names.CPU, *[f"cpu\x06\x16{k}" for k in range(10)])
    bench.step()
    assert bench.messages() == 0, "not at once: a worker may just have taken them"
    bench.clock.advance(11)
    bench.step()
    assert bench.messages() == sent
    bench.clock.advance(30)
    bench.step()
    assert bench.messages() == sent, "while they wait, nothing is added"
    assert bench.settle(job, HandWorker(bench)) == "succeeded"


def test_records_count_though_nobody_reported_them(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    for _ in range(12):
        while (trial := worker.take()) is not None:
            trial.finish(say=False)
        bench.step()
        bench.clock.advance(11)
        if bench.state(job) == "succeeded":
            break
    assert bench.state(job) == "succeeded"
    assert bench.attempts(job) == []


def test_doubled_late_and_disordered_reports_change_nothing(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    chance = random.Random(3)
    for _ in range(30):
        reports: list[Report] = []
        send = worker.send
        worker.send = reports.append
        worker.work()
        worker.send = send
        reports = [r for r in reports for _ in range(chance.randint(1, 3))]
        chance.shuffle(reports)
        for report in reports:
            worker.send(report)
        bench.step()
        bench.clock.advance(2)
        if bench.state(job) == "succeeded":
            break
    assert bench.state(job) == "succeeded"
    done = bench.done_events(job)
    assert sorted(done) == sorted(bench.units(job))
    assert all(found == ["done"] for found in bench.outcomes(job).values())


def test_an_older_try_that_reports_late_does_not_take_over(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    old = worker.take()
    old.die()
    before = bench.clock().timestamp()
    bench.clock.advance(1)
    bench.client.delete(names.taken(job))
    bench.clock.advance(11)
    worker_two = HandWorker(bench, "host:2:b")
    while (trial := worker_two.take()) is not None and trial.unit != old.unit:
        trial.start().finish()
    bench.step()
    bench.clock.advance(11)
    bench.step()
    new = trial or worker_two.take()
    while new.unit != old.unit:
        new.start().finish()
        new = worker_two.take()
    new.start()
    bench.step()
    old.say(UnitStarted(unit=old.unit, worker=0), at=before)
    old.fail()
    bench.step()
    assert bench.units(job)[old.unit].token == new.token
    assert bench.state(job) == "running"


def test_reports_of_unknown_jobs_and_nonsense_are_passed_over(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    trial = worker.take().start()
    report = trial.said[0]
    worker.send(report.model_copy(update={"job": "nobody", "token": "other"}))
    bench.client.xadd(names.EVENTS, {"report": "{nonsense"})
    bench.client.xadd(names.EVENTS, {"other": "field"})
    trial.log("still here")
    bench.step()
    assert any(line.text == "still here" for line in bench.logs(job))


def test_a_stream_that_begins_anew_below_our_place_is_read(bench: Bench):
    job = bench.planned()
    worker = HandWorker(bench)
    worker.take().start().finish()
    bench.step()
    bench.client.delete(names.EVENTS)
    trial = worker.take()
    report = trial.say(UnitStarted(unit=trial.unit, worker=0))
    bench.client.delete(names.EVENTS)
    bench.client.xadd(names.EVENTS, {"report": report.model_dump_json()}, id="5-1")
    bench.step(2)
    assert bench.units(job)[trial.unit].state == "running"


def test_two_controllers_at_once_do_nothing_twice(any_bench: Bench):
    bench = any_bench
    jobs = [bench.submit(bench.folder.recipe(f"out{k}")) for k in range(3)]
    one, two = bench.controller, bench.new_controller()
    worker = HandWorker(bench)
    for turn in range(60):
        while (trial := worker.take()) is not None:
            trial.start()
            trial.die() if turn == 1 and trial.unit.endswith("-b") else trial.finish()
        in_threads(one.step, two.step)
        if all(bench.state(job) == "succeeded" for job in jobs):
            break
        bench.clock.advance(4)
    for job in jobs:
        assert bench.states(job) == ["queued", "validating", "running", "publishing", "succeeded"]
        done = bench.done_events(job)
        assert sorted(done) == sorted(bench.units(job)), "each once"
        assert bench.job(job).units_done == bench.job(job).units_total
        tokens = [row.token for row in bench.attempts(job)]
        assert len(set(tokens)) == len(tokens)


def test_the_life_of_a_job_on_both_databases(any_bench: Bench):
    bench = any_bench
    job = bench.planned()
    worker = HandWorker(bench)
    worker.take().start().fail("storage_unavailable", retryable=True)
    bench.step()
    lost = worker.take().start()
    bench.step()
    lost.die()
    assert bench.settle(job, worker) == "succeeded"
    bench.events(job)
    other = bench.planned(bench.folder.recipe("out2"))
    worker.take().start().fail()
    bench.step()
    assert bench.state(other) == "failed"
    bench.retry(other)
    assert bench.settle(other, worker) == "succeeded"
