"""Kill processes of the service at random moments during a batch of small jobs.

    python -m tests.soak.kills [--kills 50] [--jobs 10] [--seed 0] [--flush]

Every job must succeed without anybody's help, with the weights of an undisturbed run; no unit
may be recorded twice; that a unit's worker was killed must be noticed, and the unit sent again,
within 15 s of the kill, and it must run again by then, if neither the controller nor Redis were
killed about that time, too: how long it took then is printed (`tests.soak.elsewhere` kills
workers alone). No worker is killed before another one is up.
Jobs that end before the last kill are followed by further ones: a fast machine gets more of them.
With --flush Redis is also emptied, and killed right after, at a third and two thirds of the way.
"""

import contextlib
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.soak import batch, growing
from tests.soak.batch import Batch
from tests.support.processes import age_seconds
from tests.support.service import Service, running_service, seconds_of

SHARES = {"worker": 5, "controller": 2, "api": 2, "redis": 1}
"""How often each role is killed, relatively."""
ELSEWHERE_SECONDS = 15.0
START_SECONDS = 10.0
"""What a worker takes until it is up."""
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
    others_killed_at: list[float] = field(default_factory=list)
    """When the controller or Redis were killed."""
    done: int = 0
    ratio: float = 0.0

    def kill_until(self, count: int) -> None:
        """Kill so many times while jobs run; note a fault if even the further ones end before."""
        while self.done < count:
            if self._wait() == 1.0:
                self.ratio = 0.0
                if not self.batch.go_on():
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
            self.ratio = ratio = self._ratio()
            ahead = ratio > (self.done + 1) / (self.kills + 1)
            if ahead or time.monotonic() >= until:
                return ratio
            time.sleep(min(0.2, self.pause))

    def _ratio(self) -> float:
        """Return which part of the work is done, as far as is known while the api is away."""
        try:
            return self.batch.done_ratio(patience=0)
        except AssertionError:
            return self.ratio

    def _kill(self, role: str) -> None:
        alive = self._victims(role)
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
        elif role in ("controller", "redis"):
            self.others_killed_at.append(at)
        self.done += 1
        self.batch.note(f"killed {role}")

    def _victims(self, role: str) -> list[int]:
        """Return whom to kill: of the workers one that is up, while another one is, too."""
        alive = self.batch.service.children(role)
        if role != "worker":
            return alive
        up = [pid for pid in alive if age_seconds(pid) > START_SECONDS]
        return up if len(up) > 1 else []


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long a unit that was lost with its worker waited, in seconds from the kill."""

    where: str
    noticed: float
    again: float
    was_alone: bool
    """Whether neither the controller nor Redis were killed shortly before or meanwhile."""

    @property
    def is_late(self) -> bool:
        """Say whether the unit waited too long, for no other reason than its worker's death."""
        return self.was_alone and self.again > ELSEWHERE_SECONDS


def waits(found: Batch, killer: Killer) -> list[Wait]:
    """Return the waits of all units that were lost with killed workers."""
    killed_at = killer.worker_killed_at
    gaps = []
    for job in found.jobs:
        tries = found.tries(job)
        for lost in (t for t in tries if t["outcome"] in ("lost", "returned")):
            process = int([*lost["worker"].split(":"), "0", "0"][1])
            began = seconds_of(lost["started_at"])
            later = [
                seconds_of(t["started_at"])
                for t in tries
                if t["unit"] == lost["unit"] and seconds_of(t["started_at"]) > began
            ]
            if process in killed_at and later:
                killed, again = killed_at[process], min(later)
                gaps.append(
                    Wait(
                        where=f"{job} {lost['unit']} {lost['worker']}",
                        noticed=seconds_of(lost["finished_at"]) - killed,
                        again=again - killed,
                        was_alone=not any(
                            killed - START_SECONDS < at < again for at in killer.others_killed_at
                        ),
                    )
                )
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
    steps: int = 40
    pause: float = 3.0
    seed: int = 0
    flush: bool = False

    def run(self, root: Path) -> Batch:
        """Do it, and return the batch with its faults; prints a table."""
        possible = growing.prepare(root, jobs=self.jobs, steps=self.steps)
        with running_service(root / "data", root, workers=self.workers) as service:
            found = batch.submit(service, possible, count=self.jobs)
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
            elapsed = growing.finish(found, root, possible)
            batch.report(found, elapsed, *self._judge(found, killer))
        return found

    def _judge(self, found: Batch, killer: Killer) -> list[str]:
        """Return what is to be said of the units that were lost, and note those that waited."""
        gaps = waits(found, killer)
        late = [wait for wait in gaps if wait.is_late]
        found.faults += [
            f"{w.where}: noticed {w.noticed:.1f} s, run again {w.again:.1f} s after the kill"
            for w in late
        ]
        return [
            f"{len(gaps)} units lost with their workers; seconds from the kill:",
            _spread("noticed and sent again", [w.noticed for w in gaps]),
            _spread("ran elsewhere", [w.again for w in gaps if w.was_alone]),
            _spread("ran, others killed, too", [w.again for w in gaps if not w.was_alone]),
        ]


def _spread(what: str, seconds: Sequence[float]) -> str:
    """Return a line of the table about some waits."""
    if not seconds:
        return f"  {what:<30} none"
    middle, longest = statistics.median(seconds), max(seconds)
    return f"  {what:<30} {len(seconds):>3} times, {middle:5.1f} median, {longest:5.1f} longest"


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    parser = batch.arguments(
        "Kill the service's processes during a batch.",
        kills=(50, "SIGKILLs"),
        jobs=(10, "in the batch"),
        workers=(2, "processes"),
        steps=(40, "of a construction"),
        pause=(3.0, "mean seconds between kills"),
    )
    parser.add_argument("--flush", action="store_true", help="empty Redis in between, too")
    proof = Proof(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        found = proof.run(Path(scratch))
    batch.leave(found)


if __name__ == "__main__":
    main()
