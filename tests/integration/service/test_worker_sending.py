"""What a finished unit makes ready is sent once, by whoever finished the last need."""

import base64
import json
from pathlib import Path

import pytest

from fda_core.contract.service import broker, names
from tests.support.valkey import Valkey
from tests.support.workers import Job, fda, save_models
from worker.app import make_app
from worker.ready import Sender


@pytest.fixture
def job(own_valkey: Valkey, tmp_path: Path) -> Job:
    return Job(own_valkey, save_models(tmp_path), method=fda())


def sender(job: Job) -> Sender:
    return Sender(make_app(job.valkey.url), job.valkey.client, clock=lambda: 12.5)


def sent(job: Job, queue: str = names.CPU) -> list[tuple[int, dict[str, object]]]:
    """Return the messages that wait in a queue: Celery priority and keyword arguments."""
    found = []
    for step, key in enumerate(broker.queue_lists(queue)):
        for raw in job.valkey.client.lrange(key, 0, -1):
            message = json.loads(raw)
            body = json.loads(base64.b64decode(message["body"]))
            assert message["headers"]["task"] == names.TRY_UNIT
            found.append((step, body[1]))
    return found


def test_a_dependent_is_sent_when_its_last_need_is_done(job: Job) -> None:
    merge = next(unit for unit in job.plan.units if unit.kind == "merge" and len(unit.needs) == 2)
    first, last = merge.needs
    done = names.done(job.plan.job_id)
    job.valkey.client.sadd(done, first)
    assert sender(job).send_ready(job.message(first), job.plan) == []
    job.valkey.client.sadd(done, last)
    told = job.message(last, priority=7, microbatch=2, trace={"traceparent": "x"})
    assert sender(job).send_ready(told, job.plan) == [merge.id]
    assert sender(job).send_ready(told, job.plan) == [], "once is enough"
    ((priority, fields),) = sent(job)
    assert priority == names.celery_priority(7)
    assert fields == told.model_copy(update={"unit": merge.id, "microbatch": None}).model_dump(
        mode="json"
    )
    assert job.valkey.client.hgetall(names.sent(job.plan.job_id)) == {merge.id: "12.5"}


def test_layers_go_to_the_jobs_queue_and_publishing_to_the_processors(job: Job) -> None:
    for unit in job.plan.units[:-1]:
        job.valkey.client.sadd(names.done(job.plan.job_id), unit.id)
    merges = [unit for unit in job.plan.units if unit.kind == "merge" and unit.needs]
    message = job.message(merges[0].needs[0]).model_copy(update={"device": names.GPU})
    sender(job).send_ready(message, job.plan)
    assert [fields["unit"] for _, fields in sent(job, names.GPU)] == [merges[0].id]
    sender(job).send_ready(message.model_copy(update={"unit": merges[0].id}), job.plan)
    assert [fields["unit"] for _, fields in sent(job, names.CPU)] == ["publish"]


def test_a_redis_that_is_away_stops_nobody(job: Job) -> None:
    sending = sender(job)
    job.valkey.kill()
    assert sending.send_ready(job.message(job.plan.units[0].id), job.plan) == []
    sending.send_again(job.message(job.plan.units[0].id), queue=names.CPU)
