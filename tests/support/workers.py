"""Worker processes, and a controller's part in small: what tests do to them and hear of them."""

import functools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from redis import RedisError

from fda_core.contract.plan import Plan, Unit
from fda_core.contract.service import names
from fda_core.contract.service.messages import REPORT, Report, TryUnit, WorkerStatus
from fda_core.engine.journal import Journal
from fda_core.engine.plan import is_published, make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.runners import hold
from tests.support.valkey import Valkey
from worker.app import make_app


def until(condition: Callable[[], Any], *, seconds: float = 30.0, why: str = "") -> Any:
    """Wait until a condition holds and return what it returned."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {why or condition}"
        time.sleep(0.02)


class Worker:
    """One worker process, with its log in a file.

    A server that has loaded torch forks it, which takes a tenth of a second instead of
    seconds; the process then runs the worker's own main function. (Forking is safe as long as
    torch was only loaded.)
    """

    def __init__(self, valkey_url: str, root: Path, log: Path, **settings: Any) -> None:
        self.log = log
        told = {
            "redis_url": valkey_url,
            "workspace": root / "workspace",
            "roots": json.dumps([str(root)]),
            "device": "cpu",
            "queues": "cpu",
            **settings,
        }
        environment = {f"FDA_{key.upper()}": str(value) for key, value in told.items()}
        self.process = _forks().Process(target=_be_a_worker, args=(environment, str(log)))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def lines(self) -> list[dict[str, Any]]:
        """Return its log's structured lines."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    def wait_until_ready(self) -> "Worker":
        """Wait until it takes units."""
        until(lambda: self.said("taking_units") or not self.process.is_alive())
        assert self.process.is_alive(), self.log.read_text()
        return self

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float) -> int:
        """Return its exit code once it ends."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still there:\n{self.log.read_text()[-3000:]}"
        return self.process.exitcode


@functools.cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "worker.serve",
            "tests.support.runners",
            "fda_core.engine.units",
            "transformers.models.bert.modeling_bert",
        ]
    )
    return context


def _be_a_worker(environment: dict[str, str], log: str) -> None:
    """Run the worker's main function; the whole life of a forked process."""
    with Path(log).open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(environment)
    from worker.__main__ import main

    sys.exit(main([]))


@contextmanager
def workers(valkey: Valkey, root: Path, count: int = 1, **settings: Any) -> Iterator[list[Worker]]:
    """Run workers that may read and write below a folder, until the block ends."""
    first = len(list(root.glob("worker-*.log")))
    started = [
        Worker(valkey.url, root, root / f"worker-{first + k}.log", **settings) for k in range(count)
    ]
    try:
        yield [worker.wait_until_ready() for worker in started]
    finally:
        for worker in started:
            worker.kill()


class Job:
    """A planned job, and what a controller would do about it."""

    def __init__(
        self,
        valkey: Valkey,
        root: Path,
        *,
        job_id: str | None = None,
        workspace: Path | None = None,
        **recipe: Any,
    ) -> None:
        job_id = job_id or f"job-{root.name}"
        self.valkey = valkey
        self.storage = storages()
        self.workspace = workspace or root / "workspace"
        self.output = root / "outputs" / job_id
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.recipe = RecipeFile(
            base=root / "base",
            experts={name: root / name for name in "ab"},
            output=self.output,
            **recipe,
        )
        self.plan: Plan = make_plan(
            recipe_of(self.recipe.document()),
            self.storage,
            cwd="/",
            workspace=str(self.workspace),
            job_id=job_id,
        )
        self.journal = Journal(self.plan, self.storage)
        self.journal.save_plan()
        self.app = make_app(valkey.url)

    def message(self, unit: str, **more: Any) -> TryUnit:
        return TryUnit(
            job=self.plan.job_id,
            unit=unit,
            attempt=1,
            plan=names.plan_file(self.plan.workspace, self.plan.job_id),
            device=names.CPU,
            **more,
        )

    def send(self, unit: str, **more: Any) -> None:
        """Send a unit by the task's name alone, as the api does."""
        self.app.send_task(
            names.TRY_UNIT,
            kwargs=self.message(unit, **more).model_dump(mode="json"),
            queue=names.CPU,
            priority=names.celery_priority(0),
        )

    def ready(self) -> list[Unit]:
        """Return units that can run by the journal and are not done."""
        done = {unit.id for unit in self.plan.units[:-1] if self.journal.find(unit)}
        return [
            unit for unit in self.plan.units if unit.id not in done and done.issuperset(unit.needs)
        ]

    def start(self) -> None:
        """Send what is ready, noting it."""
        for unit in self.ready():
            self.valkey.client.hset(names.sent(self.plan.job_id), unit.id, str(time.time()))
            self.send(unit.id)

    def is_published(self) -> bool:
        return is_published(self.plan, self.storage)

    def lease(self, unit: str) -> str | None:
        return self.valkey.client.get(names.lease(self.plan.job_id, unit))

    def reports(self) -> list[Report]:
        """Return everything reported of this job, in order."""
        entries = self.valkey.client.xrange(names.EVENTS)
        reports = [REPORT.validate_json(fields["report"]) for _, fields in entries]
        return [report for report in reports if report.job == self.plan.job_id]

    def events(self, kind: str, unit: str | None = None) -> list[Any]:
        """Return the reported events of a kind."""
        events = [report.event for report in self.reports() if report.event.kind == kind]
        return [event for event in events if unit in (None, event.unit)]

    def run(self, seconds: float = 60.0) -> None:
        """Do the dispatcher's part until the output is there: send what nobody has."""

        def nudge() -> bool:
            with suppress(RedisError):
                if not self.valkey.client.llen(names.CPU):
                    for unit in self.ready():
                        if not self.lease(unit.id):
                            self.send(unit.id)
            return self.is_published()

        until(nudge, seconds=seconds, why="published")

    def hold(self, unit: str) -> Path:
        """Let runners of `tests.support.runners` wait in this unit until the file is gone."""
        return hold(self.plan, unit)

    def record(self, unit: str) -> bytes:
        return (
            self.workspace / "jobs" / self.plan.job_id / "records" / f"{unit}.json"
        ).read_bytes()


def save_models(root: Path, **config: Any) -> Path:
    """Write a tiny base and two experts."""
    base = base_model(**config)
    base.save(root / "base")
    for seed, name in enumerate("ab"):
        expert_of(base, seed).save(root / name)
    return root


def fda(steps: int = 6, **construct: Any) -> Mapping[str, Any]:
    """Return FDA with few anchors."""
    return {
        "name": "fda",
        "construct": {"anchors": 4, "steps": steps, **construct},
        "adapt": {"epochs": 2, "learning_rate": 1e-3},
    }


def statuses(valkey: Valkey) -> list[WorkerStatus]:
    """Return what workers say of themselves."""
    keys = valkey.client.keys(names.WORKERS + "*")
    texts = [valkey.client.get(key) for key in keys]
    return [WorkerStatus.model_validate_json(text) for text in texts if text]


TERM, INT = signal.SIGTERM, signal.SIGINT
