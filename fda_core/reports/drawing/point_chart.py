"""Points with errors: over a number, on a plain or log axis, or over names side by side."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fda_core.reports.drawing import whisker
from fda_core.reports.drawing.line_chart import Scale
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.drawing.scales import Axis, tick_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 14.0, 24.0, 40.0
_LETTER, _LINE = 6.0, 13.0
_RADIUS = 4.5


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One point; over names `x` is the number of its name. Its label is drawn beside it."""

    x: float
    y: float
    error: float | None
    tip: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind: `family` names its colours, as in `fill-fda` and `stroke-fda`."""

    family: str
    spots: Sequence[Spot]
    joined: bool = False


@dataclass(frozen=True, kw_only=True)
class PointChart:
    """What to draw; `x` is an axis of numbers or the names that stand side by side."""

    label: str
    """What the picture shows, for those who cannot see it."""
    x: Scale | Sequence[str]
    """Names are written on two lines where they have two words."""
    y: Scale
    series: Sequence[Series]
    x_title: str = ""
    ticks: Sequence[float] = ()
    """Where numbers are written on the axis; none: round ones."""
    mark: tuple[str, float] | None = None
    """A value of y with its name, drawn as a line through the chart."""
    mark_side: Literal["begin", "end"] = "end"
    """Where the mark's name stands."""
    width: float = 480.0
    height: float = 260.0

    @property
    def base(self) -> float:
        """Return the pixel of the axis of x; names of two words need a line more."""
        names = () if isinstance(self.x, Scale) else self.x
        return self.height - _BOTTOM - (12.0 if any(" " in name for name in names) else 0.0)


def draw_points(chart: PointChart) -> Markup:
    """Return the chart as SVG. Points off a log axis are left out."""
    x = _x_axis(chart)
    y = Axis(
        low=chart.y.low,
        high=chart.y.high,
        begin=chart.base,
        end=_TOP,
        log=chart.y.log,
    )
    return element(
        "svg",
        join(_frame(chart, x, y)),
        join(_mark(chart, y)),
        join(_series(series, x, y) for series in chart.series),
        join(_labels(chart, x, y)),
        class_="chart points",
        width=chart.width,
        height=chart.height,
        viewBox=f"0 0 {chart.width:g} {chart.height:g}",
        role="img",
        aria_label=chart.label,
    )


def _x_axis(chart: PointChart) -> Axis:
    begin, end = _LEFT, chart.width - _RIGHT
    if isinstance(chart.x, Scale):
        return Axis(low=chart.x.low, high=chart.x.high, begin=begin, end=end, log=chart.x.log)
    return Axis(low=-0.5, high=len(chart.x) - 0.5, begin=begin, end=end)


def _frame(chart: PointChart, x: Axis, y: Axis) -> Iterator[Markup]:
    """Yield grid, ticks and axis titles."""
    for value in y.ticks(4):
        at = y.at(value)
        yield element("line", x1=_LEFT, x2=chart.width - _RIGHT, y1=at, y2=at, class_="grid")
        yield element("text", tick_text(value), x=_LEFT - 6, y=at + 4, class_="tick end")
    base = chart.base
    yield element("line", x1=_LEFT, x2=chart.width - _RIGHT, y1=base, y2=base, class_="axis")
    for value, text in _x_ticks(chart, x):
        at = x.at(value)
        yield element("line", x1=at, x2=at, y1=base, y2=base + 4, class_="axis")
        first, _, second = text.partition(" ")
        yield element("text", first, x=at, y=base + 16, class_="tick mid")
        if second:
            yield element("text", second, x=at, y=base + 28, class_="tick mid")
    yield element("text", chart.y.title, x=4, y=11, class_="name")
    title = chart.x.title if isinstance(chart.x, Scale) else chart.x_title
    middle = (_LEFT + chart.width - _RIGHT) / 2
    yield element("text", title, x=middle, y=chart.height - 7, class_="name mid")


def _x_ticks(chart: PointChart, x: Axis) -> Iterator[tuple[float, str]]:
    if not isinstance(chart.x, Scale):
        yield from ((float(number), name) for number, name in enumerate(chart.x))
        return
    taken = -math.inf
    for value in chart.ticks or x.ticks(5):
        text = tick_text(value)
        half = len(text) * _LETTER / 2 + 2
        if x.at(value) - half >= taken:
            taken = x.at(value) + half
            yield value, text


def _mark(chart: PointChart, y: Axis) -> Iterator[Markup]:
    if chart.mark is not None:
        name, value = chart.mark
        at, end = y.at(value), chart.width - _RIGHT
        yield element("line", x1=_LEFT, x2=end, y1=at, y2=at, class_="mark")
        first = chart.mark_side == "begin"
        place, side = (_LEFT + 4, "") if first else (end, " end")
        yield element("text", name, x=place, y=at - 4, class_=f"tick halo{side}")


def _series(series: Series, x: Axis, y: Axis) -> Markup:
    drawn = [spot for spot in series.spots if _is_on(spot, x, y)]
    places = [(x.at(spot.x), y.at(spot.y)) for spot in drawn]
    line = " ".join(f"{at:.1f},{top:.1f}" for at, top in places)
    return join(
        [
            element("polyline", points=line, class_=f"joined stroke-{series.family}")
            if series.joined and len(places) > 1
            else "",
            *(_whisker(spot, x, y) for spot in drawn if spot.error),
            *(
                element(
                    "circle",
                    cx=at,
                    cy=top,
                    r=_RADIUS,
                    class_=f"spot fill-{series.family}",
                    data_tip=spot.tip,
                )
                for spot, (at, top) in zip(drawn, places, strict=True)
            ),
        ]
    )


def _whisker(spot: Spot, x: Axis, y: Axis) -> Markup:
    error = spot.error or 0.0
    low, high = (y.at(min(max(spot.y + sign * error, y.low), y.high)) for sign in (-1.0, 1.0))
    return whisker.upright(x.at(spot.x), low=low, high=high)


def _is_on(spot: Spot, x: Axis, y: Axis) -> bool:
    return (spot.x > 0 or not x.log) and (spot.y > 0 or not y.log)


def _labels(chart: PointChart, x: Axis, y: Axis) -> Iterator[Markup]:
    """Yield labels beside their points, higher ones first, moved down where one is in the way."""
    spots = [spot for series in chart.series for spot in series.spots]
    placed: list[tuple[float, float, float]] = []
    for spot in sorted((s for s in spots if s.label and _is_on(s, x, y)), key=lambda s: -s.y):
        wide = len(spot.label) * _LETTER
        leftwards = x.at(spot.x) + wide + 14 > chart.width
        begin = x.at(spot.x) - wide - 9 if leftwards else x.at(spot.x) + 9
        top = y.at(spot.y) + 4
        while any(
            begin < right and left < begin + wide and abs(top - other) < _LINE
            for left, right, other in placed
        ):
            top += 1.0
        placed.append((begin, begin + wide, top))
        yield element("text", spot.label, x=begin, y=top, class_="row halo")
