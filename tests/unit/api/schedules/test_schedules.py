"""Schedules over REST."""

from typing import Any

import pytest

from api.db.tables import ScheduleRow
from tests.support.stand_ins import all_jobs, recipe
from tests.unit.api.schedules.conftest import World

BLUE = {"Authorization": "bob/blue/submitter"}


def test_a_schedule_shows_its_next_five_fire_times(either_world: World):
    made = either_world.make()
    assert made.status_code == 201, made.text
    schedule = made.json()
    assert made.headers["etag"] == '"1"'
    assert [fire["utc"] for fire in schedule["next_fires"]] == [
        "2026-10-21T00:30:00Z",
        "2026-10-22T00:30:00Z",
        "2026-10-23T00:30:00Z",
        "2026-10-24T00:30:00Z",
        "2026-10-25T00:30:00Z",
    ]
    assert schedule["next_fires"][0]["local"] == "2026-10-21T02:30:00+02:00"
    shown = either_world.client.get(schedule["urls"]["self"])
    assert shown.json() == schedule
    listed = either_world.client.get("/v1/schedules").json()["data"]
    assert listed == [schedule]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cron": "61 * * * *"}, "bad_cron"),
        ({"zone": "Europe/Berlim"}, "unknown_zone"),
        ({"batch": {"recipe": recipe(method="tiess"), "output": "/o/{date}"}}, "batch_invalid"),
        ({"batch": {"recipe": recipe(), "output": "/o/{day}"}}, "batch_invalid"),
        ({"batch": {"recipe": recipe()}}, "same_output_again"),
        (
            {"cron": "0 9,17 * * *", "batch": {"recipe": recipe(), "output": "/o/{date}"}},
            "same_output_again",
        ),
        (
            {"batch": {"recipes": [recipe(output="/o/{date}"), recipe(output="/same")]}},
            "same_output_again",
        ),
    ],
)
def test_what_could_never_run_is_refused(world: World, changes: dict[str, Any], code: str):
    refused = world.make(**changes)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    path = world.make().json()["urls"]["self"]
    refused = world.client.patch(path, json=changes)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert world.client.get(path).json()["version"] == 1


def test_a_deadline_in_a_schedule_is_refused_with_what_to_give_instead(world: World):
    batch = {"recipe": recipe(), "output": "/o/{date}", "deadline": "2030-01-01T00:00:00Z"}
    refused = world.make(batch=batch)
    assert refused.status_code == 422
    assert "begin_within_seconds" in refused.text


def test_the_date_is_enough_where_it_fires_once_a_day(world: World):
    assert world.make(batch={"recipe": recipe(), "output": "/o/{date}"}).status_code == 201


def test_the_same_key_makes_one_schedule(either_world: World):
    first, second = (
        either_world.client.post(
            "/v1/schedules", json=either_world.body(), headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    )
    assert first.json() == second.json()
    assert len(either_world.client.get("/v1/schedules").json()["data"]) == 1


def test_changes_count_the_version_and_if_match_guards_it(either_world: World):
    world = either_world
    path = world.make().json()["urls"]["self"]
    changed = world.client.patch(path, json={"cron": "0 4 * * *"}, headers={"If-Match": '"1"'})
    assert changed.status_code == 200
    assert (changed.json()["version"], changed.headers["etag"]) == (2, '"2"')
    assert changed.json()["next_fires"][0]["utc"] == "2026-10-21T02:00:00Z"
    with world.database.read() as session:
        row = session.query(ScheduleRow).one()
        assert row.next_fire_at is not None
        assert row.next_fire_at.isoformat() == "2026-10-21T02:00:00+00:00"
    for stale in ('"1"', 'W/"1"', "1", "abc"):
        refused = world.client.patch(path, json={"name": "x"}, headers={"If-Match": stale})
        assert (refused.status_code, refused.json()["code"]) == (412, "stale_schedule")
        assert world.client.delete(path, headers={"If-Match": stale}).status_code == 412
    assert world.client.patch(path, json={"name": "x"}, headers={"If-Match": "*"}).json()["name"]
    assert world.client.get(path).json()["cron"] == "0 4 * * *"


def test_firing_does_not_count_the_version(world: World):
    path = world.make().json()["urls"]["self"]
    world.clock.forward(days=1)
    world.firing.step()
    shown = world.client.get(path).json()
    assert shown["version"] == 1
    assert shown["last_fire_at"] == "2026-10-21T00:30:00Z"


def test_pausing_and_resuming_skips_what_passed(either_world: World):
    world = either_world
    urls = world.make().json()["urls"]
    paused = world.client.post(urls["pause"]).json()
    assert (paused["paused"], paused["next_fires"]) == (True, [])
    world.clock.forward(days=3)
    world.firing.step()
    resumed = world.client.post(urls["resume"]).json()
    assert resumed["next_fires"][0]["utc"] == "2026-10-24T00:30:00Z"
    world.firing.step()
    assert world.fires() == []
    again = world.client.post(urls["resume"]).json()
    assert again["version"] == resumed["version"]


def test_a_trigger_makes_a_batch_at_once(either_world: World):
    world = either_world
    schedule = world.make(overlap="skip").json()
    answers = []
    for _ in range(2):  # the second one while the first is on its way
        world.clock.forward(seconds=1)
        answers.append(world.client.post(schedule["urls"]["trigger"]))
    assert [answer.status_code for answer in answers] == [202, 202]
    first = answers[0].json()
    assert first["outcome"] == "fired"
    assert answers[0].headers["location"] == f"/v1/batches/{first['batch']}"
    with world.database.read() as session:
        jobs = all_jobs(session)
    assert [job.output for job in jobs] == [
        "/merged/20261020T120001Z",
        "/merged/20261020T120002Z",
    ]
    assert {(job.schedule_id, job.team, job.owner) for job in jobs} == {
        (schedule["id"], "red", "ann")
    }
    assert set(world.woken.jobs) == {job.id for job in jobs}
    assert world.client.get(schedule["urls"]["self"]).json()["last_fire_at"] is None
    fires = world.client.get(schedule["urls"]["fires"], params={"limit": 1}).json()
    assert fires["data"] == [answers[1].json()]
    following = world.client.get(
        schedule["urls"]["fires"], params={"cursor": fires["next_cursor"]}
    ).json()
    assert following["data"] == [first]


def test_fires_before_a_time_that_utc_does_not_have_are_refused(world: World):
    schedule = world.make().json()
    beyond = world.client.get(
        schedule["urls"]["fires"], params={"cursor": "9999-12-31T23:59:59-23:00"}
    )
    assert beyond.status_code == 422, beyond.text


def test_a_trigger_that_is_refused_leaves_nothing(either_world: World):
    batch = {"recipe": recipe(), "output": "/forbidden/{fire_time}"}
    urls = either_world.make(batch=batch).json()["urls"]
    refused = either_world.client.post(urls["trigger"])
    assert (refused.status_code, refused.json()["code"]) == (422, "batch_invalid")
    assert either_world.fires() == []
    assert either_world.batches() == 0


def test_deleting_a_schedule_keeps_its_batches(either_world: World):
    world = either_world
    urls = world.make().json()["urls"]
    world.client.post(urls["trigger"])
    assert world.client.delete(urls["self"]).status_code == 204
    assert world.client.get(urls["self"]).json()["code"] == "unknown_schedule"
    assert world.fires() == []
    assert world.batches() == 1


def test_other_teams_see_nothing(world: World):
    urls = world.make().json()["urls"]
    client = world.client
    assert client.get("/v1/schedules", headers=BLUE).json()["data"] == []
    for method, name in [
        ("GET", "self"),
        ("DELETE", "self"),
        ("POST", "pause"),
        ("POST", "resume"),
        ("POST", "trigger"),
        ("GET", "fires"),
    ]:
        assert client.request(method, urls[name], headers=BLUE).status_code == 404
    assert client.patch(urls["self"], json={"name": "x"}, headers=BLUE).status_code == 404
