"""Units of locked jobs: those of a plan, their states, what progress is reckoned from."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from api.control.repository.statements import changed
from api.db.tables import UnitRow
from fda_core.contract.service.states import UnitState


def replace_units(session: Session, job_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give a job the units of a new plan."""
    changed(session, delete(UnitRow).where(UnitRow.job_id == job_id))
    if rows:
        session.execute(insert(UnitRow), list(rows))


def units(
    session: Session, wanted: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], UnitRow]:
    """Return some units of some jobs, to be changed. The jobs must be locked."""
    found: dict[tuple[str, str], UnitRow] = {}
    for job_id, ids in wanted.items():
        rows = session.scalars(
            select(UnitRow)
            .where(UnitRow.job_id == job_id, UnitRow.id.in_(ids))
            .execution_options(populate_existing=True)
        )
        found |= {(row.job_id, row.id): row for row in rows}
    return found


def unit(session: Session, job_id: str, unit_id: str) -> UnitRow | None:
    """Return one unit to be changed. The job must be locked."""
    return units(session, {job_id: [unit_id]}).get((job_id, unit_id))


def unit_lines(session: Session, job_id: str) -> Sequence[Any]:
    """Return all units of a job, in plan order, as far as handing them out needs."""
    return session.execute(
        select(
            UnitRow.id,
            UnitRow.kind,
            UnitRow.state,
            UnitRow.needs,
            UnitRow.token,
            UnitRow.queue,
            UnitRow.microbatch,
            UnitRow.not_before,
            UnitRow.tries,
        )
        .where(UnitRow.job_id == job_id)
        .order_by(UnitRow.place)
    ).all()


def tally_lines(session: Session, job_id: str) -> Sequence[Any]:
    """Return all units of a job as far as reckoning progress needs."""
    return session.execute(
        select(
            UnitRow.id,
            UnitRow.state,
            UnitRow.source,
            UnitRow.layer,
            UnitRow.expert,
            UnitRow.step,
            UnitRow.steps,
            UnitRow.loss,
            UnitRow.alignment,
            UnitRow.read_bytes,
            UnitRow.write_bytes,
            UnitRow.moved_bytes,
            UnitRow.flops,
            UnitRow.queue,
        ).where(UnitRow.job_id == job_id)
    ).all()


def mark_ready(session: Session, job_id: str, ids: Collection[str]) -> None:
    """Mark units whose messages were sent, those that nobody took meanwhile."""
    changed(
        session,
        update(UnitRow)
        .where(
            UnitRow.job_id == job_id,
            UnitRow.id.in_(ids),
            UnitRow.state == UnitState.PENDING.value,
        )
        .values(state=UnitState.READY.value, not_before=None),
    )


def waiting_retries(session: Session, moment: datetime) -> set[str]:
    """Return the jobs with a unit that waited to be tried again and may be now."""
    return set(
        session.scalars(
            select(UnitRow.job_id)
            .where(UnitRow.not_before <= moment, UnitRow.state == UnitState.PENDING.value)
            .distinct()
        )
    )


def rest_units(session: Session, job_id: str) -> None:
    """Put back what ran or was on its way when a job ended."""
    changed(
        session,
        update(UnitRow)
        .where(
            UnitRow.job_id == job_id,
            UnitRow.state.in_([UnitState.READY.value, UnitState.RUNNING.value]),
        )
        .values(state=UnitState.PENDING.value, token=None, not_before=None),
    )


def finish_units(session: Session, job_id: str, moment: datetime) -> None:
    """Mark all units done: the output is whole."""
    changed(
        session,
        update(UnitRow)
        .where(UnitRow.job_id == job_id, UnitRow.state != UnitState.DONE.value)
        .values(
            state=UnitState.DONE.value,
            source="journal",
            token=None,
            not_before=None,
            error=None,
            finished_at=moment,
        ),
    )
