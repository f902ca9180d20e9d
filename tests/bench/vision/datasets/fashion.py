"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): grey photographs of clothes, 28 × 28."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.vision.datasets.source import Source
from tests.bench.vision.packages import Package
from tests.bench.vision.pixels import grey_resized
from tests.bench.vision.split import Pool, Sizes

CLASSES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
IMAGES_HEADER_BYTES, LABELS_HEADER_BYTES = 16, 8
EACH = 700
"""Images taken of each class, the first in the file: more than the parts need."""


def read(folders: Sequence[Path]) -> Pool:
    """Read the first images of each class; every image is a group of its own."""
    files = folders[0] / "usr/share/datasets/fashion-mnist"
    images = _idx(files / "train-images-idx3-ubyte.gz", IMAGES_HEADER_BYTES).reshape(-1, 28, 28)
    labels = _idx(files / "train-labels-idx1-ubyte.gz", LABELS_HEADER_BYTES).astype(np.int64)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:EACH] for c in range(10)]))
    return Pool(
        images=grey_resized(images[rows]),
        labels=labels[rows],
        groups=np.arange(len(rows)),
        classes=CLASSES,
    )


def _idx(path: Path, header_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header_bytes)


SOURCE = Source(
    name="fashion",
    packages=((Package(kind="debian", name="dataset-fashion-mnist"),),),
    licence="MIT (Zalando SE)",
    sizes=Sizes(train=240, validation=80, test=150),
    read=read,
)
