"""Kill workers in the middle of units, and nothing else: how soon does the unit run elsewhere?

python -m tests.soak.elsewhere [--kills 6]
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.soak import batch
from tests.support.service import Service, running_service, seconds_of, wait_for

ELSEWHERE_SECONDS = 15.0
WORKERS = 3
STEPS = 600


def wait_after_kill(service: Service, recipe: dict[str, Any]) -> float:
    """Submit a job, kill the worker of its first unit, and return the seconds to the next try."""
    job = service.submit(recipe)

    def tries(outcome: str | None = None) -> list[dict[str, Any]]:
        found = service.pages(f"/v1/jobs/{job}/attempts")
        return [one for one in found if outcome in (None, one["outcome"])]

    first = wait_for(lambda: tries("running"), seconds=60)[0]
    time.sleep(1)
    killed = time.time()
    os.kill(int(first["worker"].split(":")[1]), signal.SIGKILL)
    began = seconds_of(first["started_at"])

    def later() -> list[float]:
        starts = [seconds_of(t["started_at"]) for t in tries() if t["unit"] == first["unit"]]
        return [start for start in starts if start > began]

    again = min(wait_for(later, seconds=90))
    ended = service.wait(job, seconds=300)
    if ended["state"] != "succeeded":
        sys.exit(f"job {job} is {ended['state']}: {ended['error']}")
    return again - killed


def main() -> None:
    """Print the waits; exit 1 if one is too long."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=6)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        root = Path(scratch)
        batch.make_models(root / "models")
        wanted = batch.recipes(str(root / "models"), str(root / "outputs"), kills, steps=STEPS)
        with running_service(root / "data", root, workers=WORKERS) as service:
            wait_for(lambda: len(service.pages("/v1/workers")) == WORKERS, seconds=60)
            waits = [wait_after_kill(service, recipe) for recipe in wanted]
    print(f"{kills} workers killed, {WORKERS} at work; seconds until the unit ran elsewhere:")
    print(f"median {statistics.median(waits):.1f}, longest {max(waits):.1f}")
    sys.exit(max(waits) > ELSEWHERE_SECONDS)


if __name__ == "__main__":
    main()
