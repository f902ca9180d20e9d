"""Kill processes of the service at random moments during a batch of small jobs.

    python -m tests.soak.kills [--kills 50] [--jobs 10] [--seed 0]

Every job must succeed without anybody's help, with the weights of an undisturbed run, and no
unit may be recorded twice. Prints what was killed and how long units took to run elsewhere.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.resolve import storages
from tests.support.models import save_expert, save_model
from tests.support.service import Service, running_service, wait_for

SHARES = {"worker": 5, "controller": 2, "api": 2, "redis": 1}
"""How often each role is killed, relatively."""
ELSEWHERE_SECONDS = 15


def recipes(models: Path, outputs: Path, count: int) -> list[dict[str, Any]]:
    """Return recipes that differ by their seed: construction in two layers, about 20 units."""
    return [
        {
            "base": str(models / "base"),
            "experts": [{"name": n, "model": str(models / n)} for n in "ab"],
            "method": {
                "name": "fda",
                "construct": {"anchors": 16, "steps": 150},
                "adapt": {"epochs": 10, "learning_rate": 1e-3},
            },
            "seed": seed,
            "output": str(outputs / f"merged-{seed}"),
        }
        for seed in range(count)
    ]


def make_models(folder: Path) -> None:
    """Make a base and two experts."""
    base = save_model("bert", folder / "base")
    for seed, name in enumerate("ab"):
        save_expert(base, folder / name, seed=seed)


def digests(output: Path) -> dict[str, str]:
    """Return the digests of an output's weights."""
    return {
        str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(output.rglob("*.safetensors"))
    }


def undisturbed(recipe: dict[str, Any], folder: Path) -> dict[str, str]:
    """Return the digests of a run on this machine that nobody disturbs."""
    output = folder / Path(recipe["output"]).name
    storage = storages()
    plan = make_plan(recipe_of({**recipe, "output": str(output)}), storage, cwd=str(folder))
    options = RunOptions(workers=1, device="cpu")
    run_plan(plan, storage, options=options, sink=lambda _: None, is_cancelled=lambda: False)
    return digests(output)


def running_units(service: Service, jobs: list[str]) -> set[tuple[str, str]]:
    """Return (job, unit) that run now."""
    found = set()
    for job in jobs:
        for unit in service.pages(f"/v1/jobs/{job}/units"):
            if unit["state"] == "running":
                found.add((job, unit["id"]))
    return found


def kill_one(service: Service, role: str, dice: random.Random) -> bool:
    """Kill one process of a role with SIGKILL; say whether there was one."""
    alive = service.children(role)
    if not alive:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(dice.choice(alive), signal.SIGKILL)
    return True


def over(service: Service, jobs: list[str]) -> bool:
    """Say whether every job has ended."""
    states = [service.job(job)["state"] for job in jobs]
    return all(state in {"succeeded", "failed", "cancelled", "expired"} for state in states)


def longest_gaps(service: Service, jobs: list[str]) -> list[float]:
    """Return, for every try that was lost, seconds from its worker's death to the next try."""
    gaps = []
    for job in jobs:
        tries = service.pages(f"/v1/jobs/{job}/attempts")
        for lost in (t for t in tries if t["outcome"] == "lost"):
            after = [
                t["started_at"]
                for t in tries
                if t["unit"] == lost["unit"] and t["started_at"] > lost["started_at"]
            ]
            if after and lost["finished_at"]:
                gaps.append(_seconds(min(after)) - _seconds(lost["started_at"]))
    return gaps


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument("--flush", action="store_true", help="empty Redis in the middle, too")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        root = Path(scratch)
        make_models(root / "models")
        wanted = recipes(root / "models", root / "outputs", options.jobs)
        expected = [undisturbed(recipe, root / "undisturbed") for recipe in wanted]
        killed: Counter[str] = Counter()
        with running_service(root / "data", root, workers=options.workers) as service:
            began = time.monotonic()
            jobs = [service.submit(recipe) for recipe in wanted]
            while sum(killed.values()) < options.kills and not over(service, jobs):
                time.sleep(dice.expovariate(1 / options.pause))
                (role,) = dice.choices(list(SHARES), weights=list(SHARES.values()))
                if kill_one(service, role, dice):
                    killed[role] += 1
                    print(f"{time.monotonic() - began:7.1f} s  killed {role}", flush=True)
            wait_for(lambda: over(service, jobs), seconds=300, every=0.5)
            elapsed = time.monotonic() - began
            lost = 0
            for job, digest, recipe in zip(jobs, expected, wanted, strict=True):
                found = service.job(job)
                if found["state"] != "succeeded":
                    faults.append(f"job {job} is {found['state']}: {json.dumps(found['error'])}")
                elif digests(Path(recipe["output"])) != digest:
                    faults.append(f"job {job} has other weights")
                tries = service.pages(f"/v1/jobs/{job}/attempts")
                lost += sum(t["outcome"] == "lost" for t in tries)
                events = service.pages(f"/v1/jobs/{job}/events")
                if [e["id"] for e in events] != list(range(1, len(events) + 1)):
                    faults.append(f"job {job}: its events have gaps")
                done = Counter(
                    e["data"]["unit"]
                    for e in events
                    if e["type"] == "unit.state" and e["data"]["state"] == "done"
                )
                for unit, times in done.items():
                    if times > 1:
                        faults.append(f"job {job}: unit {unit} was recorded {times} times")
            gaps = longest_gaps(service, jobs)
    print(f"\n{'killed':<12}{'times':>6}")
    for role in SHARES:
        print(f"{role:<12}{killed[role]:>6}")
    print(f"{options.jobs} jobs in {elapsed:.0f} s; {lost} tries lost with their workers")
    if gaps:
        print(
            f"lost units began elsewhere after {statistics.median(gaps):.1f} s (median), "
            f"{max(gaps):.1f} s (longest), counted from the start of the lost try"
        )
    print("\n".join(faults) or "nothing lost, nothing twice, same weights")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
