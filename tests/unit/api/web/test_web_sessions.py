"""Signing in, sessions, and where requests that change something may come from."""

from typing import Any

import pytest

from api.auth.sessions import COOKIE, LASTS
from api.web.signing_in import place
from tests.support.dashboard import put_job
from tests.support.rest import Rest, problem, recipe
from tests.support.web import Browser


def cookie_of(answer: Any) -> str:
    return str(answer.headers["set-cookie"])


def test_a_key_opens_a_session_whose_cookie_scripts_and_other_sites_cannot_use(
    browser: Browser, rest: Rest
):
    answer = browser.send("/sign-in", key=f"  {rest.keys['viewer']}\n", next="/jobs?state=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=failed")
    cookie = cookie_of(answer)
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert rest.keys["viewer"] not in cookie
    assert rest.keys["viewer"][4:] not in cookie
    assert browser.look("/").status_code == 200
    assert rest.client.get("/v1/jobs").status_code == 200


def test_the_cookie_is_for_https_only_where_the_service_is(tmp_path, rest: Rest):
    secure = Rest(tmp_path / "b", rest.settings.database_url, public_url="https://fda.example")
    with secure.client:
        browser = Browser(secure)
        answer = browser.send(
            "/sign-in", headers={"Origin": "https://fda.example"}, key=secure.keys["viewer"]
        )
    assert "Secure" in cookie_of(answer)
    assert "Secure" not in cookie_of(Browser(rest).send("/sign-in", key=rest.keys["viewer"]))
    secure.database.close()


@pytest.mark.parametrize("key", ["", "fda_", "fda_wrong", "é\x00", "x" * 9000])
def test_a_wrong_key_is_told_with_code_and_hint_and_opens_nothing(browser: Browser, key: str):
    answer = browser.send("/sign-in", key=key)
    assert answer.status_code == 401
    assert "unauthorized" in answer.text
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers
    if len(key) > 5:
        assert key not in answer.text


def test_pages_lead_to_signing_in_and_back(browser: Browser):
    answer = browser.look("/jobs?state=failed&text=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fjobs%3Fstate%3Dfailed%26text%3Da%2526b"
    shown = browser.look(answer.headers["location"])
    assert 'value="/jobs?state=failed&amp;text=a%26b"' in shown.text


@pytest.mark.parametrize(
    "next_",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:1", "", "/sign-out"],
)
def test_signing_in_leads_nowhere_else(browser: Browser, rest: Rest, next_: str):
    assert place(next_) == "/"
    answer = browser.send("/sign-in", key=rest.keys["viewer"], next=next_)
    assert answer.headers["location"] == "/"


def test_a_link_on_another_site_is_followed_by_whoever_is_signed_in(signed_in: Browser):
    """A strict cookie is left out at first: the page asks again from here."""
    signed_in.client.cookies.clear()
    answer = signed_in.look("/jobs?text=a", **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/jobs?text=a">' in answer.text
    again = signed_in.look("/jobs?text=a", **{"Sec-Fetch-Site": "same-origin"})
    assert again.status_code == 303


def test_a_revoked_key_ends_its_sessions_at_once(signed_in: Browser, rest: Rest):
    assert signed_in.look("/").status_code == 200
    keys = rest.admin.get("/v1/keys").json()["data"]
    key_id = next(key["id"] for key in keys if key["name"] == "submitter of red")
    assert rest.admin.delete(f"/v1/keys/{key_id}").status_code == 204
    assert signed_in.look("/").headers["location"] == "/sign-in"
    problem(rest.client.get("/v1/jobs"), 401, "unauthorized")


def test_a_session_ends_in_time_and_by_signing_out(signed_in: Browser, rest: Rest):
    rest.clock.forward(seconds=LASTS.total_seconds() - 60)
    assert signed_in.look("/").status_code == 200
    rest.clock.forward(seconds=61)
    assert signed_in.look("/").status_code == 303
    signed_in.sign_in()
    assert signed_in.send("/sign-out").headers["location"] == "/sign-in"
    assert signed_in.look("/").status_code == 303


def test_a_changed_cookie_is_no_session(signed_in: Browser, rest: Rest):
    good = signed_in.client.cookies[COOKIE]
    key_id, until, signature = good.split(".")
    keys = rest.admin.get("/v1/keys").json()["data"]
    admin_id = next(key["id"] for key in keys if key["role"] == "admin")
    forged = [
        f"{admin_id}.{until}.{signature}",
        f"{key_id}.{int(until) + 1}.{signature}",
        f"{key_id}.{until}.{'0' * 64}",
        f"{key_id}.{until}",
        f"{key_id}.x.{signature}",
        f"{key_id}.{'9' * 400}.{signature}",
        ".." * 50,
    ]
    for value in forged:
        signed_in.client.cookies.clear()
        headers = {"Cookie": f"{COOKIE}={value}"}
        assert signed_in.client.get("/", headers=headers, follow_redirects=False).status_code == 303
        problem(signed_in.client.get("/v1/jobs", headers=headers), 401, "unauthorized")


WRONG = (
    {},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://testserver:8081"},
    {"Origin": "http://testserver.evil.example"},
)


@pytest.mark.parametrize("headers", WRONG)
def test_a_form_of_another_site_does_nothing(signed_in: Browser, rest: Rest, headers):
    job = put_job(rest.database, "running")
    for path in (f"/jobs/{job}/cancel", "/jobs/new", "/sign-in", "/sign-out"):
        answer = signed_in.send(path, headers=headers, key=rest.keys["admin"])
        assert answer.status_code == 403, path
        assert "cross_site" in answer.text
        assert "set-cookie" not in answer.headers
    assert rest.viewer.get(f"/v1/jobs/{job}").json()["state"] == "running"


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("headers", WRONG)
def test_a_script_of_another_site_cannot_use_the_session(rest: Rest, headers):
    job = put_job(rest.database, "queued")
    for method, path, body in (
        ("POST", "/v1/jobs", {"recipe": recipe()}),
        ("POST", f"/v1/jobs/{job}/cancel", None),
        ("PATCH", f"/v1/jobs/{job}", {"priority": 9}),
        ("DELETE", f"/v1/jobs/{job}", None),
    ):
        answer = rest.client.request(method, path, json=body, headers=headers)
        problem(answer, 403, "cross_site")
    assert rest.viewer.get(f"/v1/jobs/{job}").json()["version"] == 1


def test_our_own_pages_may_use_the_session_for_what_its_key_may(browser: Browser, rest: Rest):
    browser.sign_in("submitter")
    job = put_job(rest.database, "queued")
    origin = {"Origin": "http://testserver"}
    assert rest.client.post(f"/v1/jobs/{job}/cancel", headers=origin).status_code == 202
    problem(rest.client.get("/v1/keys"), 403, "not_allowed")
    browser.sign_in("viewer")
    answer = rest.client.post(f"/v1/jobs/{job}/retry", headers=origin)
    problem(answer, 403, "not_allowed")


@pytest.mark.usefixtures("signed_in")
def test_a_key_in_the_header_goes_before_the_session(rest: Rest):
    """Programs behind a browser's cookie jar keep working, and need no Origin."""
    headers = {"Authorization": f"Bearer {rest.keys['admin']}"}
    assert rest.client.get("/v1/keys", headers=headers).status_code == 200
    made = rest.client.post("/v1/jobs", json={"recipe": recipe()}, headers=headers)
    assert made.status_code == 202
    bad = {"Authorization": "Bearer fda_wrong"}
    problem(rest.client.get("/v1/jobs", headers=bad), 401)
