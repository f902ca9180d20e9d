"""The controller: its loops put together. Tests call `step`, the process calls `run`."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from api.control.clock import Clock, Hook
from api.control.devices import Devices
from api.control.dispatcher import PASS_SECONDS, SOON_SECONDS, Dispatcher
from api.control.leader import RENEW_SECONDS, Leader, new_holder
from api.control.metrics import ControlMetrics, look_at, timed
from api.control.outcome import Outcomes
from api.control.planner import Planner
from api.control.plans import Plans
from api.control.pokes import Pokes
from api.control.projector import Projector
from api.control.queue import UnitQueue
from api.control.redis_state import RedisState
from api.control.sweeper import SWEEP_SECONDS, Sweeper
from api.db.session import Database
from api.settings import Settings
from api.tracing import Tracing
from fda_core.storage.base import Storage

WAKE_SECONDS = 2.0
BLOCK_SECONDS = 1.0
IDLE_SECONDS = 0.5
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
JOIN_SECONDS = 10.0

_log = structlog.get_logger("fda.control")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One loop: a step that can be repeated, and how to wait for a reason to."""

    name: str
    step: Callable[[], object]
    wait: Callable[[], object]
    end: Callable[[], object] = lambda: None
    """Waits for what a step left under way."""


class Controller:
    """All loops of one process. `hooks` run with the clock; `more` are loops of others."""

    def __init__(
        self,
        *,
        database: Database,
        redis: RedisState,
        queue: UnitQueue,
        storage: Storage,
        workspace: str,
        settings: Settings,
        clock: Callable[[], datetime],
        chance: random.Random,
        hooks: Sequence[Hook] = (),
        more: Sequence[Loop] = (),
        metrics: ControlMetrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics = metrics = metrics or ControlMetrics()
        self._stop = threading.Event()
        self._redis = redis
        self.pokes = Pokes()
        plans = Plans(storage, workspace)
        self.outcomes = Outcomes(database, redis, plans, clock=clock, on_end=metrics.count_end)
        self.planner = Planner(
            database,
            redis,
            queue,
            plans,
            devices=Devices(device=settings.device, gpu_memory_bytes=settings.gpu_memory_bytes),
            clock=clock,
            chance=chance,
            metrics=metrics,
            tracing=tracing or Tracing(),
        )
        self.projector = Projector(
            database,
            redis,
            plans,
            clock=clock,
            chance=chance,
            poke=self.pokes.add,
            on_fold=metrics.reports_folded.inc,
        )
        self.dispatcher = Dispatcher(
            database,
            redis,
            queue,
            plans,
            self.outcomes,
            clock=clock,
            pokes=self.pokes,
            metrics=metrics,
        )
        self.clock = Clock(database, clock=clock, hooks=hooks)
        self.sweeper = Sweeper(
            database,
            plans,
            clock=clock,
            idempotency_hours=settings.idempotency_hours,
            anchor_days=settings.anchor_days,
        )
        self.loops = (*self._own_loops(), *more)
        self.holder = new_holder()
        self.leader = Leader(
            database, [loop.name for loop in self.loops], holder=self.holder, clock=clock
        )
        names = [loop.name for loop in self.loops]
        metrics.know_loops(names)
        metrics.watch(look_at(database, redis, self.leader, names))

    def _own_loops(self) -> Sequence[Loop]:
        return (
            Loop(
                name="planner",
                step=self.planner.step,
                wait=lambda: self._redis.wait_for_wake(WAKE_SECONDS),
            ),
            Loop(
                name="projector",
                step=lambda: self.projector.step(block_seconds=BLOCK_SECONDS),
                wait=lambda: None,
            ),
            Loop(name="dispatcher", step=self.dispatcher.step, wait=self._wait_for_poke),
            Loop(name="clock", step=self.clock.step, wait=lambda: self._stop.wait(PASS_SECONDS)),
            Loop(
                name="sweeper", step=self.sweeper.step, wait=lambda: self._stop.wait(SWEEP_SECONDS)
            ),
        )

    def _wait_for_poke(self) -> None:
        """Wait for the next pass; a poke shortens it, but never to nothing."""
        self._stop.wait(SOON_SECONDS)
        self.pokes.wait(PASS_SECONDS - SOON_SECONDS)

    def step(self) -> Mapping[str, int]:
        """Do one pass of everything, here and now, leading or not."""
        return {
            "clock": self.clock.step(),
            "planner": self.planner.step(),
            "projector": self.projector.step(),
            "dispatcher": self.dispatcher.step(),
        }

    def stop(self) -> None:
        """Have `run` return soon. Can be called from a signal handler."""
        self._stop.set()
        self.pokes.add(())

    def run(self) -> None:
        """Run every loop that this process leads until told to stop, then let go of them."""
        _log.info("controller_started", holder=self.holder)
        self._renew()
        threads = [
            threading.Thread(target=self._run_loop, args=(loop,), name=loop.name, daemon=True)
            for loop in self.loops
        ]
        for thread in threads:
            thread.start()
        while not self._stop.wait(RENEW_SECONDS):
            self._renew()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        late = [thread.name for thread in threads if thread.is_alive()]
        if not late:
            self.leader.release()
        _log.info("controller_stopped", holder=self.holder, still_at_work=late)

    def _renew(self) -> None:
        try:
            self.leader.renew()
        except Exception:
            _log.exception("leases_not_renewed")

    def _run_loop(self, loop: Loop) -> None:
        try:
            self._repeat(loop)
        finally:
            loop.end()

    def _repeat(self, loop: Loop) -> None:
        failures = 0
        while not self._stop.is_set():
            if not self.leader.leads(loop.name):
                self._stop.wait(IDLE_SECONDS)
                continue
            try:
                with timed(self.metrics.step_seconds.labels(loop.name).observe):
                    loop.step()
                if not self._stop.is_set():
                    loop.wait()
                failures = 0
            except Exception:
                self.metrics.step_failures.labels(loop.name).inc()
                _log.exception("loop_failed", loop=loop.name, failures=failures + 1)
                place = min(failures, len(BACK_OFF_SECONDS) - 1)
                self._stop.wait(BACK_OFF_SECONDS[place])
                failures += 1
