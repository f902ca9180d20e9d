"""Send what a finished unit made ready, without waiting for the controller to notice."""

import time
from collections.abc import Callable, Sequence

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from fda_core.contract.plan import Plan, Unit
from fda_core.contract.service import names
from fda_core.contract.service.messages import TryUnit
from worker.leases import HINT_SECONDS

log = structlog.stdlib.get_logger("fda.worker.ready")


class Sender:
    """Sends messages and notes when, so that the controller knows what is on its way."""

    def __init__(
        self,
        app: Celery,
        redis: Redis,
        *,
        clock: Callable[[], float] = time.time,
        on_send: Callable[[str], None] = lambda _queue: None,
    ) -> None:
        self._app = app
        self._redis = redis
        self._clock = clock
        self._on_send = on_send

    def send_ready(self, message: TryUnit, plan: Plan) -> list[str]:
        """Send the units that need this message's unit, and return the ids of those sent.

        Only one sender wins each. If Redis is away nothing is lost: the controller sends them.
        """
        dependents = [unit for unit in plan.units if message.unit in unit.needs]
        sent = []
        try:
            for unit in self._ready(message.job, dependents):
                if self._is_first(message.job, unit.id):
                    self._send_as(message, unit)
                    sent.append(unit.id)
        except (RedisError, OperationalError) as problem:
            log.warning("dependents_not_sent", job=message.job, problem=str(problem))
        return sent

    def send_again(self, message: TryUnit, *, queue: str) -> None:
        """Put a unit that was given back into the queue it came from."""
        try:
            self._note(message.job, message.unit)
            self._send(message, queue=queue)
        except (RedisError, OperationalError) as problem:
            log.warning("not_sent_again", job=message.job, unit=message.unit, problem=str(problem))

    def _ready(self, job: str, units: Sequence[Unit]) -> list[Unit]:
        """Return the units whose needs are all known to be done."""
        needs = sorted({need for unit in units for need in unit.needs})
        if not needs:
            return []
        known = self._redis.smismember(names.done(job), needs)
        done = {need for need, is_known in zip(needs, known, strict=True) if is_known}
        return [unit for unit in units if done.issuperset(unit.needs)]

    def _is_first(self, job: str, unit: str) -> bool:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(names.sent(job), unit, str(self._clock()))
            pipe.expire(names.sent(job), HINT_SECONDS)
            return bool(pipe.execute()[0])

    def _note(self, job: str, unit: str) -> None:
        self._redis.hset(names.sent(job), unit, str(self._clock()))

    def _send_as(self, message: TryUnit, unit: Unit) -> None:
        queue = names.queue_of(unit, device=message.device)
        again = message.model_copy(update={"unit": unit.id, "microbatch": None})
        self._send(again, queue=queue)

    def _send(self, message: TryUnit, *, queue: str) -> None:
        self._app.send_task(
            names.TRY_UNIT,
            kwargs=message.model_dump(mode="json"),
            queue=queue,
            priority=names.celery_priority(message.priority),
        )
        self._on_send(queue)
