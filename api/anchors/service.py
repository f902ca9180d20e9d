"""Rules about the anchor cache: what is there, who used it, and removing it."""

from collections import defaultdict
from datetime import datetime

from sqlalchemy import select

from api.anchors import repository
from api.auth.service import Caller
from api.context import Context
from api.db.tables import JobRow
from api.errors import UnknownResource
from api.jobs.metrics import read_records
from api.paging import Slice
from fda_core.contract.rest.workers import CachedAnchors

JOBS_ASKED = 50
"""Newest FDA jobs whose journals are asked what they used."""


def list_anchors(
    context: Context, caller: Caller, *, after: str | None, limit: int
) -> Slice[CachedAnchors]:
    """Return entries by key, each with the jobs of the caller's team that made or took it."""
    workspace = context.settings.workspace
    keys = repository.entries(context.storage, workspace)
    wanted = [entry for entry in keys if after is None or entry.key > after][: limit + 1]
    used = _uses(context, caller) if wanted else {}
    found = []
    for entry in wanted:
        layer, expert = repository.what(context.storage, workspace, entry.key)
        uses = used.get(entry.key, [])
        found.append(
            CachedAnchors(
                key=entry.key,
                size_bytes=entry.size_bytes,
                layer=layer,
                expert=expert,
                used_by=[job_id for job_id, _ in uses],
                last_used_at=max((moment for _, moment in uses), default=None),
            )
        )
    return Slice.of(found, limit=limit, place=lambda entry: (entry.key,))


def _uses(context: Context, caller: Caller) -> dict[str, list[tuple[str, datetime]]]:
    """Return by key the newest jobs that used it, from the records of their units."""
    query = select(JobRow.id, JobRow.updated_at).where(
        JobRow.method == "fda", JobRow.units_done > 0
    )
    if not caller.is_admin:
        query = query.where(JobRow.team == caller.team)
    with context.database.read() as session:
        newest = query.order_by(JobRow.created_at.desc()).limit(JOBS_ASKED)
        jobs = [(job_id, moment) for job_id, moment in session.execute(newest)]
    used: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
    for job_id, moment in jobs:
        records = read_records(context.storage, context.settings.workspace, job_id)
        for key in {
            file.path.split("/")[-2]
            for record in records
            if record.kind == "construct"
            for file in record.files
        }:
            used[key].append((job_id, moment))
    return used


def delete_anchors(context: Context, key: str) -> None:
    """Remove an entry. A job that needs it constructs it again."""
    if not repository.exists(context.storage, context.settings.workspace, key):
        raise UnknownResource(f"the cache has no {key}", hint="GET /v1/anchors lists it.")
    repository.delete(context.storage, context.settings.workspace, key)
