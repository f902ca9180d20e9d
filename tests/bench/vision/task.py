"""One labelled image task: images, labels, and what must stay on one side of a split."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SIDE = 56
"""Pixels of a side, after resizing: 4 × 4 patches of 14, 17 tokens with the class token."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images (N, 56, 56, 3) uint8 RGB and their class numbers (N,) int64.

    `groups` (N,) int64 tells pictures that are alike (the fonts of one character), for standard
    errors; without it every picture stands for itself.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task, cut so that no group (a character's fonts, a sprite's frames) is on two sides."""

    name: str
    classes: tuple[str, ...]
    parts: dict[Part, Examples]
