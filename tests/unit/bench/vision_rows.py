"""Rows of the vision benchmark without a merge behind them, for what is made from rows."""

from pathlib import Path

import numpy as np
import torch

from tests.bench.vision.contenders import Contender
from tests.bench.vision.evaluate import Judged
from tests.bench.vision.heads import Head
from tests.bench.vision.merging import Cost, Merged, Models
from tests.bench.vision.results import Row
from tests.bench.vision.run import Suite
from tests.bench.vision.split import PARTS
from tests.bench.vision.task import SIDE, Examples, Task
from tests.bench.vision.uncertainty import Runs

IMAGES = 400
COST = Cost(cpu_seconds=3.0, wall_seconds=3.5, peak_memory_bytes=4 * 10**8, flops=2 * 10**12)


def judged(name: str, *, images: int = IMAGES) -> Judged:
    """Return a task of black images, pairs of which are alike, and a head of zeros."""
    examples = Examples(
        images=np.zeros((images, SIDE, SIDE, 3), dtype=np.uint8),
        labels=np.arange(images) % 2,
        groups=np.arange(images) // 2,
    )
    head = Head(task=name, key="k", weight=torch.zeros(2, 384), bias=torch.zeros(2), scale=1.0)
    task = Task(name=name, classes=("a", "b"), parts=dict.fromkeys(PARTS, examples))
    return Judged(task=task, head=head)


def suite(names: tuple[str, ...]) -> Suite:
    """Return a suite of models that are nowhere."""
    experts = {name: Path("nowhere") / name for name in names}
    models = Models(base=Path("nowhere"), experts=experts, digests=dict.fromkeys(("", *names), "d"))
    return Suite(
        cache=Path("nowhere"),
        part="test",
        tasks=[judged(name) for name in names],
        models=models,
        keeps_models=False,
    )


def runs(right: int, tasks: tuple[str, ...]) -> Runs:
    """Return one seed that has the first `right` images of each task right."""
    return {task: np.arange(IMAGES)[None] < right for task in tasks}


def row(contender: Contender, right: int, tasks: tuple[str, ...], *, alignment: float = 0.5) -> Row:
    """Return a row of a merge with so many images right in each task."""
    is_fda = contender.group == "fda"
    merged = Merged(
        folder=Path("nowhere"),
        weights="w",
        seed=0,
        cost=COST,
        construction=COST if is_fda else None,
        alignment=alignment if is_fda else None,
    )
    return Row(contender=contender, runs=runs(right, tasks), merges=[merged])
