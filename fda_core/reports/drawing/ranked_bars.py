"""Bars from left to right on one axis from zero, in named groups, each with its error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fda_core.reports.drawing import whisker
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.drawing.scales import Axis, round_up, tick_text

_WIDTH, _ROW, _HEAD, _TOP, _BOTTOM = 560.0, 22.0, 26.0, 6.0, 40.0
_LETTER, _TEXT = 6.6, 110.0


@dataclass(frozen=True, kw_only=True)
class RankedBar:
    """One bar: its length, the error either way, and what is written behind it."""

    name: str
    value: float
    error: float
    text: str
    css_class: str


@dataclass(frozen=True, kw_only=True)
class BarGroup:
    """Bars under one heading."""

    name: str
    bars: Sequence[RankedBar]


@dataclass(frozen=True, kw_only=True)
class RankedBars:
    """What to draw; `marks` are values with a name, drawn as lines behind all bars."""

    label: str
    """What the picture shows, for those who cannot see it."""
    title: str
    """The axis, with its unit."""
    groups: Sequence[BarGroup]
    marks: Sequence[tuple[str, float]] = ()


def draw_ranked_bars(chart: RankedBars) -> Markup:
    """Return the bars as SVG."""
    bars = [bar for group in chart.groups for bar in group.bars]
    left = max((len(bar.name) for bar in bars), default=4) * _LETTER + 14
    base = _TOP + _HEAD * (len(chart.groups) + 1) + _ROW * len(bars)
    ends = [bar.value + bar.error for bar in bars] + [value for _, value in chart.marks]
    axis = Axis(low=0.0, high=round_up(max(ends, default=0.0)), begin=left, end=left + _WIDTH)
    width, height = left + _WIDTH + _TEXT, base + _BOTTOM
    return element(
        "svg",
        join(_frame(chart, axis, base)),
        join(_marks(chart, axis, base)),
        join(_groups(chart, axis)),
        class_="chart",
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=chart.label,
    )


def _frame(chart: RankedBars, axis: Axis, base: float) -> Iterator[Markup]:
    for value in axis.ticks(5):
        at = axis.at(value)
        line = "axis" if value == 0 else "grid"
        yield element("line", x1=at, x2=at, y1=_TOP + _HEAD, y2=base, class_=line)
        yield element("text", tick_text(value), x=at, y=base + 16, class_="tick mid")
    middle = (axis.begin + axis.end) / 2
    yield element("text", chart.title, x=middle, y=base + 34, class_="name mid")


def _groups(chart: RankedBars, axis: Axis) -> Iterator[Markup]:
    top = _TOP + _HEAD
    for group in chart.groups:
        yield element("text", group.name, x=axis.begin, y=top + _HEAD - 8, class_="name strong")
        top += _HEAD
        for bar in group.bars:
            yield from _bar(bar, axis, top)
            top += _ROW


def _bar(bar: RankedBar, axis: Axis, top: float) -> Iterator[Markup]:
    middle = top + (_ROW - 6) / 2
    low, high = (axis.at(max(0.0, bar.value + sign * bar.error)) for sign in (-1, 1))
    yield element("text", bar.name, x=axis.begin - 8, y=middle + 4, class_="row end")
    yield element(
        "rect",
        class_=bar.css_class,
        x=axis.begin,
        y=top,
        width=max(axis.at(bar.value) - axis.begin, 1.5),
        height=_ROW - 6,
        rx=2,
        data_tip=f"{bar.name}: {bar.text}",
    )
    yield whisker.level(middle, low=low, high=high)
    yield element("text", bar.text, x=high + 8, y=middle + 4, class_="row halo")


def _marks(chart: RankedBars, axis: Axis, base: float) -> Iterator[Markup]:
    for name, value in chart.marks:
        at = axis.at(value)
        yield element("line", x1=at, x2=at, y1=_TOP + 16, y2=base, class_="mark")
        yield element("text", name, x=at, y=_TOP + 10, class_="tick mid")
