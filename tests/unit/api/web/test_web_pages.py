"""Every page: its headers, its markup, what it says when there is nothing, and when it breaks."""

import html
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.routing import iter_route_contexts

from api.db.tables import JobRow
from api.web.pages import POLICY
from fda_core.contract.service import names
from tests.support.dashboard import ROAD, as_text, fda_recipe, put_job, worker_status
from tests.support.models import build_model, save_expert
from tests.support.rest import Rest, recipe
from tests.support.valkey import valkey_server
from tests.support.web import Browser, read

EVIL = "<script>alert(1)</script>\"'&{{7*7}}"
PAGES = ("/", "/jobs", "/jobs/new", "/batches", "/schedules", "/workers")
EMPTY = {
    "/": "No jobs yet",
    "/jobs": "fda submit recipe.yaml",
    "/jobs?text=nothing&state=failed": "No job fits",
    "/batches": "No batches yet",
    "/schedules": "fda schedules create",
}


def batch(rest: Rest, **more: Any) -> str:
    body = {"recipe": recipe(), "sweep": {"method.scale": [0.3, 0.5]}, "output": "/models/{scale}"}
    return str(rest.submitter.post("/v1/batches", json={**body, **more}).json()["id"])


def schedule(rest: Rest, **more: Any) -> str:
    body = {
        "name": "nightly",
        "cron": "30 2 * * *",
        "zone": "Europe/Berlin",
        "batch": {"recipe": recipe(), "output": "/models/{date}"},
        **more,
    }
    return str(rest.submitter.post("/v1/schedules", json=body).json()["id"])


def all_pages(rest: Rest) -> list[str]:
    """Return an address of every page there is, found by walking the routes."""
    job = put_job(rest.database, "running")
    fill = {"job_id": job, "batch_id": batch(rest)}
    schedule(rest)
    found = sorted(
        {
            str(route.path)
            for route in iter_route_contexts(rest.app.routes)
            if "GET" in (route.methods or ())
            and not str(route.path).startswith(("/v1/", "/docs", "/web/", "/openapi"))
            and route.path not in ("/healthz", "/readyz", "/metrics")
        }
    )
    assert set(PAGES) < set(found)
    return [re.sub(r"\{(\w+)\}", lambda name: fill[name[1]], path) for path in found]


def test_every_page_has_the_policy_and_nothing_that_it_forbids(signed_in: Browser, rest: Rest):
    pages = [*all_pages(rest), "/jobs/nothing", "/jobs?state=odd", "/batches/nothing"]
    assert len(pages) >= 12
    for path in pages:
        answer = signed_in.look(path)
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        found = read(answer.text)
        assert found.inline == [], path
        assert sum(tag == "h1" for tag, _ in found.tags) == 1, path
        for tag, attributes in found.tags:
            assert "style" not in attributes, (path, tag)
            assert not [name for name in attributes if name.startswith("on")], (path, tag)
            for name in ("href", "src", "action"):
                assert not (attributes.get(name) or "/").startswith(("http", "//", "data:")), path


def test_every_link_and_file_of_a_page_is_there(signed_in: Browser, rest: Rest):
    links = {
        value.partition("#")[0]
        for path in all_pages(rest)
        for _, attributes in read(signed_in.look(path).text).tags
        for name in ("href", "src")
        if (value := attributes.get(name) or "#").startswith("/")
    }
    assert len(links) > 20
    for link in links - {"/v1/workers", "/v1/queues"}:  # there is no broker here
        assert signed_in.look(link).status_code == 200, link


def test_every_icon_that_is_used_is_drawn(signed_in: Browser, rest: Rest):
    drawn = set(re.findall(r'id="([\w-]+)"', signed_in.look("/web/icons.svg").text))
    used: set[str] = set()
    for state in ROAD:
        job = put_job(rest.database, state)
        used |= set(re.findall(r"icons\.svg#([\w-]+)", signed_in.look(f"/jobs/{job}").text))
    assert {"mark", "failed", "unit-failed", "unit-running"} < used
    assert used <= drawn


def test_files_are_known_to_the_browser_that_has_them(browser: Browser):
    answer = browser.look("/web/app.css")
    assert answer.headers["content-type"].startswith("text/css")
    tag = {"If-None-Match": answer.headers["etag"]}
    assert browser.look("/web/app.css", **tag).status_code == 304
    assert browser.look("/web/nothing.css").status_code == 404
    assert browser.look("/web/..%2fpages.py").status_code == 404


def test_no_file_of_a_page_names_another_host():
    for folder in ("static", "templates"):
        for file in files("api.web").joinpath(folder).iterdir():
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text, file.name
            assert "https:" not in text, file.name
            assert "innerHTML" not in text, file.name
            assert "|safe" not in text, file.name


def test_the_api_document_lists_no_page(rest: Rest):
    paths = rest.nobody.get("/openapi.json").json()["paths"]
    assert not [p for p in paths if not p.startswith(("/v1/", "/healthz", "/readyz", "/metrics"))]


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_page_says_what_to_do(signed_in: Browser, path: str):
    answer = signed_in.look(path)
    assert answer.status_code == 200
    assert EMPTY[path] in answer.text


def test_without_a_broker_pages_say_so_with_code_and_hint(signed_in: Browser, rest: Rest):
    job = put_job(rest.database, "running", with_units=False)
    for path in ("/", "/workers"):
        answer = signed_in.look(path)
        assert answer.status_code == 200
        assert "the broker does not answer" in answer.text
        assert "/docs/errors#not_ready" in answer.text
    assert "Waits for the broker" in signed_in.look(f"/jobs/{job}").text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/jobs/nothing", 404, "unknown_job"),
        ("/jobs/%00", 422, "invalid_request"),
        ("/batches/nothing", 404, "unknown_batch"),
        ("/jobs?state=odd", 422, "invalid_request"),
        ("/jobs?cursor=odd", 422, "invalid_request"),
        ("/jobs/new?like=nothing", 404, "unknown_job"),
    ],
)
def test_an_error_is_a_page_with_code_and_hint(signed_in: Browser, path, status, code):
    answer = signed_in.look(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert f"/docs/errors#{code}" in answer.text
    assert "ann-submitter" in answer.text, "the page still knows who looks"


def test_a_bug_is_a_page_that_tells_nothing_but_the_requests_id(
    signed_in: Browser, rest: Rest, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("secret words")

    monkeypatch.setattr("api.web.overview.look_at_fleet", broken)
    answer = signed_in.look("/")
    assert answer.status_code == 500
    assert "secret words" not in answer.text
    assert answer.headers["x-request-id"] in answer.text
    assert rest.viewer.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("state", ROAD)
def test_a_jobs_page_is_made_for_every_state(signed_in: Browser, rest: Rest, state: str):
    job = put_job(rest.database, state)
    text = signed_in.look(f"/jobs/{job}").text
    assert f"#{state}" in text
    assert ("Cancel…" in text) == (state in ("queued", "validating", "running", "publishing"))
    assert ("Retry…" in text) == (state in ("failed", "cancelled", "expired"))
    assert "fda submit - --url http://testserver" in text
    if state == "failed":
        for words in (
            "out_of_device_memory",
            "Lower construct.microbatch",
            "Traceback",
            "units.py",
        ):
            assert words in text
    if state in ("queued", "validating"):
        assert "Layers appear once" in text


def test_another_teams_things_are_not_there(browser: Browser, rest: Rest):
    job, many = put_job(rest.database, "running"), batch(rest)
    plan = schedule(rest)
    browser.sign_in("stranger")
    for path in (f"/jobs/{job}", f"/batches/{many}", f"/jobs/new?like={job}"):
        assert browser.look(path).status_code == 404, path
    for path in (
        f"/jobs/{job}/cancel",
        f"/jobs/{job}/retry",
        f"/batches/{many}/cancel",
        f"/schedules/{plan}/pause",
        f"/schedules/{plan}/trigger",
    ):
        assert browser.send(path).status_code == 404, path
    for path in ("/", "/jobs", "/batches", "/schedules"):
        text = browser.look(path).text
        assert job not in text
        assert many not in text
        assert plan not in text
    assert rest.viewer.get(f"/v1/jobs/{job}").json()["state"] == "running"


def test_a_viewer_sees_no_buttons_and_cannot_press_them(browser: Browser, rest: Rest):
    running, failed = put_job(rest.database, "running"), put_job(rest.database, "failed")
    plan = schedule(rest)
    browser.sign_in("viewer")
    for path in ("/", f"/jobs/{running}", f"/jobs/{failed}", "/schedules", "/workers"):
        text = browser.look(path).text
        assert "/jobs/new" not in text
        assert re.findall(r'<form method="post" action="([^"]+)"', text) == ["/sign-out"]
    for path in (
        f"/jobs/{running}/cancel",
        f"/jobs/{failed}/retry",
        f"/schedules/{plan}/pause",
        "/queues/cpu/drain",
        "/workers/a/drain",
        "/jobs/new",
    ):
        answer = browser.send(path, recipe=as_text(recipe()))
        assert (answer.status_code, "not_allowed" in answer.text) == (403, True), path


def test_what_people_write_is_shown_and_never_done(signed_in: Browser, rest: Rest):
    document = {**fda_recipe(f"/models/{EVIL}"), "base": f"/models/{EVIL}"}
    document["experts"][0]["name"] = "one"
    made = [
        put_job(rest.database, state, recipe=document, labels={"a": EVIL}, owner=EVIL)
        for state in ("running", "failed")
    ]
    with rest.database.write() as session:
        row = session.get_one(JobRow, made[1])
        row.error = {**(row.error or {}), "message": EVIL, "hint": EVIL, "trace": EVIL}
    batch(rest, name=EVIL)
    schedule(rest, name=EVIL)
    seen = 0
    for path in ("/", "/jobs", *(f"/jobs/{job}" for job in made), "/batches", "/schedules"):
        text = signed_in.look(path).text
        assert "<script>alert" not in text, path
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text, path
        assert "{{7*7}}" in text, path
        seen += 1
    assert seen == 6
    assert EVIL.split('"')[0] not in signed_in.look(f"/jobs?text={EVIL}").text
    assert "<script>alert" not in signed_in.look(f"/jobs/{EVIL.replace('/', '')}").text
    assert "<script>alert" not in signed_in.look(f"/sign-in?next=/{EVIL}").text


def test_the_search_understands_words_and_keeps_filters_in_the_address(
    signed_in: Browser, rest: Rest
):
    one = put_job(rest.database, "failed", output="/models/alpha", labels={"run": "7"})
    two = put_job(rest.database, "running", output="/models/beta")

    def found(query: str) -> set[str]:
        text = signed_in.look(f"/jobs?{query}").text
        return {job for job in (one, two) if f'data-job="{job}"' in text}

    assert found("") == {one, two}
    assert found("text=alpha") == {one}
    assert found("text=state:running") == {two}
    assert found("text=tag:run=7+method:fda") == {one}
    assert found("text=method:ties") == set()
    assert found("text=owner:ann&state=failed&state=queued") == {one}
    assert found("text=+++") == {one, two}
    for search in ("text=alpha", "text=tag:run=7+method:fda", "text=owner:ann&state=failed"):
        page = signed_in.look(f"/jobs?{search}").text
        address = html.unescape(re.search(r'data-list="([^"]+)"', page)[1])
        answer = signed_in.look(address).json()
        assert {job["id"] for job in answer["data"]} == found(search), address
    chips = signed_in.look("/jobs?state=failed&text=a").text
    assert 'href="/jobs?text=a"' in chips, "the chip of a chosen state takes it away"
    assert 'href="/jobs?state=failed&amp;state=running&amp;text=a"' in chips


def test_the_list_goes_on_by_keys_that_new_jobs_do_not_shift(signed_in: Browser, rest: Rest):
    made = [put_job(rest.database, "queued") for _ in range(27)]
    first = signed_in.look("/jobs").text
    older = re.search(r'href="(/jobs\?cursor=[^"]+)" rel="next"', first)
    assert older is not None
    put_job(rest.database, "queued")
    second = signed_in.look(older[1]).text
    seen = re.findall(r'data-job="([^"]+)"', first + second)
    assert sorted(seen) == sorted(made)
    assert "These are all." in second


def test_cancelling_and_retrying_by_their_forms(signed_in: Browser, rest: Rest):
    job = put_job(rest.database, "running")
    answer = signed_in.send(f"/jobs/{job}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}")
    assert rest.viewer.get(f"/v1/jobs/{job}").json()["state"] == "cancelling"
    refused = signed_in.send(f"/jobs/{job}/retry")
    assert refused.status_code == 409
    assert "illegal_transition" in refused.text
    rest.lead(job, "cancelled")
    assert signed_in.send(f"/jobs/{job}/retry").status_code == 303
    assert rest.viewer.get(f"/v1/jobs/{job}").json()["attempt"] == 2


def test_a_new_job_is_made_once_however_often_its_button_is_pressed(signed_in: Browser, rest: Rest):
    page = signed_in.look("/jobs/new").text
    once = re.search(r'name="once" value="(\w+)"', page)
    assert once is not None
    fields = {
        "recipe": as_text(recipe()),
        "labels": "run=7\r\npurpose=a test\r\n",
        "priority": "9",
        "once": once[1],
        "act": "submit",
    }
    answers = [signed_in.send("/jobs/new", **fields) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["location"] for answer in answers}) == 1
    (job,) = rest.viewer.get("/v1/jobs").json()["data"]
    assert (job["labels"], job["priority"]) == ({"run": "7", "purpose": "a test"}, 9)
    like = signed_in.look(f"/jobs/new?like={job['id']}").text
    assert "purpose=a test" in like
    assert 'value="9" selected' in like


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"recipe": ""}, "invalid_request", "the recipe is empty"),
        ({"recipe": "a: ["}, "", "recipe"),
        ({"recipe": as_text({**recipe(), "methud": 1})}, "", "methud"),
        ({"recipe": as_text(recipe(output="/elsewhere"))}, "forbidden", "outside the storage"),
        ({"labels": "odd"}, "invalid_request", "has no ="),
        ({"labels": "-=x"}, "", "labels"),
        ({"priority": "11"}, "invalid_request", "is no priority"),
        ({"act": "plan"}, "", "base"),
    ],
)
def test_a_refused_job_leaves_what_was_typed(signed_in: Browser, rest: Rest, fields, code, words):
    sent = {"recipe": as_text(recipe()), "labels": "", "priority": "4", "act": "submit", **fields}
    answer = signed_in.send("/jobs/new", **sent)
    assert 400 <= answer.status_code < 500
    assert 'role="alert"' in answer.text
    assert f"/docs/errors#{code}" in answer.text
    assert words in answer.text
    if sent["recipe"]:
        typed = re.search(r"<textarea id=\"recipe\".*?>([^<]*)</textarea>", answer.text, re.S)
        assert typed is not None
        assert typed[1].replace("&#34;", '"') == sent["recipe"]
    assert rest.viewer.get("/v1/jobs").json()["data"] == []


def test_the_preview_of_a_plan_shows_what_it_takes_and_queues_nothing(
    signed_in: Browser, rest: Rest
):
    storage = rest.folder / "storage"
    torch.manual_seed(0)
    base = build_model("bert")
    base.save_pretrained(storage / "base")
    save_expert(base, storage / "a", seed=1)
    save_expert(base, storage / "b", seed=2)
    document = {
        "base": str(storage / "base"),
        "experts": [{"name": name, "model": str(storage / name)} for name in "ab"],
        "method": "fda",
        "output": str(storage / "merged"),
    }
    answer = signed_in.send("/jobs/new", recipe=as_text(document), priority="4", act="plan")
    assert answer.status_code == 200, answer.text
    assert "What it takes" in answer.text
    assert re.search(r"<dd>bert, \d+ layers, width \d+</dd>", answer.text)
    assert "not known: no such unit was done here yet" in answer.text
    assert "construct:" in answer.text, "the resolved recipe has the defaults"
    assert rest.viewer.get("/v1/jobs").json()["data"] == []


def test_schedules_tell_five_fires_in_words_and_take_orders(signed_in: Browser, rest: Rest):
    plan = schedule(rest)
    text = signed_in.look("/schedules").text
    fires = re.findall(r"<li>((?:today|tomorrow|\w{3} \d+ \w{3}(?: \d{4})?) 02:30) ", text)
    assert len(fires) == 5
    assert "Pause" in text
    assert signed_in.send(f"/schedules/{plan}/pause").status_code == 303
    paused = signed_in.look("/schedules").text
    assert "Fires nothing until it is resumed" in paused
    assert signed_in.send(f"/schedules/{plan}/resume").status_code == 303
    once = re.search(r'name="once" value="(\w+)"', text)
    assert once is not None
    places = {
        signed_in.send(f"/schedules/{plan}/trigger", once=once[1]).headers["location"]
        for _ in range(2)
    }
    assert len(places) == 1
    assert signed_in.look(places.pop()).status_code == 200
    assert len(rest.viewer.get("/v1/batches").json()["data"]) == 1


def test_a_batch_compares_its_jobs_by_what_was_swept(signed_in: Browser, rest: Rest):
    many = batch(rest, name="scales")
    text = signed_in.look(f"/batches/{many}").text
    assert '<th scope="col"><code>method.scale</code></th>' in text
    assert re.findall(r'<td class="number">(0\.[35])</td>', text) == ["0.3", "0.5"]
    assert "scales" in signed_in.look("/batches").text
    assert signed_in.send(f"/batches/{many}/cancel").status_code == 303
    again = signed_in.send(f"/batches/{many}/cancel")
    assert (again.status_code, "batch_over" in again.text) == (409, True)


@pytest.fixture
def with_broker(tmp_path: Path) -> Iterator[Rest]:
    with valkey_server() as server, server.connect() as redis:
        status = worker_status("box", at=time.time())
        redis.set(names.worker("box-4711-abcd"), status)
        made = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}", redis=redis)
        with made.client:
            yield made
        made.database.close()


def test_admins_drain_workers_and_queues(with_broker: Rest):
    browser = Browser(with_broker)
    submitter = browser.sign_in("submitter").look("/workers").text
    assert "NVIDIA H100" in submitter
    assert "Drain…" not in submitter
    browser.sign_in("admin")
    assert "Drain…" in browser.look("/workers").text
    assert browser.send("/workers/box-4711-abcd/drain").status_code == 303
    assert browser.send("/queues/gpu/drain", draining="yes").status_code == 303
    text = browser.look("/workers").text
    assert "told to end" in text
    assert "Open gpu" in text
    assert browser.send("/queues/gpu/drain", draining="no").status_code == 303
    assert "Open gpu" not in browser.look("/workers").text
    assert browser.send("/workers/none/drain").status_code == 404
