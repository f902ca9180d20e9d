"""Cancel and retry a job at random moments of its short life, its publication above all.

    python -m tests.soak.races [--rounds 60] [--seed 0]

Whoever wins, there is one legal outcome: a job that succeeded has its whole output, one that
was cancelled has none, and trying that one again gives the whole output.
"""

import contextlib
import itertools
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from fda_core.contract.service.states import NEXT, JobState
from tests.soak import batch
from tests.support.service import Service, running_service, wait_for

OVER = ("succeeded", "failed", "cancelled", "expired")
ROUND_SECONDS = 60.0
RETRY_SECONDS = 3.0
"""After a cancel; it takes one to three to be through."""


@dataclass(kw_only=True)
class Races:
    """Rounds on one service; every output must have the wanted weights."""

    service: Service
    recipe: Callable[[int], dict[str, Any]]
    wanted: Mapping[str, str]
    dice: random.Random
    life_seconds: float = 1.0
    """What a job takes undisturbed: moments are chosen within it."""
    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def measure(self) -> None:
        """See what a job takes when nobody races it, and the workers are warm."""
        for number in (-1, 0):
            began = time.monotonic()
            recipe = self.recipe(number)
            job = self.service.wait(self.service.submit(recipe))
            self.life_seconds = time.monotonic() - began
            self._expect_whole(job, recipe)

    def round(self, number: int) -> None:
        """Submit a job, race it, and look at what became of it."""
        recipe = self.recipe(number)
        job = self.service.submit(recipe)
        moment = self.dice.uniform(0, 1.1 * self.life_seconds)
        retries = [moment + self.dice.uniform(0, RETRY_SECONDS) for _ in range(2)]
        blows = [self._blow(job, "cancel", moment)]
        blows += [self._blow(job, "retry", retry) for retry in retries]
        if self.dice.random() < 0.5:
            blows.append(self._blow(job, "cancel", max(retries)))
        for blow in blows:
            blow.join()
        row = self.service.wait(job, seconds=ROUND_SECONDS)
        self.ended[f"{row['state']}, attempt {row['attempt']}"] += 1
        if row["state"] == "cancelled":
            self._expect_nothing(recipe)
            self.service.ask("POST", f"/v1/jobs/{job}/retry")
            row = self.service.wait(job, seconds=ROUND_SECONDS)
        self._expect_whole(row, recipe)
        self._expect_legal(job)

    def _blow(self, job: str, action: str, after_seconds: float) -> threading.Thread:
        def strike() -> None:
            time.sleep(after_seconds)
            with contextlib.suppress(httpx2.TransportError):
                answer = self.service.http.post(f"/v1/jobs/{job}/{action}")
                if answer.status_code not in (200, 202, 409):
                    self.faults.append(f"{action} of {job}: {answer.status_code} {answer.text}")

        thread = threading.Thread(target=strike)
        thread.start()
        return thread

    def _expect_whole(self, row: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
        if row["state"] != "succeeded":
            self.faults.append(f"{row['id']} is {row['state']}: {row['error']}")
        elif batch.digests(Path(recipe["output"])) != self.wanted:
            self.faults.append(f"{row['id']} has other weights")

    def _expect_nothing(self, recipe: Mapping[str, Any]) -> None:
        output = Path(recipe["output"])
        left = [path.name for path in output.parent.glob(f"*{output.name}*")]
        if left:
            self.faults.append(f"{output.name} was cancelled, and left {left}")

    def _expect_legal(self, job: str) -> None:
        """Look at the way it went: legal steps only, and no unit done twice in one attempt."""
        events = self.service.pages(f"/v1/jobs/{job}/events")
        states = [JobState(e["data"]["state"]) for e in events if e["type"] == "job.state"]
        for before, after in itertools.pairwise(states):
            if after not in NEXT[before]:
                self.faults.append(f"{job} went from {before} to {after}")
        if states.count(JobState.SUCCEEDED) != 1:
            self.faults.append(f"{job} went {' '.join(states)}")
        attempt, done = 1, Counter[tuple[int, str]]()
        for event in events:
            data = event["data"]
            attempt = data.get("attempt", attempt) if event["type"] == "job.state" else attempt
            if event["type"] == "unit.state" and data["state"] == "done":
                done[attempt, data["unit"]] += 1
        self.faults += [f"{job}: {key} was done {n} times" for key, n in done.items() if n > 1]


def run(root: Path, rounds: int, *, seed: int) -> Races:
    """Race that many rounds on a service of their own."""
    batch.make_models(root / "models")

    def recipe(number: int) -> dict[str, Any]:
        known = batch.recipes(str(root / "models"), str(root / "outputs"), 1)[0]
        return {
            **known,
            "method": "linear",
            "output": str(root / "outputs" / f"raced-{number:03}-"),
        }

    wanted = batch.undisturbed(recipe(0), root / "undisturbed")
    with running_service(root / "data", root, workers=2) as service:
        races = Races(service=service, recipe=recipe, wanted=wanted, dice=random.Random(seed))
        races.measure()
        for number in range(1, rounds + 1):
            races.round(number)
        wait_for(lambda: not _left(service), seconds=30)
    return races


def _left(service: Service) -> list[str]:
    """Return jobs that are not over."""
    return [job["id"] for job in service.pages("/v1/jobs") if job["state"] not in OVER]


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    options = batch.arguments("Race cancel, retry and publish.", rounds=(60, "of one job"))
    told = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        began = time.monotonic()
        races = run(Path(scratch), told.rounds, seed=told.seed)
        seconds = time.monotonic() - began
    print(f"{'how the race ended':<32}{'times':>6}")
    for end, times in sorted(races.ended.items()):
        print(f"{end:<32}{times:>6}")
    print(f"{told.rounds} rounds in {seconds:.0f} s; a job alone takes {races.life_seconds:.2f} s")
    print("\n".join(races.faults) or "one legal outcome each, whole outputs, the same weights")
    raise SystemExit(bool(races.faults))


if __name__ == "__main__":
    main()
