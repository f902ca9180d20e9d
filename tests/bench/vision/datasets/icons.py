"""Icons of six desktop themes; the class is the context they are for: actions, apps, devices ...

A group is an icon's name without its details, in every theme, size and context: themes copy
each other, and a battery at 60 % looks like one at 80 %.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.vision.datasets.source import Source, number
from tests.bench.vision.near import near_joined
from tests.bench.vision.packages import Package
from tests.bench.vision.pixels import on_grey
from tests.bench.vision.split import Pool, Sizes

CONTEXTS = {
    "actions": "actions",
    "apps": "apps",
    "categories": "categories",
    "devices": "devices",
    "mimes": "mimetypes",
    "mimetypes": "mimetypes",
    "places": "places",
    "status": "status",
}
CLASSES = tuple(dict.fromkeys(CONTEXTS.values()))
SIZES = frozenset({"32", "48", "64", "32x32", "48x48", "64x64"})
NO_NAMES = frozenset({"gnome", "gpm", "gtk", "kde", "ltr", "rtl", "stock", "vnd", "x", "xfce"})
"""Words of an icon's name that do not say what it shows."""
WORDS_OF_A_GROUP = 2
THEMES = ("tango", "oxygen", "gnome", "mate", "faenza", "elementary-xfce")


def read(folders: Sequence[Path]) -> Pool:
    """Read every icon of the contexts in the sizes wanted, cut out on grey."""
    images, labels, groups = [], [], []
    for folder in folders:
        for file, context in _icons(folder / "usr/share/icons"):
            with Image.open(file) as picture:
                images.append(on_grey(picture, fill=0.9))
            labels.append(CLASSES.index(context))
            groups.append(number(family(file.stem)))
    pool = Pool(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
        classes=CLASSES,
    )
    return near_joined(pool)


def family(name: str) -> str:
    """Return what an icon shows in its first words, without numbers: `gpm-battery-080`: battery."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word not in {"", *NO_NAMES}]
    return "-".join(words[:WORDS_OF_A_GROUP]) or name


def _icons(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each icon with its class; themes say theme/size/context or theme/context/size."""
    for file in sorted(root.rglob("*.png")):
        folders = file.relative_to(root).parts[1:-1]
        contexts = [CONTEXTS[folder] for folder in folders if folder in CONTEXTS]
        if len(contexts) == 1 and SIZES.intersection(folders):
            yield file, contexts[0]


SOURCE = Source(
    name="icons",
    packages=tuple((Package(kind="debian", name=f"{theme}-icon-theme"),) for theme in THEMES),
    licence="Tango public domain; Oxygen, MATE LGPL-3+; GNOME, Elementary GPL-2+; Faenza GPL-3+",
    sizes=Sizes(train=240, validation=80, test=150),
    read=read,
)
