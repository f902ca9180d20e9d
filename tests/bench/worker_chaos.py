"""`make chaos`: merges on workers that are killed at random, on a Redis that is too.

Every few moments a worker is killed without a word, or Redis is killed or emptied, or a
message is doubled. In the end every job must be there with the bytes of an undisturbed run.
The dispatcher's part, sending what nobody has, is played by `tests.support.workers.Job`.
"""

import argparse
import contextlib
import hashlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from redis import RedisError

from fda_core.contract.service import names
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.resolve import storages
from tests.support.valkey import Valkey, valkey_server
from tests.support.workers import Job, Worker, fda, save_models

PAUSE_SECONDS = 2.0
JOB_SECONDS = 120.0


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of weights."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.safetensors"))
    }


class Chaos:
    """Workers and a Redis, and what happens to them."""

    def __init__(self, valkey: Valkey, root: Path, *, workers: int, seed: int) -> None:
        self.valkey = valkey
        self.root = root
        self.random = random.Random(seed)
        self.happened: Counter[str] = Counter()
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> Worker:
        self.happened["worker started"] += 1
        number = self.happened["worker started"]
        return Worker(self.valkey.url, self.root, self.root / f"worker-{number}.log")

    def strike(self, job: Job) -> None:
        """Let one bad thing happen."""
        what = self.random.choice(["kill worker"] * 5 + ["double"] * 3 + ["kill redis", "flush"])
        self.happened[what] += 1
        if what == "kill worker":
            victim = self.random.randrange(len(self.workers))
            self.workers[victim].kill()
            self.workers[victim] = self._start()
        elif what == "kill redis":
            self.valkey.kill()
            self.valkey.start()
        elif what == "flush":
            self.valkey.empty()
        else:
            job.send(self.random.choice(job.plan.units).id)

    def run(self, job: Job) -> None:
        """Strike again and again until the job is done."""
        end, struck = time.monotonic() + JOB_SECONDS, time.monotonic()
        while not job.is_published():
            assert time.monotonic() < end, f"{job.plan.job_id} is not done: {self.happened}"
            with contextlib.suppress(RedisError):
                if not self.valkey.client.llen(names.CPU):
                    for unit in job.ready():
                        if not job.lease(unit.id):
                            job.send(unit.id)
            if time.monotonic() - struck > PAUSE_SECONDS * self.random.uniform(0.2, 2.0):
                struck = time.monotonic()
                self.strike(job)
            time.sleep(0.1)

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.kill()


def main() -> None:
    """Run some jobs through chaos and compare each with an undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, valkey_server() as valkey:
        root = save_models(Path(folder))
        chaos = Chaos(valkey, root, workers=given.workers, seed=given.seed)
        try:
            for number in range(given.jobs):
                method = fda(steps=150, anchors=8)
                quiet = Job(
                    valkey,
                    root,
                    job_id=f"quiet-{number}",
                    workspace=root / "quiet",
                    method=method,
                    more={"seed": number},
                )
                run_plan(
                    quiet.plan,
                    storages(),
                    options=RunOptions(workers=1, device="cpu"),
                    sink=lambda _: None,
                    is_cancelled=lambda: False,
                )
                job = Job(
                    valkey,
                    root,
                    job_id=f"chaos-{number}",
                    method=method,
                    more={"seed": number},
                )
                began = time.monotonic()
                chaos.run(job)
                assert digests(job.output) == digests(quiet.output) != {}
                seconds = time.monotonic() - began
                print(f"job {number}: {len(job.plan.units)} units, {seconds:.1f} s, same bytes")
        finally:
            chaos.stop()
        print(", ".join(f"{what}: {count}" for what, count in chaos.happened.most_common()))


if __name__ == "__main__":
    main()
