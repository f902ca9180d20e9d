"""What a unit is given to run with, and what it tells on the way."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fda_core.contract.artifacts import UnitCost
from fda_core.contract.events import BytesMoved, Event, StepReported
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.device import peak_memory_bytes
from fda_core.engine.journal import Journal
from fda_core.errors import Cancelled
from fda_core.methods.base import Method
from fda_core.storage.base import Storage

REPORT_SECONDS = 0.25

Emit = Callable[[Event], None]
IsCancelled = Callable[[], bool]


@dataclass(kw_only=True)
class UnitContext:
    """Everything around one unit: where it reads and writes, and who listens."""

    plan: Plan
    unit: Unit
    method: Method
    storage: Storage
    journal: Journal
    device: torch.device
    device_name: str
    emit: Emit
    is_cancelled: IsCancelled
    read_bytes: int = 0
    write_bytes: int = 0
    flops: int = 0
    _started: float = field(default_factory=time.monotonic)
    _cpu_started: float = field(default_factory=time.process_time)
    _reported: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype to compute in."""
        return torch.float64 if self.plan.recipe.dtype.compute == "float64" else torch.float32

    @property
    def worker(self) -> str:
        """Return this process as people find it: host and process id."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def moved(self, *, read: int = 0, write: int = 0) -> None:
        """Count bytes and tell them."""
        self.read_bytes += read
        self.write_bytes += write
        self.emit(BytesMoved(unit=self.unit.id, read_bytes=read, write_bytes=write))
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` if the merge was stopped."""
        if self.is_cancelled():
            raise Cancelled(self.unit.id)

    def step(self, report: StepReported) -> None:
        """Tell an optimiser's step, a few times a second and at its end."""
        self.check()
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS or report.step == report.steps:
            self._reported = now
            self.emit(report)

    def cost(self) -> UnitCost:
        """Return what the unit has taken so far."""
        return UnitCost(
            seconds=round(time.monotonic() - self._started, 3),
            cpu_seconds=round(time.process_time() - self._cpu_started, 3),
            peak_memory_bytes=peak_memory_bytes(self.device),
            flops=self.flops,
            read_bytes=self.read_bytes,
            write_bytes=self.write_bytes,
        )
