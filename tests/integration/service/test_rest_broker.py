"""What the api does with a real broker: hints, workers, queues, readiness."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from api.broker import open_redis
from fda_core.contract.service import names
from fda_core.contract.service.messages import TryUnit, WorkerStatus
from tests.support.rest import Rest, problem
from tests.support.valkey import Valkey, valkey_server


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with valkey_server() as running:
        yield running


@pytest.fixture
def redis(server: Valkey) -> Iterator[Redis]:
    with open_redis(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def rest(tmp_path: Path, redis: Redis) -> Iterator[Rest]:
    made = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}", redis=redis)
    with made.client:
        yield made
    made.database.close()


def beat(redis: Redis, worker_id: str, **changes: Any) -> None:
    """Tell a worker's status as workers do."""
    status = WorkerStatus.model_validate(
        {
            "id": worker_id,
            "host": "h",
            "process": 1,
            "version": "0",
            "device": "NVIDIA H100",
            "device_kind": "gpu",
            "device_memory_bytes": 10,
            "device_used_bytes": 5,
            "host_memory_bytes": 10,
            "host_used_bytes": 5,
            "threads": 1,
            "queues": ["gpu", "cpu"],
            "started": time.time() - 100,
            "at": time.time(),
            "state": "idle",
            **changes,
        }
    )
    redis.set(names.worker(worker_id), status.model_dump_json(), ex=15)


def send(server: Valkey, unit: str, *, queue: str, priority: int) -> None:
    """Send a message as the controller does."""
    app = Celery(broker=server.url)
    app.conf.broker_transport_options = {
        "priority_steps": list(range(names.PRIORITIES)),
        "queue_order_strategy": "priority",
    }
    message = TryUnit(job="j1", unit=unit, attempt=1, plan="/w/plan.json", device="gpu")
    app.send_task(
        names.TRY_UNIT,
        kwargs=message.model_dump(),
        queue=queue,
        priority=names.celery_priority(priority),
    )
    app.close()


def test_a_submitted_job_wakes_the_controller(rest: Rest, redis: Redis):
    job = rest.submitter.submit()
    assert redis.lrange(names.WAKE, 0, -1) == [job["id"]]


def test_the_list_of_hints_does_not_grow_without_a_controller(rest: Rest, redis: Redis):
    redis.rpush(names.WAKE, *(str(n) for n in range(1200)))
    job = rest.submitter.submit()
    assert redis.llen(names.WAKE) == 1000
    assert redis.lindex(names.WAKE, 0) == job["id"]


def test_cancelling_tells_the_workers_and_a_retry_takes_it_back(rest: Rest, redis: Redis):
    job = rest.submitter.submit()
    path = f"/v1/jobs/{job['id']}"
    rest.lead(job["id"], "validating", "running")
    rest.submitter.post(f"{path}/cancel")
    assert redis.exists(names.stop(job["id"]))
    assert redis.ttl(names.stop(job["id"])) > 0
    redis.delete(names.stop(job["id"]))
    rest.submitter.post(f"{path}/cancel")
    assert redis.exists(names.stop(job["id"])), "a second cancel tells them again"
    rest.lead(job["id"], "cancelled")
    rest.submitter.post(f"{path}/retry")
    assert not redis.exists(names.stop(job["id"]))


def test_a_queued_job_that_is_cancelled_stops_nothing(rest: Rest, redis: Redis):
    job = rest.submitter.submit()
    rest.submitter.post(f"/v1/jobs/{job['id']}/cancel")
    assert not redis.exists(names.stop(job["id"]))


def test_workers_are_listed_with_what_they_do(rest: Rest, redis: Redis):
    beat(redis, "h-1-b", state="busy", job="j", unit="u", unit_started=time.time() - 7)
    beat(redis, "h-1-a")
    beat(redis, "h-1-c", at=time.time() - 10)
    redis.set(names.worker("broken"), "{}")
    found = rest.viewer.get("/v1/workers").json()["data"]
    states = [(worker["id"], worker["state"]) for worker in found]
    assert states == [("h-1-a", "idle"), ("h-1-b", "busy"), ("h-1-c", "silent")]
    assert found[1]["unit_seconds"] == pytest.approx(7, abs=2)
    assert found[2]["heartbeat_age_seconds"] == pytest.approx(10, abs=2)
    assert found[0]["device"] == "NVIDIA H100"


def test_an_admin_drains_a_worker(rest: Rest, redis: Redis):
    beat(redis, "host-1-ab")
    answer = rest.admin.post("/v1/workers/host-1-ab/drain")
    assert (answer.status_code, answer.json()["state"]) == (202, "draining")
    assert redis.exists(names.drain("host-1-ab"))
    assert rest.viewer.get("/v1/workers").json()["data"][0]["state"] == "draining"
    problem(rest.admin.post("/v1/workers/other/drain"), 404, "unknown_resource")


def test_queues_show_what_waits_and_how_long(rest: Rest, redis: Redis, server: Valkey):
    beat(redis, "w1")
    for number, priority in enumerate((0, 4, 9)):
        send(server, f"u{number}", queue="gpu", priority=priority)
        redis.hset(names.sent("j1"), f"u{number}", str(time.time() - 100 + number))
    send(server, "publish", queue="cpu", priority=4)
    found = {queue["name"]: queue for queue in rest.viewer.get("/v1/queues").json()["data"]}
    assert {name: queue["depth"] for name, queue in found.items()} == {
        "gpu": 3,
        "cpu": 1,
        "gpu-large": 0,
    }
    assert found["gpu"]["oldest_wait_seconds"] == pytest.approx(100, abs=5)
    assert found["cpu"]["oldest_wait_seconds"] is None, "nobody knows when it was sent"
    assert [found[name]["workers"] for name in ("gpu", "cpu", "gpu-large")] == [1, 1, 0]
    text = rest.nobody.get("/metrics").text
    assert 'fda_queue_depth{queue="gpu"} 3.0' in text
    assert 'fda_workers{state="idle"} 1.0' in text
    assert "fda_broker_up 1.0" in text


def test_an_admin_drains_a_queue_and_opens_it_again(rest: Rest, redis: Redis):
    answer = rest.admin.post("/v1/queues/gpu/drain")
    assert (answer.status_code, answer.json()["draining"]) == (202, True)
    assert redis.exists(names.DRAIN_QUEUE + "gpu")
    assert rest.admin.delete("/v1/queues/gpu/drain").json()["draining"] is False
    assert not redis.exists(names.DRAIN_QUEUE + "gpu")
    problem(rest.admin.post("/v1/queues/other/drain"), 404, "unknown_resource")


def test_readiness_names_everything(rest: Rest, redis: Redis):
    found = rest.nobody.get("/readyz").json()
    assert set(found["checks"]) == {"database", "broker", "storage", "heartbeat"}
    assert all(check["ok"] for check in found["checks"].values())
    assert found["checks"]["heartbeat"]["detail"] == "no workers"
    beat(redis, "old", at=time.time() - 9)
    beat(redis, "new")
    detail = rest.nobody.get("/readyz").json()["checks"]["heartbeat"]["detail"]
    assert detail.startswith("old: 9")


def test_without_a_broker_jobs_are_taken_and_readiness_says_what_is_missing(tmp_path: Path):
    with valkey_server() as own:
        client = open_redis(own.url)
        rest = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}", redis=client)
        with rest.client:
            own.kill()
            job = rest.submitter.submit()
            rest.lead(job["id"], "validating")
            cancelled = rest.submitter.post(f"/v1/jobs/{job['id']}/cancel")
            assert cancelled.json()["state"] == "cancelling"
            found = problem(rest.nobody.get("/readyz"), 503, "not_ready")
            assert found["context"]["database"] == "ok"
            assert found["context"]["broker"] != "ok"
            problem(rest.viewer.get("/v1/workers"), 503, "not_ready")
            assert "fda_broker_up 0.0" in rest.nobody.get("/metrics").text
            own.start()
            assert rest.nobody.get("/readyz").status_code == 200
        client.close()
        rest.database.close()
