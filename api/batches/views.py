"""Batches as resources."""

from collections.abc import Mapping
from datetime import datetime

from api.batches.results import Result
from api.db.tables import BatchRow, JobRow
from fda_core.contract.rest.batches import Batch, BatchJob, BatchRequest, BatchUrls
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import TERMINAL, JobState


def batch_view(
    row: BatchRow, counts: Mapping[JobState, int], table: list[BatchJob] | None = None
) -> Batch:
    """Return a batch, with its table if it is given."""
    here = f"/v1/batches/{row.id}"
    return Batch(
        id=row.id,
        name=row.name,
        owner=row.owner,
        team=row.team,
        labels=row.labels,
        jobs=row.jobs,
        counts=dict(counts),
        over=set(counts) <= TERMINAL,
        schedule=row.schedule_id,
        created_at=row.created_at,
        request=BatchRequest.model_validate(row.request),
        table=table,
        urls=BatchUrls(self=here, cancel=f"{here}/cancel", jobs=f"/v1/jobs?batch={row.id}"),
    )


def table_view(
    row: BatchRow,
    jobs: Mapping[str, JobRow],
    results: Mapping[str, Result],
    *,
    moment: datetime,
) -> list[BatchJob]:
    """Return a line for every job the batch was made with, deleted ones too."""
    lines = []
    for index, entry in enumerate(row.entries):
        job, result = jobs.get(entry["job"]), results.get(entry["job"])
        progress = job.progress if job else {}
        lines.append(
            BatchJob(
                index=index,
                id=entry["job"],
                state=JobState(job.state) if job else "deleted",
                values=entry["values"],
                method=job.method if job else None,
                output=entry["output"],
                ratio=_ratio(job),
                alignment=result.alignment if result else progress.get("alignment"),
                drift=result.drift if result else None,
                seconds=_seconds(job, moment),
                compute_seconds=result.compute_seconds if result else None,
                read_bytes=result.read_bytes if result else None,
                write_bytes=result.write_bytes if result else None,
                error=ErrorReport.model_validate(job.error) if job and job.error else None,
                url=f"/v1/jobs/{entry['job']}",
            )
        )
    return lines


def _ratio(job: JobRow | None) -> float:
    if job is None:
        return 0.0
    if job.state == JobState.SUCCEEDED:
        return 1.0
    if job.bytes_total:
        return min(1.0, job.bytes_done / job.bytes_total)
    return job.units_done / job.units_total if job.units_total else 0.0


def _seconds(job: JobRow | None, moment: datetime) -> float | None:
    """Return the time from the first unit to the end, or to now."""
    if job is None or JobState.RUNNING.value not in job.timestamps:
        return None
    begun = datetime.fromisoformat(job.timestamps[JobState.RUNNING.value])
    ended = job.timestamps.get(job.state) if JobState(job.state) in TERMINAL else None
    until = datetime.fromisoformat(ended) if ended else moment
    return max(0.0, (until - begun).total_seconds())
