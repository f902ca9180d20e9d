"""Local worker processes: each runs units of one plan, one at a time.

Processes are spawned, not forked (a fork after torch has run hangs). A worker that dies
takes nothing with it: its unit runs again in a fresh process, and only a unit that kills
workers again and again stops the merge. Workers die with their parent.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event as Flag
from typing import Any

from fda_core.contract.events import EVENT, Event, UnitRetried
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.run import RunOptions, Schedule, Sink
from fda_core.errors import Cancelled, FdaError, InternalError, LostResult, WorkerDied
from fda_core.storage.resolve import storages

MOST_DEATHS = 3
STOP_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(kw_only=True)
class _Worker:
    number: int
    process: SpawnProcess
    pipe: Connection
    unit: Unit | None = None
    silent: bool = False
    """Whether its end of the pipe is closed: it is dead, and has been heard to the end."""


def run_in_processes(
    plan: Plan,
    schedule: Schedule,
    *,
    options: RunOptions,
    sink: Sink,
    is_cancelled: Callable[[], bool],
) -> None:
    """Run a schedule to its end on `options.workers` processes."""
    pool = _Pool(plan, schedule, options, sink)
    try:
        while not schedule.finished:
            if is_cancelled():
                raise Cancelled
            pool.hand_out()
            pool.listen()
    finally:
        pool.stop()


class _Pool:
    def __init__(self, plan: Plan, schedule: Schedule, options: RunOptions, sink: Sink) -> None:
        self._plan = plan
        self._schedule = schedule
        self._options = options
        self._sink = sink
        self._spawn = multiprocessing.get_context("spawn")
        self._stop = self._spawn.Event()
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}

    def hand_out(self) -> None:
        """Give ready units to idle workers, starting workers while there is work for them."""
        for unit in self._schedule.ready():
            worker = next((w for w in self._workers if w.unit is None), None)
            if worker is None:
                if len(self._workers) >= self._options.workers:
                    return
                worker = self._start(len(self._workers))
                self._workers.append(worker)
            worker.unit = unit
            self._schedule.start(unit)
            try:
                worker.pipe.send(unit)
            except OSError:
                worker.silent = True

    def listen(self) -> None:
        """Take what workers say for a moment, and notice the dead."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), timeout=POLL_SECONDS):
            if isinstance(pipe, Connection):
                self._hear(pipes[pipe])
        for worker in [w for w in self._workers if w.silent]:
            self._bury(worker)

    def stop(self) -> None:
        """Let workers end, and end them."""
        self._stop.set()
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_work,
            args=(theirs, self._plan, self._options, number, self._stop, os.getpid()),
            daemon=True,
        )
        with _ignoring_interrupts():
            process.start()
        theirs.close()
        return _Worker(number=number, process=process, pipe=ours)

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, what = worker.pipe.recv()
        except (EOFError, OSError):
            worker.silent = True
            return
        if kind == "event":
            self._sink(EVENT.validate_python(what))
        elif kind == "done" and worker.unit is not None:
            self._schedule.finish(worker.unit)
            worker.unit = None
        elif kind == "lost" and worker.unit is not None:
            unit, worker.unit = worker.unit, None
            for event in self._schedule.lose(unit, what):
                self._sink(event)
        elif kind == "error":
            raise what

    def _bury(self, worker: _Worker) -> None:
        """Replace a dead worker and give its unit back."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(STOP_SECONDS)
        worker.process.kill()
        unit, code = worker.unit, worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if unit is None:
            return
        self._deaths[unit.id] = self._deaths.get(unit.id, 0) + 1
        if self._deaths[unit.id] >= MOST_DEATHS:
            raise WorkerDied(
                f"unit {unit.id}: its worker died {MOST_DEATHS} times ({how})",
                hint="Signal 9 usually means that memory ran out: the plan reckons "
                f"{unit.memory_bytes} bytes for this unit. Use fewer --workers, or set "
                "construct.microbatch.",
                unit=unit.id,
            )
        self._sink(UnitRetried(unit=unit.id, reason=f"its worker died ({how})"))
        self._schedule.give_back(unit)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let a process started meanwhile ignore Ctrl-C from its first moment: its parent decides."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(
    pipe: Connection, plan: Plan, options: RunOptions, number: int, stop: Flag, parent: int
) -> None:
    """Run units until the pipe closes. The whole life of a worker process."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(options.threads)
    try:
        _serve(pipe, plan, options, number, stop)
    except (EOFError, BrokenPipeError, ConnectionResetError, Cancelled):
        return


def _serve(pipe: Connection, plan: Plan, options: RunOptions, number: int, stop: Flag) -> None:
    from fda_core.engine.device import choose_device
    from fda_core.engine.units import UnitRunner

    def emit(event: Event) -> None:
        pipe.send(("event", event.model_dump()))

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except FdaError as problem:
            pipe.send(("error", problem))
        except Cancelled:
            raise
        except Exception as problem:
            trace = traceback.format_exc()
            pipe.send(("error", InternalError(f"{type(problem).__name__}: {problem}", trace=trace)))
        raise Cancelled

    runner = attempt(
        lambda: UnitRunner(
            plan,
            storages(),
            device=choose_device(options.device),
            worker=number,
            emit=emit,
            is_cancelled=stop.is_set,
        )
    )

    def run(unit: Unit) -> tuple[str, Any]:
        try:
            runner.run(unit)
        except LostResult as problem:
            return "lost", problem
        return "done", unit.id

    while True:
        pipe.send(attempt(partial(run, pipe.recv())))


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
