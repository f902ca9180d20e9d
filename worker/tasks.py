"""Celery's one task: decode the message, try the unit."""

from typing import Any

import structlog
from celery import Celery, Task
from pydantic import ValidationError

from fda_core.contract.service import names
from fda_core.contract.service.messages import TryUnit
from worker.execute import Executor
from worker.hearing import Hearing

log = structlog.stdlib.get_logger("fda.worker.tasks")


def register(app: Celery, executor: Executor, *, hearing: Hearing) -> None:
    """Add the task to an application."""

    def try_unit(self: Task, **fields: Any) -> None:
        with hearing.taking():
            try:
                message = TryUnit.model_validate(fields)
            except ValidationError as problem:
                # From another version. Answering it loses nothing: the controller sends anew.
                log.error("message_refused", faults=problem.errors(include_url=False))
                return
            executor.execute(message, queue=_queue(self, message))

    app.task(name=names.TRY_UNIT, bind=True, shared=False)(try_unit)


def _queue(task: Task, message: TryUnit) -> str:
    """Return the queue a message came from."""
    came = (task.request.delivery_info or {}).get("routing_key")
    return came if came in names.QUEUES else message.device
