"""Remove the database in the middle of running jobs and make it again from the workspace.

    python -m tests.soak.rebuild [--jobs 4] [--seed 0]

What an operator does: `fda admin rebuild` and a new key, while the service runs on. Every job
must go on and succeed with the weights of an undisturbed run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.soak import batch
from tests.support.service import Service, running_service


def admin(service: Service, *arguments: str) -> str:
    """Run `fda admin` as somebody in a shell beside the service, and return what it printed."""
    told = {
        "FDA_DATABASE_URL": f"sqlite:///{service.data / 'fda.db'}",
        "FDA_WORKSPACE": str(service.data / "workspace"),
    }
    command = [sys.executable, "-m", "fda_core.cli", "admin", *arguments]
    return subprocess.run(
        command, env={**os.environ, **told}, check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    options = batch.arguments(
        "Remove the database while jobs run.",
        jobs=(4, "in the batch"),
        steps=(60, "of a construction"),
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch:
        root = Path(scratch)
        batch.make_models(root / "models")
        wanted = batch.recipes(
            str(root / "models"), str(root / "outputs"), options.jobs, steps=options.steps
        )
        expected = batch.references(root / "models", root / "undisturbed", wanted)
        with running_service(root / "data", root, workers=2) as service:
            found = batch.submit(service, wanted)
            while found.done_ratio() < 0.25:
                time.sleep(0.1)
            states = sorted(row["state"] for row in found.rows())
            for file in service.data.glob("fda.db*"):
                file.unlink()
            found.note("removed the database")
            said = admin(service, "rebuild").strip()
            found.note(f"rebuilt: {said}")
            service.use_key(admin(service, "create-key").split()[-1])
            if found.is_over():
                found.faults.append("the jobs ended too soon: give more --steps")
            elapsed = found.finish()
            found.check([batch.digests(Path(r["output"])) for r in wanted], expected)
            batch.report(found, elapsed, f"states when it was removed: {', '.join(states)}")
    batch.leave(found)


if __name__ == "__main__":
    main()
