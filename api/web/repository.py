"""SQL of the overview: what pages ask beyond what the JSON routes do."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from api.db.tables import JobRow
from fda_core.contract.service.states import TERMINAL

OVER = sorted(state.value for state in TERMINAL)


def counts(session: Session, *, team: str | None, since: datetime) -> Mapping[str, int]:
    """Return how many jobs are under way, and how many ended lately, by state."""
    query = (
        select(JobRow.state, func.count())
        .where(or_(JobRow.state.not_in(OVER), JobRow.updated_at >= since))
        .group_by(JobRow.state)
    )
    if team is not None:
        query = query.where(JobRow.team == team)
    return {state: count for state, count in session.execute(query)}  # noqa: C416
