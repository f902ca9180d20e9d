"""Legends: what a colour means."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.drawing.scales import linear_ticks, tick_text

_STEPS = 48
_STEP = 4.0


class Entry(NamedTuple):
    """One sign of a legend: the class that colours it, its shape and its words."""

    css_class: str
    shape: str
    """`line`, `band` or `box`."""
    text: str


def draw_scale(
    scale: ColourScale,
    *,
    title: str,
    low_word: str = "",
    high_word: str = "",
    missing: bool = False,
) -> Markup:
    """Return a colour bar with ticks; the words stand at its ends.

    `missing` adds what a cell without a value looks like.
    """
    left = float(len(low_word) * 6 + 12 if low_word else 14)
    width = _STEPS * _STEP
    total = left + width + (len(high_word) * 6.2 + 12 if high_word else 16)
    middle = (scale.low + scale.high) / 2
    return element(
        "div",
        element("span", title, class_="legend-title"),
        element(
            "svg",
            element("text", low_word, x=left - 6, y=12, class_="tick end") if low_word else "",
            join(_steps(scale, left)),
            element("text", high_word, x=left + width + 6, y=12, class_="tick")
            if high_word
            else "",
            join(_ticks(scale, left, width)),
            class_="chart scale",
            width=total,
            height=32,
            viewBox=f"0 0 {total:g} 32",
            role="img",
            aria_label=f"{title}: from {scale.low:.4g} over {middle:.4g} to {scale.high:.4g}",
        ),
        _missing_entry() if missing else "",
        class_="legend",
    )


def draw_entries(entries: Sequence[Entry], *, title: str = "") -> Markup:
    """Return a legend in words: a sign and a text for every entry."""
    return element(
        "div",
        element("span", title, class_="legend-title") if title else "",
        join(_entry(entry) for entry in entries),
        class_="legend",
    )


def _missing_entry() -> Markup:
    return element("span", element("i", class_="swatch na-box"), "n/a", class_="legend-entry")


def _entry(entry: Entry) -> Markup:
    y = 5 if entry.shape == "line" else 1
    if entry.shape == "line":
        sign = element("line", x1=0, x2=18, y1=y, y2=y, class_=entry.css_class)
    else:
        sign = element("rect", x=0, y=y, width=16, height=9, rx=2, class_=entry.css_class)
    drawn = element(
        "svg", sign, class_="chart sign", width=18, height=11, viewBox="0 0 18 11", role="none"
    )
    return element("span", drawn, entry.text, class_="legend-entry")


def _steps(scale: ColourScale, left: float) -> Iterator[Markup]:
    for step in range(_STEPS):
        value = scale.low + (step + 0.5) / _STEPS * (scale.high - scale.low)
        yield element(
            "rect",
            class_=scale.css_class(value),
            x=left + step * _STEP,
            y=3,
            width=_STEP,
            height=11,
        )


def _ticks(scale: ColourScale, left: float, width: float) -> Iterator[Markup]:
    span = scale.high - scale.low
    for value in linear_ticks(scale.low, scale.high, 4):
        x = left + (value - scale.low) / span * width if span > 0 else left
        yield element("text", tick_text(value), x=x, y=27, class_="tick mid")
