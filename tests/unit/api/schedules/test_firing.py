"""Fire times become batches: once each, whatever happens."""

from datetime import UTC, datetime, timedelta

import pytest

from api.batches.service import BatchService
from api.db.tables import BatchRow, ScheduleRow
from api.schedules import firing as firing_module
from api.schedules import repository
from tests.support.stand_ins import all_jobs, put_job, recipe
from tests.unit.api.schedules.conftest import World


def end_all_jobs(world: World) -> None:
    with world.database.write() as session:
        for job in all_jobs(session):
            if job.state == "queued":
                put_job(session, job.id, "failed")


def test_a_fire_time_makes_its_batch_once(either_world: World):
    world = either_world
    schedule = world.make().json()
    world.firing.step()
    assert world.fires() == []
    world.clock.moment = datetime(2026, 10, 21, 0, 30, 1, tzinfo=UTC)
    for _ in range(3):
        world.firing.step()
    assert world.fires() == [("21 00:30", "fired", True)]
    with world.database.read() as session:
        (job,) = all_jobs(session)
        (batch,) = session.query(BatchRow)
    assert job.output == "/merged/20261021T003000Z"
    assert (job.batch_id, batch.schedule_id) == (batch.id, schedule["id"])
    assert world.woken.jobs == [job.id]


def test_a_night_job_runs_once_on_the_days_the_clock_changes(world: World):
    for begin, fired in [
        (datetime(2026, 10, 24, 12, tzinfo=UTC), ["25 00:30", "26 01:30"]),
        (datetime(2027, 3, 27, 12, tzinfo=UTC), ["28 01:00", "29 00:30"]),
    ]:
        world.clock.moment = begin
        schedule = world.make().json()
        while world.clock.moment < begin + timedelta(hours=40):
            world.firing.step()
            end_all_jobs(world)
            world.clock.forward(minutes=10)
        assert [(at, outcome) for at, outcome, _ in world.fires()] == [
            (at, "fired") for at in fired
        ]
        world.client.delete(schedule["urls"]["self"])


def test_run_once_makes_one_batch_for_all_that_was_missed(either_world: World):
    world = either_world
    world.make(missed="run_once")
    world.clock.moment = datetime(2026, 10, 25, 12, tzinfo=UTC)
    world.firing.step()
    assert world.fires() == [("21 00:30", "missed", False), ("25 00:30", "fired", True)]
    assert sorted(world.counted) == ["fired", "missed"]
    assert world.batches() == 1


def test_skip_makes_none_and_goes_on(either_world: World):
    world = either_world
    world.make(missed="skip")
    world.clock.moment = datetime(2026, 10, 25, 12, tzinfo=UTC)
    world.firing.step()
    assert world.fires() == [("21 00:30", "missed", False), ("25 00:30", "missed", False)]
    world.clock.moment = datetime(2026, 10, 26, 1, 30, 59, tzinfo=UTC)
    world.firing.step()
    assert world.fires()[-1] == ("26 01:30", "fired", True)


def test_a_fire_time_noticed_within_a_minute_was_not_missed(world: World):
    world.make(missed="skip")
    world.clock.moment = datetime(2026, 10, 21, 0, 31, 0, tzinfo=UTC)
    world.firing.step()
    assert world.fires() == [("21 00:30", "fired", True)]


def test_overlap_skip(either_world: World):
    world = either_world
    world.make(overlap="skip")
    for day in (21, 22):
        world.clock.moment = datetime(2026, 10, day, 1, tzinfo=UTC)
        world.firing.step()
    assert [outcome for _, outcome, _ in world.fires()] == ["fired", "skipped"]
    end_all_jobs(world)
    world.clock.forward(days=1)
    world.firing.step()
    assert [outcome for _, outcome, _ in world.fires()] == ["fired", "skipped", "fired"]


def test_overlap_queue_runs_one_after_the_other_in_order(either_world: World):
    world = either_world
    world.make(overlap="queue")
    for day in (21, 22, 23):
        world.clock.moment = datetime(2026, 10, day, 1, tzinfo=UTC)
        world.firing.step()
    assert [outcome for _, outcome, _ in world.fires()] == ["fired", "waiting", "waiting"]
    for count in (1, 2):
        world.firing.step()  # nothing moves while jobs are on their way
        assert world.batches() == count
        end_all_jobs(world)
        world.firing.step()
        assert world.batches() == count + 1
    end_all_jobs(world)
    world.firing.step()
    assert world.batches() == 3
    assert [outcome for _, outcome, _ in world.fires()] == ["fired"] * 3
    with world.database.read() as session:
        outputs = [job.output for job in sorted(all_jobs(session), key=lambda job: job.created_at)]
    assert outputs == [f"/merged/202610{day}T003000Z" for day in (21, 22, 23)]


def test_a_paused_schedule_leaves_its_queue_waiting(world: World):
    urls = world.make(overlap="queue").json()["urls"]
    for day in (21, 22):
        world.clock.moment = datetime(2026, 10, day, 1, tzinfo=UTC)
        world.firing.step()
    world.client.post(urls["pause"])
    end_all_jobs(world)
    world.firing.step()
    assert world.batches() == 1
    world.client.post(urls["resume"])
    world.firing.step()
    assert world.batches() == 2


def test_old_fire_times_are_forgotten_but_not_those_that_wait(either_world: World):
    world = either_world
    world.make(overlap="queue")
    for day in (21, 22, 23):
        world.clock.moment = datetime(2026, 10, day, 1, tzinfo=UTC)
        world.firing.step()
    with world.database.write() as session:
        assert repository.sweep(session, before=world.clock()) == 1
    assert [outcome for _, outcome, _ in world.fires()] == ["waiting", "waiting"]


def test_a_full_queue_skips(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(firing_module, "MOST_WAITING", 1)
    world.make(overlap="queue")
    for day in (21, 22, 23):
        world.clock.moment = datetime(2026, 10, day, 1, tzinfo=UTC)
        world.firing.step()
    assert [outcome for _, outcome, _ in world.fires()] == ["fired", "waiting", "skipped"]
    assert world.counted == ["fired", "waiting", "skipped"]


def test_overlap_cancel_stops_earlier_runs(either_world: World):
    world = either_world
    world.make(overlap="cancel")
    world.clock.moment = datetime(2026, 10, 21, 1, tzinfo=UTC)
    world.firing.step()
    world.clock.forward(days=1)
    world.firing.step()
    with world.database.read() as session:
        states = [job.state for job in all_jobs(session)]
    assert states == ["cancelled", "queued"]
    assert len(world.woken.jobs) == 3


def test_a_batch_that_is_refused_is_recorded_and_stops_no_other(either_world: World):
    world = either_world
    bad = world.make(overlap="cancel").json()
    world.make(name="good", batch={"recipe": recipe(), "output": "/good/{fire_time}"})
    world.clock.moment = datetime(2026, 10, 21, 1, tzinfo=UTC)
    world.firing.step()
    with world.database.write() as session:
        row = session.get_one(ScheduleRow, bad["id"])
        batch = {"recipes": [recipe(output="/x/{date}"), recipe(output="/forbidden/{date}")]}
        row.batch = batch
    world.clock.forward(days=1)
    world.firing.step()
    fires = world.client.get(bad["urls"]["fires"]).json()["data"]
    assert [fire["outcome"] for fire in fires] == ["failed", "fired"]
    assert fires[0]["batch"] is None
    assert "batch_invalid: 1 of 2 jobs" in fires[0]["detail"]
    with world.database.read() as session:
        outputs = [job.output for job in all_jobs(session)]
        states = {job.state for job in all_jobs(session)}
    assert outputs == ["/good/20261021T003000Z", "/merged/20261021T003000Z"]
    assert states == {"queued"}  # the earlier run is not cancelled for nothing
    world.clock.forward(days=1)
    world.firing.step()
    assert len(world.client.get(bad["urls"]["fires"]).json()["data"]) == 3


def test_our_own_bugs_stop_no_other_schedule_either(world: World, monkeypatch: pytest.MonkeyPatch):
    bad = world.make(name="bad").json()
    world.make(name="good", batch={"recipe": recipe(), "output": "/good/{fire_time}"})
    real = BatchService.add

    def breaking(self, session, request, submitter, **more):  # type: ignore[no-untyped-def]
        made = real(self, session, request, submitter, **more)
        if request.output == "/merged/{fire_time}":
            raise ZeroDivisionError("bug")
        return made

    monkeypatch.setattr(BatchService, "add", breaking)
    world.clock.moment = datetime(2026, 10, 21, 1, tzinfo=UTC)
    for _ in range(2):
        world.firing.step()
    assert world.batches() == 1
    (fire,) = world.client.get(bad["urls"]["fires"]).json()["data"]
    assert (fire["outcome"], fire["detail"]) == ("failed", "ZeroDivisionError: bug")
    shown = world.client.get(bad["urls"]["self"]).json()
    assert shown["last_fire_at"] == "2026-10-21T00:30:00Z"


def test_a_zone_that_is_gone_is_recorded_and_tried_no_more(world: World):
    bad = world.make().json()
    with world.database.write() as session:
        session.get_one(ScheduleRow, bad["id"]).zone = "Mars/Olympus"
    world.clock.moment = datetime(2026, 10, 21, 1, tzinfo=UTC)
    for _ in range(2):
        world.firing.step()
    assert world.fires() == [("21 00:30", "failed", False)]
