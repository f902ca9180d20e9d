"""How far a job is and how long it will take, by its units' reckoned work.

A unit's work is the seconds that one ordinary device would need: its floating point
operations and bytes over nominal rates, and a little for starting. `ratio` is work done of
all, a running unit counted by its steps, else by its bytes. `seconds_left` is the work left
over the speed this attempt had so far, in work per second since its first unit began; so
it knows of several workers, slow storage and other jobs' units in between without being told.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from fda_core.contract.service.names import CPU
from fda_core.contract.service.states import UnitState

START_SECONDS = 0.05
BYTES_PER_SECOND = 3e8
FLOPS_PER_SECOND = {True: 3e10, False: 1e13}
"""On a CPU, and on anything else."""

ENOUGH_SECONDS = 1.0
ENOUGH_RATIO = 0.005
RECKONED_BY = "speed of this attempt so far"


class Line(Protocol):
    """What is needed of a unit: `repository.tally_lines` and `UnitRow` have it."""

    id: Any
    state: Any
    source: Any
    layer: Any
    expert: Any
    step: Any
    steps: Any
    loss: Any
    alignment: Any
    read_bytes: Any
    write_bytes: Any
    moved_bytes: Any
    flops: Any
    queue: Any


def reckoned_work(line: Line) -> float:
    """Return a unit's work in seconds of a nominal device."""
    rate = FLOPS_PER_SECOND[line.queue in (None, CPU)]
    return float(
        START_SECONDS + (line.read_bytes + line.write_bytes) / BYTES_PER_SECOND + line.flops / rate
    )


def fraction(line: Line) -> float:
    """Return how far a unit is, 0 to 1."""
    if line.state == UnitState.DONE.value:
        return 1.0
    if line.state != UnitState.RUNNING.value:
        return 0.0
    if line.steps:
        return float(min(1.0, line.step / line.steps))
    size = line.read_bytes + line.write_bytes
    return float(min(1.0, line.moved_bytes / size)) if size else 0.0


@dataclass
class _Share:
    work: float
    size_bytes: int
    done: bool = False
    fraction: float = 0.0


@dataclass
class Tally:
    """The sums over a job's units, kept up while reports come in."""

    began: datetime | None
    """When the first unit of this attempt began."""
    shares: dict[str, _Share] = field(default_factory=dict)
    work_total: float = 0.0
    work_kept: float = 0.0
    """Of units that an earlier attempt had done."""
    work_done: float = 0.0
    bytes_done: int = 0
    units_done: int = 0
    running: dict[str, Line] = field(default_factory=dict)
    latest: Line | None = None

    @classmethod
    def of(cls, lines: Iterable[Line], *, began: datetime | None) -> "Tally":
        """Return the tally of a job's units as the database has them."""
        tally = cls(began=began)
        for line in lines:
            work = reckoned_work(line)
            tally.work_total += work
            tally.shares[line.id] = _Share(work, line.read_bytes + line.write_bytes)
            tally.note(line)
            if line.state == UnitState.DONE.value and line.source == "journal":
                tally.work_kept += work
        return tally

    def note(self, line: Line) -> None:
        """Count a unit as it is now."""
        share = self.shares[line.id]
        if share.done != (line.state == UnitState.DONE.value):
            share.done = not share.done
            sign = 1 if share.done else -1
            self.work_done += sign * share.work
            self.bytes_done += sign * share.size_bytes
            self.units_done += sign
        if line.state == UnitState.RUNNING.value:
            share.fraction = fraction(line)
            self.running[line.id] = line
            self.latest = line
        else:
            self.running.pop(line.id, None)
            if self.latest is not None and self.latest.id == line.id:
                self.latest = next(iter(self.running.values()), None)

    def view(self, moment: datetime, *, units_total: int, bytes_total: int) -> dict[str, Any]:
        """Return the job's progress as events and resources show it."""
        done = self.work_done + sum(
            self.shares[unit].work * self.shares[unit].fraction for unit in self.running
        )
        moved = sum(
            int(self.shares[unit].size_bytes * self.shares[unit].fraction) for unit in self.running
        )
        left = self._seconds_left(done, moment)
        latest = self.latest
        return {
            "units_done": self.units_done,
            "units_total": units_total,
            "bytes_done": self.bytes_done + moved,
            "bytes_total": bytes_total,
            "ratio": round(min(1.0, done / self.work_total), 4) if self.work_total else 0.0,
            "layer": latest.layer if latest else None,
            "expert": latest.expert if latest else None,
            "step": latest.step if latest and latest.steps else None,
            "steps": latest.steps if latest and latest.steps else None,
            "loss": latest.loss if latest else None,
            "alignment": latest.alignment if latest else None,
            "seconds_left": left,
            "reckoned_by": None if left is None else RECKONED_BY,
        }

    def _seconds_left(self, done: float, moment: datetime) -> float | None:
        """Return the seconds left, None while there is too little to go by."""
        if self.began is None:
            return None
        elapsed = (moment - self.began).total_seconds()
        gained = done - self.work_kept
        if elapsed < ENOUGH_SECONDS or gained < ENOUGH_RATIO * self.work_total:
            return None
        return round((self.work_total - done) * elapsed / gained, 1)
