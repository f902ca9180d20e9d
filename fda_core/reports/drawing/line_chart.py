"""Line charts: many thin lines, bands behind them, a few lines in front."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fda_core.reports.drawing.curves import Point
from fda_core.reports.drawing.markup import Markup, element, join, px
from fda_core.reports.drawing.scales import Axis, tick_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 22.0, 40.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve and the class that colours it."""

    points: Sequence[Point]
    css_class: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Band:
    """The area between two curves over the same places."""

    low: Sequence[Point]
    high: Sequence[Point]
    css_class: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis in words and numbers."""

    title: str
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """What to draw."""

    label: str
    """What the picture shows, for those who cannot see it."""
    x: Scale
    y: Scale
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    width: float = 340.0
    height: float = 230.0


def draw_line_chart(chart: LineChart) -> Markup:
    """Return the chart as SVG. Points off a log axis are left out."""
    x = Axis(
        low=chart.x.low,
        high=chart.x.high,
        begin=_LEFT,
        end=chart.width - _RIGHT,
        log=chart.x.log,
    )
    y = Axis(
        low=chart.y.low,
        high=chart.y.high,
        begin=chart.height - _BOTTOM,
        end=_TOP,
        log=chart.y.log,
    )
    return element(
        "svg",
        join(_frame(chart, x, y)),
        join(_area(band, x, y) for band in chart.bands),
        join(_path(line, x, y) for line in chart.lines),
        class_="chart lines",
        width=chart.width,
        height=chart.height,
        viewBox=f"0 0 {chart.width:g} {chart.height:g}",
        role="img",
        aria_label=chart.label,
        data_x=x.numbers(),
        data_y=y.numbers(),
        data_x_name=chart.x.title,
    )


def _frame(chart: LineChart, x: Axis, y: Axis) -> Iterator[Markup]:
    """Yield grid, ticks and axis titles."""
    for value in y.ticks(4):
        at = y.at(value)
        yield element("line", x1=_LEFT, x2=chart.width - _RIGHT, y1=at, y2=at, class_="grid")
        yield element("text", tick_text(value), x=_LEFT - 6, y=at + 4, class_="tick end")
    base = chart.height - _BOTTOM
    yield element("line", x1=_LEFT, x2=chart.width - _RIGHT, y1=base, y2=base, class_="axis")
    for value in x.ticks(4):
        at = x.at(value)
        yield element("line", x1=at, x2=at, y1=base, y2=base + 4, class_="axis")
        yield element("text", tick_text(value), x=at, y=base + 16, class_="tick mid")
    yield element("text", chart.y.title, x=4, y=11, class_="name")
    middle = (_LEFT + chart.width - _RIGHT) / 2
    yield element("text", chart.x.title, x=middle, y=chart.height - 7, class_="name mid")


def _path(line: Line, x: Axis, y: Axis) -> Markup:
    places = _places(line.points, x, y)
    if len(places) == 1:
        at_x, at_y = places[0]
        dot = f"k{line.css_class[1:]}" if line.css_class.startswith("s") else line.css_class
        return element("circle", cx=at_x, cy=at_y, r=3, class_=dot, data_tip=line.label)
    return element("polyline", points=_text(places), class_=line.css_class, data_tip=line.label)


def _area(band: Band, x: Axis, y: Axis) -> Markup:
    around = [*_places(band.low, x, y), *reversed(_places(band.high, x, y))]
    return element("polygon", points=_text(around), class_=band.css_class)


def _places(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    return [
        (x.at(px_x), y.at(px_y))
        for px_x, px_y in points
        if (px_x > 0 or not x.log) and (px_y > 0 or not y.log)
    ]


def _text(places: Sequence[Point]) -> str:
    return " ".join(f"{px(x)},{px(y)}" for x, y in places)
