"""The eight tasks by name, built once and kept as arrays.

    python -m tests.bench.vision.catalogue [--cache bench-output/vision] [--only NAME ...]
                                           [--sheets FOLDER]

prints one row per task: classes; for each part its images, the least and most of one class and
the groups they are of; equal pictures left out; seconds; the licence of the source.

Licences were read in the packages; nothing of them is redistributed. What is less than clear:
mnist's package says MIT, which its author can say of the code only: the digits are LeCun's and
Cortes's, CC BY-SA 3.0 by what Keras and others document; mlbench is GPL-2 and says nothing of
its Satellite data by itself, which UCI gives away as Statlog; Wesnoth's README says that most
art is GPL-2+ and newer art CC BY-SA 4.0, not which; icons of applications may be trademarks
whatever their theme's licence.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from tests.bench.vision import near, pickled_arrays, pixels, split, task
from tests.bench.vision.appearing import appearing_file
from tests.bench.vision.datasets import (
    animals,
    fashion,
    icons,
    kanji,
    mnist,
    satellite,
    source,
    wesnoth,
)
from tests.bench.vision.datasets.source import Source
from tests.bench.vision.split import PARTS, distinct, parts_of
from tests.bench.vision.task import Examples, Task

SOURCES: tuple[tuple[Source, ModuleType], ...] = (
    (fashion.SOURCE, fashion),
    (mnist.SOURCE, mnist),
    (animals.SOURCE, animals),
    (satellite.SOURCE, satellite),
    (wesnoth.UNITS, wesnoth),
    (wesnoth.TERRAIN, wesnoth),
    (kanji.SOURCE, kanji),
    (icons.SOURCE, icons),
)
TASKS: dict[str, Source] = {origin.name: origin for origin, _ in SOURCES}
MODULES: dict[str, ModuleType] = {origin.name: module for origin, module in SOURCES}
SHARED_CODE = (pickled_arrays, pixels, split, near, task, source)
COLUMNS = (
    *("task", "classes", "train (per class; groups)", "validation", "test"),
    *("equal pictures left out", "seconds", "licence"),
)
DEFAULT_CACHE = Path("bench-output/vision")


def load_task(name: str, cache: Path) -> Task:
    """Return a task by name, from `cache` where the same code made it from the same packages."""
    origin = TASKS[name]
    kept = cache / "tasks" / f"{name}-{_key(origin, cache)}.npz"
    if kept.exists():
        return read_task(kept)
    built = origin.load(cache)
    write_task(built, kept)
    return built


def _key(origin: Source, cache: Path) -> str:
    """Return a digest of what decides the pixels: packages, code, the picture library."""
    code = [MODULES[origin.name], *SHARED_CODE]
    parts = [f"{fetched.name} {fetched.sha256}" for fetched in origin.fetched(cache)]
    parts += [Path(str(module.__file__)).read_text() for module in code]
    parts += [PIL.__version__]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def write_task(built: Task, path: Path) -> None:
    """Write a task as plain arrays, aside and then renamed."""
    arrays = {"about": np.array(json.dumps({"name": built.name, "classes": built.classes}))}
    for part, examples in built.parts.items():
        arrays |= {f"{part}_images": examples.images, f"{part}_labels": examples.labels}
        if examples.groups is not None:
            arrays[f"{part}_groups"] = examples.groups
    with appearing_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_task(path: Path) -> Task:
    """Return the task written to `path`; a pickle inside is refused."""
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        return Task(
            name=about["name"],
            classes=tuple(about["classes"]),
            parts={
                part: Examples(
                    images=arrays[f"{part}_images"],
                    labels=arrays[f"{part}_labels"],
                    groups=arrays.get(f"{part}_groups"),
                )
                for part in PARTS
            },
        )


def sheet(shown: Task, *, columns: int) -> Image.Image:
    """Return a contact sheet: one row per class, its first pictures of the training part."""
    examples = shown.parts["train"]
    rows = []
    for label in range(len(shown.classes)):
        first = examples.images[examples.labels == label][:columns]
        blank = np.zeros((columns - len(first), *first.shape[1:]), dtype=np.uint8)
        rows.append(np.concatenate(list(np.concatenate([first, blank])), axis=1))
    return Image.fromarray(np.concatenate(rows))


def _row(name: str, cache: Path) -> list[str]:
    began = time.perf_counter()
    built = load_task(name, cache)
    seconds = time.perf_counter() - began
    pool = TASKS[name].pool(cache)
    kept = distinct(pool)
    counts = [
        f"{len(rows)} ({per_class(kept.labels[rows])}; {len(np.unique(kept.groups[rows]))})"
        for rows in parts_of(kept, TASKS[name].sizes).values()
    ]
    return [
        name,
        str(len(built.classes)),
        *counts,
        f"{len(pool.labels) - len(kept.labels)} of {len(pool.labels)}",
        f"{seconds:.1f}",
        TASKS[name].licence,
    ]


def per_class(labels: NDArray[np.int64]) -> str:
    """Return the least and the greatest number of images of one class."""
    counts = np.bincount(labels)
    return f"{counts.min()}-{counts.max()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--sheets", type=Path, help="write a contact sheet of each task here")
    chosen = parser.parse_args(arguments)
    print(
        "| task | classes | train (per class) | validation | test | equal, left out | s | licence |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in chosen.only:
        print(f"| {' | '.join(_row(name, chosen.cache))} |", flush=True)
        if chosen.sheets is not None:
            chosen.sheets.mkdir(parents=True, exist_ok=True)
            sheet(load_task(name, chosen.cache), columns=20).save(chosen.sheets / f"{name}.png")


if __name__ == "__main__":
    main()
