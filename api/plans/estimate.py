"""How long a plan will take, from how fast units of the same kinds were done here lately."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.db.tables import UnitRow
from fda_core.contract.plan import Plan, Unit

LATELY = 200
"""Units of a kind that are looked at."""
Speeds = Mapping[str, tuple[float, float]]
"""By kind: seconds per operation, and per byte read and written."""


def speeds(session: Session) -> Speeds:
    """Return what the units done last took."""
    found: dict[str, tuple[float, float]] = {}
    for kind in ("construct", "merge", "publish"):
        newest = (
            select(UnitRow.seconds, UnitRow.flops, UnitRow.read_bytes, UnitRow.write_bytes)
            .where(
                UnitRow.kind == kind,
                UnitRow.state == "done",
                UnitRow.source == "run",
                UnitRow.seconds > 0,
            )
            .order_by(UnitRow.job_id.desc())
            .limit(LATELY)
            .subquery()
        )
        row = newest.c
        seconds, flops, moved = session.execute(
            select(
                func.sum(row.seconds),
                func.sum(row.flops),
                func.sum(row.read_bytes + row.write_bytes),
            )
        ).one()
        if seconds:
            found[kind] = (
                float(seconds) / float(flops) if flops else 0.0,
                float(seconds) / float(moved) if moved else 0.0,
            )
    return found


def seconds_of(plan: Plan, known: Speeds, *, workers: int) -> float | None:
    """Return the time a plan takes with so many workers, None if a kind was never done here.

    The last unit runs alone; the others are shared, none faster than its longest.
    """
    times = [_seconds(unit, known) for unit in plan.units if not unit.cached]
    if any(time is None for time in times):
        return None
    spent = [time for time in times if time is not None]
    shared, alone = spent[:-1], spent[-1:]
    return max(sum(shared) / max(1, workers), max(shared, default=0.0)) + sum(alone)


def _seconds(unit: Unit, known: Speeds) -> float | None:
    if unit.kind not in known:
        return None
    per_flop, per_byte = known[unit.kind]
    moved = per_byte * (unit.read_bytes + unit.write_bytes)
    return max(per_flop * unit.flops, moved)
