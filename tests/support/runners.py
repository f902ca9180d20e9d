"""Runners that tests put in the engine's place: `FDA_RUNNER=tests.support.runners:Held`."""

import time
from pathlib import Path

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.lowered import microbatch_of
from fda_core.engine.units import UnitRunner
from fda_core.errors import Cancelled, OutOfDeviceMemory


def hold(plan: Plan, unit: str) -> Path:
    """Make the file that holds a unit; delete it to let the unit go on."""
    file = _hold_file(plan, unit)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def _hold_file(plan: Plan, unit: str) -> Path:
    return Path(plan.workspace) / "holds" / plan.job_id / unit


class Held(UnitRunner):
    """The engine's, but a unit waits at its start for as long as its file is there."""

    def run(self, unit: Unit) -> UnitRecord:
        while _hold_file(self._plan, unit.id).exists():
            if self._is_cancelled():
                raise Cancelled(unit.id)
            time.sleep(0.005)
        return super().run(unit)


class Full(UnitRunner):
    """Its device has too little memory for more than two anchors at once."""

    def run(self, unit: Unit) -> UnitRecord:
        if unit.kind == "construct" and (microbatch_of(self._plan, unit) or 0) > 2:
            raise OutOfDeviceMemory(f"unit {unit.id}: CUDA out of memory", unit=unit.id)
        return super().run(unit)


class Broken(UnitRunner):
    """Has a bug."""

    def run(self, unit: Unit) -> UnitRecord:
        raise KeyError(unit.id)
