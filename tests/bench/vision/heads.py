"""Each task's head: the linear probe of the base, which stays frozen ever after.

It plays the part that CLIP's text embeddings play in the literature: experts are trained under
it and merged models are read through it, so that all of them speak the same labels. A head
trained together with its expert would leave the base, and every merge, at chance.
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

from tests.bench.vision.content_keys import key_of, task_key
from tests.bench.vision.encoder import features
from tests.bench.vision.model_folder import appearing, digest_of, load_model
from tests.bench.vision.task import Task

RIDGES: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Factors of half the squared weights beside the mean cross-entropy, tried in this order."""
ITERATIONS = 500
FILE = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A task's classifier: `weight` (classes, d) and `bias` (classes,) float32, and its key."""

    task: str
    key: str
    weight: Tensor
    bias: Tensor
    ridge: float

    def logits(self, found: Tensor) -> Tensor:
        """Return (N, classes) for features (N, d)."""
        return found @ self.weight.T + self.bias


def fit_probe(found: Tensor, labels: Tensor, *, classes: int, ridge: float) -> tuple[Tensor, ...]:
    """Return weight and bias of the multinomial logistic regression, computed in float64."""
    found = found.double()
    weight = torch.zeros(classes, found.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = cross_entropy(found @ weight.T + bias, labels) + ridge / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weight.detach().float(), bias.detach().float()


def choose_probe(task: Task, train: Tensor, validation: Tensor, *, key: str) -> Head:
    """Return the probe of the train part with the lowest cross-entropy on the validation part."""
    labels = torch.from_numpy(task.parts["train"].labels)
    held_out = torch.from_numpy(task.parts["validation"].labels)
    best: tuple[float, Head] | None = None
    for ridge in RIDGES:
        weight, bias = fit_probe(train, labels, classes=len(task.classes), ridge=ridge)
        head = Head(task=task.name, key=key, weight=weight, bias=bias, ridge=ridge)
        loss = float(cross_entropy(head.logits(validation), held_out))
        if best is None or loss < best[0]:
            best = loss, head
    assert best is not None
    return best[1]


def head_key(task: Task, base: Path) -> str:
    """Return the key of a task's head: its data, the base's weights, how it is fitted."""
    return key_of(
        task=task_key(task), base=digest_of(base), ridges=list(RIDGES), iterations=ITERATIONS
    )


def head_of(task: Task, base: Path, cache: Path) -> Head:
    """Return the head of a task, fitted unless it is in the cache."""
    key = head_key(task, base)
    folder = cache / "heads" / f"{task.name}-{key}"
    if not folder.exists():
        module = load_model(base)
        train = features(module, task.parts["train"].images)
        validation = features(module, task.parts["validation"].images)
        head = choose_probe(task, train, validation, key=key)
        _write(head, folder)
    return _read(folder)


def _write(head: Head, folder: Path) -> None:
    about = {"task": head.task, "key": head.key, "ridge": json.dumps(head.ridge)}
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
            ridge=json.loads(about["ridge"]),
        )
