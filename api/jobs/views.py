"""Rows as the resources that callers get."""

from datetime import datetime
from typing import Any, Literal, cast

from api.db.tables import AttemptRow, EventRow, JobRow, LogRow, UnitRow
from fda_core.contract.plan import UnitKind
from fda_core.contract.rest.jobs import (
    AttemptView,
    EventView,
    Job,
    JobProgress,
    JobUrls,
    LogLine,
    PlanSummary,
    UnitView,
)
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import TERMINAL, JobState, UnitState

Stage = Literal["construct", "merge", "publish"]


def job(row: JobRow, *, base_url: str) -> Job:
    """Return a job, the same in lists and details."""
    return Job(
        id=row.id,
        state=JobState(row.state),
        stage=cast("Stage | None", row.stage),
        attempt=row.attempt,
        priority=row.priority,
        owner=row.owner,
        team=row.team,
        labels=row.labels,
        method=row.method,
        base=row.base,
        output=row.output,
        experts=row.experts,
        progress=_progress(row),
        error=_error(row.error),
        recipe=row.recipe,
        resolved=row.resolved,
        plan=None if row.plan is None else PlanSummary.model_validate(row.plan),
        batch=row.batch_id,
        schedule=row.schedule_id,
        deadline=row.deadline,
        created_at=row.created_at,
        timestamps={state: datetime.fromisoformat(at) for state, at in row.timestamps.items()},
        updated_at=row.updated_at,
        version=row.version,
        urls=_urls(row.id, base_url),
    )


def _urls(job_id: str, base_url: str) -> JobUrls:
    here = f"{base_url}/v1/jobs/{job_id}"
    return JobUrls(
        self=here,
        cancel=f"{here}/cancel",
        events=f"{here}/events",
        artifacts=f"{here}/artifacts",
        page=f"{base_url}/jobs/{job_id}",
    )


def _progress(row: JobRow) -> JobProgress:
    told: dict[str, Any] = {
        key: value for key, value in row.progress.items() if key in JobProgress.model_fields
    }
    if JobState(row.state) in TERMINAL:
        told = {key: told[key] for key in ("ratio",) if key in told}
    if row.state == JobState.SUCCEEDED:
        told["ratio"] = 1.0
    told.setdefault("ratio", _ratio(row))
    counts = {
        "units_done": row.units_done,
        "units_total": row.units_total,
        "bytes_done": row.bytes_done,
        "bytes_total": row.bytes_total,
    }
    return JobProgress.model_validate(told | counts)


def _ratio(row: JobRow) -> float:
    """Return how far a job is, where nobody has reckoned its units' work."""
    done, total = row.units_done, row.units_total
    return min(1.0, done / total) if total else 0.0


def _error(data: dict[str, Any] | None) -> ErrorReport | None:
    return None if data is None else ErrorReport.model_validate(data)


def unit(row: UnitRow) -> UnitView:
    """Return a unit."""
    return UnitView(
        id=row.id,
        kind=cast(UnitKind, row.kind),
        state=UnitState(row.state),
        layer=row.layer,
        expert=row.expert,
        shard=row.shard,
        needs=row.needs,
        tries=row.tries,
        worker=row.worker,
        device=row.device,
        source=cast('Literal["run", "cache", "journal"] | None', row.source),
        step=row.step,
        steps=row.steps,
        loss=row.loss,
        alignment=row.alignment,
        read_bytes=row.read_bytes,
        write_bytes=row.write_bytes,
        memory_bytes=row.memory_bytes,
        flops=int(row.flops),
        seconds=row.seconds,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=_error(row.error),
    )


def attempt(row: AttemptRow) -> AttemptView:
    """Return a try at a unit."""
    return AttemptView.model_validate(
        {
            "attempt": row.attempt,
            "unit": row.unit,
            "worker": row.worker,
            "outcome": row.outcome,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "error": row.error,
        }
    )


def event(row: EventRow) -> EventView:
    """Return an event."""
    return EventView(id=row.seq, job=row.job_id, at=row.at, type=row.kind, data=row.data)


def log_line(row: LogRow) -> LogLine:
    """Return a line of a job's log."""
    return LogLine(
        id=row.seq,
        at=row.at,
        level=row.level,
        unit=row.unit,
        worker=row.worker,
        text=row.text,
        fields=row.fields,
    )
