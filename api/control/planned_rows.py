"""What a plan puts into the database: columns of its job, and a row for each of its units."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from api.plans.summary import summary_of
from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.service import names
from fda_core.contract.service.states import UnitState


def planned_columns(
    plan: Plan,
    *,
    done: Mapping[str, UnitRecord],
    device: str,
    seconds_estimate: float | None = None,
) -> dict[str, Any]:
    """Return the columns of a job that its plan gives."""
    finished = [unit for unit in plan.units if unit.id in done]
    return {
        "resolved": plan.recipe.model_dump(mode="json", by_alias=True),
        "method": plan.recipe.method.name,
        "base": plan.recipe.base,
        "output": plan.output,
        "plan": summary_of(plan, seconds_estimate=seconds_estimate).model_dump(mode="json"),
        "plan_digest": plan.digest,
        "device": device,
        "error": None,
        "stage": next((u.kind for u in plan.units if u.id not in done), None),
        "units_total": len(plan.units),
        "units_done": len(finished),
        "bytes_total": sum(_bytes(unit) for unit in plan.units),
        "bytes_done": sum(_bytes(unit) for unit in finished),
        "progress": {},
    }


def _bytes(unit: Unit) -> int:
    return unit.read_bytes + unit.write_bytes


def unit_rows(
    plan: Plan, *, done: Mapping[str, UnitRecord], device: str, moment: datetime
) -> Sequence[dict[str, Any]]:
    """Return the rows of a plan's units; what has a record is done. Cached ones compute nothing."""
    rows = []
    for place, unit in enumerate(plan.units):
        record = done.get(unit.id)
        rows.append(
            {
                "job_id": plan.job_id,
                "id": unit.id,
                "place": place,
                "kind": unit.kind,
                "state": (UnitState.DONE if record else UnitState.PENDING).value,
                "layer": unit.layer,
                "expert": unit.expert,
                "shard": unit.shard,
                "needs": list(unit.needs),
                "tries": 0,
                "source": "journal" if record else None,
                "worker": record.worker if record else None,
                "device": record.device if record else None,
                "seconds": record.cost.seconds if record else None,
                "step": unit.steps if record else 0,
                "steps": unit.steps,
                "read_bytes": unit.read_bytes,
                "write_bytes": unit.write_bytes,
                "moved_bytes": _bytes(unit) if record else 0,
                "memory_bytes": unit.memory_bytes,
                "flops": 0 if unit.cached else unit.flops,
                "queue": names.queue_of(unit, device=device),
                "finished_at": moment if record else None,
            }
        )
    return rows
