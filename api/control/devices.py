"""Which queue a job's layers go to."""

from collections.abc import Callable
from dataclasses import dataclass

from fda_core.contract.plan import Plan
from fda_core.contract.service import names


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Which queue a job's layers go to: `device` is a queue, or auto."""

    device: str
    gpu_memory_bytes: int

    def choose(self, plan: Plan, served: Callable[[], set[str]]) -> str:
        """Return the queue: what is set; else a GPU if a worker serves one, by memory needed."""
        if self.device != "auto":
            return self.device
        queues = served()
        needed = max(unit.memory_bytes for unit in plan.units)
        if names.GPU_LARGE in queues and (
            needed > self.gpu_memory_bytes or names.GPU not in queues
        ):
            return names.GPU_LARGE
        return names.GPU if names.GPU in queues else names.CPU
