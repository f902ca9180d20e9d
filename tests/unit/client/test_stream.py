"""Following a job's events: nothing lost, nothing twice, whatever breaks."""

import threading

import pytest

from fda_core.client import Client
from fda_core.client.retries import Retries
from fda_core.client.stream import follow
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.states import JobState
from fda_core.errors import ServiceError, ServiceUnreachable
from tests.support.fake_service import KEY, FakeService, World
from tests.support.fault_proxy import FaultProxy
from tests.unit.client.conftest import QUICK


@pytest.fixture
def job(world: World) -> str:
    name = world.add(JobRequest(recipe={})).id
    world.move(name, JobState.RUNNING)
    return name


def finished(world: World, name: str, events: int) -> list[int]:
    """Add events and an end; return all ids."""
    for number in range(events):
        world.say(name, "progress", number=number, text="x" * 200)
    world.finish(name)
    return [event.id for event in world.events[name]]


def test_events_come_in_order_to_the_end(client: Client, world: World, job: str):
    events = client.jobs.events(job)
    assert [next(events).id, next(events).id] == [1, 2]
    ids = finished(world, job, 20)
    assert [event.id for event in events] == ids[2:]


def test_a_stream_starts_after_what_was_seen(client: Client, world: World, job: str):
    ids = finished(world, job, 5)
    assert [event.id for event in client.jobs.events(job, after=4)] == ids[4:]


def test_nothing_is_left_after_the_last_event(client: Client, world: World, job: str):
    ids = finished(world, job, 0)
    assert list(client.jobs.events(job, after=ids[-1])) == []


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_broken_connections_lose_nothing_and_repeat_nothing(
    service: FakeService, world: World, job: str, kind: str
):
    ids = finished(world, job, 40)
    breaks: list[Exception] = []
    with FaultProxy("127.0.0.1", service.port) as proxy:
        for after in (1, 700, 2500, 1300, 5000):
            proxy.add(kind, target="/events", after=after)  # type: ignore[arg-type]
        proxy.add("refuse", target="/events")
        with Client(proxy.url, KEY, retries=QUICK) as client:
            found = [event.id for event in client.jobs.events(job, on_trouble=breaks.append)]
        asked = [request.get("last-event-id") for request in proxy.requests]
    assert found == ids
    assert len(breaks) == 6
    assert asked[0] is None
    assert len({one for one in asked if one}) >= 3, "it went on where it was"


def test_a_silent_connection_is_given_up(service: FakeService, world: World, job: str):
    ids = finished(world, job, 30)
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("stall", target="/events", after=3000)
        with Client(proxy.url, KEY, retries=QUICK) as client:
            events = follow(client.transport, f"/v1/jobs/{job}", silence_seconds=0.3)
            assert [event.id for event in events] == ids


def test_the_end_of_an_earlier_attempt_is_not_the_end(client: Client, world: World, job: str):
    world.move(job, JobState.FAILED)
    world.move(job, JobState.QUEUED)
    events = client.jobs.events(job)
    assert [next(events).data["state"] for _ in range(4)] == [
        "queued",
        "running",
        "failed",
        "queued",
    ]
    world.finish(job)
    assert [event.data["state"] for event in events] == ["succeeded"]


def test_a_stream_waits_for_a_service_that_comes_back(service: FakeService, job: str, world: World):
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("answer", target="/events", status=503, times=5)
        with Client(proxy.url, KEY, retries=QUICK) as client:
            threading.Timer(0.2, finished, [world, job, 3]).start()
            found = [event.id for event in client.jobs.events(job)]
    assert found == [event.id for event in world.events[job]]


def test_a_service_that_stays_away_is_named(service: FakeService, job: str):
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("refuse", target="/events", times=1000)
        brief = Retries(first_wait_seconds=0.01, longest_wait_seconds=0.02)
        with (
            Client(proxy.url, KEY, retries=brief) as client,
            pytest.raises(ServiceUnreachable, match="does not answer"),
        ):
            list(client.jobs.events(job, patience_seconds=0.1))


def test_a_job_that_is_not_there_is_told_at_once(client: Client):
    with pytest.raises(ServiceError) as caught:
        list(client.jobs.events("nobody"))
    assert caught.value.code == "unknown_job"
