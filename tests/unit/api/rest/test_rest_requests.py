"""What every answer carries: the request's id and its trace."""

import re
import sqlite3

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from api.db.tables import JobRow
from api.requests import continued_trace
from tests.support.rest import Rest, problem, recipe

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_callers_request_id_comes_back(rest: Rest):
    answer = rest.nobody.get("/healthz", headers={"X-Request-Id": "my-id.7"})
    assert answer.headers["x-request-id"] == "my-id.7"


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "é".encode(), "a;b", ""])
def test_an_unusable_request_id_is_replaced(rest: Rest, bad):
    answer = rest.nobody.get("/healthz", headers={"X-Request-Id": bad})
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])


def test_a_trace_is_continued_and_kept_with_the_job(rest: Rest):
    body = {"recipe": recipe()}
    answer = rest.submitter.post("/v1/jobs", json=body, headers={"traceparent": TRACE})
    sent = answer.headers["traceparent"]
    assert sent.split("-")[1] == TRACE.split("-")[1]
    assert sent.split("-")[2] != TRACE.split("-")[2]
    with rest.database.read() as session:
        row = session.get_one(JobRow, answer.json()["id"])
    assert row.trace["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert row.request_id == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "bad",
    [None, "", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE.upper(), "ff" + TRACE[2:], "x"],
)
def test_an_unusable_trace_is_replaced(bad):
    made = continued_trace(bad)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", made)
    assert made.split("-")[1] not in (bad or "")


def test_requests_are_counted_by_route_and_status(rest: Rest):
    job = rest.submitter.submit()
    rest.viewer.get(f"/v1/jobs/{job['id']}")
    rest.viewer.get("/v1/jobs/nothing-like-it")
    text = rest.nobody.get("/metrics").text
    for status in (200, 404):
        assert (
            f'fda_http_requests_total{{method="GET",route="/v1/jobs/{{job_id}}",status="{status}"}}'
            " 1.0" in text
        )
    assert 'fda_jobs{state="queued"} 1.0' in text
    assert "fda_broker_up 0.0" in text


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("database or disk is full", "the database's disk is full"),
        ("connection refused", "the database does not answer"),
    ],
)
def test_a_database_that_fails_is_no_bug_of_ours(rest: Rest, says: str, told: str):
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError(says))

    event.listen(rest.database.engine, "before_cursor_execute", fail)
    answer = rest.submitter.post("/v1/jobs", json={"recipe": recipe()})
    event.remove(rest.database.engine, "before_cursor_execute", fail)
    found = problem(answer, 503, "not_ready")
    assert found["detail"] == told
    assert int(answer.headers["Retry-After"]) > 0
    assert rest.submitter.submit()["state"] == "queued"
