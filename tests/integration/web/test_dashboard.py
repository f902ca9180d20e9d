"""The dashboard in Chromium, against a real `python -m api` with rows put into its database."""

import re
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, expect

from api.jobs.transitions import add_event, add_log, move
from fda_core.contract.service import names
from fda_core.contract.service.states import JobState
from tests.support.chromium import Site, Visit, browser, chromium, site, visit
from tests.support.dashboard import progress_at, put_job, put_records, worker_status
from tests.support.valkey import valkey_server

expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if chromium() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with valkey_server() as valkey:
        now = time.time()
        key = names.worker("gpu-box-1-4711-abcd")
        valkey.client.set(key, worker_status("gpu-box-1", at=now))
        with site(tmp_path_factory.mktemp("site"), redis_url=valkey.url) as running:
            yield running


@pytest.fixture(scope="module")
def opened(here: Site) -> Iterator[Browser]:  # noqa: ARG001 - skips without a browser
    found = chromium()
    assert found is not None
    with browser(found) as running:
        yield running


@pytest.fixture
def window(opened: Browser, here: Site) -> Iterator[Visit]:
    """A window that must have nothing to complain about, and ask no other host."""
    with visit(opened, here) as made:
        yield made
        assert made.complaints == []
        assert made.hosts == {here.url.split("//")[1]}


def test_signing_in_leads_back_and_signing_out_ends_it(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/back")
    window.go(f"/jobs/{job}")
    page = window.page
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API key").fill(here.keys["viewer"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="back", exact=True)).to_be_visible()
    assert not page.get_by_text("Cancel…").count(), "a viewer changes nothing"
    page.get_by_text("ann-viewer").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    window.go("/jobs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_link_on_another_site_leads_to_the_page_and_not_to_signing_in(window: Visit, here: Site):
    """The cookie is strict: browsers leave it out of the first request."""
    window.sign_in()
    page = window.page
    other = here.url.replace("127.0.0.1", "localhost")
    page.goto(f"{other}/sign-in")
    page.locator(".brand").evaluate(f"(link) => link.href = '{here.url}/workers'")
    page.locator(".brand").click()
    expect(page.get_by_role("heading", name="Workers and queues")).to_be_visible()
    assert not page.get_by_role("heading", name="Sign in").count()
    window.hosts.discard(other.split("//")[1])  # the other site of this test


def test_the_list_follows_its_jobs_in_place(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/followed")
    put_job(here.database, "failed", output="/models/broken")
    window.sign_in()
    page = window.go("/jobs?text=followed")
    row = page.locator(f"tr[data-job='{job}']")
    expect(row.locator(".state")).to_have_text("running")
    expect(row.locator(".ratio")).to_have_text("41 %")
    view = progress_at(0.77)
    with here.database.write() as session:
        add_event(session, job, "progress", view, progress=view)
    expect(row.locator(".ratio")).to_have_text("77 %")
    with here.database.write() as session:
        assert move(session, job, JobState.PUBLISHING)
        assert move(session, job, JobState.SUCCEEDED)
    expect(row.locator(".state")).to_have_text("succeeded")
    page.get_by_role("link", name="failed", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?state=failed&text=followed$"))
    expect(page.get_by_role("heading", name="No job fits")).to_be_visible()


def test_a_job_that_left_what_is_shown_says_what_it_is_and_others_are_no_news(
    window: Visit, here: Site
):
    job = put_job(here.database, "running", output="/models/leaving")
    window.sign_in()
    page = window.go("/jobs?state=running&text=leaving")
    row = page.locator(f"tr[data-job='{job}']")
    expect(row.locator(".state")).to_have_text("running")
    put_job(here.database, "running", output="/models/another")
    with here.database.write() as session:
        assert move(session, job, JobState.PUBLISHING)
    expect(row.locator(".state")).to_have_text("publishing")
    expect(page.locator(".news")).to_be_hidden()
    put_job(here.database, "running", output="/models/leaving-too")
    expect(page.locator(".news")).to_have_text("1 new job: show")


def test_no_step_stands_twice_under_a_short_curve(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/short")
    put_records(here.workspace, job, epochs=3)
    window.sign_in()
    page = window.go(f"/jobs/{job}")
    steps = page.locator("#curve-area figure > svg.chart").nth(1).locator("text[y='234']")
    expect(steps).to_have_text(["0", "1", "2", "3"])


def test_a_jobs_page_follows_its_events_log_and_end(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/watched")
    put_records(here.workspace, job)
    window.sign_in()
    page = window.go(f"/jobs/{job}")
    cell = page.locator(".units [data-unit='construct-003-code']")
    expect(cell.locator(".word")).to_have_text("ready")
    expect(page.locator("#curve-area figure > svg.chart")).to_have_count(2)
    expect(page.locator("#doing")).to_have_text("layer 3 of 6 · construct · math · step 61 of 240")
    unit = {"unit": "construct-003-code", "kind": "construct", "layer": 3, "expert": "code"}
    with here.database.write() as session:
        add_event(session, job, "unit.state", {**unit, "state": "running"})
        view = progress_at(0.6, expert="code", step=100, seconds_left=60.0)
        add_event(session, job, "progress", view, progress=view)
        add_log(session, job, "<b>not bold</b>", worker="a")
    expect(cell.locator(".word")).to_have_text("running")
    expect(page.locator("#ratio")).to_have_text("60 %")
    expect(page.locator("#doing")).to_contain_text("code · step 100 of 240")
    expect(page.locator("#left")).to_contain_text("1 min 00 s left")
    expect(page.locator("#said")).to_contain_text("60 % done")
    expect(page.locator("#lines")).to_contain_text("<b>not bold</b>")
    with here.database.write() as session:
        assert move(session, job, JobState.PUBLISHING)
    expect(page.locator("#state")).to_have_text("publishing")
    with here.database.write() as session:
        assert move(session, job, JobState.SUCCEEDED)
    expect(page.locator("#state")).to_have_text("succeeded")
    expect(page.get_by_text("Cancel…")).to_have_count(0)


def test_cancelling_asks_with_the_jobs_name_and_can_be_done_by_keyboard(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/unwanted")
    window.sign_in()
    page = window.go(f"/jobs/{job}")
    page.locator("#cancel summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cancel")).to_contain_text("Stop job unwanted")
    page.keyboard.press("Escape")
    expect(page.locator("#cancel form")).to_be_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("cancelling")
    expect(page.locator("#waits")).to_have_text("Waits for its workers to stop.")


def test_a_name_that_turns_the_writing_round_turns_nothing_but_itself(window: Visit, here: Site):
    job = put_job(here.database, "running", output="/models/\u202eturned")
    window.sign_in()
    page = window.go(f"/jobs/{job}")
    page.get_by_text("Cancel…").click()
    name, number = page.locator("#cancel b"), page.locator("#cancel code")
    left, right = name.bounding_box(), number.bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"], "what follows the name stands to its right"


def test_a_new_job_from_an_old_one(window: Visit, here: Site):
    old = put_job(here.database, "succeeded", output="/models/old", labels={"run": "7"})
    window.sign_in()
    page = window.go(f"/jobs/{old}")
    page.get_by_role("link", name="New job like this").click()
    box = page.get_by_label("Recipe, as YAML")
    text = box.input_value()
    assert "output: /models/old" in text
    box.fill(text.replace("/models/old", "/models/new"))
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="new", exact=True)).to_be_visible()
    expect(page.locator("#waits")).to_have_text("Waits for the controller to plan it.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_small_windows_and_follow_the_systems_colours(
    opened: Browser, here: Site, scheme: str
):
    long = "longname" * 25  # nowhere to break
    job = put_job(here.database, "failed", output=f"/models/{long}", labels={"of": long})
    size = {"width": 360, "height": 740}
    with visit(opened, here, color_scheme=scheme, viewport=size) as window:
        window.sign_in("admin")
        for path in ("/", "/jobs", f"/jobs/{job}", "/workers", "/batches", "/schedules"):
            page = window.go(path)
            ground = page.locator("body").evaluate("(body) => getComputedStyle(body).background")
            assert ("17, 17, 19" in ground) == (scheme == "dark"), ground
            wide = page.locator("html").evaluate("(html) => html.scrollWidth")
            assert wide <= 360, f"{path} is {wide} wide"
            assert page.locator("h1").count() == 1, path
        page.get_by_label("Colours").select_option("light" if scheme == "dark" else "dark")
        window.go("/jobs")
        ground = page.locator("body").evaluate("(body) => getComputedStyle(body).background")
        assert ("17, 17, 19" in ground) == (scheme == "light"), "the choice is remembered"
        assert window.complaints == []
