"""Columns over a column grid, one part on top of the other, and bars from left to right."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fda_core.reports.drawing.column_grid import LABEL_GAP, ColumnGrid, column_labels, place_name
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.drawing.scales import Axis, round_up, tick_text

_TOP = 22.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One colour of a stack: a value for every column, None where there is none."""

    name: str
    css_class: str
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class ColumnChart:
    """What to draw."""

    label: str
    """What the picture shows, for those who cannot see it."""
    title: str
    """The vertical axis, with its unit."""
    column_title: str
    parts: Sequence[Part]
    show: Callable[[float], str]
    ticks: Callable[[float], str] = tick_text
    high: float | None = None
    """Upper end of the axis; None takes it from the values."""
    height: float = 170.0


def draw_columns(chart: ColumnChart, grid: ColumnGrid) -> Markup:
    """Return the columns as SVG; a column without any value is marked n/a."""
    high = chart.high or round_up(_tallest(chart, len(grid.names)))
    base = _TOP + chart.height
    axis = Axis(low=0.0, high=high, begin=base, end=_TOP)
    columns = range(len(grid.names))
    width = grid.right + 2
    return element(
        "svg",
        join(_frame(chart, grid, axis)),
        join(_stack(chart, grid, axis, column) for column in columns),
        join(column_labels(grid, baseline=base + 15, title=chart.column_title)),
        class_="chart",
        width=width,
        height=base + 42,
        viewBox=f"0 0 {width:g} {base + 42:g}",
        role="img",
        aria_label=chart.label,
    )


def _tallest(chart: ColumnChart, columns: int) -> float:
    totals = (sum(part.values[column] or 0.0 for part in chart.parts) for column in range(columns))
    return max(totals, default=0.0)


def _frame(chart: ColumnChart, grid: ColumnGrid, axis: Axis) -> Iterator[Markup]:
    for value in axis.ticks(4):
        at = axis.at(value)
        line = "axis" if value == 0 else "grid"
        yield element("line", x1=grid.gutter, x2=grid.right, y1=at, y2=at, class_=line)
        yield element(
            "text", chart.ticks(value), x=grid.gutter - LABEL_GAP, y=at + 4, class_="tick end"
        )
    yield element("text", chart.title, x=4, y=11, class_="name")


def _stack(chart: ColumnChart, grid: ColumnGrid, axis: Axis, column: int) -> Markup:
    place = place_name(chart.column_title, grid.names[column])
    if all(part.values[column] is None for part in chart.parts):
        return _missing(grid, axis, column, place)
    drawn, below = [], 0.0
    for part in chart.parts:
        value = part.values[column]
        if value is None or value <= 0:
            continue
        tip = f"{place} · {part.name}: {chart.show(value)}"
        drawn.append(_box(grid, axis, column, below, below + value, part.css_class, tip))
        below += value
    if not drawn:
        tip = f"{place}: {chart.show(0.0)}"
        drawn.append(_box(grid, axis, column, 0.0, 0.0, chart.parts[0].css_class, tip))
    return join(drawn)


def _box(
    grid: ColumnGrid,
    axis: Axis,
    column: int,
    low: float,
    high: float,
    css_class: str,
    tip: str,
) -> Markup:
    """Return one part of a stack; a gap of a pixel sets it off from the one below."""
    top = axis.at(high)
    height = max(axis.at(low) - top - (1.5 if low > 0 else 0.0), 1.0)
    width = min(grid.cell * 0.72, 34.0)
    return element(
        "rect",
        class_=css_class,
        x=grid.centre(column) - width / 2,
        y=top if high > low else top - 1,
        width=width,
        height=height,
        rx=1.5,
        data_tip=tip,
    )


def _missing(grid: ColumnGrid, axis: Axis, column: int, place: str) -> Markup:
    width = min(grid.cell * 0.72, 34.0)
    return element(
        "rect",
        class_="na",
        x=grid.centre(column) - width / 2,
        y=axis.begin - 14,
        width=width,
        height=14,
        data_tip=f"{place}: n/a",
    )
