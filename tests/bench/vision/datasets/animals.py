"""Animal-MNIST (Mohammadi 2025): silhouettes of animals, 28 × 28 grey."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.vision.datasets.source import Source
from tests.bench.vision.packages import Package
from tests.bench.vision.pickled_arrays import load_array
from tests.bench.vision.pixels import grey_resized
from tests.bench.vision.split import Pool, Sizes

CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
EACH = 700
"""Images taken of each class, the first in the file: more than the parts need."""


def read(folders: Sequence[Path]) -> Pool:
    """Read the first images of each class; every image is a group of its own."""
    files = folders[0] / "animal_mnist/data/Animal_MNIST"
    images = load_array(gzip.decompress((files / "animal_data_version_3.gz").read_bytes()))
    labels = load_array(gzip.decompress((files / "animal_label_version_3.gz").read_bytes()))
    numbers = labels.astype(np.int64)
    rows = np.sort(np.concatenate([np.flatnonzero(numbers == c)[:EACH] for c in range(10)]))
    return Pool(
        images=grey_resized(images[rows].astype(np.uint8)),
        labels=numbers[rows],
        groups=np.arange(len(rows)),
        classes=CLASSES,
    )


SOURCE = Source(
    name="animals",
    packages=(
        (
            Package(
                kind="pypi",
                name="animal-mnist",
                version="0.4",
                sha256="aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce",
            ),
        ),
    ),
    licence="MIT (Sina Mohammadi)",
    sizes=Sizes(train=240, validation=80, test=150),
    read=read,
)
