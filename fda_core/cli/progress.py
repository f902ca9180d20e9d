"""Progress of a merge in a terminal, or as lines where there is none."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fda_core.cli.console import err, seconds, size
from fda_core.contract.events import (
    BytesMoved,
    Event,
    StepReported,
    UnitFinished,
    UnitRetried,
    UnitStarted,
    WaitingForOther,
)
from fda_core.contract.plan import Plan

LINE_SECONDS = 5.0


class View(Protocol):
    """Shows the state of a merge."""

    def show(self, state: "Tally", event: Event) -> None:
        """Show what an event changed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tally:
    """Counts units, optimiser steps and bytes from events."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.units_total = len(plan.units)
        self.steps_total = sum(unit.steps for unit in plan.units)
        self.bytes_total = sum(unit.read_bytes + unit.write_bytes for unit in plan.units)
        self._finished: set[str] = set()
        self.from_journal = 0
        self.from_cache = 0
        self._steps: dict[str, int] = {}
        self._layers: dict[str, set[int]] = {}
        self._bytes: dict[str, int] = {}
        self._units = {unit.id: unit for unit in plan.units}

    @property
    def units(self) -> int:
        """Return units done, or found done."""
        return len(self._finished)

    @property
    def steps(self) -> int:
        """Return optimiser steps done or spared."""
        return sum(self._steps.values())

    @property
    def bytes(self) -> int:
        """Return bytes read and written, or spared."""
        return sum(self._bytes.values())

    def take(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, StepReported):
            seen = self._layers.setdefault(event.unit, set())
            seen.add(event.layer)
            before = (len(seen) - 1) * event.steps
            self._steps[event.unit] = min(before + event.step, self._units[event.unit].steps)
        elif isinstance(event, BytesMoved):
            moved = self._bytes.get(event.unit, 0) + event.read_bytes + event.write_bytes
            unit = self._units[event.unit]
            self._bytes[event.unit] = min(moved, unit.read_bytes + unit.write_bytes)
        elif isinstance(event, UnitFinished):
            self._finish(event)
        elif isinstance(event, UnitRetried):
            self._finished.discard(event.unit)
            self._steps.pop(event.unit, None)
            self._layers.pop(event.unit, None)
            self._bytes.pop(event.unit, None)

    def _finish(self, event: UnitFinished) -> None:
        unit = self._units[event.unit]
        self._finished.add(event.unit)
        self._steps[event.unit] = unit.steps
        self._bytes[event.unit] = unit.read_bytes + unit.write_bytes
        self.from_journal += event.source == "journal"
        self.from_cache += event.source == "cache"


def describe(event: Event) -> str | None:
    """Return what an event says in a few words, or None."""
    if isinstance(event, StepReported):
        if event.stage == "construct":
            who = event.unit.split("-", 2)[2]
            return f"layer {event.layer} · construct · {who} · alignment {event.alignment:.3f}"
        return f"layer {event.layer} · adapt · loss {event.loss:.4g}"
    if isinstance(event, UnitStarted):
        return event.unit.replace("-", " ", 1)
    return None


def remarks(event: Event) -> list[str]:
    """Return lines that are worth showing whatever else is shown."""
    if isinstance(event, UnitRetried):
        return [f"{event.unit}: {event.reason}; trying again"]
    if isinstance(event, WaitingForOther):
        return ["another process runs this very merge; waiting for it"]
    return []


class Bars:
    """Three bars with time left, and what is being done."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<6}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[done]:>19}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}"),
            console=console,
            transient=True,
        )
        tally = Tally(plan)
        self._units = self._bar("units", tally.units_total)
        self._steps = self._bar("steps", tally.steps_total) if tally.steps_total else None
        self._bytes = self._bar("bytes", tally.bytes_total)

    def _bar(self, name: str, total: int) -> TaskID:
        return self._progress.add_task(name, total=max(total, 1), done="", doing="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, state: Tally, event: Event) -> None:
        """Move the bars."""
        for remark in remarks(event):
            self._progress.console.print(remark)
        update = self._progress.update
        update(self._units, completed=state.units, done=f"{state.units} of {state.units_total}")
        update(
            self._bytes,
            completed=state.bytes,
            done=f"{size(state.bytes)} of {size(state.bytes_total)}",
        )
        if self._steps is not None:
            update(self._steps, completed=state.steps, done=f"{state.steps} of {state.steps_total}")
        doing = describe(event)
        if doing is not None:
            update(self._steps if self._steps is not None else self._units, doing=doing)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def show(self, state: Tally, event: Event) -> None:
        """Do nothing."""


class Lines(Silence):
    """A line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = 0.0

    def show(self, state: Tally, event: Event) -> None:
        """Print a line if the last one is some seconds old, or something is worth it."""
        for remark in remarks(event):
            self._console.print(remark, soft_wrap=True)
        now = time.monotonic()
        if now - self._last < LINE_SECONDS:
            return
        self._last = now
        parts = [f"units {state.units}/{state.units_total}"]
        if state.steps_total:
            parts.append(f"steps {state.steps}/{state.steps_total}")
        parts.append(f"{size(state.bytes)} of {size(state.bytes_total)}")
        left = self._left(state, now)
        if left is not None:
            parts.append(f"{seconds(left)} left")
        doing = describe(event)
        if doing:
            parts.append(doing)
        self._console.print("  ".join(parts), soft_wrap=True)

    def _left(self, state: Tally, now: float) -> float | None:
        done, total = (
            (state.steps, state.steps_total)
            if state.steps_total
            else (state.bytes, state.bytes_total)
        )
        return (now - self._started) * (total - done) / done if done else None


def view_for(plan: Plan, *, quiet: bool) -> View:
    """Return bars on a terminal, lines elsewhere, silence when asked."""
    if quiet:
        return Silence()
    return Bars(plan, err) if err.is_terminal else Lines(err)
