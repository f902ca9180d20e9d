"""How many images of a part a model gets right under a task's head, image by image.

Which images were right is kept, not only how many: two models are compared on the same
images, and their difference is known far better than either accuracy. Kept by the digest of
the weights and the key of the head, which covers the task's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tests.bench.vision.appearing import appearing_file
from tests.bench.vision.encoder import features
from tests.bench.vision.heads import Head
from tests.bench.vision.model_folder import digest_of, load_model
from tests.bench.vision.task import Part, Task

Correct = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A task with the head it is judged under."""

    task: Task
    head: Head

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self.task.name


def groups_of(tasks: Sequence[Judged], part: Part) -> dict[str, NDArray[np.int64]]:
    """Return by task which of the part's images are alike, where that is known."""
    found = {judged.name: judged.task.parts[part].groups for judged in tasks}
    return {name: groups for name, groups in found.items() if groups is not None}


def judge(module: nn.Module, judged: Judged, part: Part) -> Correct:
    """Return (N,) for each image of the part: whether the largest logit is its label's."""
    examples = judged.task.parts[part]
    predicted = judged.head.logits(features(module, examples.images)).argmax(dim=1)
    right: Correct = predicted.numpy() == examples.labels
    return right


def evaluate(
    folder: Path,
    tasks: Sequence[Judged],
    *,
    part: Part,
    cache: Path,
    weights: str | None = None,
) -> dict[str, Correct]:
    """Return `judge` of a model folder by task, computing what the cache lacks.

    Who knows the digest of its weights gives it; the folder may then be gone if nothing lacks.
    """
    weights = weights or digest_of(folder)
    places = {judged.name: _place(cache, weights, judged, part) for judged in tasks}
    module = None
    for judged in tasks:
        if not places[judged.name].exists():
            module = module or load_model(folder)
            _write(places[judged.name], judge(module, judged, part))
    return {name: np.load(place, allow_pickle=False) for name, place in places.items()}


def is_judged(weights: str, tasks: Sequence[Judged], *, part: Part, cache: Path) -> bool:
    """Say whether the cache knows what a model of such a digest gets right, task by task."""
    return all(_place(cache, weights, judged, part).exists() for judged in tasks)


def _place(cache: Path, weights: str, judged: Judged, part: Part) -> Path:
    name = f"{judged.name}-{judged.head.key}-{part}.npy"
    return cache / "evaluations" / weights[:32] / name


def _write(place: Path, correct: Correct) -> None:
    with appearing_file(place) as file:
        np.save(file, correct, allow_pickle=False)
