"""What batches, schedules and webhooks are given by the rest of the service, small but real."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.tables import IdempotencyRow, JobRow
from api.db.types import now
from api.gate import Gate
from api.idempotency import Answer
from api.jobs import service as jobs
from api.jobs.submitting import Submitter
from api.jobs.transitions import move
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.states import JobState
from fda_core.engine.recipes import recipe_of
from fda_core.errors import FdaError, Forbidden, RecipeError

STATUS = {
    "unknown_batch": 404,
    "unknown_schedule": 404,
    "unknown_webhook": 404,
    "unknown_delivery": 404,
    "batch_not_over": 409,
    "batch_over": 409,
    "webhook_disabled": 409,
    "stale_schedule": 412,
}
"""Everything else is 422."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    owner: str = "ann"
    team: str = "red"
    role: str = "submitter"


def open_database(url: str) -> Database:
    engine = open_engine(url)
    migrate(engine)
    return Database(engine)


def submit(
    session: Session,
    request: JobRequest,
    submitter: Submitter,
    batch_id: str | None,
    schedule_id: str | None,
) -> str:
    """Queue a job as the service of jobs does; outputs below /forbidden are not allowed."""
    recipe = recipe_of(request.recipe)
    if (recipe.output or "").startswith("/forbidden"):
        raise Forbidden(f"{recipe.output} lies in no allowed root", hint="Write elsewhere.")
    origin = jobs.Origin(
        owner=submitter.owner, team=submitter.team, batch_id=batch_id, schedule_id=schedule_id
    )
    return jobs.insert(session, request, recipe, origin=origin, moment=now()).id


def put_job(session: Session, job_id: str, *states: str) -> None:
    """Lead a job through states."""
    for state in states:
        assert move(session, job_id, JobState(state)), state


class KeyOnce:
    """An Idempotency-Key on the real table."""

    def __init__(self, scope: str, key: str, body: bytes) -> None:
        self._place = (scope, key)
        self._hash = hashlib.sha256(body).hexdigest()

    def replay(self, session: Session) -> Answer | None:
        row = session.get(IdempotencyRow, self._place)
        if row is None:
            scope, key = self._place
            session.add(IdempotencyRow(scope=scope, key=key, body_hash=self._hash))
            session.flush()
            return None
        if row.body_hash != self._hash:
            raise RecipeError("this Idempotency-Key came with another body")
        assert row.status is not None
        return Answer(status=row.status, headers=row.headers, body=row.body, replayed=True)

    def keep(self, session: Session, answer: Answer) -> None:
        row = session.get_one(IdempotencyRow, self._place)
        row.status, row.headers, row.body = answer.status, answer.headers, answer.body


def _caller(authorization: str = Header(default="ann/red/submitter")) -> Caller:
    owner, team, role = authorization.split("/")
    return Caller(owner=owner, team=team, role=role)


async def _once(request: Request) -> KeyOnce | None:
    key = request.headers.get("idempotency-key")
    return None if key is None else KeyOnce(request.url.path, key, await request.body())


GATE = Gate(viewer=_caller, submitter=_caller, once=_once)


def client_of(*routers: Any) -> TestClient:
    """Return a client of an application with these routes."""
    app = FastAPI()
    for one in routers:
        app.include_router(one)

    @app.exception_handler(FdaError)
    def refuse(_request: Request, error: FdaError) -> JSONResponse:
        return JSONResponse(error.as_dict(), STATUS.get(error.code, 422))

    return TestClient(app)


class Clock:
    """A clock that stands until it is told."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, **by: float) -> None:
        self.moment += timedelta(**by)


class Woken:
    """Remembers what the controller was told."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def __call__(self, jobs: Sequence[str]) -> None:
        self.jobs += jobs


def all_jobs(session: Session) -> list[JobRow]:
    return list(session.scalars(select(JobRow).order_by(JobRow.output)))


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe that can be parsed; nothing in it is there."""
    return {
        "base": "/models/base",
        "experts": [
            {"name": "one", "model": "/models/one"},
            {"name": "two", "model": "/models/two"},
        ],
        "method": {"name": "task_arithmetic", "scale": 0.5},
        "output": "/merged/model",
        **changes,
    }
