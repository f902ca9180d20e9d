"""Facts about all routes at once, walked so that a new one cannot escape them."""

import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from tests.support.rest import Rest, problem, recipe

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/sign-in", "/sign-out", "/web/{name}"}
"""Signing in is open; signing out forgets a cookie; files of pages are everybody's."""
VIEWERS_MAY_POST = {"/v1/plans"}

OPERATIONS = {
    "submit_job",
    "list_jobs",
    "get_job",
    "update_job",
    "cancel_job",
    "retry_job",
    "delete_job",
    "list_units",
    "list_attempts",
    "list_logs",
    "get_job_metrics",
    "list_events",
    "list_artifacts",
    "get_file",
    "head_file",
    "make_plan",
    "list_methods",
    "get_method",
    "list_workers",
    "drain_worker",
    "list_queues",
    "drain_queue",
    "open_queue",
    "list_anchors",
    "delete_anchors",
    "create_key",
    "list_keys",
    "get_key",
    "update_key",
    "revoke_key",
    "get_health",
    "get_readiness",
    "get_metrics",
}


def routes(rest: Rest) -> list[tuple[str, str]]:
    """Return every (method, path template)."""
    return sorted(
        (method, str(route.path))
        for route in iter_route_contexts(rest.app.routes)
        for method in route.methods or ()
    )


def filled(path: str, **values: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: values.get(found[1], "abc"), path)


def with_keys(rest: Rest) -> list[tuple[str, str]]:
    return [
        (method, path)
        for method, path in routes(rest)
        if path.startswith("/v1/") and not path.startswith("/v1/files/")
    ]


def body_of(path: str) -> dict[str, Any]:
    return {"recipe": recipe()} if path in ("/v1/jobs", "/v1/plans") else {}


def test_no_route_is_open_but_those_meant_to_be(rest: Rest):
    found = routes(rest)
    assert len(found) > 30
    for method, path in found:
        if path in OPEN or path.startswith(("/docs", "/v1/files/")):
            continue
        answer = rest.nobody.request(
            method, filled(path), json=body_of(path), follow_redirects=False
        )
        if not path.startswith("/v1/"):  # a page: it needs a session
            assert (answer.status_code, answer.content) == (303, b""), path
            assert answer.headers["location"].startswith("/sign-in"), path
            continue
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("key", ["fda_", "fda_" + "x" * 43, "other", "fda_\u00e9"])
def test_a_wrong_key_opens_nothing(rest: Rest, key: str):
    headers = {"Authorization": f"Bearer {key}".encode()}
    for method, path in with_keys(rest):
        problem(rest.nobody.request(method, filled(path), json={}, headers=headers), 401)


def test_a_viewer_changes_nothing(rest: Rest):
    job = rest.submitter.submit()
    for method, path in with_keys(rest):
        if method == "GET" or path in VIEWERS_MAY_POST:
            continue
        answer = rest.viewer.request(method, filled(path, job_id=job["id"]), json=body_of(path))
        problem(answer, 403, "not_allowed")
    assert rest.viewer.get(f"/v1/jobs/{job['id']}").json()["version"] == 1


def test_a_submitter_administers_nothing(rest: Rest):
    for method, path in with_keys(rest):
        if path.startswith("/v1/keys") or (
            method != "GET" and path.startswith(("/v1/workers", "/v1/queues", "/v1/anchors"))
        ):
            body = {"name": "a", "role": "viewer", "owner": "a", "team": "a"}
            answer = rest.submitter.request(method, filled(path, key="a" * 16), json=body)
            problem(answer, 403, "not_allowed")


def test_another_teams_job_is_not_there_on_any_route(rest: Rest):
    job = rest.submitter.submit()
    seen = 0
    for method, path in with_keys(rest):
        if "{job_id}" not in path:
            continue
        theirs = rest.stranger.request(method, filled(path, job_id=job["id"]), json={})
        none = rest.stranger.request(method, filled(path, job_id="0" * 36), json={})
        assert problem(theirs, 404, "unknown_job")["hint"] == problem(none, 404)["hint"]
        seen += 1
    assert seen >= 11
    stream = {"Accept": "text/event-stream"}
    problem(rest.stranger.get(f"/v1/jobs/{job['id']}/events", headers=stream), 404)
    assert rest.stranger.get("/v1/jobs").json()["data"] == []
    assert rest.stranger.get("/v1/jobs?team=red").json()["data"] == []
    assert rest.admin.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_an_unknown_id_is_a_problem_on_every_route(rest: Rest):
    for method, path in with_keys(rest):
        if "{" not in path:
            continue
        for value in ("nothing", "%00", "a" * 300, "..%2f..", "%F0%9F%98%80"):
            answer = rest.admin.request(method, re.sub(r"\{\w+\}", value, path), json=body_of(path))
            assert answer.status_code in (404, 405, 422, 503), (method, path, answer.text)
            problem(answer, answer.status_code)


def test_operation_ids_are_those_clients_were_generated_from(rest: Rest):
    document = rest.nobody.get("/openapi.json").json()
    found = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert len(found) == len(set(found))
    assert set(found) >= OPERATIONS


def test_the_document_declares_errors_with_examples_and_the_key(rest: Rest):
    document = rest.nobody.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert set(document["components"]["schemas"]["Problem"]["properties"]) >= {"code", "errors"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, item in document["paths"].items():
        for operation in item.values():
            statuses = operation["responses"]
            for status, answer in statuses.items():
                if int(status) >= 400:
                    content = answer["content"]
                    assert list(content) == ["application/problem+json"], (path, status)
                    assert content["application/problem+json"]["example"]["status"] == int(status)
            if path.startswith("/v1/") and not path.startswith("/v1/files"):
                assert {"401", "403", "500", "503"} <= set(statuses), path
                assert operation["security"] == [{"ApiKey": []}]
            if "{job_id}" in path:
                assert "404" in statuses


def test_the_documentation_needs_no_other_host(rest: Rest):
    page = rest.nobody.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="(/[^"]+|[a-z]+:[^",]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/docs/static/")
        assert rest.nobody.get(link).status_code == 200
    problem(rest.nobody.get("/docs/static/nothing.js"), 404)
