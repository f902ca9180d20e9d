"""Webhooks over REST, and the outbox."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from api.db.session import Database
from api.db.tables import DeliveryRow, JobRow, WebhookRow
from api.jobs.transitions import move
from api.webhooks import repository
from api.webhooks.routes import router
from api.webhooks.service import WebhookService
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.states import JobState
from tests.support.stand_ins import GATE, Caller, client_of, recipe, submit

URL = "https://example.org/hook"
BLUE = {"Authorization": "bob/blue/submitter"}


@pytest.fixture
def client(either: Database) -> TestClient:
    return client_of(router(GATE, WebhookService(either, allow_private=False)))


def rows(database: Database) -> list[DeliveryRow]:
    with database.read() as session:
        return list(session.query(DeliveryRow).order_by(DeliveryRow.webhook_id))


Finish = Callable[..., str]


@pytest.fixture
def finish(either: Database) -> Finish:
    """Submit a job and lead it to a state, announcing every one on the way."""

    def finished(*states: str, team: str = "red", webhook: object = None) -> str:
        request = JobRequest.model_validate({"recipe": recipe(), "webhook": webhook})
        with either.write() as session:
            job = submit(session, request, Caller(team=team), None, None)
        for state in states:
            with either.write() as session:
                assert move(session, job, JobState(state))
        return job

    return finished


def test_a_secret_is_shown_once(client: TestClient, either: Database):
    made = client.post("/v1/webhooks", json={"url": URL})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    assert len(secret) == len("whsec_") + 44
    shown = client.get(f"/v1/webhooks/{made.json()['id']}").json()
    assert shown["secret"] is None
    assert secret not in client.get("/v1/webhooks").text
    with either.read() as session:
        assert session.query(WebhookRow).one().secret == secret


def test_a_repeated_request_makes_one_webhook_and_keeps_no_secret_twice(
    client: TestClient, either: Database
):
    first, second = (
        client.post("/v1/webhooks", json={"url": URL}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    assert second.json()["secret"] is None
    with either.read() as session:
        assert session.query(WebhookRow).count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {"url": "http://example.org/"},
        {"url": "https://127.0.0.1/"},
        {"url": URL, "events": []},
        {"url": URL, "events": ["job.exploded"]},
    ],
)
def test_bad_webhooks_are_refused(client: TestClient, body: object):
    assert client.post("/v1/webhooks", json=body).status_code == 422
    good = client.post("/v1/webhooks", json={"url": URL}).json()
    assert client.patch(f"/v1/webhooks/{good['id']}", json=body).status_code == 422


def test_other_teams_see_nothing(client: TestClient):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    sent = client.post(f"{path}/test").json()["id"]
    assert client.get(path, headers=BLUE).json()["code"] == "unknown_webhook"
    assert client.get("/v1/webhooks", headers=BLUE).json()["data"] == []
    for method, tail in [
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{sent}/redeliver"),
    ]:
        body = {"json": {}} if method == "PATCH" else {}
        assert client.request(method, path + tail, headers=BLUE, **body).status_code == 404


def test_only_events_asked_for_are_announced_and_only_to_the_team(
    client: TestClient, either: Database, finish: Finish
):
    ended = client.post("/v1/webhooks", json={"url": URL}).json()["id"]
    begun = client.post("/v1/webhooks", json={"url": URL, "events": ["job.running"]}).json()["id"]
    client.post("/v1/webhooks", json={"url": URL}, headers=BLUE)
    job = finish("validating", "running", "publishing", "succeeded")
    found = {(row.webhook_id, row.type) for row in rows(either)}
    assert found == {(ended, "job.succeeded"), (begun, "job.running")}
    told = next(row for row in rows(either) if row.type == "job.succeeded").payload
    assert told["type"] == "job.succeeded"
    assert told["data"]["id"] == job
    assert told["data"]["state"] == "succeeded"
    assert set(told["data"]["timestamps"]) >= {"running", "succeeded"}


def test_a_jobs_own_webhook_is_told_too(either: Database, finish: Finish):
    job = finish("failed", webhook={"url": URL, "events": ["job.failed"]})
    (row,) = rows(either)
    assert (row.webhook_id, row.job_id, row.url, row.type) == (None, job, URL, "job.failed")


def test_what_is_rolled_back_is_not_told(either: Database, finish: Finish):
    job = finish(webhook={"url": URL})
    with either.write() as session:
        move(session, job, JobState.FAILED)
        session.flush()
        assert session.query(DeliveryRow).count() == 1
        session.rollback()
    assert rows(either) == []
    with either.read() as session:
        assert session.get_one(JobRow, job).state == "queued"


def test_switched_off_webhooks_are_not_told_and_what_waits_is_cancelled(
    client: TestClient, either: Database, finish: Finish
):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    finish("failed")
    off = client.patch(path, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "switched off by ann")
    finish("failed")
    assert [row.state for row in rows(either)] == ["cancelled"]
    refused = client.post(f"{path}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    on = client.patch(path, json={"enabled": True}).json()
    assert (on["enabled"], on["disabled_reason"]) == (True, None)
    assert client.post(f"{path}/test").status_code == 202


def test_a_new_address_counts_for_what_still_waits(client: TestClient, either: Database):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    client.post(f"{path}/test")
    client.patch(path, json={"url": "https://example.com/new"})
    assert [row.url for row in rows(either)] == ["https://example.com/new"]


def test_deleting_a_webhook_cancels_what_waits(client: TestClient, either: Database):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    client.post(f"{path}/test")
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert [row.state for row in rows(either)] == ["cancelled"]


def test_old_deliveries_are_forgotten_but_not_those_that_wait(client: TestClient, either: Database):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    done, waits = (client.post(f"{path}/test").json()["id"] for _ in range(2))
    with either.write() as session:
        session.get_one(DeliveryRow, done).state = "delivered"
        session.flush()
        later = datetime.now(UTC) + timedelta(seconds=1)
        assert repository.sweep(session, before=later - timedelta(hours=1)) == 0
        assert repository.sweep(session, before=later) == 1
    assert [row.id for row in rows(either)] == [waits]


@pytest.mark.parametrize("odd", ["a%00b", "%20", "x" * 65, "a.b"])
def test_odd_ids_are_refused_before_the_database_sees_them(client: TestClient, odd: str):
    for path in (f"/v1/webhooks/{odd}", f"/v1/webhooks?cursor={odd}"):
        assert client.get(path).status_code == 422


def test_a_delivery_can_be_sent_again(client: TestClient, either: Database):
    path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': URL}).json()['id']}"
    sent = client.post(f"{path}/test").json()
    with either.write() as session:
        row = session.get_one(DeliveryRow, sent["id"])
        row.state, row.tries, row.next_try_at = "failed", 8, None
    failed = client.get(f"{path}/deliveries", params={"state": "failed"}).json()["data"]
    assert [delivery["tries"] for delivery in failed] == [8]
    again = client.post(f"{path}/deliveries/{sent['id']}/redeliver").json()
    assert (again["id"], again["state"], again["tries"]) == (sent["id"], "waiting", 0)
    assert datetime.fromisoformat(again["next_try_at"]) <= datetime.now(UTC)
    missing = client.post(f"{path}/deliveries/msg_0/redeliver")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_delivery")
