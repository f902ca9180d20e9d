"""Figures of a controller for Prometheus, in a registry of their own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.control import repository
from api.control.leader import Leader
from api.control.projector import CURSOR
from api.control.redis_state import FIRST, RedisState
from api.db.session import Database
from api.jobs.repository import by_state
from api.prometheus import LookCollector, Samples
from fda_core.contract.service.names import QUEUES
from fda_core.contract.service.states import JobState

STEP_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PLAN_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
PLANNED, PUT_OFF, REFUSED, DROPPED = "planned", "put_off", "refused", "dropped"
DELIVERIES = ("delivered", "retried", "failed")
FIRES = ("fired", "waiting", "skipped", "missed", "failed")


class ControlMetrics:
    """What this controller did. What has a known range is there from the start, at zero."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.step_seconds = Histogram(
            "fda_loop_step_seconds",
            "Seconds in one pass of a loop that is led here.",
            ["loop"],
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.step_failures = Counter(
            "fda_loop_failures", "Passes of a loop that broke.", ["loop"], registry=registry
        )
        self.sent = Counter(
            "fda_units_sent", "Messages about units put into queues.", ["queue"], registry=registry
        )
        self.resent = Counter(
            "fda_units_resent",
            "Messages sent again because the first seemed lost.",
            ["queue"],
            registry=registry,
        )
        self.leases_expired = Counter(
            "fda_leases_expired",
            "Leases that ran out without a record: the worker was lost.",
            registry=registry,
        )
        self.planning_seconds = Histogram(
            "fda_planning_seconds",
            "Seconds to plan a job, by how that ended.",
            ["outcome"],
            buckets=PLAN_SECONDS,
            registry=registry,
        )
        self.jobs_ended = Counter(
            "fda_jobs_ended",
            "Jobs that ended, by state and error code.",
            ["state", "code"],
            registry=registry,
        )
        self.reports_folded = Counter(
            "fda_reports_folded", "Reports of workers read from the stream.", registry=registry
        )
        self.deliveries = Counter(
            "fda_webhook_deliveries",
            "Tries to deliver a webhook, by how they ended.",
            ["outcome"],
            registry=registry,
        )
        self.fires = Counter(
            "fda_schedule_fires",
            "Fire times of schedules, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        _begin(self.sent, QUEUES)
        _begin(self.resent, QUEUES)
        _begin(self.planning_seconds, (PLANNED, PUT_OFF, REFUSED, DROPPED))
        _begin(self.deliveries, DELIVERIES)
        _begin(self.fires, FIRES)

    def know_loops(self, loops: Iterable[str]) -> None:
        """Show loops before anything happens in them."""
        names = tuple(loops)
        _begin(self.step_seconds, names)
        _begin(self.step_failures, names)

    def count_end(self, state: str, code: str | None) -> None:
        """Count a job that ended; `code` is its error's."""
        self.jobs_ended.labels(state, code or "").inc()

    def watch(self, look: Callable[[], Samples]) -> None:
        """Show what a look finds, at every scrape."""
        self.registry.register(LookCollector(look))


@contextmanager
def timed(observe: Callable[[float], None]) -> Iterator[None]:
    """Tell how many seconds the block took, however it ended."""
    began = perf_counter()
    try:
        yield
    finally:
        observe(perf_counter() - began)


def look_at(
    database: Database, redis: RedisState, leader: Leader, loops: Iterable[str]
) -> Callable[[], Samples]:
    """Return what looks at leadership, jobs and the stream; what does not answer is left out."""
    names = tuple(loops)

    def look() -> Samples:
        samples: Samples = {
            ("fda_loop_leader", "1 if this process leads the loop.", "loop"): [
                ((name,), float(leader.leads(name))) for name in names
            ]
        }
        with suppress(SQLAlchemyError, RedisError):
            with database.read() as session:
                counts = by_state(session)
                note = repository.note(session, CURSOR) or {}
            samples["fda_jobs", "Jobs by state.", "state"] = [
                ((state.value,), counts.get(state, 0)) for state in JobState
            ]
            lag = redis.seconds_behind(str(note.get("id", FIRST)))
            samples[
                "fda_projector_lag_seconds", "Age of the oldest report that is not folded.", ""
            ] = [((), lag)]
        return samples

    return look


def _begin(family: Counter | Histogram, values: Iterable[str]) -> None:
    for value in values:
        family.labels(value)
