"""Join the groups of pictures that look the same though their files' names do not say so."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.bench.vision.pixels import GROUND
from tests.bench.vision.split import Pool
from tests.bench.vision.task import SIDE

THUMBNAIL = 14
CLOSER_THAN = 0.08
"""Distance of two thumbnails, relative to how far the stronger one is from plain grey."""
ROWS_AT_ONCE = 1024


def near_joined(pool: Pool) -> Pool:
    """Return the pool with two groups made one wherever a picture of each is near the other."""
    names, group = np.unique(pool.groups, return_inverse=True)
    parent = list(range(len(names)))
    for first, second in _near_pairs(_thumbnails(pool.images)).tolist():
        parent[_root(int(group[first]), parent)] = _root(int(group[second]), parent)
    roots = np.array([_root(number, parent) for number in range(len(names))])
    return replace(pool, groups=names[roots[group]])


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (N, 14 * 14 * 3), zero where a picture is grey as the ground is."""
    step = SIDE // THUMBNAIL
    cells = images.reshape(-1, THUMBNAIL, step, THUMBNAIL, step, 3).mean((2, 4), dtype=np.float32)
    thumbnails: NDArray[np.float32] = cells.reshape(len(images), -1) - np.float32(GROUND)
    return thumbnails


def _near_pairs(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the pairs of rows (P, 2) that are near, in blocks of 1024 × N distances."""
    squares = (points**2).sum(axis=1)
    pairs = []
    for begin in range(0, len(points), ROWS_AT_ONCE):
        here = slice(begin, begin + ROWS_AT_ONCE)
        distances = squares[here, None] + squares[None] - 2 * points[here] @ points.T
        stronger = np.maximum(squares[here, None], squares[None])
        first, second = np.nonzero(distances < CLOSER_THAN**2 * stronger)
        pairs.append(np.stack([first + begin, second], axis=1)[first + begin < second])
    return np.concatenate(pairs)


def _root(number: int, parent: list[int]) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number
