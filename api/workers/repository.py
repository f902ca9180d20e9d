"""What Redis knows of workers and queues. All of it may be gone the next moment."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from api.errors import NotReady
from fda_core.contract.service import names
from fda_core.contract.service.broker import queue_lists
from fda_core.contract.service.messages import WorkerStatus

AT_ONCE = 500


def statuses(redis: Redis) -> list[WorkerStatus]:
    """Return what every worker said last, by id; what cannot be read is left out."""
    keys = [_text(key) for key in redis.scan_iter(match=f"{names.WORKERS}*", count=AT_ONCE)]
    found = [_status(value) for value in redis.mget(keys)] if keys else []
    return sorted((status for status in found if status), key=lambda status: status.id)


def status(redis: Redis, worker_id: str) -> WorkerStatus | None:
    """Return what a worker said last."""
    return _status(redis.get(names.worker(worker_id)))


def workers_or_none(redis: Redis) -> list[WorkerStatus] | None:
    """Return what every worker said last, None if Redis is away."""
    try:
        return statuses(redis)
    except RedisError:
        return None


def _status(value: Any) -> WorkerStatus | None:
    try:
        return None if value is None else WorkerStatus.model_validate_json(value)
    except ValidationError:
        return None


def draining(redis: Redis, worker_ids: Sequence[str]) -> list[bool]:
    """Say of workers whether they were told to take no more."""
    keys = [names.drain(worker_id) for worker_id in worker_ids]
    return [value is not None for value in redis.mget(keys)] if keys else []


def drain_worker(redis: Redis, worker_id: str, *, seconds: int) -> None:
    """Tell a worker to take no more units and end."""
    redis.set(names.drain(worker_id), "1", ex=seconds)


def drain_queue(redis: Redis, queue: str) -> None:
    """Tell workers to take no units from a queue, until it is taken back."""
    redis.set(names.DRAIN_QUEUE + queue, "1")


def open_queue(redis: Redis, queue: str) -> None:
    """Let workers take from a queue again."""
    redis.delete(names.DRAIN_QUEUE + queue)


def is_draining(redis: Redis, queue: str) -> bool:
    """Say whether a queue is being drained."""
    return bool(redis.exists(names.DRAIN_QUEUE + queue))


def depth(redis: Redis, queue: str) -> int:
    """Return how many messages wait in a queue."""
    with redis.pipeline(transaction=False) as pipe:
        for key in queue_lists(queue):
            pipe.llen(key)
        return sum(int(count) for count in pipe.execute())


def oldest_sent(redis: Redis, queue: str) -> float | None:
    """Return when the message was sent that waits longest, Unix seconds; None if nobody knows.

    Each priority is a list of its own whose oldest message is last. When a unit was sent is in
    a hash beside it, since messages carry no time.
    """
    with redis.pipeline(transaction=False) as pipe:
        for key in queue_lists(queue):
            pipe.lindex(key, -1)
        units = [unit_in(message) for message in pipe.execute() if message is not None]
    with redis.pipeline(transaction=False) as pipe:
        for job, unit in filter(None, units):
            pipe.hget(names.sent(job), unit)
        times = [_number(value) for value in pipe.execute()]
    return min((time for time in times if time is not None), default=None)


def unit_in(message: Any) -> tuple[str, str] | None:
    """Return the job and unit a Celery message is about; None if it is about none."""
    try:
        body = json.loads(message)["body"]
        arguments = json.loads(base64.b64decode(body))[1]
        return str(arguments["job"]), str(arguments["unit"])
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error):
        return None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else cast(str, value)


def away(problem: RedisError) -> NotReady:
    """Return what is said when Redis does not answer."""
    return NotReady(
        "the broker does not answer",
        hint="Jobs are safe; try again in a few seconds.",
        error=type(problem).__name__,
    )
