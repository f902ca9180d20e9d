"""Each task's head: nearest class mean in the base's features, frozen ever after.

It plays the part that CLIP's text embeddings play in the literature: a reading of the base that
nobody trained, under which experts are fine-tuned and merged models are judged, so that all of
them speak the same labels. A logistic regression in its place leaves the base within five
points of its experts, and then merges cannot be told apart; a head trained together with its
expert leaves the base, and every merge, at chance.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.bench.vision.appearing import appearing
from tests.bench.vision.content_keys import key_of, task_key
from tests.bench.vision.encoder import features
from tests.bench.vision.model_folder import digest_of, load_model
from tests.bench.vision.task import Task

SCALES: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Of the logits (an inverse temperature), tried in this order."""
FILE = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A task's classifier: `weight` (classes, d) and `bias` (classes,) float32, and its key."""

    task: str
    key: str
    weight: Tensor
    bias: Tensor
    scale: float

    def logits(self, found: Tensor) -> Tensor:
        """Return (N, classes) for features (N, d)."""
        return found @ self.weight.T + self.bias


def class_means(found: Tensor, labels: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """Return weight (classes, d) and bias (classes,) of the cosine to each class's mean.

    Means are taken from the mean of all features (N, d), which the bias takes off again, and
    have length 1. Computed in float64.
    """
    found = found.double()
    middle = found.mean(dim=0)
    means = torch.stack([found[labels == number].mean(dim=0) for number in range(classes)])
    weight = torch.nn.functional.normalize(means - middle, dim=1)
    return weight.float(), (-weight @ middle).float()


def choose_head(task: Task, train: Tensor, validation: Tensor, *, key: str) -> Head:
    """Return the class means of the train part, scaled for the validation part.

    The scale with the lowest cross-entropy there is kept; it does not change what is predicted,
    only how sure, which is what an expert is trained under.
    """
    labels = torch.from_numpy(task.parts["train"].labels)
    held_out = torch.from_numpy(task.parts["validation"].labels)
    weight, bias = class_means(train, labels, classes=len(task.classes))
    heads = [
        Head(task=task.name, key=key, weight=scale * weight, bias=scale * bias, scale=scale)
        for scale in SCALES
    ]
    return min(heads, key=lambda head: float(cross_entropy(head.logits(validation), held_out)))


def head_key(task: Task, base: Path) -> str:
    """Return the key of a task's head: its data, the base's weights, how it is fitted."""
    return key_of(task=task_key(task), base=digest_of(base), means="centred", scales=list(SCALES))


def head_of(task: Task, base: Path, cache: Path) -> Head:
    """Return the head of a task, fitted unless it is in the cache."""
    key = head_key(task, base)
    folder = cache / "heads" / f"{task.name}-{key}"
    if not folder.exists():
        module = load_model(base)
        train = features(module, task.parts["train"].images)
        validation = features(module, task.parts["validation"].images)
        head = choose_head(task, train, validation, key=key)
        _write(head, folder)
    return _read(folder)


def _write(head: Head, folder: Path) -> None:
    about = {"task": head.task, "key": head.key, "scale": json.dumps(head.scale)}
    with appearing(folder) as aside:
        save_file({"weight": head.weight, "bias": head.bias}, aside / FILE, metadata=about)


def _read(folder: Path) -> Head:
    with safe_open(folder / FILE, "pt") as file:
        about: dict[str, Any] = file.metadata()
        return Head(
            task=about["task"],
            key=about["key"],
            weight=file.get_tensor("weight"),
            bias=file.get_tensor("bias"),
            scale=json.loads(about["scale"]),
        )
