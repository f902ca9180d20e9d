"""Whatever dies or vanishes, workers lose no unit and do none twice to its harm."""

import time
from pathlib import Path

import pytest

from fda_core.contract.service import names
from tests.support.valkey import Valkey
from tests.support.workers import INT, TERM, Job, Worker, fda, save_models, statuses, until, workers

HELD = "tests.support.runners:Held"
MARGIN_SECONDS = 3.0
"""What a loaded machine may add to a promised time."""


@pytest.fixture
def server(own_valkey: Valkey) -> Valkey:
    return own_valkey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_models(tmp_path)


def holder(job: Job, unit: str, among: list[Worker]) -> Worker:
    """Wait until a worker runs a unit, and return it."""
    until(lambda: job.lease(unit))
    token = job.lease(unit)
    started = until(lambda: [r for r in job.reports() if r.token == token])
    process = int(started[0].worker.split(":")[1])
    return next(worker for worker in among if worker.pid == process)


def test_a_killed_workers_unit_is_finished_by_another(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder, 2, runner=HELD) as pair:
        held = job.hold(unit)
        job.start()
        holder(job, unit, pair).kill()
        killed = time.monotonic()
        assert job.lease(unit)
        job.send(unit)  # too early: the dead worker's lease is still there
        until(lambda: not job.lease(unit))
        assert time.monotonic() - killed <= names.LEASE_SECONDS + MARGIN_SECONDS
        assert server.client.hexists(names.taken(job.plan.job_id), unit)
        held.unlink()
        job.run()
        until(lambda: len(job.events("unit_finished")) >= len(job.plan.units))
    finished = [event.unit for event in job.events("unit_finished")]
    assert sorted(finished) == sorted(u.id for u in job.plan.units)


def test_the_stop_key_ends_a_long_construction(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method=fda(steps=1_000_000))
    unit = job.plan.units[0].id
    with workers(server, folder) as (worker,):
        job.send(unit)
        until(lambda: job.events("step", unit), why="it is under way")
        told = time.monotonic()
        server.client.set(names.stop(job.plan.job_id), 1)
        until(lambda: job.events("unit_returned", unit))
        assert time.monotonic() - told <= names.BEAT_SECONDS + MARGIN_SECONDS
        assert job.events("unit_returned", unit)[0].reason == "cancelled"
        assert not job.lease(unit)
        assert not server.client.exists(names.taken(job.plan.job_id))
        job.send(unit)
        until(lambda: len(worker.said("unit_tried")) == 2)
        assert worker.said("unit_tried")[1]["outcome"] == "stopped"


@pytest.mark.parametrize("how", ["sigterm", "sigint", "key"])
def test_a_draining_worker_hands_its_unit_back(server: Valkey, folder: Path, how: str) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder, runner=HELD, grace_seconds=0.3) as (worker,):
        held = job.hold(unit)
        job.send(unit)
        holder(job, unit, [worker])
        told = time.monotonic()
        if how == "key":
            until(lambda: statuses(server))
            server.client.set(names.drain(statuses(server)[0].id), 1)
        else:
            worker.signal(TERM if how == "sigterm" else INT)
        until(lambda: job.events("unit_returned", unit))
        assert time.monotonic() - told <= 0.3 + names.BEAT_SECONDS + MARGIN_SECONDS
        assert worker.wait(10) == 0
    assert job.events("unit_returned", unit)[0].reason == "drained"
    assert not job.lease(unit)
    assert server.client.llen(names.CPU + "\x06\x169") == 1
    assert not statuses(server)
    held.unlink()
    with workers(server, folder):
        until(lambda: job.events("unit_finished", unit), why="another takes it from the queue")


def test_a_draining_worker_ends_its_unit_in_time_and_takes_no_other(
    server: Valkey, folder: Path
) -> None:
    job = Job(server, folder, method=fda())
    first, second = (unit.id for unit in job.plan.units[:2])
    with workers(server, folder, runner=HELD, grace_seconds=60) as (worker,):
        held = job.hold(first)
        job.send(first)
        holder(job, first, [worker])
        job.send(second)
        worker.signal(TERM)
        until(lambda: [s for s in statuses(server) if s.state == "draining"])
        held.unlink()
        assert worker.wait(20) == 0
    assert job.events("unit_finished", first)
    assert not job.events("unit_started", second)
    assert server.client.llen(names.CPU + "\x06\x169") == 1


def test_a_second_signal_ends_at_once_and_still_hands_back(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method=fda(steps=1_000_000))
    unit = job.plan.units[0].id
    with workers(server, folder, grace_seconds=600) as (worker,):
        job.send(unit)
        until(lambda: job.events("step", unit))
        worker.signal(TERM)
        until(lambda: [s for s in statuses(server) if s.state == "draining"])
        worker.signal(TERM)
        assert worker.wait(10) == 128 + TERM
    assert not job.lease(unit)
    assert job.events("unit_returned", unit)[0].reason == "drained"
    assert server.client.llen(names.CPU + "\x06\x169") == 1


def test_a_held_queue_is_not_taken_from_until_it_is_resumed(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder) as (worker,):
        server.client.set(names.DRAIN_QUEUE + names.CPU, 1)
        until(lambda: worker.said("queue_held"))
        # One poll of Redis that began before may still bring a message: let it end.
        until(lambda: not _is_polled(server))
        job.send(unit)
        beats = server.client.pttl(names.worker(statuses(server)[0].id))
        until(lambda: server.client.pttl(names.worker(statuses(server)[0].id)) != beats)
        assert server.client.llen(names.CPU + "\x06\x169") == 1
        assert not worker.said("unit_tried")
        server.client.delete(names.DRAIN_QUEUE + names.CPU)
        until(lambda: job.events("unit_finished", unit))


def _is_polled(server: Valkey) -> bool:
    return any("b" in client["flags"] for client in server.client.client_list())


@pytest.mark.parametrize("flushed", [False, True])
def test_a_job_is_finished_though_redis_died_in_the_middle(
    server: Valkey, folder: Path, flushed: bool
) -> None:
    job = Job(server, folder, method=fda())
    unit = job.plan.units[0].id
    with workers(server, folder, 2, runner=HELD) as pair:
        held = job.hold(unit)
        job.start()
        holder(job, unit, pair)
        server.kill()
        until(lambda: any(worker.said("redis_away") for worker in pair))
        server.start()
        if flushed:
            server.empty()
        held.unlink()
        job.run()
        assert all(worker.process.is_alive() for worker in pair)
        if not flushed:  # reports wait while Redis is away, and for some seconds after
            units = {unit.id for unit in job.plan.units}
            until(lambda: {event.unit for event in job.events("unit_started")} == units)


def test_an_idle_worker_hears_again_after_redis_came_back(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    with workers(server, folder) as (worker,):
        server.kill()
        until(lambda: worker.said("redis_away"))
        server.start()
        until(lambda: worker.said("redis_back"))
        job.start()
        until(job.is_published, why="published")


def test_a_stolen_lease_makes_the_worker_give_the_unit_up(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder, runner=HELD) as (worker,):
        job.hold(unit)
        job.send(unit)
        holder(job, unit, [worker])
        server.client.set(names.lease(job.plan.job_id, unit), "thief", px=60_000)
        server.client.hset(names.taken(job.plan.job_id), unit, "thief")
        until(lambda: job.events("unit_returned", unit))
        until(lambda: worker.said("unit_tried"))
    assert job.events("unit_returned", unit)[0].reason == "lease_lost"
    assert job.lease(unit) == "thief"
    assert server.client.hget(names.taken(job.plan.job_id), unit) == "thief"
    assert job.journal.find(job.plan.unit(unit)) is None


def test_a_lease_that_vanished_is_taken_again(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder, runner=HELD) as (worker,):
        held = job.hold(unit)
        job.send(unit)
        holder(job, unit, [worker])
        token = job.lease(unit)
        server.empty()
        until(lambda: job.lease(unit) == token)
        assert server.client.hget(names.taken(job.plan.job_id), unit) == token
        held.unlink()
        until(lambda: job.events("unit_finished", unit))
        # The unit behind it may be taken by now.
        assert not server.client.hexists(names.taken(job.plan.job_id), unit)


def test_a_full_redis_stops_no_running_unit(server: Valkey, folder: Path) -> None:
    job = Job(server, folder, method="linear")
    unit = job.plan.units[0].id
    with workers(server, folder, runner=HELD) as (worker,):
        held = job.hold(unit)
        job.send(unit)
        holder(job, unit, [worker])
        server.client.config_set("maxmemory", 1)
        until(lambda: worker.said("status_refused"))
        held.unlink()
        until(lambda: job.journal.find(job.plan.unit(unit)))
        server.client.config_set("maxmemory", 0)
        job.run()
        until(lambda: job.events("unit_finished", unit), why="told once there was room")
