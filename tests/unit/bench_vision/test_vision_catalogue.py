"""The catalogue: eight tasks, kept as arrays and read back the same."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench.vision.catalogue import TASKS, read_task, sheet, write_task
from tests.bench.vision.split import PARTS
from tests.bench.vision.task import SIDE, Examples, Task


@pytest.fixture
def task() -> Task:
    rng = np.random.default_rng(0)
    return Task(
        name="two",
        classes=("a cat", "日"),
        parts={
            part: Examples(
                images=rng.integers(0, 256, (size, SIDE, SIDE, 3)).astype(np.uint8),
                labels=np.arange(size) % 2,
            )
            for part, size in zip(PARTS, (6, 2, 4), strict=True)
        },
    )


def test_a_task_is_read_as_it_was_written(tmp_path: Path, task: Task) -> None:
    write_task(task, tmp_path / "tasks/two.npz")
    read = read_task(tmp_path / "tasks/two.npz")
    assert (read.name, read.classes) == (task.name, task.classes)
    for part in PARTS:
        assert read.parts[part].images.dtype == np.uint8
        assert read.parts[part].labels.dtype == np.int64
        np.testing.assert_array_equal(read.parts[part].images, task.parts[part].images)
        np.testing.assert_array_equal(read.parts[part].labels, task.parts[part].labels)
    assert [file.name for file in (tmp_path / "tasks").iterdir()] == ["two.npz"]


def test_a_kept_task_with_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", about=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_task(tmp_path / "bad.npz")


def test_there_are_eight_tasks_in_order() -> None:
    assert list(TASKS) == [
        *("fashion", "mnist", "animals", "satellite"),
        *("units", "terrain", "kanji", "icons"),
    ]
    assert all(origin.licence for origin in TASKS.values())


def test_a_contact_sheet_has_a_row_for_each_class(task: Task) -> None:
    assert sheet(task, columns=5).size == (5 * SIDE, 2 * SIDE)
