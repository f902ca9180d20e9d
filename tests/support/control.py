"""A controller under test: a real database and Valkey, and a worker that is moved by hand."""

import base64
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import select

from api.control import repository
from api.control.controller import Controller
from api.control.queue import UnitQueue, sending_app
from api.control.redis_state import RedisState
from api.db.session import Database
from api.db.tables import AttemptRow, EventRow, JobRow, LabelRow, LogRow, UnitRow
from api.ids import new_id
from api.jobs.transitions import move
from api.settings import Settings
from fda_core.contract.artifacts import ArtifactFile, Manifest, UnitCost, UnitRecord
from fda_core.contract.events import BytesMoved, Event, StepReported, UnitFinished, UnitStarted
from fda_core.contract.plan import Plan
from fda_core.contract.service import names
from fda_core.contract.service.broker import queue_key
from fda_core.contract.service.messages import (
    ErrorReport,
    Logged,
    Report,
    TryUnit,
    UnitFailed,
    UnitReturned,
)
from fda_core.contract.service.states import CANCELLABLE, RETRYABLE, JobState
from fda_core.contract.uris import join
from fda_core.engine.journal import Journal
from fda_core.engine.plan import is_published
from fda_core.engine.units import UnitRunner
from fda_core.errors import FdaError
from fda_core.storage.base import Storage
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.valkey import Valkey

FDA = {
    "name": "fda",
    "construct": {"anchors": 4, "steps": 2, "tokens": 3},
    "adapt": {"epochs": 1, "learning_rate": 1e-3},
}


@dataclass
class MovableClock:
    """The time, which tests can move on."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


class Folder:
    """Where a test's checkpoints, workspace and outputs are."""

    def __init__(self, root: Path, *, layers: int = 2) -> None:
        self.root = root
        base = base_model(num_hidden_layers=layers)
        base.save(root / "base")
        for seed, name in enumerate("ab"):
            expert_of(base, seed).save(root / name)

    def recipe(self, output: str = "out", method: Any = None, **more: Any) -> dict[str, Any]:
        return RecipeFile(
            base=self.root / "base",
            experts={name: self.root / name for name in "ab"},
            output=self.root / output,
            method=method or FDA,
            more=more,
        ).document()


class Bench:
    """One database, one Redis, any number of controllers, and what a person would do."""

    def __init__(self, folder: Folder, database: Database, server: Valkey) -> None:
        self.folder = folder
        self.workspace = str(folder.root / "ws")
        self.database = database
        self.server = server
        self.client: Any = server.connect()
        self.redis = RedisState(server.connect())
        self.clock = MovableClock()
        self.storage: Storage = storages()
        self.worker_storage: Storage = storages()
        self._app = sending_app(server.url)
        self._controllers: list[Controller] = []
        self.controller = self.new_controller()

    def close(self) -> None:
        self._app.close()
        self.client.close()
        self.redis._client.close()

    def new_controller(self, **settings: Any) -> Controller:
        return Controller(
            database=self.database,
            redis=self.redis,
            queue=UnitQueue(self._app, self.redis, self.clock),
            storage=self.storage,
            workspace=self.workspace,
            settings=Settings(workspace=self.workspace, **settings),
            clock=self.clock,
            chance=random.Random(0),
        )

    # What people do

    def submit(self, recipe: Any = None, **more: Any) -> str:
        recipe = self.folder.recipe() if recipe is None else recipe
        job = new_id()
        output = recipe.get("output") if isinstance(recipe, dict) else None
        with self.database.write() as session:
            labels = more.pop("labels", {"kind": "test"})
            session.add(
                JobRow(
                    id=job,
                    state="queued",
                    owner="me",
                    team="us",
                    recipe=recipe,
                    method="fda",
                    base=str(self.folder.root / "base"),
                    output=output,
                    experts=["a", "b"],
                    labels=labels,
                    last_seq=1,
                    **more,
                )
            )
            session.flush()
            session.add_all(LabelRow(job_id=job, name=n, value=v) for n, v in labels.items())
            body = {"state": "queued", "attempt": 1}
            session.add(EventRow(job_id=job, seq=1, kind="job.state", data=body))
        self.client.lpush(names.WAKE, job)
        return job

    def cancel(self, job: str) -> bool:
        """Do what the api does: at once while queued, else tell it to stop."""
        with self.database.write() as session:
            if move(session, job, JobState.CANCELLED, only_from=[JobState.QUEUED]):
                return True
            later = CANCELLABLE - {JobState.QUEUED}
            told = move(session, job, JobState.CANCELLING, only_from=later)
        if told:
            self.redis.stop(job)
        return told

    def retry(self, job: str) -> bool:
        with self.database.write() as session:
            moved = move(
                session,
                job,
                JobState.QUEUED,
                only_from=RETRYABLE,
                attempt=JobRow.attempt + 1,
                error=None,
            )
        if moved:
            self.redis.allow(job)
            self.client.lpush(names.WAKE, job)
        return moved

    # What is seen

    def job(self, job: str) -> JobRow:
        with self.database.read() as session:
            row = repository.job_row(session, job)
            assert row is not None
            return row

    def state(self, job: str) -> str:
        return self.job(job).state

    def units(self, job: str) -> dict[str, UnitRow]:
        with self.database.read() as session:
            rows = session.scalars(
                select(UnitRow).where(UnitRow.job_id == job).order_by(UnitRow.place)
            )
            return {row.id: row for row in rows}

    def unit_states(self, job: str) -> dict[str, str]:
        return {unit: row.state for unit, row in self.units(job).items()}

    def attempts(self, job: str) -> list[AttemptRow]:
        with self.database.read() as session:
            rows = session.scalars(
                select(AttemptRow).where(AttemptRow.job_id == job).order_by(AttemptRow.id)
            )
            return list(rows)

    def outcomes(self, job: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.attempts(job):
            found.setdefault(row.unit, []).append(row.outcome)
        return found

    def events(self, job: str) -> list[EventRow]:
        """Return the events, having checked that they are numbered from 1 without gaps."""
        with self.database.read() as session:
            rows = list(
                session.scalars(
                    select(EventRow).where(EventRow.job_id == job).order_by(EventRow.seq)
                )
            )
            row = repository.job_row(session, job)
        assert [event.seq for event in rows] == list(range(1, len(rows) + 1))
        assert row is not None
        assert row.last_seq == len(rows)
        return rows

    def states(self, job: str) -> list[str]:
        return [e.data["state"] for e in self.events(job) if e.kind == "job.state"]

    def logs(self, job: str) -> list[LogRow]:
        with self.database.read() as session:
            rows = session.scalars(select(LogRow).where(LogRow.job_id == job).order_by(LogRow.seq))
            return list(rows)

    def done_events(self, job: str) -> list[str]:
        return [
            e.data["unit"]
            for e in self.events(job)
            if e.kind == "unit.state" and e.data["state"] == "done"
        ]

    def plan(self, job: str) -> Plan:
        return Plan.model_validate_json(self.storage.read(names.plan_file(self.workspace, job)))

    def outcome(self, job: str) -> dict[str, Any]:
        return json.loads(self.storage.read(names.outcome_file(self.workspace, job)))

    def messages(self) -> int:
        keys = [queue_key(q, p) for q in names.QUEUES for p in range(names.PRIORITIES)]
        return sum(self.redis.lengths(keys).values())

    # Moving things on

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.controller.step()

    def planned(self, recipe: Any = None, **more: Any) -> str:
        """Submit a job and plan it."""
        job = self.submit(recipe, **more)
        self.controller.planner.step()
        assert self.state(job) == "running", self.job(job).error
        return job

    def settle(
        self,
        job: str,
        worker: "HandWorker",
        *,
        until: Sequence[str] = ("succeeded", "failed", "cancelled", "expired"),
        rounds: int = 60,
    ) -> str:
        """Let worker and controller take turns until the job is in one of some states."""
        for _ in range(rounds):
            worker.work()
            self.step()
            state = self.state(job)
            if state in until:
                self.step()
                return state
            self.clock.advance(2.5)
        raise AssertionError(f"{self.state(job)}: {self.unit_states(job)}")


@dataclass
class Trial:
    """One try at one unit, held by a worker that does what the test says."""

    worker: "HandWorker"
    message: TryUnit
    plan: Plan
    token: str
    said: list[Report] = field(default_factory=list)

    @property
    def unit(self) -> str:
        return self.message.unit

    def say(self, event: Any, *, at: float | None = None, times: int = 1) -> Report:
        report = Report(
            job=self.message.job,
            attempt=self.message.attempt,
            worker=self.worker.name,
            token=self.token,
            at=self.worker.bench.clock().timestamp() if at is None else at,
            event=event,
        )
        self.said.append(report)
        for _ in range(times):
            self.worker.send(report)
        return report

    def start(self) -> "Trial":
        self.say(UnitStarted(unit=self.unit, worker=0))
        return self

    def step(self, step: int, steps: int = 10, loss: float = 0.5) -> None:
        event = StepReported(
            unit=self.unit, stage="construct", layer=0, step=step, steps=steps, loss=loss
        )
        self.say(event)

    def move(self, count: int) -> None:
        self.say(BytesMoved(unit=self.unit, read_bytes=count))

    def log(self, text: str) -> None:
        self.say(Logged(level="info", text=text, unit=self.unit))

    def run_for_real(self) -> None:
        """Run the unit by the engine, reports and record included."""

        def emit(event: Event) -> None:
            if not isinstance(event, UnitFinished):
                self.say(event)

        runner = UnitRunner(
            self.plan,
            self.worker.bench.worker_storage,
            device=torch.device("cpu"),
            worker=0,
            emit=emit,
            is_cancelled=lambda: (
                self.worker.bench.redis.look([self.message.job])[self.message.job].stopping
            ),
        )
        record = runner.run(self.plan.unit(self.unit))
        self.release(done=True)
        self.say(UnitFinished(unit=self.unit, worker=0, seconds=record.cost.seconds))

    def record(self) -> None:
        """Leave what a finished unit leaves: an output, or a file and its record."""
        storage, plan = self.worker.bench.worker_storage, self.plan
        files: tuple[ArtifactFile, ...] = ()
        if self.unit == "publish":
            manifest = Manifest(
                job_id=plan.job_id,
                created="",
                versions={},
                seed=0,
                device="",
                threads=1,
                method="fda",
                parameters={},
                inputs=(),
                outputs={},
                notes=(),
                warnings=(),
            )
            storage.put(
                join(plan.output, "merge_manifest.json"), manifest.model_dump_json().encode()
            )
        else:
            path = join(self.worker.bench.workspace, "jobs", plan.job_id, "parts", self.unit)
            storage.put(path, b"x")
            files = (ArtifactFile(path=path, size_bytes=1, sha256=""),)
        cost = UnitCost(seconds=1.5, peak_memory_bytes=1, flops=1, read_bytes=1, write_bytes=1)
        Journal(plan, storage).write(
            UnitRecord(
                unit=self.unit,
                kind=plan.unit(self.unit).kind,
                files=files,
                cost=cost,
                worker=self.worker.name,
                device="cpu",
            )
        )

    def finish(self, *, say: bool = True) -> None:
        self.record()
        self.release(done=True)
        if say:
            self.say(UnitFinished(unit=self.unit, worker=0, seconds=1.5))

    def fail(self, code: str | FdaError = "non_finite", *, retryable: bool = False) -> None:
        self.release()
        error = (
            ErrorReport.model_validate(code.as_dict())
            if isinstance(code, FdaError)
            else ErrorReport(code=code, message="it broke", retryable=retryable, blame="data")
        )
        self.say(UnitFailed(unit=self.unit, error=error))

    def give_back(self, reason: Any = "cancelled") -> None:
        self.release()
        self.say(UnitReturned(unit=self.unit, reason=reason))

    def release(self, *, done: bool = False) -> None:
        client, job = self.worker.bench.client, self.message.job
        if done:
            client.sadd(names.done(job), self.unit)
        client.hdel(names.taken(job), self.unit)
        client.delete(names.lease(job, self.unit))

    def die(self) -> None:
        """Let the lease run out, as after kill -9."""
        self.worker.bench.client.delete(names.lease(self.message.job, self.unit))


class HandWorker:
    """Takes messages as a worker does; what it does with them is up to the test."""

    def __init__(self, bench: Bench, name: str = "host:1:a") -> None:
        self.bench = bench
        self.name = name
        self._count = 0

    def send(self, report: Report) -> None:
        self.bench.client.xadd(names.EVENTS, {"report": report.model_dump_json()})

    def take(self) -> Trial | None:
        """Take the next unit that is to be done, None if no message is left."""
        while (message := self._pop()) is not None:
            client, bench = self.bench.client, self.bench
            if client.exists(names.stop(message.job)):
                continue
            plan = Plan.model_validate_json(bench.worker_storage.read(message.plan))
            self._count += 1
            trial = Trial(self, message, plan, token=f"{self.name}:{new_id()}")
            unit = plan.unit(message.unit)
            there = (
                unit.kind != "publish" and Journal(plan, bench.worker_storage).find(unit)
            ) or is_published(plan, bench.worker_storage)
            if there:
                if client.sadd(names.done(message.job), unit.id):  # or it was said
                    trial.say(UnitFinished(unit=unit.id, worker=0, seconds=0.0, source="journal"))
                continue
            lease = names.lease(message.job, unit.id)
            if not client.set(lease, trial.token, nx=True):
                continue
            client.hset(names.taken(message.job), unit.id, trial.token)
            return trial
        return None

    def work(self, *, real: bool = False) -> int:
        """Do everything that is queued."""
        count = 0
        while (trial := self.take()) is not None:
            count += 1
            if real:
                trial.run_for_real()
            else:
                trial.start().finish()
        return count

    def _pop(self) -> TryUnit | None:
        for priority in range(names.PRIORITIES):
            for queue in names.QUEUES:
                text = self.bench.client.rpop(queue_key(queue, priority))
                if text is not None:
                    body = json.loads(base64.b64decode(json.loads(text)["body"]))
                    return TryUnit.model_validate(body[1])
        return None


def in_threads(*steps: Callable[[], object]) -> None:
    """Run functions at the same time; raise what any of them raised."""
    problems: list[BaseException] = []
    gate = threading.Barrier(len(steps))

    def guarded(step: Callable[[], object]) -> None:
        try:
            gate.wait()
            step()
        except BaseException as problem:  # handed to the test below
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def counts(values: Sequence[str]) -> Mapping[str, int]:
    return {value: values.count(value) for value in set(values)}
