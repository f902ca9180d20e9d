"""Battle for Wesnoth: sprites of units (the class is the race) and tiles of terrain (its kind).

A group is one unit with all frames and variants, or one tile with its directions, frames of
animation and its look at night, so no near-equal picture is on two sides.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.vision.datasets.source import Source, number
from tests.bench.vision.near import near_joined
from tests.bench.vision.packages import Package
from tests.bench.vision.pixels import on_grey
from tests.bench.vision.split import Pool, Sizes

RACES = (
    *("drakes", "dunefolk", "dwarves", "elves-wood", "goblins", "human-loyalists", "human-magi"),
    *("human-outlaws", "monsters", "nagas", "orcs", "saurians", "undead", "undead-skeletal"),
)
"""Folders of 100 sprites and more."""
KINDS = (
    *("bridge", "castle", "cave", "chasm", "flat", "forest", "grass"),
    *("hills", "mountains", "sand", "village", "walls", "water"),
)
CORPSES = re.compile(r"^(zombie|soulless)")
"""Walking corpses wear the bodies of the other races."""
NO_TILE = re.compile(r"mask|symbol|editor|overlay|cloud|dummy|blend|abrupt|bank|black")
"""Stencils, icons of the map editor, see-through edges, and banks, which several kinds share."""
ASPECT = re.compile(
    r"n|ne|se|s|sw|nw|tl|tr|bl|br|l|r|lf|rt|cw|ccw|left|right|concave|convex"
    r"|small|medium|large|long|tile|night|lit|A\d+"
)
"""Words of a file's name that say which view of a tile it is, not which tile."""
EACH = 40
"""Pictures taken of one group, evenly from its list, so that no group fills a part alone."""
LEAST_VISIBLE = 200
"""Pixels; less is a sliver of an edge."""
Grouper = Callable[[Path], str | None]


def unit(file: Path) -> str | None:
    """Return which unit a sprite (race/.../name.png) shows; None for a walking corpse."""
    if CORPSES.match(file.name):
        return None
    return file.parts[1] if len(file.parts) > 2 else re.split(r"[-+.\[]", file.name)[0]


def tile(file: Path) -> str | None:
    """Return which tile a file (kind/.../name.png) shows; None where it shows none."""
    if NO_TILE.search(str(file)):
        return None
    words = [word for word in file.stem.split("-") if not ASPECT.fullmatch(word)]
    return str(file.parent / re.sub(r"_\d+", "", "-".join(words)))


def read(folders: Sequence[Path], *, kind: str, classes: tuple[str, ...], group: Grouper) -> Pool:
    """Read the pictures under `kind`, one folder per class, cut out on grey."""
    root = next(folders[0].glob(f"usr/share/games/wesnoth/*/data/core/images/{kind}"))
    images, labels, groups = [], [], []
    for label, name in enumerate(classes):
        for key, files in sorted(_by_group(root, name, group).items()):
            for file in files:
                with Image.open(file) as picture:
                    picture.load()
                    if _visible(picture) >= LEAST_VISIBLE:
                        images.append(on_grey(picture, fill=1.0))
                        labels.append(label)
                        groups.append(number(f"{name}/{key}"))
    pool = Pool(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
        classes=classes,
    )
    return near_joined(pool)


def _by_group(root: Path, name: str, group: Grouper) -> dict[str, list[Path]]:
    """Return at most `EACH` files of each group of a class, spread evenly over its names."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted((root / name).rglob("*.png")):
        key = group(file.relative_to(root))
        if key is not None:
            found[key].append(file)
    return {
        key: [files[i * len(files) // EACH] for i in range(EACH)] if len(files) > EACH else files
        for key, files in found.items()
    }


def _visible(picture: Image.Image) -> int:
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    return int((alpha > 128).sum())


PACKAGES = (
    tuple(Package(kind="debian", name=f"wesnoth-{series}-data") for series in ("1.16", "1.18")),
)
LICENCE = "GPL-2+; newer art CC BY-SA 4.0"
UNITS = Source(
    name="units",
    packages=PACKAGES,
    licence=LICENCE,
    sizes=Sizes(train=172, validation=58, test=100),
    read=partial(read, kind="units", classes=RACES, group=unit),
)
TERRAIN = Source(
    name="terrain",
    packages=PACKAGES,
    licence=LICENCE,
    sizes=Sizes(train=185, validation=62, test=100),
    read=partial(read, kind="terrain", classes=KINDS, group=tile),
)
