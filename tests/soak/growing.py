"""A batch in local folders that grows until the last blow: what it may come to, and its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.soak import batch
from tests.soak.batch import Batch

Recipes = Sequence[Mapping[str, Any]]


def prepare(root: Path, *, jobs: int, steps: int) -> Recipes:
    """Make models below `root` and return the recipes of all jobs that there may be."""
    batch.make_models(root / "models")
    most = jobs * batch.MOST_JOBS
    return batch.recipes(str(root / "models"), str(root / "outputs"), most, steps=steps)


def finish(found: Batch, root: Path, possible: Recipes) -> float:
    """Wait for the end of every job that came to be; note what differs from undisturbed runs.

    Returns how long the batch took.
    """
    elapsed = found.finish()
    wanted = possible[: len(found.jobs)]
    expected = batch.references(root / "models", root / "undisturbed", wanted)
    found.check([batch.digests(Path(recipe["output"])) for recipe in wanted], expected)
    return elapsed
