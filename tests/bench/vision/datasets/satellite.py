"""Landsat (Statlog; R package mlbench): 3 × 3 pixels in four bands, the ground's use at the middle.

The patches are every place of one satellite picture and overlap, so a random cut, as is usual,
has most test pixels in the training part too. Here each patch is put back in its place (its
right two columns are its neighbour's left two; all places agree), the picture is cut into
blocks, and the two last rows and columns of each block are left out: no pixel is on two sides.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.vision.datasets.source import Source
from tests.bench.vision.packages import Package
from tests.bench.vision.pixels import resized
from tests.bench.vision.split import Pool, Sizes

BLOCK, GAP = 12, 2
"""Places along a block's side; places between blocks: patches 3 apart share no pixel."""
FALSE_COLOUR = (3, 1, 0)
"""Near infrared, red and green shown as red, green and blue."""
BRIGHTER = 1.6
"""The brightest value of the picture, 157, becomes 251."""
Patches = NDArray[np.uint8]


def read(folders: Sequence[Path]) -> Pool:
    """Read the patches (N, 3, 3, 4) whose place is known; groups are blocks of the picture."""
    patches, labels, classes = _table(folders[0])
    places = positions(patches)
    known = np.array(sorted(places))
    where = np.array([places[row] for row in known])
    where -= where.min(axis=0)
    inside = (where % BLOCK < BLOCK - GAP).all(axis=1)
    rows, blocks = known[inside], where[inside] // BLOCK
    return Pool(
        images=np.stack([_picture(patch) for patch in patches[rows]]),
        labels=labels[rows],
        groups=blocks[:, 0] * 1000 + blocks[:, 1],
        classes=classes,
    )


def positions(patches: Patches) -> dict[int, tuple[int, int]]:
    """Return row and column of each patch of the largest connected piece of the picture."""
    beside = _neighbours(patches)
    placed: dict[int, tuple[int, int]] = {}
    largest: dict[int, tuple[int, int]] = {}
    for start in range(len(patches)):
        if start not in placed:
            piece = _piece(start, beside)
            placed |= piece
            largest = max(largest, piece, key=len)
    return largest


def _piece(start: int, beside: dict[int, list[tuple[int, int, int]]]) -> dict[int, tuple[int, int]]:
    """Walk from one patch to all it is connected with; raise where two ways disagree."""
    piece, waiting = {start: (0, 0)}, [start]
    while waiting:
        here = waiting.pop()
        for there, down, right in beside[here]:
            place = piece[here][0] + down, piece[here][1] + right
            if there not in piece:
                waiting.append(there)
            if piece.setdefault(there, place) != place:
                raise ValueError(f"patch {there} has two places: {piece[there]} and {place}")
    return piece


def _neighbours(patches: Patches) -> dict[int, list[tuple[int, int, int]]]:
    """Return for each patch its neighbours (patch, rows down, columns right)."""
    beside: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for here, there in _overlaps(patches[:, :, 1:], patches[:, :, :2]):
        beside[here].append((there, 0, 1))
        beside[there].append((here, 0, -1))
    for here, there in _overlaps(patches[:, 1:], patches[:, :2]):
        beside[here].append((there, 1, 0))
        beside[there].append((here, -1, 0))
    return beside


def _overlaps(ends: Patches, beginnings: Patches) -> Iterator[tuple[int, int]]:
    """Yield pairs where the six pixels one patch ends with begin exactly one other patch."""
    begin: dict[bytes, list[int]] = defaultdict(list)
    for row, pixels in enumerate(beginnings):
        begin[pixels.tobytes()].append(row)
    for row, pixels in enumerate(ends):
        found = begin.get(pixels.tobytes(), [])
        if len(found) == 1 and found[0] != row:
            yield row, found[0]


def _picture(patch: Patches) -> NDArray[np.uint8]:
    bright = np.clip(patch[:, :, FALSE_COLOUR] * BRIGHTER, 0, 255).astype(np.uint8)
    return resized(Image.fromarray(bright), sampling=Image.Resampling.NEAREST)


def _table(folder: Path) -> tuple[Patches, NDArray[np.int64], tuple[str, ...]]:
    """Return patches (N, 3, 3, 4), labels (N,) and class names of the R data frame."""
    import rdata  # Not for everyone who reads a cached task: it brings pandas and xarray.

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The file does not say its encoding.
        files = folder / "usr/lib/R/site-library/mlbench/data"
        frame = rdata.read_rda(files / "Satellite.rda")["Satellite"]
    values = frame.iloc[:, :36].to_numpy(np.float64).reshape(-1, 3, 3, 4)
    named = frame["classes"].cat
    return values.astype(np.uint8), named.codes.to_numpy(np.int64), tuple(named.categories)


SOURCE = Source(
    name="satellite",
    packages=((Package(kind="debian", name="r-cran-mlbench"),),),
    licence="package GPL-2; data Statlog (UCI), terms not in the package",
    sizes=Sizes(train=300, validation=100, test=200),
    read=read,
)
