"""A batch of small jobs, what it must come to, and what was done to it meanwhile.

Every job must succeed without anybody's help, with the weights of an undisturbed run, its
events without gaps and no unit recorded twice.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.resolve import storages
from tests.support.models import save_expert, save_model
from tests.support.service import Service

OVER = frozenset({"succeeded", "failed", "cancelled", "expired"})
ENDING_SECONDS = 300.0
"""How long a batch may go on after the last blow."""
MOST_JOBS = 10
"""How many times the batch's jobs there may be before the blows are said to take too long."""


def make_models(folder: Path, *, experts: str = "ab") -> None:
    """Make a base of three layers and experts."""
    base = save_model("bert", folder / "base")
    for seed, name in enumerate(experts):
        save_expert(base, folder / name, seed=seed)


def experts(models: str, names: str) -> list[dict[str, str]]:
    """Return experts as recipes name them."""
    return [{"name": name, "model": f"{models}/{name}"} for name in names]


def recipes(models: str, outputs: str, count: int, *, steps: int = 40) -> list[dict[str, Any]]:
    """Return recipes that differ by their seed: 11 units each, 6 of them constructions."""
    return [
        {
            "base": f"{models}/base",
            "experts": experts(models, "ab"),
            "method": {
                "name": "fda",
                "construct": {"anchors": 16, "steps": steps},
                "adapt": {"epochs": 2, "learning_rate": 1e-3},
            },
            "seed": seed,
            "output": f"{outputs}/merged-{seed}",
        }
        for seed in range(count)
    ]


def digests(output: Path) -> dict[str, str]:
    """Return the digests of an output's weights."""
    return {
        str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(output.rglob("*.safetensors"))
    }


def undisturbed(recipe: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return the digests of a run on this machine that nobody disturbs."""
    folder.mkdir(parents=True)
    output = folder / "output"
    storage = storages()
    plan = make_plan(recipe_of({**recipe, "output": str(output)}), storage, cwd=str(folder))
    options = RunOptions(workers=1, device="cpu")
    run_plan(plan, storage, options=options, sink=lambda _: None, is_cancelled=lambda: False)
    found = digests(output)
    shutil.rmtree(folder)
    return found


Expected = Sequence[Mapping[str, str]]


def references(models: Path, folder: Path, wanted: Sequence[Mapping[str, Any]]) -> Expected:
    """Return what every recipe gives undisturbed, read from local models."""
    local = {key: recipes(str(models), "", 1)[0][key] for key in ("base", "experts")}
    return [
        undisturbed({**recipe, **local}, folder / str(number))
        for number, recipe in enumerate(wanted)
    ]


@dataclass(kw_only=True)
class Batch:
    """Jobs of one batch on a service, what happened to them, and since when."""

    service: Service
    jobs: list[str]
    further: Iterator[Mapping[str, Any]] = field(default_factory=lambda: iter(()))
    """Recipes to submit when the jobs end before the last blow, as on a fast machine."""
    began: float = field(default_factory=time.monotonic)
    happened: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, what: str, *, quiet: bool = False) -> None:
        """Count a blow, and say it."""
        self.happened[what] += 1
        if not quiet:
            print(f"{self.seconds:7.1f} s  {what}", flush=True)

    @property
    def seconds(self) -> float:
        """Return how long the batch has taken."""
        return time.monotonic() - self.began

    def rows(self, *, patience: float = 60) -> list[dict[str, Any]]:
        """Return the batch's jobs as they are now."""
        found = self.service.pages("/v1/jobs", patience=patience)
        return [row for row in found if row["id"] in self.jobs]

    def done_ratio(self, *, patience: float = 60) -> float:
        """Return which part of the units is done; 1 only when every job is over."""
        rows = self.rows(patience=patience)
        if all(row["state"] in OVER for row in rows):
            return 1.0
        # A job that is not planned yet has as many as the others.
        total = max(row["progress"]["units_total"] for row in rows) * len(rows)
        return 0.999 * sum(row["progress"]["units_done"] for row in rows) / (total or 1)

    def is_over(self) -> bool:
        """Say whether every job has ended."""
        return all(row["state"] in OVER for row in self.rows())

    def go_on(self) -> bool:
        """Submit one further job; if there is none, note that as a fault."""
        recipe = next(self.further, None)
        if recipe is None:
            self.faults.append(
                f"the jobs ended after {self.happened.total()} blows: give more --steps"
            )
            return False
        self.jobs.append(self.service.submit(recipe))
        return True

    def finish(self) -> float:
        """Wait for the end of every job and return how long the batch took."""
        until = time.monotonic() + ENDING_SECONDS
        while not self.is_over():
            if time.monotonic() > until:
                self.faults.append(f"not over {ENDING_SECONDS:g} s after the last blow")
                break
            time.sleep(0.3)
        return self.seconds

    def check(self, found: Iterable[Mapping[str, str]], expected: Expected) -> None:
        """Note everything that is not as it should be."""
        for job, weights, wanted in zip(self.jobs, found, expected, strict=True):
            for fault in self._faults(job):
                self.faults.append(f"job {job} {fault}")
            if weights != wanted:
                self.faults.append(f"job {job} has other weights")

    def _faults(self, job: str) -> Iterator[str]:
        row = self.service.job(job)
        if row["state"] != "succeeded":
            yield f"is {row['state']}: {json.dumps(row['error'])}"
        events = self.service.pages(f"/v1/jobs/{job}/events")
        if [e["id"] for e in events] != list(range(1, len(events) + 1)):
            yield "has gaps in its events"
        told = (e["data"] for e in events if e["type"] == "unit.state")
        tries = self.tries(job)
        for what, units in {
            "was told to be done": [d["unit"] for d in told if d["state"] == "done"],
            "has tries that say done": [t["unit"] for t in tries if t["outcome"] == "done"],
        }.items():
            for unit, times in Counter(units).items():
                if times > 1:
                    yield f"unit {unit} {what} {times} times"
        for unit in self.service.pages(f"/v1/jobs/{job}/units"):
            if unit["state"] != "done":
                yield f"unit {unit['id']} is {unit['state']}"

    def tries(self, job: str) -> list[dict[str, Any]]:
        """Return every try at every unit of a job."""
        return self.service.pages(f"/v1/jobs/{job}/attempts")

    def outcomes(self) -> Counter[str]:
        """Return how all tries ended."""
        return Counter(t["outcome"] for job in self.jobs for t in self.tries(job))


def submit(
    service: Service, wanted: Sequence[Mapping[str, Any]], *, count: int | None = None
) -> Batch:
    """Submit a batch of jobs: all that are wanted, or the first few, and the others if need be."""
    began = time.monotonic()
    jobs = [service.submit(recipe) for recipe in wanted[:count]]
    return Batch(service=service, jobs=jobs, further=iter(wanted[len(jobs) :]), began=began)


def arguments(description: str, **numbers: tuple[float, str]) -> argparse.ArgumentParser:
    """Return a parser for numbers by name; `seed` is always there."""
    parser = argparse.ArgumentParser(description=description)
    for name, (default, meaning) in {**numbers, "seed": (0, "of chance")}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=meaning)
    return parser


def report(batch: Batch, elapsed: float, *lines: str) -> None:
    """Print the table of what was done and lost; exit 1 if anything was."""
    print(f"\n{'done to it':<32}{'times':>6}")
    for what, times in sorted(batch.happened.items()):
        print(f"{what:<32}{times:>6}")
    print(f"{'tries at units':<32}{'times':>6}")
    for outcome, times in sorted(batch.outcomes().items()):
        print(f"{outcome:<32}{times:>6}")
    print(f"{len(batch.jobs)} jobs in {elapsed:.0f} s")
    for line in lines:
        print(line)
    print("\n".join(batch.faults) or "nothing lost, nothing twice, same weights", flush=True)


def leave(batch: Batch) -> None:
    """End the process: 1 if anything was lost."""
    sys.exit(bool(batch.faults))
