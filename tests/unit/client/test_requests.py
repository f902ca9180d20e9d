"""Requests: problems as exceptions, what is sent again, and that one submit is one job."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from fda_core.cli.exit_codes import exit_code
from fda_core.client import Client
from fda_core.client.retries import Retries, Trying, retry_after_seconds
from fda_core.contract.rest.jobs import Job, JobRequest
from fda_core.contract.service.states import JobState
from fda_core.errors import NoService, ServiceError, ServiceUnreachable
from tests.support.fake_service import KEY, FakeService, World
from tests.support.fault_proxy import FaultProxy
from tests.unit.client.conftest import QUICK

RECIPE = {"base": "/m/base", "method": "ties"}


def conflict(code: str) -> dict[str, object]:
    told = {"type": "t", "title": "t", "status": 409, "detail": "d", "instance": "/"}
    return {**told, "code": code, "request_id": "r"}


def test_a_job_is_submitted_and_read(client: Client):
    job = client.jobs.submit(RECIPE, labels={"run": "7"}, priority=9)
    assert (job.state, job.labels, job.priority) == (JobState.QUEUED, {"run": "7"}, 9)
    assert client.jobs.get(job.id) == job
    assert [found.id for found in client.jobs.list()] == [job.id]


def test_a_problem_is_an_exception_with_code_hint_status_and_request_id(client: Client):
    with pytest.raises(ServiceError) as caught:
        client.jobs.get("nobody")
    assert caught.value.code == "unknown_job"
    assert caught.value.hint == "See the list."
    assert caught.value.message == "there is no job nobody"
    assert (caught.value.context["status"], caught.value.context["request_id"]) == (404, "req-1")
    assert not caught.value.retryable


def test_every_field_that_is_wrong_is_named(client: Client, world: World):
    body = {
        "type": "/docs#recipe_invalid",
        "title": "x",
        "status": 422,
        "detail": "the recipe is invalid",
        "instance": "/v1/jobs",
        "code": "bad_parameter",
        "request_id": "r",
        "errors": [{"pointer": "/recipe/seed", "message": "not a number"}],
    }
    world.script("POST", "/v1/jobs", 422, body=body)
    with pytest.raises(ServiceError, match="/recipe/seed: not a number") as caught:
        client.jobs.submit(RECIPE)
    assert exit_code(caught.value) == 2, "as the same error of a merge made here"


def test_an_answer_of_something_else_than_the_service_is_named(client: Client, world: World):
    world.script("GET", "/v1/jobs/x", 403, body={"proxy": "says no"})
    with pytest.raises(ServiceError, match=r"GET .*/v1/jobs/x was answered with 403.*says no"):
        client.jobs.get("x")


def test_an_answer_that_is_no_job_is_named(client: Client, world: World):
    world.script("GET", "/v1/jobs/x", 200, body={"id": "x"})
    with pytest.raises(ServiceError, match="the answer is no Job: state"):
        client.jobs.get("x")


def test_a_wrong_key_is_refused_with_what_to_do(service: FakeService):
    with (
        Client(service.url, "fda_wrong", retries=QUICK) as stranger,
        pytest.raises(ServiceError) as caught,
    ):
        next(stranger.jobs.list())
    assert caught.value.code == "unauthorized"
    assert "FDA_KEY" in (caught.value.hint or "")


def test_nobody_there_is_named_with_address_and_hint():
    impatient = Retries(patience_seconds=0.05, first_wait_seconds=0.01)
    with (
        Client("http://127.0.0.1:9", "k", retries=impatient) as nobody,
        pytest.raises(ServiceUnreachable, match=r"http://127.0.0.1:9 does not answer after"),
    ):
        nobody.jobs.get("x")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:80", "ftp://x", "", "http://", "http://:80", "http://x:99999", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(NoService):
        Client(url, "k")


@pytest.mark.parametrize("key", ["fda_ü", "fda_a b", "fda_a\nb"])
def test_what_no_header_can_carry_is_no_key(key: str):
    with pytest.raises(NoService, match="API key"):
        Client("http://127.0.0.1:9", key)


def test_a_key_read_from_a_file_may_end_its_line(service: FakeService):
    with Client(service.url, f"{KEY}\n", retries=Retries(patience_seconds=0)) as client:
        assert client.jobs.submit(RECIPE).id == "job-1"


def test_503_and_429_are_waited_out_as_the_service_asks(client: Client, world: World):
    world.script("POST", "/v1/jobs", 429, Retry_After="0")
    world.script("POST", "/v1/jobs", 503, Retry_After="0")
    assert client.jobs.submit(RECIPE).id == "job-1"
    assert world.count("POST", "/v1/jobs") == 3


def test_a_quota_without_end_is_told_at_last(service: FakeService, world: World):
    for _ in range(50):
        world.script("GET", "/v1/jobs", 429, Retry_After="0")
    brief = Retries(patience_seconds=0.1, first_wait_seconds=0.02)
    with Client(service.url, KEY, retries=brief) as client, pytest.raises(ServiceError) as caught:
        next(client.jobs.list())
    assert caught.value.context["status"] == 429
    assert caught.value.retryable


def test_a_lost_answer_to_a_submit_makes_one_job(service: FakeService, world: World):
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("lose", method="POST", target="/v1/jobs", times=2)
        with Client(proxy.url, KEY, retries=QUICK) as client:
            job = client.jobs.submit(RECIPE)
    assert list(world.jobs) == [job.id]
    assert world.count("POST", "/v1/jobs") == 3


def test_a_submit_whose_first_try_is_still_in_hand_waits_for_it(client: Client, world: World):
    world.script("POST", "/v1/jobs", 409, body=conflict("idempotency_in_flight"), Retry_After="0")
    assert client.jobs.submit(RECIPE).id == "job-1"


def test_another_conflict_is_told_at_once(client: Client, world: World):
    world.script("POST", "/v1/jobs", 409, body=conflict("output_exists"), Retry_After="1")
    with pytest.raises(ServiceError) as caught:
        client.jobs.submit(RECIPE)
    assert caught.value.code == "output_exists"
    assert world.count("POST", "/v1/jobs") == 1


def test_two_submits_of_one_recipe_are_two_jobs(client: Client):
    assert client.jobs.submit(RECIPE).id != client.jobs.submit(RECIPE).id


def test_a_retry_whose_answer_is_lost_is_not_sent_twice(service: FakeService, world: World):
    name = world.add(JobRequest(recipe=RECIPE), state=JobState.FAILED).id
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("lose", method="POST", target="/retry")
        with Client(proxy.url, KEY, retries=QUICK) as client, pytest.raises(ServiceUnreachable):
            client.jobs.retry(name)
    assert world.count("POST", f"/v1/jobs/{name}/retry") == 1


def test_a_broken_read_is_read_again(service: FakeService, world: World):
    name = world.add(JobRequest(recipe=RECIPE)).id
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("reset", target=f"/v1/jobs/{name}", after=40, times=2)
        proxy.add("refuse", target=f"/v1/jobs/{name}")
        with Client(proxy.url, KEY, retries=QUICK) as client:
            assert client.jobs.get(name).id == name


def test_lists_are_read_page_after_page(client: Client, world: World):
    for _ in range(230):
        world.add(JobRequest(recipe=RECIPE))
    assert len(list(client.jobs.list())) == 230
    assert world.count("GET", "/v1/jobs") == 3
    newest = [job.id for job in client.jobs.list(limit=101)]
    assert newest == [f"job-{number}" for number in range(230, 129, -1)]
    assert world.count("GET", "/v1/jobs") == 5


def test_a_patch_can_be_made_to_what_was_seen_only(client: Client, world: World):
    job = world.add(JobRequest(recipe=RECIPE))
    assert client.jobs.patch(job.id, priority=2, version=job.version).priority == 2
    with pytest.raises(ServiceError) as caught:
        client.jobs.patch(job.id, labels={"a": "b"}, version=99)
    assert caught.value.context["status"] == 412


def test_cancel_and_delete(client: Client, world: World):
    job = world.add(JobRequest(recipe=RECIPE))
    assert client.jobs.cancel(job.id).state is JobState.CANCELLED
    with pytest.raises(ServiceError) as caught:
        client.jobs.cancel(job.id)
    assert caught.value.code == "already_finished"
    client.jobs.delete(job.id)
    assert not world.jobs


def test_resources_are_made_listed_acted_on_and_removed(client: Client):
    made = client.schedules.create({"name": "nightly", "cron": "0 2 * * *"})
    assert (made.name, made.cron) == ("nightly", "0 2 * * *")
    assert [found.id for found in client.schedules.list()] == [made.id]
    assert client.schedules.act(made.id, "pause") == {"id": made.id, "did": "pause schedules"}
    client.schedules.delete(made.id)
    assert list(client.schedules.list()) == []


def test_waiting_ends_with_the_job(client: Client, world: World):
    name = world.add(JobRequest(recipe=RECIPE)).id
    seen: list[str] = []

    def change(job: Job) -> None:
        seen.append(str(job.state))
        follow = {"queued": JobState.RUNNING, "running": JobState.SUCCEEDED}
        if seen[-1] in follow:
            world.move(name, follow[seen[-1]])

    assert client.jobs.wait(name, on_change=change).state is JobState.SUCCEEDED
    assert seen == ["queued", "running", "succeeded"]


def test_waiting_has_an_end_when_asked(client: Client, world: World):
    name = world.add(JobRequest(recipe=RECIPE)).id
    with pytest.raises(ServiceError) as caught:
        client.jobs.wait(name, timeout_seconds=0.2)
    assert caught.value.code == "wait_timeout"


def test_waits_double_up_to_the_longest_and_end_with_the_patience():
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    retries = Retries(
        patience_seconds=10,
        first_wait_seconds=1,
        longest_wait_seconds=4,
        clock=lambda: now[0],
        sleep=sleep,
        jitter=lambda: 0.0,
    )
    trying = Trying(retries)
    while trying.again():
        pass
    assert waits == [1, 2, 4]
    trying.progressed()
    assert trying.again(asked_seconds=30), "what the service asks for is waited once"
    assert waits[-1] == 30
    assert not Trying(retries).again(asked_seconds=10_000)


def test_retry_after_is_read_as_seconds_and_as_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=50)
    date = soon.strftime("%a, %d %b %Y %H:%M:%S GMT")
    found = retry_after_seconds(date)
    assert found is not None
    assert 40 < found <= 50
    assert retry_after_seconds("7") == 7
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds(None) is None


def test_the_client_loads_no_torch_and_the_command_no_client():
    code = (
        "import sys, fda_core.cli.main; assert 'httpx2' not in sys.modules; "
        "import fda_core.client; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
