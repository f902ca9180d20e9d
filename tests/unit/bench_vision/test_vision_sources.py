"""What the sources know of their files: names, places in a picture, icons' families."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench.vision.datasets.icons import family
from tests.bench.vision.datasets.satellite import positions
from tests.bench.vision.datasets.source import number
from tests.bench.vision.datasets.wesnoth import tile, unit
from tests.bench.vision.pixels import GROUND, on_grey
from tests.bench.vision.task import SIDE


def _patches(picture: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    places = [(r, c) for r in range(len(picture) - 2) for c in range(picture.shape[1] - 2)]
    return np.stack([picture[r : r + 3, c : c + 3] for r, c in places]), places


def test_shuffled_patches_find_their_places_again() -> None:
    rng = np.random.default_rng(3)
    patches, places = _patches(rng.integers(0, 160, (12, 9, 4)).astype(np.uint8))
    order = rng.permutation(len(patches))
    found = positions(patches[order])
    assert len(found) == len(patches)
    moved = {
        (row - places[order[here]][0], column - places[order[here]][1])
        for here, (row, column) in found.items()
    }
    assert len(moved) == 1


def test_patches_of_another_picture_get_no_place() -> None:
    rng = np.random.default_rng(4)
    patches, _ = _patches(rng.integers(0, 160, (8, 8, 4)).astype(np.uint8))
    alone = rng.integers(160, 255, (1, 3, 3, 4)).astype(np.uint8)
    assert sorted(positions(np.concatenate([patches, alone]))) == list(range(len(patches)))


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("elves-wood/archer+female-bow-attack1.png", "archer"),
        ("elves-wood/archer.png", "archer"),
        ("saurians/skirmisher/skirmisher-ne-bob3.png", "skirmisher"),
        ("undead/zombie-troll-die-1.png", None),
        ("undead/ghost-n-3.png", "ghost"),
    ],
)
def test_frames_of_a_unit_are_one_group(file: str, group: str | None) -> None:
    assert unit(Path(file)) == group


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("village/drake1-A02.png", "village/drake1"),
        ("village/coast-night.png", "village/coast"),
        ("flat/desert-road-n-ne-se.png", "flat/desert-road"),
        ("mountains/basic5_2.png", "mountains/basic5"),
        ("castle/elven/keep-castle-concave-bl.png", "castle/elven/keep-castle"),
        ("grass/dry-symbol.png", None),
        ("flat/bank-n.png", None),
    ],
)
def test_views_of_a_tile_are_one_group(file: str, group: str | None) -> None:
    assert tile(Path(file)) == group


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpm-battery-080-charging", "battery-charging"),
        ("battery-060-charging", "battery-charging"),
        ("application-x-php", "application-php"),
        ("folder_drag_accept", "folder-drag"),
        ("stock_lock", "lock"),
        ("7zip", "zip"),
        ("001", "001"),
    ],
)
def test_an_icon_is_named_without_its_details(name: str, shown: str) -> None:
    assert family(name) == shown


def test_the_empty_border_of_a_picture_tells_nothing() -> None:
    drawing = Image.new("RGBA", (20, 10), (200, 30, 30, 255))
    framed = Image.new("RGBA", (70, 70), (0, 255, 0, 0))
    framed.paste(drawing, (40, 5))
    bare, cut_out = on_grey(drawing, fill=0.9), on_grey(framed, fill=0.9)
    np.testing.assert_array_equal(bare, cut_out)
    assert bare.shape == (SIDE, SIDE, 3)
    assert (bare[0] == GROUND).all()
    np.testing.assert_allclose(bare[SIDE // 2, SIDE // 2], [200, 30, 30], atol=1)


def test_a_groups_number_depends_on_its_name_alone() -> None:
    assert number("elves/archer") == 61175663962674967
