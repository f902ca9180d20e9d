"""Every error class has a status, and all problems have one shape without internals."""

import json
from collections.abc import Iterator

import pytest

from api import errors as http_errors
from api.errors import STATUSES, status_of
from api.problems import problem_of, problem_response
from fda_core import errors
from tests.support.rest import PROBLEM_KEYS, Rest, problem, recipe


def _classes(root: type = errors.FdaError) -> Iterator[type[errors.FdaError]]:
    for kind in root.__subclasses__():
        if kind.__module__ in (errors.__name__, http_errors.__name__):
            yield kind
            yield from _classes(kind)


ALL = sorted(set(_classes()), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL)
def test_every_class_has_a_status_and_a_problem(kind):
    assert any(issubclass(kind, branch) for branch in STATUSES), "add its branch to STATUSES"
    error = kind("what", hint="do this", name="a")
    answer = problem_response(error, path="/v1/x", request_id="r1")
    assert answer.status_code == status_of(kind)
    assert set(problem_of(error, path="/v1/x", request_id="r1").model_dump()) == PROBLEM_KEYS


def test_codes_are_unique_over_both_trees():
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)


def test_statuses_are_those_promised():
    promised = {
        errors.RecipeError: 422,
        errors.UnknownKey: 422,
        errors.OutputExists: 409,
        errors.ShapeMismatch: 422,
        errors.StorageError: 502,
        errors.NotFound: 422,
        errors.Forbidden: 403,
        errors.Unavailable: 503,
        errors.NonFinite: 422,
        errors.OutOfDisk: 507,
        errors.WorkerDied: 503,
        errors.UnknownJob: 404,
        errors.IllegalTransition: 409,
        errors.AlreadyFinished: 409,
        errors.InternalError: 500,
        http_errors.Unauthorized: 401,
        http_errors.NotAllowed: 403,
        http_errors.PreconditionFailed: 412,
        http_errors.QuotaExceeded: 429,
        http_errors.IdempotencyConflict: 422,
        http_errors.IdempotencyInFlight: 409,
    }
    assert {kind: status_of(kind) for kind in promised} == promised


def test_our_own_bugs_tell_nothing_but_the_request():
    error = errors.InternalError("record of /secret/place is odd", hint="look there", at="/secret")
    told = problem_of(error, path="/v1/x", request_id="r1").model_dump_json()
    assert "secret" not in told
    assert "r1" in told


def test_a_bug_in_a_route_is_a_problem(rest: Rest, monkeypatch):
    def broken(*_args, **_more):
        raise ZeroDivisionError("the password is open sesame")

    monkeypatch.setattr("api.jobs.service.find_many", broken)
    found = problem(rest.viewer.get("/v1/jobs"), 500, "internal_error")
    assert "sesame" not in str(found)


def test_every_code_is_explained_where_its_type_leads(rest: Rest):
    page = rest.nobody.get("/docs/errors").text
    for kind in ALL:
        assert f'id="{kind.code}"' in page


def test_validation_problems_have_json_pointers(rest: Rest):
    body = {"recipe": {}, "priority": 12, "labels": {"a/b": "x" * 300}, "wrong": 1}
    found = problem(rest.submitter.post("/v1/jobs", json=body), 422, "invalid_request")
    pointers = {item["pointer"] for item in found["errors"]}
    assert pointers == {"/priority", "/labels/a~1b", "/wrong"}
    found = problem(rest.viewer.get("/v1/jobs?limit=0"), 422, "invalid_request")
    assert [item["pointer"] for item in found["errors"]] == ["limit"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(rest: Rest, body: bytes):
    headers = {"Content-Type": "application/json"}
    problem(rest.submitter.post("/v1/jobs", content=body, headers=headers), 422)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_said_to_be_json_names_the_header(rest: Rest, kind: str):
    body = json.dumps({"recipe": recipe()})
    answer = rest.submitter.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    found = problem(answer, 422, "invalid_request")
    assert "Content-Type: application/json" in found["hint"]
    assert [item["code"] for item in found["errors"]] == ["content_type"]


def test_an_unknown_parameter_is_refused_with_the_nearest_known(rest: Rest):
    job = rest.submitter.submit()
    found = problem(rest.viewer.get("/v1/jobs?sate=failed&limit=5"), 422, "invalid_request")
    assert found["hint"].startswith("Did you mean 'state'?")
    assert [item["pointer"] for item in found["errors"]] == ["sate"]
    for path in (f"/v1/jobs/{job['id']}?wiat=1", "/v1/schedules?page=2", "/v1/batches?text=x"):
        problem(rest.viewer.get(path), 422, "invalid_request")
    answer = rest.submitter.delete(f"/v1/jobs/{job['id']}?outputs=true")
    problem(answer, 422, "invalid_request")
    assert rest.viewer.get("/v1/jobs?label=a&label=b&limit=5").status_code == 200


def test_any_list_may_be_asked_for_in_pages(rest: Rest):
    paths = ("jobs", "batches", "schedules", "webhooks", "methods", "anchors")
    for path in (*paths, f"jobs/{rest.submitter.submit()['id']}/artifacts"):
        answer = rest.viewer.get(f"/v1/{path}?limit=100")
        assert answer.status_code == 200, answer.text


def test_a_large_body_is_refused_unread(rest: Rest):
    body = b" " * (3 * 2**20)
    headers = {"Content-Type": "application/json"}
    answer = rest.submitter.post("/v1/jobs", content=body, headers=headers)
    problem(answer, 413, "body_too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * 2**20

    answer = rest.submitter.post("/v1/jobs", content=pieces(), headers=headers)
    problem(answer, 413, "body_too_large")


def test_an_unknown_path_is_a_problem(rest: Rest):
    problem(rest.nobody.get("/v1/nothing"), 404, "unknown_route")
    problem(rest.nobody.get("/v1/jobs/"), 404, "unknown_route")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/jobs", "GET, POST"),
        ("/v1/jobs/01930a5e", "DELETE, GET, PATCH"),
        ("/v1/queues/cpu/drain", "DELETE, POST"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_lists_all_that_the_path_takes(rest: Rest, path: str, allow: str):
    answer = rest.nobody.request("PUT", path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/docs", "/openapi.json"])
def test_what_monitors_poll_answers_head_as_get_without_the_body(rest: Rest, path: str):
    answer, got = rest.nobody.request("HEAD", path), rest.nobody.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == got.headers["content-type"]
    assert rest.nobody.request("HEAD", "/readyz").status_code == 503
    assert "head" not in rest.app.openapi()["paths"].get(path, {})
