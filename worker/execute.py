"""Try units: what a worker does with messages, and what it counts of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from redis import Redis

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Unit
from fda_core.contract.service.messages import TryUnit
from fda_core.storage.base import Storage
from worker.attempt import Attempt, Outcome
from worker.devices import Devices
from worker.drain import Drain
from worker.events import Reports
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.plans import Plans
from worker.ready import Sender
from worker.status import Status
from worker.tracing import Tracing, note_end

log = structlog.stdlib.get_logger("fda.worker.unit")


class Runner(Protocol):
    """Runs units of one plan: `engine.units.UnitRunner`, or what a test puts in its place."""

    def run(self, unit: Unit) -> UnitRecord:
        """Run a unit and write its record."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Everything that trying a unit needs."""

    redis: Redis
    storage: Storage
    plans: Plans
    reports: Reports
    heartbeat: Heartbeat
    sender: Sender
    drain: Drain
    devices: Devices
    runner: Callable[..., Runner]
    status: Status
    metrics: Metrics
    tracing: Tracing
    clock: Callable[[], float] = time.time

    def execute(self, message: TryUnit, *, queue: str) -> Outcome:
        """Try a unit and return how that ended. Raises nothing."""
        attempt = Attempt(self, message, queue=queue)
        facts: dict[str, Any] = {
            "job": message.job,
            "unit": message.unit,
            "attempt": message.attempt,
            "token": attempt.token,
        }
        with (
            structlog.contextvars.bound_contextvars(**facts),
            self.tracing.unit(f"unit {message.unit}", message.trace, facts) as span,
        ):
            outcome = attempt.go()
            note_end(span, outcome=outcome, error=attempt.error)
            self.metrics.units.labels(attempt.kind, outcome).inc()
            log.info("unit_tried", outcome=outcome, error=attempt.error, seconds=attempt.seconds)
        return outcome
