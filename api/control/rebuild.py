"""Make the database again from the workspace: `fda admin rebuild`.

The workspace has every job as submitted, its plan, its records and how it ended. What was only
in the database is lost: events but one, logs, tries that came to nothing, webhooks, keys and
schedules. Jobs that had not ended are running again, and go on where their records end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.control import repository
from api.control.planned_rows import planned_columns, unit_rows
from api.control.plans import Plans
from api.db.session import Database
from api.db.tables import AttemptRow, EventRow, JobRow
from api.db.types import now
from api.ids import new_id
from api.jobs.transitions import STATE_EVENT
from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan
from fda_core.contract.rest.base import utc
from fda_core.contract.service import names
from fda_core.contract.service.jobfile import JobFile, Outcome
from fda_core.contract.service.states import JobState
from fda_core.contract.uris import basename, join, parent
from fda_core.engine.journal import Journal
from fda_core.errors import FdaError, NotFound
from fda_core.storage.base import Storage

_log = structlog.get_logger("fda.control.rebuild")


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What came of it: ids of jobs made again, known already, and not readable."""

    made: tuple[str, ...]
    known: tuple[str, ...]
    unreadable: tuple[str, ...]


def rebuild(database: Database, storage: Storage, workspace: str) -> Rebuilt:
    """Make a row for every job of a workspace that the database does not know.

    One transaction per job, so it can be broken off and started again. Run it while no
    controller runs, or beside one: rows appear whole.
    """
    plans = Plans(storage, workspace)
    ids = _jobs_there(storage, workspace)
    with database.read() as session:
        known = repository.known_jobs(session, ids)
    made, unreadable = [], []
    for job_id in ids:
        if job_id in known:
            continue
        try:
            job = _read(storage, names.job_file(workspace, job_id), JobFile)
        except (FdaError, ValidationError) as problem:
            _log.warning("job_file_unreadable", job=job_id, problem=str(problem))
            unreadable.append(job_id)
            continue
        _remake(database, plans, job)
        made.append(job_id)
    return Rebuilt(made=tuple(made), known=tuple(sorted(known)), unreadable=tuple(unreadable))


def _jobs_there(storage: Storage, workspace: str) -> list[str]:
    """Return the jobs that left a job.json, oldest first as their ids sort by time."""
    found: Iterable[str] = (
        basename(parent(info.uri))
        for info in storage.list(join(workspace, "jobs"))
        if basename(info.uri) == "job.json" and parent(parent(info.uri)) == join(workspace, "jobs")
    )
    return sorted(found)


def _read(storage: Storage, address: str, kind: Any) -> Any:
    return kind.model_validate_json(storage.read(address))


def _remake(database: Database, plans: Plans, job: JobFile) -> None:
    plan = plans.read(job.id)
    outcome = _outcome(plans, job)
    done: Mapping[str, UnitRecord] = {}
    if plan is not None:
        done = Journal(plan, plans.storage).find_all()
    state = _state(outcome, plan)
    with database.write() as session:
        row = _row(job, state=state, outcome=outcome, plan=plan, done=done)
        repository.add_job(session, row, job.labels)
        if plan is not None:
            _add_units(session, job, plan=plan, done=done, state=state)
        event = EventRow(
            job_id=job.id,
            seq=1,
            at=row.updated_at,
            kind=STATE_EVENT,
            data={"state": state.value, "attempt": job.attempt, "rebuilt": True},
        )
        repository.add_events(session, [event])


def _outcome(plans: Plans, job: JobFile) -> Outcome | None:
    """Return how the job's present attempt ended, None if it had not."""
    try:
        found = _read(plans.storage, names.outcome_file(plans.workspace, job.id), Outcome)
    except (NotFound, ValidationError):
        return None
    assert isinstance(found, Outcome)
    return found if found.attempt >= job.attempt else None


def _state(outcome: Outcome | None, plan: Plan | None) -> JobState:
    if outcome is not None:
        return JobState(outcome.state)
    return JobState.RUNNING if plan is not None else JobState.QUEUED


def _row(
    job: JobFile,
    *,
    state: JobState,
    outcome: Outcome | None,
    plan: Plan | None,
    done: Mapping[str, UnitRecord],
) -> JobRow:
    moment = now()
    device = job.device or names.CPU
    columns: dict[str, Any] = _as_sent(job)
    if plan is not None:
        columns |= planned_columns(plan, done=done, device=device)
        columns["experts"] = [expert.name for expert in plan.experts]
    if state is JobState.SUCCEEDED:
        columns |= {
            "units_done": columns.get("units_total", 0),
            "bytes_done": columns.get("bytes_total", 0),
        }
    timestamps = {**(outcome.timestamps if outcome else {}), "queued": job.created}
    timestamps.setdefault(state.value, utc(moment))
    if outcome is not None and outcome.error is not None:
        columns["error"] = outcome.error.model_dump(mode="json")
    return JobRow(
        id=job.id,
        state=state.value,
        attempt=outcome.attempt if outcome else job.attempt,
        priority=job.priority,
        owner=job.owner,
        team=job.team,
        labels=job.labels,
        recipe=job.recipe,
        batch_id=job.batch,
        schedule_id=job.schedule,
        created_at=datetime.fromisoformat(job.created),
        updated_at=moment,
        timestamps=timestamps,
        last_seq=1,
        **columns,
    )


def _as_sent(job: JobFile) -> dict[str, Any]:
    """Return what the recipe itself says, as far as it can be told without a plan."""
    recipe = job.recipe if isinstance(job.recipe, dict) else {}
    method = recipe.get("method", "")
    experts = recipe.get("experts", [])
    return {
        "method": str(method.get("name", "") if isinstance(method, dict) else method),
        "base": str(recipe.get("base", "")),
        "output": recipe.get("output"),
        "experts": [str(e.get("name", "")) for e in experts if isinstance(e, dict)],
    }


def _add_units(
    session: Session,
    job: JobFile,
    *,
    plan: Plan,
    done: Mapping[str, UnitRecord],
    state: JobState,
) -> None:
    moment = now()
    rows = unit_rows(plan, done=done, device=job.device or names.CPU, moment=moment)
    if state is JobState.SUCCEEDED:
        for row in rows:
            row.update(state="done", source="journal")
    repository.replace_units(session, job.id, rows)
    session.add_all(
        AttemptRow(
            id=new_id(),
            job_id=job.id,
            attempt=job.attempt,
            unit=unit_id,
            token=repository.rebuilt_token(job.id, unit_id),
            worker=record.worker,
            outcome="done",
            started_at=moment,
            finished_at=moment,
        )
        for unit_id, record in done.items()
    )
