"""Submitting, listing, showing, changing, cancelling, retrying and removing jobs."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api import idempotency
from api.db.tables import IdempotencyRow, JobRow
from api.db.types import now
from api.errors import IdempotencyInFlight
from tests.support.rest import Rest, problem, recipe


def post(rest: Rest, *, key: str | None = None, **changes: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return rest.submitter.post("/v1/jobs", json={"recipe": recipe(), **changes}, headers=headers)


def count(rest: Rest) -> int:
    return len(rest.admin.get("/v1/jobs?limit=100").json()["data"])


def test_a_job_is_accepted_queued_and_shown(either: Rest):
    answer = post(either, labels={"run": "7"}, priority=9)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["urls"]["self"]
    assert int(answer.headers["retry-after"]) > 0
    assert (job["state"], job["attempt"], job["priority"]) == ("queued", 1, 9)
    assert (job["owner"], job["team"]) == ("ann-submitter", "red")
    assert job["recipe"] == recipe()
    assert job["experts"] == ["one", "two"]
    assert set(job["timestamps"]) == {"queued"}
    shown = either.viewer.get(f"/v1/jobs/{job['id']}")
    assert shown.json() == job
    assert either.viewer.get("/v1/jobs").json() == {
        "data": [job],
        "next_cursor": None,
        "has_more": False,
    }
    events = either.viewer.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [(event["id"], event["data"]["state"]) for event in events] == [(1, "queued")]


MERGEKIT = """
merge_method: ties
base_model: /models/base
models:
  - {model: /models/one, parameters: {weight: 1.0, density: 0.5}}
  - {model: /models/two, parameters: {weight: 0.5, density: 0.5}}
dtype: bfloat16
"""


def test_yaml_text_is_a_recipe_and_kept_as_sent(rest: Rest):
    text = (
        "base: /models/b\nexperts: [{name: a, model: /models/a}]\nmethod: linear\noutput: /models/o"
    )
    job = rest.submitter.submit(recipe=text)
    assert job["recipe"] == text
    assert job["method"] == "linear"


def test_mergekits_yaml_needs_an_output_like_any_other(rest: Rest):
    found = problem(post(rest, recipe=MERGEKIT), 422)
    assert found["errors"][0]["pointer"] == "/recipe/output"


@pytest.mark.parametrize(
    ("changes", "status", "code", "pointers"),
    [
        ({"metod": "ties"}, 422, "unknown_key", ["/recipe/metod"]),
        ({"method": "tiez"}, 422, "unknown_method", ["/recipe"]),
        (
            {"method": {"name": "ties", "density": 3, "scale": "x"}},
            422,
            "bad_parameter",
            ["/recipe/method/density", "/recipe/method/scale"],
        ),
        ({"seed": -1, "heads": "lose"}, 422, "bad_parameter", ["/recipe/heads", "/recipe/seed"]),
        ({"experts": []}, 422, "no_experts", ["/recipe"]),
        ({"base": "relative/base"}, 422, "bad_parameter", ["/recipe/base"]),
        ({"output": "out"}, 422, "bad_parameter", ["/recipe/output"]),
        ({"output": "file://out"}, 422, "bad_parameter", ["/recipe/output"]),
        ({"output": None}, 422, "recipe_invalid", ["/recipe/output"]),
        ({"base": "/etc/base"}, 403, "forbidden", []),
        ({"base": "/models/../etc"}, 403, "forbidden", []),
        ({"base": "/modelsx/base"}, 403, "forbidden", []),
        ({"base": "s3://other/base"}, 403, "forbidden", []),
        ({"output": "s3://other/out"}, 403, "forbidden", []),
        ({"base": "~/base"}, 422, "unsupported_scheme", []),
        ({"base": "gs://models/base"}, 422, "unsupported_scheme", []),
        ({"base": "/models/\0"}, 422, "recipe_invalid", ["/recipe"]),
        ({"notes": ["\ud800"]}, 422, None, None),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused(rest, changes, status, code, pointers):
    sent = {"recipe": recipe(**changes)}
    answer = rest.submitter.post(
        "/v1/jobs",
        content=json.dumps(sent),
        headers={"Content-Type": "application/json"},
    )
    found = problem(answer, status, code)
    if pointers is not None:
        assert sorted(item["pointer"] for item in found["errors"]) == pointers
    assert count(rest) == 0


def test_an_experts_address_outside_the_roots_is_refused_by_name(rest: Rest):
    experts = [{"name": "a", "model": "/models/a"}, {"name": "b", "model": "/secret/b"}]
    found = problem(post(rest, recipe=recipe(experts=experts)), 403, "forbidden")
    assert found["context"]["key"] == "experts.1.model"


@pytest.mark.parametrize("text", ["a: [", "&a [*a]", "x" * 300_000, "- 1"])
def test_text_that_is_no_recipe_is_refused(rest: Rest, text: str):
    problem(post(rest, recipe=text), 422)


@pytest.mark.parametrize("deadline", ["2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_a_deadline_must_be_in_the_near_future(rest: Rest, deadline: str):
    found = problem(post(rest, deadline=deadline), 422, "invalid_request")
    assert found["errors"][0]["pointer"] == "/deadline"


def test_the_quota_counts_unfinished_jobs_of_the_team(tmp_path: Path):
    rest = Rest(tmp_path, f"sqlite:///{tmp_path / 'q.db'}", max_active_jobs_per_team=2)
    with rest.client:
        first = rest.submitter.submit()
        rest.submitter.submit()
        answer = post(rest)
        problem(answer, 429, "quota_exceeded")
        assert int(answer.headers["retry-after"]) > 0
        rest.stranger.submit()
        rest.submitter.post(f"/v1/jobs/{first['id']}/cancel")
        rest.submitter.submit()
        problem(rest.submitter.post(f"/v1/jobs/{first['id']}/retry"), 429, "quota_exceeded")
    rest.database.close()


# Idempotency


def test_fifty_at_once_with_one_key_make_one_job(either: Rest):
    gate = threading.Barrier(50)

    def send(_: int) -> Any:
        gate.wait(30)
        return post(either, key="k1")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["id"] for answer in accepted}) == 1
    first = [answer for answer in accepted if "idempotent-replayed" not in answer.headers]
    assert len(first) == 1
    assert count(either) == 1


def test_a_replay_is_the_first_answer_even_if_the_job_moved_on(rest: Rest):
    first = post(rest, key="k")
    rest.submitter.post(f"/v1/jobs/{first.json()['id']}/cancel")
    again = post(rest, key="k")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]


def test_the_same_key_with_another_body_is_refused(rest: Rest):
    post(rest, key="k")
    problem(post(rest, key="k", priority=1), 422, "idempotency_key_reused")
    assert count(rest) == 1


def test_keys_belong_to_a_team(rest: Rest):
    post(rest, key="k")
    body = {"recipe": recipe(), "priority": 2}
    answer = rest.stranger.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202


def test_a_refused_request_uses_no_key_up(rest: Rest):
    problem(post(rest, key="k", recipe=recipe(base="/etc/x")), 403)
    assert post(rest, key="k").status_code == 202


def test_a_key_is_free_again_after_a_day(rest: Rest):
    first = post(rest, key="k").json()
    rest.clock.forward(hours=23)
    assert post(rest, key="k").json() == first
    rest.clock.forward(hours=2)
    assert post(rest, key="k", priority=3).json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é".encode()])
def test_an_unusable_key_is_refused(rest: Rest, key):
    problem(post(rest, key=key), 422, "invalid_request")


def test_a_request_that_died_halfway_blocks_for_a_minute_and_no_longer(either: Rest):
    moment = now()
    keep = timedelta(hours=24)

    def begin(body: str, at: Any) -> Any:
        with either.database.write() as session:
            return idempotency.begin(
                session, "red:POST /x", "k", body_hash=body, moment=at, keep=keep
            )

    assert begin("b" * 64, moment) is None
    with pytest.raises(IdempotencyInFlight):
        begin("b" * 64, moment + timedelta(seconds=59))
    assert begin("b" * 64, moment + timedelta(seconds=61)) is None
    with pytest.raises(IdempotencyInFlight):
        begin("b" * 64, moment + timedelta(seconds=90))
    with either.database.write() as session:
        answer = idempotency.Answer(status=202, headers={"A": "b"}, body={"id": "x"})
        idempotency.finish(session, "red:POST /x", "k", answer)
    assert begin("b" * 64, moment + timedelta(seconds=91)) == answer
    with either.database.read() as session:
        assert len(session.query(IdempotencyRow).all()) == 1


# Lists


def fill(rest: Rest, number: int) -> list[str]:
    """Submit jobs one by one, each a second after the other."""
    made = []
    for index in range(number):
        job = rest.submitter.submit(
            recipe=recipe(output=f"/models/out-{index}"), labels={"n": str(index), "kind": "x"}
        )
        made.append(job["id"])
        rest.clock.forward(seconds=1)
    return made


def everything(rest: Rest, query: str = "", limit: int = 3) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        page = rest.viewer.get(f"/v1/jobs?limit={limit}{query}{cursor}").json()
        found += [job["id"] for job in page["data"]]
        assert len(page["data"]) <= limit
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_pages_are_newest_first_and_stable_while_jobs_come(either: Rest):
    made = fill(either, 8)
    first = either.viewer.get("/v1/jobs?limit=3").json()
    fill(either, 4)
    found = [job["id"] for job in first["data"]]
    cursor = first["next_cursor"]
    while cursor:
        page = either.viewer.get(f"/v1/jobs?limit=3&cursor={cursor}").json()
        found += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert found == made[::-1]


def test_jobs_of_one_moment_are_all_listed_once(either: Rest):
    made = [either.submitter.submit()["id"] for _ in range(7)]
    with either.database.write() as session:
        moment = now()
        for row in session.query(JobRow).all():
            row.created_at = moment
    assert sorted(everything(either, limit=2)) == sorted(made)


def test_filters_narrow_the_list(either: Rest):
    made = fill(either, 4)
    either.lead(made[0], "validating")
    either.submitter.post(f"/v1/jobs/{made[1]}/cancel")
    jobs = {job: either.viewer.get(f"/v1/jobs/{job}").json() for job in made}

    def these(*numbers: int) -> list[str]:
        return [made[n] for n in sorted(numbers, reverse=True)]

    cases = {
        "&state=queued": these(2, 3),
        "&state=validating&state=cancelled": these(0, 1),
        "&label=n=2": these(2),
        "&label=n": these(0, 1, 2, 3),
        "&label=kind=x&label=n=3": these(3),
        "&label=kind=y": [],
        "&base=/models/base": these(0, 1, 2, 3),
        "&base=/models/other": [],
        "&method=task_arithmetic": these(0, 1, 2, 3),
        "&owner=nobody": [],
        "&text=OUT-2": these(2),
        "&text=out_2": [],
        "&text=%25": [],
        "&batch=none": [],
        f"&text={made[3]}": these(3),
        f"&created_after={jobs[made[2]]['created_at']}": these(2, 3),
        f"&created_before={jobs[made[2]]['created_at']}": these(0, 1),
        "&team=blue": [],
    }
    for query, expected in cases.items():
        assert everything(either, query) == expected, query


@pytest.mark.parametrize(
    "query",
    [
        "state=odd",
        "limit=101",
        "cursor=nonsense",
        "cursor=W10",
        "cursor=WyJ4IiwgInkiXQ",
        "created_after=yesterday",
        "created_after=0001-01-01T00:00:00Z",
        "text=" + "x" * 300,
        "text=%00",
    ],
)
def test_an_odd_query_is_a_problem(rest: Rest, query: str):
    problem(rest.viewer.get(f"/v1/jobs?{query}"), 422, "invalid_request")


# One job


def test_an_etag_spares_what_is_known(rest: Rest):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    tag = rest.viewer.get(path).headers["etag"]
    answer = rest.viewer.get(path, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")
    rest.lead(job["id"], "validating")
    answer = rest.viewer.get(path, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag
    for known in (f'"x", {answer.headers["etag"]}', "*"):
        assert rest.viewer.get(path, headers={"If-None-Match": known}).status_code == 304


def test_a_long_poll_answers_when_something_changes(either: Rest):
    job = either.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    timer = threading.Timer(0.3, either.lead, (job["id"], "validating"))
    timer.start()
    known = {"If-None-Match": f'W/"{job["version"]}"'}
    answer = either.viewer.get(f"{path}?wait=20", headers=known)
    timer.join()
    assert answer.json()["state"] == "validating"
    assert answer.elapsed < timedelta(seconds=10)


def test_a_long_poll_answers_at_once_if_it_has_changed_already(rest: Rest):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    tag = rest.viewer.get(path).headers["etag"]
    rest.lead(job["id"], "validating")
    answer = rest.viewer.get(f"{path}?wait=20", headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.elapsed < timedelta(seconds=5)


def test_a_long_poll_shows_a_job_that_is_over_at_once_unless_it_is_known(rest: Rest):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    rest.lead(job["id"], "failed")
    answer = rest.viewer.get(f"{path}?wait=30")
    assert answer.json()["state"] == "failed"
    assert answer.elapsed < timedelta(seconds=15)
    known = {"If-None-Match": answer.headers["etag"]}
    assert rest.viewer.get(f"{path}?wait=0.4", headers=known).status_code == 304


def test_a_long_poll_ends_with_its_time(rest: Rest):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}?wait=0.4"
    tag = rest.viewer.get(f"/v1/jobs/{job['id']}").headers["etag"]
    assert rest.viewer.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert rest.viewer.get(path).json()["state"] == "queued"


def test_labels_and_priority_can_be_changed(either: Rest):
    job = either.submitter.submit(labels={"a": "1", "b": "2"})
    path = f"/v1/jobs/{job['id']}"
    changed = either.submitter.patch(path, json={"labels": {"b": "3"}, "priority": 0})
    assert changed.json()["labels"] == {"b": "3"}
    assert changed.json()["version"] == 2
    assert everything(either, "&label=a") == []
    assert everything(either, "&label=b=3") == [job["id"]]
    assert either.submitter.patch(path, json={}).json()["version"] == 2


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "\x1b[2Ja", "\x7f"])
def test_a_label_of_control_characters_is_refused(either: Rest, value: str):
    job = either.submitter.submit()
    sent = {"labels": {"run": value}}
    for answer in (
        either.submitter.post("/v1/jobs", json={"recipe": recipe(), **sent}),
        either.submitter.patch(f"/v1/jobs/{job['id']}", json=sent),
        either.submitter.post("/v1/batches", json={"recipes": [recipe()], **sent}),
    ):
        assert problem(answer, 422)["errors"][0]["pointer"] == "/labels/run"


def test_a_change_of_what_is_no_longer_so_is_refused(rest: Rest):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    tag = rest.viewer.get(path).headers["etag"]
    rest.lead(job["id"], "validating")
    answer = rest.submitter.patch(path, json={"priority": 1}, headers={"If-Match": tag})
    problem(answer, 412, "precondition_failed")
    for good in ("*", 'W/"2"', '"1", "2"'):
        answer = rest.submitter.patch(path, json={"labels": {}}, headers={"If-Match": good})
        assert answer.status_code in (200, 412)
    assert rest.viewer.get(path).json()["priority"] == job["priority"]


def test_cancelling_a_queued_job_ends_it_at_once(either: Rest):
    job = either.submitter.submit()
    answer = either.submitter.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    again = either.submitter.post(f"/v1/jobs/{job['id']}/cancel")
    assert problem(again, 409, "already_finished")["context"]["state"] == "cancelled"


@pytest.mark.parametrize("states", [["validating"], ["validating", "running"]])
def test_cancelling_a_running_job_is_asked_for_once(rest: Rest, states: list[str]):
    job = rest.submitter.submit()
    rest.lead(job["id"], *states)
    for _ in range(2):
        answer = rest.submitter.post(f"/v1/jobs/{job['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    events = rest.viewer.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [event["data"]["state"] for event in events].count("cancelling") == 1
    assert events[-1]["data"]["by"] == "ann-submitter"


def test_a_retry_is_a_new_attempt_of_the_same_job(either: Rest):
    deadline = (now() + timedelta(hours=1)).isoformat()
    job = either.submitter.submit(deadline=deadline)
    error = {"code": "non_finite", "message": "NaN in a"}
    either.lead(job["id"], "validating")
    either.lead(job["id"], "failed", error=error)
    assert either.viewer.get(f"/v1/jobs/{job['id']}").json()["error"]["code"] == "non_finite"
    either.clock.forward(hours=2)
    again = either.submitter.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["id"], again["state"], again["attempt"]) == (job["id"], "queued", 2)
    assert again["error"] is None
    assert again["deadline"] is None, "or it would expire at once"
    assert set(again["timestamps"]) == {"queued", "validating", "failed"}


@pytest.mark.parametrize("states", [[], ["validating"], ["validating", "succeeded"]])
def test_what_runs_or_succeeded_is_not_tried_again(rest: Rest, states: list[str]):
    job = rest.submitter.submit()
    rest.lead(job["id"], *states)
    answer = rest.submitter.post(f"/v1/jobs/{job['id']}/retry")
    problem(answer, 409, "illegal_transition")


def test_removing_takes_rows_and_workspace(either: Rest):
    job = either.submitter.submit(labels={"a": "b"})
    folder = either.folder / "workspace" / "jobs" / job["id"]
    (folder / "records").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    path = f"/v1/jobs/{job['id']}"
    problem(either.submitter.delete(path), 409, "illegal_transition")
    assert folder.exists()
    either.submitter.post(f"{path}/cancel")
    assert either.submitter.delete(path).status_code == 204
    problem(either.viewer.get(path), 404, "unknown_job")
    problem(either.submitter.delete(path), 404, "unknown_job")
    assert not folder.exists()
    assert everything(either, "&label=a") == []
