"""Sending units that are ready, and sending them again when their message seems lost."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from api.control import repository
from api.control.metrics import ControlMetrics
from api.control.queue import Message, UnitQueue, message_of
from api.control.redis_state import Look, RedisState
from api.control.repository import JobFacts
from api.control.unit_changes import OPEN
from api.db.session import Database
from fda_core.contract.service.states import UnitState

RESEND_SECONDS = 10.0
RESEND_ANYWAY_SECONDS = 600.0

_log = structlog.get_logger("fda.control.sending")


class Sending:
    """Sends what a job has ready and nobody was sent."""

    def __init__(
        self,
        database: Database,
        redis: RedisState,
        queue: UnitQueue,
        *,
        workspace: str,
        clock: Callable[[], datetime],
        metrics: ControlMetrics,
    ) -> None:
        self._database = database
        self._redis = redis
        self._queue = queue
        self._workspace = workspace
        self._clock = clock
        self._metrics = metrics

    def step(
        self,
        job: JobFacts,
        look: Look,
        *,
        lines: Sequence[Any],
        done: set[str],
        lengths: Mapping[str, int],
    ) -> bool:
        """Send a job's units whose needs are `done`; `lengths` are those of the queues.

        Return whether there was a message among them that seems lost.
        """
        messages, some_lost = self._to_send(job, look, lines=lines, done=done, lengths=lengths)
        if not messages or job.state not in OPEN:
            return False
        self._queue.send(messages)
        self._mark_ready(job, [message.body.unit for message in messages])
        return some_lost

    def _to_send(
        self,
        job: JobFacts,
        look: Look,
        *,
        lines: Sequence[Any],
        done: set[str],
        lengths: Mapping[str, int],
    ) -> tuple[list[Message], bool]:
        moment = self._clock()
        open_lines = [
            line
            for line in lines
            if line.state in (UnitState.PENDING.value, UnitState.READY.value)
            and line.id not in look.taken
            and all(need in done for need in line.needs)
            and (line.not_before is None or line.not_before <= moment)
        ]
        if not open_lines:
            return [], False
        sent = self._redis.sent(job.id)
        messages = []
        on_their_way = []
        some_lost = False
        for line in open_lines:
            message = message_of(
                job,
                line.id,
                device=job.device or line.queue,
                queue=line.queue,
                workspace=self._workspace,
                microbatch=line.microbatch,
                again=line.tries > 0 or line.not_before is not None,
            )
            at = sent.get(line.id)
            age = None if at is None else moment.timestamp() - at
            if line.not_before is not None or _seems_lost(
                age, waiting=lengths.get(message.list_key, 0)
            ):
                messages.append(message)
                if line.not_before is None and at is not None:
                    some_lost = True
                    self._metrics.resent.labels(line.queue).inc()
                    _log.info("unit_resent", job=job.id, unit=line.id, attempt=job.attempt)
            elif line.state == UnitState.PENDING.value:
                on_their_way.append(line.id)
        if on_their_way:
            self._mark_ready(job, on_their_way)
        return messages, some_lost

    def _mark_ready(self, job: JobFacts, units: Sequence[str]) -> None:
        with self._database.write() as session:
            now = repository.lock_job(session, job.id)
            if now is not None and now.attempt == job.attempt and now.state in OPEN:
                repository.mark_ready(session, job.id, units)


def _seems_lost(age: float | None, *, waiting: int) -> bool:
    """Say whether a unit's message is not on its way: `age` since it was sent, None if never."""
    if age is None or age >= RESEND_ANYWAY_SECONDS:
        return True
    return age >= RESEND_SECONDS and waiting == 0
