"""SQL about events, and about how far jobs are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db.tables import EventRow, JobRow
from api.jobs import views
from fda_core.contract.rest.jobs import EventView
from fda_core.contract.service.states import TERMINAL, JobState

AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a job is, by the numbers that every change counts up."""

    version: int
    last_seq: int
    state: JobState

    @property
    def is_over(self) -> bool:
        """Say whether nothing more happens unless somebody tries again."""
        return self.state in TERMINAL


def standings(session: Session, job_ids: Sequence[str]) -> dict[str, Standing]:
    """Return how far jobs are; those that are not there are left out."""
    found: dict[str, Standing] = {}
    for some in _pieces(job_ids):
        query = select(JobRow.id, JobRow.version, JobRow.last_seq, JobRow.state)
        for job_id, version, last_seq, state in session.execute(query.where(JobRow.id.in_(some))):
            found[job_id] = Standing(version=version, last_seq=last_seq, state=JobState(state))
    return found


def _pieces(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def between(session: Session, job_id: str, *, after: int, upto: int) -> Sequence[EventView]:
    """Return a job's events with numbers in (after, upto], in order."""
    query = (
        select(EventRow)
        .where(EventRow.job_id == job_id, EventRow.seq > after, EventRow.seq <= upto)
        .order_by(EventRow.seq)
    )
    return [views.event(row) for row in session.scalars(query)]
