"""Run a plan on this machine, in this process or several, over the journal."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from fda_core.contract.events import Event, UnitFinished, UnitRetried, WaitingForOther
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.job_lock import job_lock
from fda_core.engine.journal import Journal
from fda_core.engine.plan import check_can_write, finish_if_published, is_published
from fda_core.errors import Cancelled, LostResult
from fda_core.storage.base import Storage

Sink = Callable[[Event], None]
MOST_LOSSES = 3
"""What a unit needs may be gone so often before it is given up."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run: processes, threads in each, device."""

    workers: int
    threads: int = 1
    device: str = "auto"


class Schedule:
    """Which units are done, running and ready. Units become ready in plan order."""

    def __init__(self, units: Sequence[Unit], done: set[str]) -> None:
        self._units = {unit.id: unit for unit in units}
        self._waiting = {unit.id for unit in units if unit.id not in done}
        self._done = set(done)
        self._running: set[str] = set()
        self._losses: Counter[str] = Counter()

    def ready(self) -> Iterator[Unit]:
        """Yield units that can run now, publish last."""
        for unit in self._units.values():
            waits = unit.id in self._waiting and unit.id not in self._running
            if waits and self._done.issuperset(unit.needs):
                yield unit

    def start(self, unit: Unit) -> None:
        """Count a unit as running."""
        self._running.add(unit.id)

    def finish(self, unit: Unit) -> None:
        """Count a unit as done."""
        self._running.discard(unit.id)
        self._waiting.discard(unit.id)
        self._done.add(unit.id)

    def give_back(self, unit: Unit) -> None:
        """Count a unit as not running: its worker is gone."""
        self._running.discard(unit.id)

    def lose(self, unit: Unit, problem: LostResult) -> list[UnitRetried]:
        """Have done again what a unit needs and is gone; raise that if it happens too often.

        Return what listeners are to be told.
        """
        self._losses[unit.id] += 1
        if not problem.units or self._losses[unit.id] > MOST_LOSSES:
            raise problem
        self.give_back(unit)
        lost = self._done.intersection(problem.units)
        self._done -= lost
        self._waiting |= lost
        return [UnitRetried(unit=it, reason=problem.message) for it in (unit.id, *problem.units)]

    @property
    def finished(self) -> bool:
        """Say whether nothing is left."""
        return not self._waiting


def run_plan(
    plan: Plan,
    storage: Storage,
    *,
    options: RunOptions,
    sink: Sink,
    is_cancelled: Callable[[], bool],
) -> bool:
    """Run what the journal does not have, and return False if it was all done before.

    Raises `Cancelled` when told to stop, and any unit's error; the journal stays and a next
    call goes on from it.
    """
    if finish_if_published(plan, storage):
        return False
    _check_device(options.device)
    journal = Journal(plan, storage)
    check_can_write(plan, storage, done=journal.find_all())

    def tell_waiting() -> None:
        sink(WaitingForOther(job_id=plan.job_id))

    with job_lock(plan, on_wait=tell_waiting, is_cancelled=is_cancelled):
        if is_published(plan, storage):
            return False
        journal.save_plan()
        done = {name: found.cost.seconds for name, found in journal.find_all().items()}
        for unit_id, seconds in done.items():
            sink(UnitFinished(unit=unit_id, worker=-1, seconds=seconds, source="journal"))
        schedule = Schedule(plan.units, set(done))
        if min(options.workers, _width(plan, done)) <= 1:
            _run_here(
                plan, storage, schedule, options=options, sink=sink, is_cancelled=is_cancelled
            )
        else:
            from fda_core.engine.pool import run_in_processes

            run_in_processes(plan, schedule, options=options, sink=sink, is_cancelled=is_cancelled)
    return True


def _width(plan: Plan, done: Collection[str]) -> int:
    """Return how many units can run at once: those of one kind, since kinds follow each other."""
    kinds = Counter(unit.kind for unit in plan.units if unit.id not in done)
    return max(kinds.values(), default=1)


def _check_device(wanted: str) -> None:
    """Refuse a device that is not there before anything is written."""
    if wanted not in ("auto", "cpu"):
        from fda_core.engine.device import choose_device

        choose_device(wanted)


def _run_here(
    plan: Plan,
    storage: Storage,
    schedule: Schedule,
    *,
    options: RunOptions,
    sink: Sink,
    is_cancelled: Callable[[], bool],
) -> None:
    import torch

    from fda_core.engine.device import choose_device
    from fda_core.engine.units import UnitRunner

    torch.set_num_threads(options.threads)
    runner = UnitRunner(
        plan,
        storage,
        device=choose_device(options.device),
        worker=0,
        emit=sink,
        is_cancelled=is_cancelled,
    )
    while not schedule.finished:
        if is_cancelled():
            raise Cancelled
        unit = next(schedule.ready())
        schedule.start(unit)
        try:
            runner.run(unit)
        except LostResult as problem:
            for event in schedule.lose(unit, problem):
                sink(event)
        else:
            schedule.finish(unit)
