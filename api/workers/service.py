"""Rules about workers and queues: who there is, what waits, and draining."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from redis.exceptions import RedisError
from sqlalchemy import func, select

from api.context import Context
from api.db.tables import JobRow, UnitRow
from api.errors import UnknownResource
from api.workers import repository
from fda_core.contract.rest.workers import Queue, Worker
from fda_core.contract.service import names
from fda_core.contract.service.messages import WorkerStatus
from fda_core.contract.service.states import ACTIVE, UnitState

DRAIN_SECONDS = 24 * 3600
SILENT_SECONDS = 3 * names.BEAT_SECONDS


@contextmanager
def _answering() -> Iterator[None]:
    """Turn an absent broker into an error of ours."""
    try:
        yield
    except RedisError as problem:
        raise repository.away(problem) from problem


def list_workers(context: Context) -> list[Worker]:
    """Return every worker that told its status lately."""
    with _answering():
        found = repository.statuses(context.redis)
        told = repository.draining(context.redis, [status.id for status in found])
    moment = context.clock().timestamp()
    return [
        _view(status, now=moment, told=drain) for status, drain in zip(found, told, strict=True)
    ]


def drain_worker(context: Context, worker_id: str) -> Worker:
    """Tell a worker to finish or give back what it has, and end."""
    with _answering():
        status = repository.status(context.redis, worker_id)
        if status is None:
            raise UnknownResource(
                f"there is no worker {worker_id}", hint="GET /v1/workers lists them."
            )
        repository.drain_worker(context.redis, worker_id, seconds=DRAIN_SECONDS)
    return _view(status, now=context.clock().timestamp(), told=True)


def _view(status: WorkerStatus, *, now: float, told: bool) -> Worker:
    age = max(0.0, now - status.at)
    state = "draining" if told else status.state
    return Worker.model_validate(
        {
            **status.model_dump(include=set(Worker.model_fields) - {"state"}),
            "queues": list(status.queues),
            "state": "silent" if age > SILENT_SECONDS else state,
            "unit_seconds": None if status.unit_started is None else now - status.unit_started,
            "started_at": status.started,
            "heartbeat_age_seconds": age,
        }
    )


def list_queues(context: Context) -> list[Queue]:
    """Return every queue."""
    return [get_queue(context, name, running=running(context)) for name in names.QUEUES]


def get_queue(context: Context, name: str, *, running: Mapping[str, int]) -> Queue:
    """Return how much waits in a queue, how long, and who takes from it."""
    redis = context.redis
    with _answering():
        sent = repository.oldest_sent(redis, name)
        takers = [status for status in repository.statuses(redis) if name in status.queues]
        return Queue(
            name=name,
            depth=repository.depth(redis, name),
            oldest_wait_seconds=None
            if sent is None
            else max(0.0, context.clock().timestamp() - sent),
            workers=len(takers),
            running=running.get(name, 0),
            draining=repository.is_draining(redis, name),
        )


def running(context: Context) -> Mapping[str, int]:
    """Return how many units of each queue run now."""
    query = (
        select(UnitRow.queue, func.count())
        .join(JobRow, JobRow.id == UnitRow.job_id)
        .where(
            JobRow.state.in_([state.value for state in ACTIVE]),
            UnitRow.state == UnitState.RUNNING.value,
        )
        .group_by(UnitRow.queue)
    )
    with context.database.read() as session:
        return {queue: count for queue, count in session.execute(query) if queue is not None}


def set_draining(context: Context, name: str, *, draining: bool) -> Queue:
    """Let workers take no more from a queue, or let them take again."""
    if name not in names.QUEUES:
        raise UnknownResource(
            f"there is no queue {name!r}", hint=f"There are {', '.join(names.QUEUES)}."
        )
    with _answering():
        if draining:
            repository.drain_queue(context.redis, name)
        else:
            repository.open_queue(context.redis, name)
    return get_queue(context, name, running=running(context))
