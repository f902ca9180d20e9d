"""/healthz, /readyz and /metrics: for whoever runs the service; no key is asked for."""

import time
from collections.abc import Callable
from typing import Any

import anyio
from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text

from api import openapi
from api.context import Context, Here
from api.errors import NotReady
from api.jobs import repository as jobs
from api.openapi import problems
from api.prometheus import Samples
from api.workers import repository as workers
from api.workers import service as queues
from fda_core import __version__
from fda_core.contract.rest.health import Check, Health, Readiness
from fda_core.contract.service.states import JobState
from fda_core.contract.uris import join
from fda_core.errors import FdaError

router = openapi.router(tag="health", statuses=())

PATIENCE_SECONDS = 5.0
METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def get_health() -> Health:
    """Say that the process answers."""
    return Health(version=__version__)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problems(503))
async def get_readiness(context: Here) -> Readiness:
    """Say whether everything needed answers: database, broker, storage; and the oldest heartbeat.

    A worker's heartbeat is shown, but no worker is no reason to send requests elsewhere.
    """
    checks: dict[str, Check] = {}
    async with anyio.create_task_group() as tasks:
        for name, look in _looks(context).items():
            tasks.start_soon(_check, checks, name, look)
    ordered = {name: checks[name] for name in _looks(context)}
    failed = [name for name, check in ordered.items() if not check.ok]
    if failed:
        raise NotReady(
            f"not ready: {', '.join(f'{name} ({ordered[name].detail})' for name in failed)}",
            hint="Jobs wait in the database until everything answers again.",
            **{name: "ok" if check.ok else check.detail for name, check in ordered.items()},
        )
    return Readiness(checks=ordered)


async def _check(checks: dict[str, Check], name: str, look: Callable[[], str]) -> None:
    """Do one check in a thread, for so long as there is patience."""
    began = time.monotonic()
    ok, detail = False, f"no answer within {PATIENCE_SECONDS:g} s"
    with anyio.move_on_after(PATIENCE_SECONDS):
        try:
            detail = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
            ok = True
        except FdaError as problem:
            detail = problem.code
        except Exception as problem:  # whatever is wrong with it, this is the place to say so
            detail = type(problem).__name__
    checks[name] = Check(ok=ok, detail=detail, seconds=round(time.monotonic() - began, 4))


def _looks(context: Context) -> dict[str, Callable[[], str]]:
    def database() -> str:
        with context.database.read() as session:
            session.execute(text("SELECT 1"))
        return context.database.engine.dialect.name

    def broker() -> str:
        context.redis.ping()
        return "answers"

    def storage() -> str:
        context.storage.exists(join(context.settings.workspace, ".fda-ready"))
        return "answers"

    def heartbeat() -> str:
        found = workers.workers_or_none(context.redis)
        if not found:
            return "no workers"
        oldest = min(found, key=lambda status: status.at)
        age = context.clock().timestamp() - oldest.at
        return f"{oldest.id}: {age:.1f} s ago, the oldest of {len(found)}"

    return {"database": database, "broker": broker, "storage": storage, "heartbeat": heartbeat}


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response, responses=METRICS)
def get_metrics(context: Here) -> Response:
    """Show counts for Prometheus."""
    body = context.counts.text(lambda: _samples(context))
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _samples(context: Context) -> Samples:
    with context.database.read() as session:
        counts = jobs.by_state(session)
    samples: Samples = {
        ("fda_jobs", "Jobs by state.", "state"): [
            ((state.value,), counts.get(state, 0)) for state in JobState
        ]
    }
    found = workers.workers_or_none(context.redis)
    samples["fda_broker_up", "Whether the broker answers.", ""] = [((), float(found is not None))]
    if found is None:
        return samples
    samples["fda_workers", "Workers by what they do.", "state"] = [
        ((state,), sum(worker.state == state for worker in found))
        for state in ("idle", "busy", "draining")
    ]
    listed = queues.list_queues(context)
    samples["fda_queue_depth", "Messages that wait.", "queue"] = [
        ((queue.name,), queue.depth) for queue in listed
    ]
    samples["fda_queue_oldest_wait_seconds", "How long the oldest has waited.", "queue"] = [
        ((queue.name,), queue.oldest_wait_seconds or 0.0) for queue in listed
    ]
    samples["fda_queue_running", "Units that run.", "queue"] = [
        ((queue.name,), queue.running) for queue in listed
    ]
    return samples
