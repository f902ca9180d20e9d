"""A few bars from left to right, each with its name and its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fda_core.reports.drawing.markup import Markup, element, join

_LEFT, _WIDTH, _ROW = 92.0, 560.0, 30.0
_TEXT = 170.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: its length and what is written behind it."""

    name: str
    value: float
    text: str
    css_class: str


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """What to draw; the longest bar takes the whole width."""

    label: str
    bars: Sequence[Bar]


def draw_bars(chart: BarChart) -> Markup:
    """Return the bars as SVG."""
    height = _ROW * len(chart.bars) + 6
    width = _LEFT + _WIDTH + _TEXT
    return element(
        "svg",
        join(_rows(chart)),
        class_="chart",
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=chart.label,
    )


def _rows(chart: BarChart) -> Iterator[Markup]:
    longest = max((bar.value for bar in chart.bars), default=0.0) or 1.0
    for number, bar in enumerate(chart.bars):
        top = number * _ROW + 5
        length = max(bar.value / longest * _WIDTH, 1.5)
        yield element("text", bar.name, x=_LEFT - 8, y=top + 14, class_="row end")
        yield element(
            "rect",
            class_=bar.css_class,
            x=_LEFT,
            y=top,
            width=length,
            height=_ROW - 10,
            rx=2,
            data_tip=f"{bar.name}: {bar.text}",
        )
        yield element("text", bar.text, x=_LEFT + length + 8, y=top + 14, class_="row")
