"""Keys of the vision benchmark cover what heads and experts come from, and nothing else."""

from dataclasses import replace

import numpy as np

from tests.bench.vision.content_keys import task_key
from tests.bench.vision.task import SIDE, Examples, Task


def task(**changed: object) -> Task:
    examples = Examples(
        images=np.zeros((4, SIDE, SIDE, 3), dtype=np.uint8), labels=np.array([0, 1, 0, 1])
    )
    return Task(name="two", classes=("a", "b"), parts={"train": replace(examples, **changed)})


def test_groups_change_no_key_so_experts_stay_valid() -> None:
    assert task_key(task()) == task_key(task(groups=np.array([0, 0, 1, 1])))


def test_a_label_changes_the_key() -> None:
    assert task_key(task()) != task_key(task(labels=np.array([0, 1, 1, 1])))
