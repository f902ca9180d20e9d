"""Kill processes of the service at random moments during a batch of small jobs.

    python -m tests.soak.kills [--kills 50] [--jobs 10] [--seed 0] [--flush]

Every job must succeed without anybody's help, with the weights of an undisturbed run; no unit
may be recorded twice; the unit of a killed worker must run again within 15 s of the kill.
With --flush Redis is also emptied, and killed right after, at a third and two thirds of the way.
"""

import contextlib
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.soak import batch
from tests.soak.batch import Batch
from tests.support.service import Service, running_service

SHARES = {"worker": 5, "controller": 2, "api": 2, "redis": 1}
"""How often each role is killed, relatively."""
ELSEWHERE_SECONDS = 15.0
LONGEST_PAUSE = 3.0
"""Pauses between kills, in means: a machine that is busy with other things makes no long ones."""


@dataclass(kw_only=True)
class Killer:
    """Kills, evenly over a batch's work, and remembers when it killed which worker."""

    batch: Batch
    kills: int
    pause: float
    dice: random.Random
    worker_killed_at: dict[int, float] = field(default_factory=dict)
    done: int = 0

    def kill_until(self, count: int) -> None:
        """Kill up to so many times while jobs run, sooner if they are about to end."""
        while self.done < count:
            if self._wait() == 1.0:
                said = f"the jobs ended after {self.done} of {self.kills} kills: give more --steps"
                self.batch.faults.append(said)
                return
            (role,) = self.dice.choices(list(SHARES), weights=list(SHARES.values()))
            self._kill(role)

    def _wait(self) -> float:
        """Wait for the next moment: a random one, or when the work gets ahead of the kills.

        Returns which part of the work is done.
        """
        pause = min(self.dice.expovariate(1 / self.pause), LONGEST_PAUSE * self.pause)
        until = time.monotonic() + pause
        while True:
            ratio = self.batch.done_ratio()
            ahead = ratio > (self.done + 1) / (self.kills + 1)
            if ahead or time.monotonic() >= until:
                return ratio
            time.sleep(min(0.2, self.pause))

    def _kill(self, role: str) -> None:
        alive = self.batch.service.children(role)
        if not alive:
            return
        pid = self.dice.choice(alive)
        at = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if role == "worker":
            self.worker_killed_at[pid] = at
        self.done += 1
        self.batch.note(f"killed {role}")


def waits(found: Batch, killed_at: Mapping[int, float]) -> dict[str, float]:
    """Return, by unit that was lost with a killed worker, seconds from the kill to its next try."""
    gaps = {}
    for job in found.jobs:
        tries = found.tries(job)
        for lost in (t for t in tries if t["outcome"] in ("lost", "returned")):
            process = lost["worker"].split(":")[1:2]
            killed = killed_at.get(int(process[0])) if process else None
            began = batch.seconds_of(lost["started_at"])
            later = [
                batch.seconds_of(t["started_at"])
                for t in tries
                if t["unit"] == lost["unit"] and batch.seconds_of(t["started_at"]) > began
            ]
            if killed is not None and later:
                gaps[f"{job} {lost['unit']} {lost['worker']}"] = min(later) - killed
    return gaps


def flush(service: Service) -> None:
    """Empty Redis, then kill it at once: what it wrote down of that is left to chance."""
    folder = service.data / "valkey"
    port, password = ((folder / name).read_text().strip() for name in ("port", "password"))
    with contextlib.closing(redis.Redis(port=int(port), password=password)) as client:
        for _ in range(50):
            with contextlib.suppress(redis.RedisError):
                client.flushall()
                break
            time.sleep(0.1)
    for pid in service.children("redis"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(kw_only=True)
class Proof:
    """What to do to how many jobs."""

    kills: int
    jobs: int
    workers: int = 2
    steps: int = 20
    pause: float = 2.0
    seed: int = 0
    flush: bool = False

    def run(self, root: Path) -> Batch:
        """Do it, and return the batch with its faults; prints a table."""
        batch.make_models(root / "models")
        wanted = batch.recipes(
            str(root / "models"), str(root / "outputs"), self.jobs, steps=self.steps
        )
        expected = batch.references(root / "models", root / "undisturbed", wanted)
        with running_service(root / "data", root, workers=self.workers) as service:
            found = batch.submit(service, wanted)
            killer = Killer(
                batch=found, kills=self.kills, pause=self.pause, dice=random.Random(self.seed)
            )
            for part in (1, 2) if self.flush else ():
                killer.kill_until(self.kills * part // 3)
                while found.done_ratio() < part / 3:
                    time.sleep(0.2)
                flush(service)
                found.note("emptied and killed redis")
            killer.kill_until(self.kills)
            elapsed = found.finish()
            found.check([batch.digests(Path(r["output"])) for r in wanted], expected)
            batch.report(found, elapsed, *self._judge(found, killer))
        return found

    def _judge(self, found: Batch, killer: Killer) -> list[str]:
        """Return what is to be said of the units that were lost, and note those that waited."""
        gaps = waits(found, killer.worker_killed_at)
        for where, gap in gaps.items():
            if gap > ELSEWHERE_SECONDS:
                found.faults.append(f"{where}: ran again only {gap:.1f} s after the kill")
        if not gaps:
            return ["no unit was lost with its worker"]
        middle, longest = statistics.median(gaps.values()), max(gaps.values())
        return [
            f"{len(gaps)} units lost with their workers ran again {middle:.1f} s (median), "
            f"{longest:.1f} s (longest) after the kill"
        ]


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    parser = batch.arguments(
        "Kill the service's processes during a batch.",
        kills=(50, "SIGKILLs"),
        jobs=(10, "in the batch"),
        workers=(2, "processes"),
        steps=(20, "of a construction"),
        pause=(2.0, "mean seconds between kills"),
    )
    parser.add_argument("--flush", action="store_true", help="empty Redis in between, too")
    proof = Proof(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        found = proof.run(Path(scratch))
    batch.leave(found)


if __name__ == "__main__":
    main()
