"""Kanji of JIS X 0208 in four faces of Noto CJK; the class is the radical (Unihan kRSUnicode)."""

import bz2
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tests.bench.vision.datasets.source import Source
from tests.bench.vision.packages import Package
from tests.bench.vision.split import Pool, Sizes
from tests.bench.vision.task import SIDE

RADICALS = {
    "9": "man",
    "30": "mouth",
    "32": "earth",
    "61": "heart",
    "64": "hand",
    "75": "tree",
    "85": "water",
    "118": "bamboo",
    "120": "silk",
    "130": "meat",
    "140": "grass",
    "142": "insect",
    "149": "speech",
    "162": "walk",
    "167": "gold",
}
"""The 15 radicals with most characters in JIS X 0208: 111 to 355 each."""
FACES = ("Sans-Regular", "Sans-Bold", "Serif-Regular", "Serif-Bold")
JAPANESE = 0
"""The first face of each collection is the Japanese one."""
POINTS = 48


def read(folders: Sequence[Path]) -> Pool:
    """Draw each character in each face, black on white; a character is a group."""
    fonts, unicode = folders
    faces = [_face(fonts, name) for name in FACES]
    numbers = list(RADICALS)
    images, labels, groups = [], [], []
    for character, radical in characters(unicode):
        for face in faces:
            images.append(_drawn(character, face))
            labels.append(numbers.index(radical))
            groups.append(ord(character))
    return Pool(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
        classes=tuple(RADICALS.values()),
    )


def characters(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each character of JIS X 0208 that has one of the radicals, with its number."""
    files = folder / "usr/share/unicode"
    common = {code for code, _ in _property(files / "Unihan_OtherMappings.txt.bz2", "kJis0")}
    for code, value in _property(files / "Unihan_IRGSources.txt.bz2", "kRSUnicode"):
        radical = value.split()[0].split(".")[0].rstrip("'")
        if code in common and radical in RADICALS:
            yield chr(int(code.removeprefix("U+"), 16)), radical


def _property(path: Path, name: str) -> Iterator[tuple[str, str]]:
    with bz2.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 3 and fields[1] == name:
                yield fields[0], fields[2]


def _face(folder: Path, name: str) -> ImageFont.FreeTypeFont:
    style, weight = name.split("-")
    file = folder / f"usr/share/fonts/opentype/noto/Noto{style}CJK-{weight}.ttc"
    return ImageFont.truetype(file, POINTS, index=JAPANESE, layout_engine=ImageFont.Layout.BASIC)


def _drawn(character: str, face: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    picture = Image.new("L", (SIDE, SIDE), 255)
    middle = (SIDE / 2, SIDE / 2)
    ImageDraw.Draw(picture).text(middle, character, font=face, fill=0, anchor="mm")
    return np.asarray(picture.convert("RGB"))


SOURCE = Source(
    name="kanji",
    packages=(
        (Package(kind="debian", name="fonts-noto-cjk"),),
        (Package(kind="debian", name="unicode-data"),),
    ),
    licence="fonts OFL-1.1; Unicode data Unicode licence",
    sizes=Sizes(train=160, validation=56, test=120),
    read=read,
)
