"""A runner of units that does nothing but keep records: what the service costs by itself."""

from typing import Any

import torch

from fda_core.contract.artifacts import Manifest, UnitCost, UnitRecord
from fda_core.contract.events import UnitFinished, UnitStarted
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.uris import join
from fda_core.engine.context import Emit, IsCancelled
from fda_core.engine.journal import Journal
from fda_core.storage.base import Storage

COST = UnitCost(seconds=0.0, peak_memory_bytes=0, flops=0, read_bytes=0, write_bytes=0)


class NoopRunner:
    """Stands for `UnitRunner`; publishing writes a manifest of nothing."""

    def __init__(
        self,
        plan: Plan,
        storage: Storage,
        *,
        device: torch.device,
        worker: int,
        emit: Emit,
        is_cancelled: IsCancelled,
        **_more: Any,
    ) -> None:
        self._plan = plan
        self._storage = storage
        self._journal = Journal(plan, storage)
        self._device = device
        self._worker = worker
        self._emit = emit
        self._is_cancelled = is_cancelled

    def run(self, unit: Unit) -> UnitRecord:
        """Write the unit's record, as the engine's runner does at the end."""
        self._emit(UnitStarted(unit=unit.id, worker=self._worker))
        record = UnitRecord(
            unit=unit.id, kind=unit.kind, files=(), cost=COST, worker="noop", device="cpu"
        )
        if unit.kind == "publish":
            self._publish()
        self._journal.write(record)
        self._emit(UnitFinished(unit=unit.id, worker=self._worker, seconds=0.0, source="run"))
        return record

    def _publish(self) -> None:
        manifest = Manifest(
            job_id=self._plan.job_id,
            created="2026-01-01T00:00:00Z",
            versions={},
            seed=0,
            device="cpu",
            threads=1,
            method=self._plan.recipe.method.name,
            parameters={},
            inputs=(),
            outputs={},
            notes=(),
            warnings=(),
        )
        address = join(self._plan.output, "merge_manifest.json")
        self._storage.put(address, manifest.model_dump_json().encode())
