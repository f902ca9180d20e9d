"""Colour scales that colour-blind readers can read, and the style rules that carry them.

Sequential is viridis; its stops are those of Smith and van der Walt, mixed linearly in
between. Diverging runs blue, neutral, orange. A cell names its colour by a class (`v12`), so
that light and dark pages, and print, can each have their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

LEVELS = 64
"""Steps of a scale: more than the eye tells apart, few enough for a style sheet."""

Kind = Literal["sequential", "reversed", "diverging"]

_VIRIDIS = (
    *("440154", "482475", "414487", "355f8d", "2a788e", "21918c"),
    *("22a884", "44bf70", "7ad151", "bddf26", "fde725"),
)
_DIVERGING_LIGHT = ("1c5cab", "6da7ec", "f0efec", "ec9a6d", "b1430f")
_DIVERGING_DARK = ("86b6ef", "2a78d6", "383835", "c9561f", "f4a57d")


@dataclass(frozen=True, kw_only=True)
class ColourScale:
    """Values to classes. `reversed` is viridis with its bright end at the low values."""

    low: float
    high: float
    kind: Kind = "sequential"

    def css_class(self, value: float) -> str:
        """Return the class for a value; values beyond the ends get the end's colour."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        level = min(LEVELS - 1, int(min(1.0, max(0.0, share)) * LEVELS))
        if self.kind == "reversed":
            level = LEVELS - 1 - level
        return f"{'d' if self.kind == 'diverging' else 'v'}{level}"


def viridis(share: float) -> str:
    """Return the sequential colour at a share of the way from 0 (dark) to 1 (bright)."""
    return _mix(_VIRIDIS, share)


def ink_on(colour: str) -> str:
    """Return black or white, whichever stands out more from a colour."""
    light = _luminance(colour)
    return "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"


def light_rules(lines: int) -> str:
    """Return the rules of a light page for both scales and for `lines` coloured lines."""
    rules = [*_cell_rules("v", _VIRIDIS), *_cell_rules("d", _DIVERGING_LIGHT)]
    return "".join([*rules, *_line_rules(lines, darkest=0.0, brightest=0.86)])


def dark_rules(lines: int) -> str:
    """Return what a dark page overrides: the diverging scale and the lines."""
    rules = _cell_rules("d", _DIVERGING_DARK)
    return "".join([*rules, *_line_rules(lines, darkest=0.3, brightest=1.0)])


def _cell_rules(prefix: str, stops: Sequence[str]) -> Iterator[str]:
    for level in range(LEVELS):
        colour = _mix(stops, level / (LEVELS - 1))
        yield f".{prefix}{level}{{fill:{colour}}}.{prefix}{level}+text{{fill:{ink_on(colour)}}}"


def _line_rules(count: int, *, darkest: float, brightest: float) -> Iterator[str]:
    for number in range(count):
        share = number / (count - 1) if count > 1 else 0.45
        colour = viridis(darkest + share * (brightest - darkest))
        yield f".s{number}{{stroke:{colour}}}.k{number}{{fill:{colour}}}"


def _mix(stops: Sequence[str], share: float) -> str:
    place = min(1.0, max(0.0, share)) * (len(stops) - 1)
    lower = min(int(place), len(stops) - 2)
    first, second = _rgb(stops[lower]), _rgb(stops[lower + 1])
    weight = place - lower
    mixed = (round(a + (b - a) * weight) for a, b in zip(first, second, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _rgb(colour: str) -> tuple[int, int, int]:
    code = colour.lstrip("#")
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2, from 0 to 1."""
    red, green, blue = (_linear(channel / 255) for channel in _rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
