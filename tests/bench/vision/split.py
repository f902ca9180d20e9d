"""Cut labelled images into train, validation and test, whole groups at a time.

A group is what must not be on two sides: the fonts of one character, the frames of one
sprite. Equal pictures are kept once, and not at all where their labels differ, so no picture
is on two sides either. The cut depends on the pool and the seed alone.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.vision.task import Examples, Part, Task

SEED = 20261122
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All of a source: images (N, 56, 56, 3), labels (N,), groups (N,) and the class names."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.groups):
            counts = len(self.images), len(self.labels), len(self.groups)
            raise ValueError(f"images, labels and groups differ in number: {counts}")

    def chosen(self, rows: NDArray[np.int64]) -> "Pool":
        """Return the rows named, in that order."""
        return Pool(
            images=self.images[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            classes=self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images per class in each part.

    A class that has fewer gives up test images first, down to half of its training images;
    after that all parts shrink alike.
    """

    train: int
    validation: int
    test: int

    def shares(self, available: int) -> NDArray[np.float64]:
        """Return the quotas (3,) of a class of which so many images are there."""
        spare = max(available - self.train - self.validation, self.train / 2)
        wanted = np.array([self.train, self.validation, min(self.test, spare)], dtype=np.float64)
        shrunk: NDArray[np.float64] = wanted * min(1.0, available / wanted.sum())
        return shrunk


def distinct(pool: Pool) -> Pool:
    """Return the pool with each picture once; a picture with several labels is left out."""
    first: dict[bytes, int] = {}
    labels: dict[bytes, set[int]] = {}
    for row, image in enumerate(pool.images):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        first.setdefault(digest, row)
        labels.setdefault(digest, set()).add(int(pool.labels[row]))
    kept = sorted(row for digest, row in first.items() if len(labels[digest]) == 1)
    return pool.chosen(np.array(kept, dtype=np.int64))


def cut(name: str, pool: Pool, sizes: Sizes) -> Task:
    """Return the task of the pool's distinct pictures."""
    pool = distinct(pool)
    return Task(
        name=name,
        classes=pool.classes,
        parts={
            part: Examples(images=pool.images[rows], labels=pool.labels[rows])
            for part, rows in parts_of(pool, sizes).items()
        },
    )


def parts_of(pool: Pool, sizes: Sizes) -> dict[Part, NDArray[np.int64]]:
    """Return each part's rows; every class's quota is met as far as its groups allow."""
    rng = np.random.default_rng(SEED)
    quotas = np.stack([sizes.shares(int((pool.labels == c).sum())) for c in _numbers(pool)])
    sides = _sides(pool, quotas, rng)
    return {part: _filled(pool, sides == side, quotas[:, side]) for side, part in enumerate(PARTS)}


def _numbers(pool: Pool) -> range:
    return range(len(pool.classes))


def _sides(pool: Pool, quotas: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Give each row (N,) the side of its group: the one that lacks most of the group's classes."""
    members: dict[int, list[int]] = {}
    for row in rng.permutation(len(pool.labels)):
        members.setdefault(int(pool.groups[row]), []).append(int(row))
    have = np.zeros_like(quotas)
    sides = np.zeros(len(pool.labels), dtype=np.int64)
    # Large groups first: the small ones then even out what is left.
    for rows in sorted(members.values(), key=len, reverse=True):
        counts = np.bincount(pool.labels[rows], minlength=len(quotas))
        side = int(np.argmin(counts @ (have / quotas)))
        sides[rows] = side
        have[:, side] += counts
    return sides


def _filled(pool: Pool, here: NDArray[np.bool_], quota: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of one side, at most each class's quota, from as many groups as it has."""
    rng = np.random.default_rng(SEED + 1)
    chosen = []
    for number in _numbers(pool):
        rows = rng.permutation(np.flatnonzero(here & (pool.labels == number)))
        order = np.argsort(_turns(pool.groups[rows]), kind="stable")
        chosen.append(rows[order][: round(quota[number])])
    return np.sort(np.concatenate(chosen))


def _turns(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of its group come before each row (N,): 0 for the first of each group."""
    seen: Counter[int] = Counter()
    turns = np.zeros(len(groups), dtype=np.int64)
    for row, group in enumerate(groups.tolist()):
        turns[row] = seen[group]
        seen[group] += 1
    return turns
