"""Send units to the workers: messages by task name, through a Celery app without tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from celery import Celery

from api.control.redis_state import RedisState
from api.control.repository import JobFacts
from fda_core.contract.service import names
from fda_core.contract.service.broker import broker_options, broker_tls, queue_key
from fda_core.contract.service.messages import TryUnit


def sending_app(redis_url: str) -> Celery:
    """Return a Celery app that only sends; no results are kept anywhere."""
    app = Celery("fda-control", broker=redis_url, set_as_current=False)
    app.conf.update(
        broker_transport_options=broker_options(),
        broker_use_ssl=broker_tls(redis_url),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=names.CPU,
        broker_connection_retry_on_startup=True,
    )
    return app


@dataclass(frozen=True, kw_only=True)
class Message:
    """A unit to try, and the queue to send it to."""

    body: TryUnit
    queue: str
    again: bool = False
    """Whether the unit was begun before: it goes before what its job's equals have yet to begin."""

    @property
    def priority(self) -> int:
        """Return the broker's priority of this message; those it leads to have their job's."""
        return names.celery_priority(min(self.body.priority + self.again, names.PRIORITIES - 1))

    @property
    def list_key(self) -> str:
        """Return the Redis list that the message goes to."""
        return queue_key(self.queue, self.priority)


def message_of(
    job: JobFacts,
    unit: str,
    *,
    device: str,
    queue: str,
    workspace: str,
    microbatch: int | None = None,
    again: bool = False,
) -> Message:
    """Return the message that has a unit tried."""
    body = TryUnit(
        job=job.id,
        unit=unit,
        attempt=job.attempt,
        plan=names.plan_file(workspace, job.id),
        device=device,
        priority=job.priority,
        microbatch=microbatch,
        trace=dict(job.trace),
    )
    return Message(body=body, queue=queue, again=again)


class UnitQueue:
    """The queues of units: what is sent is noted in Redis first, so that losses are seen."""

    def __init__(
        self,
        app: Celery,
        redis: RedisState,
        clock: Callable[[], datetime],
        *,
        on_send: Callable[[str], None] = lambda _queue: None,
    ) -> None:
        self._app = app
        self._redis = redis
        self._clock = clock
        self._on_send = on_send

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages of one job; a second message for a unit is harmless."""
        if not messages:
            return
        job = messages[0].body.job
        self._redis.mark_sent(
            job, [message.body.unit for message in messages], at=self._clock().timestamp()
        )
        with self._app.producer_pool.acquire(block=True) as producer:
            for message in messages:
                self._app.send_task(
                    names.TRY_UNIT,
                    kwargs=message.body.model_dump(mode="json"),
                    queue=message.queue,
                    priority=message.priority,
                    producer=producer,
                )
                self._on_send(message.queue)

    def lengths(self) -> dict[str, int]:
        """Return how many messages wait, by the key of their list (`Message.list_key`)."""
        keys = [
            queue_key(queue, priority)
            for queue in names.QUEUES
            for priority in range(names.PRIORITIES)
        ]
        return self._redis.lengths(keys)
