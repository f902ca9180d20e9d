"""Run one unit of a plan: the same function for a laptop, a worker process and a service."""

import torch

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.events import UnitFinished, UnitStarted
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.construct_unit import run_construct
from fda_core.engine.context import Emit, IsCancelled, UnitContext
from fda_core.engine.device import describe_device, fast_float32, float32_kernel
from fda_core.engine.journal import Journal
from fda_core.engine.merge_unit import run_merge
from fda_core.engine.publish_unit import run_publish
from fda_core.engine.resources import is_out_of_memory
from fda_core.errors import NonFinite, OutOfDeviceMemory, OutOfHostMemory
from fda_core.methods.registry import method_of
from fda_core.storage.base import Storage

RUNNERS = {"construct": run_construct, "merge": run_merge, "publish": run_publish}


class UnitRunner:
    """Runs units of one plan on one device, and keeps their records."""

    def __init__(
        self,
        plan: Plan,
        storage: Storage,
        *,
        device: torch.device,
        worker: int,
        emit: Emit,
        is_cancelled: IsCancelled,
    ) -> None:
        self._plan = plan
        self._storage = storage
        self._journal = Journal(plan, storage)
        self._method = method_of(plan.recipe)
        self._device = device
        self._kernel = float32_kernel() if device.type == "cpu" else "default"
        self._device_name = f"{describe_device(device)}, {self._kernel} float32"
        self._worker = worker
        self._emit = emit
        self._is_cancelled = is_cancelled

    def run(self, unit: Unit) -> UnitRecord:
        """Run a unit whatever the journal says, and write its record last.

        Can be done twice with the same result. Raises `Cancelled` within one optimiser step
        or one tensor of being told to stop.
        """
        context = UnitContext(
            plan=self._plan,
            unit=unit,
            method=self._method,
            storage=self._storage,
            journal=self._journal,
            device=self._device,
            device_name=self._device_name,
            emit=self._emit,
            is_cancelled=self._is_cancelled,
        )
        self._emit(UnitStarted(unit=unit.id, worker=self._worker))
        record = self._guarded(context)
        self._journal.write(record)
        self._emit(
            UnitFinished(
                unit=unit.id,
                worker=self._worker,
                seconds=record.cost.seconds,
                source=record.source,
            )
        )
        return record

    def _guarded(self, context: UnitContext) -> UnitRecord:
        """Run with the chosen matrix kernel, naming memory that ran out."""
        unit = context.unit
        hint = f"The plan reckons {unit.memory_bytes} bytes for this unit. For FDA, set \
construct.microbatch lower; or use fewer --workers or a larger machine."
        try:
            with fast_float32(self._kernel):
                return RUNNERS[unit.kind](context)
        except torch.OutOfMemoryError as problem:
            raise OutOfDeviceMemory(
                f"unit {unit.id}: {problem}", hint=hint, unit=unit.id
            ) from problem
        except MemoryError as problem:
            raise OutOfHostMemory(
                f"unit {unit.id} ran out of main memory", hint=hint, unit=unit.id
            ) from problem
        except RuntimeError as problem:
            if is_out_of_memory(problem):
                raise OutOfHostMemory(
                    f"unit {unit.id} ran out of main memory: {problem}", hint=hint, unit=unit.id
                ) from problem
            if "without overflow" in str(problem):
                raise NonFinite(
                    f"unit {unit.id}: a number in the recipe is too large for "
                    f"{self._plan.recipe.dtype.compute}: {problem}",
                    hint="Lower scale, weight or learning rate, or use dtype.compute: float64.",
                    unit=unit.id,
                ) from problem
            raise
