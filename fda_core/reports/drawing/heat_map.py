"""Heat maps: a coloured cell for every row and column, with the number where it fits."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fda_core.reports.averages import mean
from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.column_grid import LABEL_GAP, ColumnGrid, column_labels, place_name
from fda_core.reports.drawing.markup import Markup, element, join

NO_VALUE = "n/a"
_TOP = 20.0
_MEAN_GAP = 7.0
_FITS_NUMBER = 31.0
"""Narrowest cell that holds a number of four signs."""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """What to draw: values by row and column, None where there is none."""

    label: str
    """What the picture shows, for those who cannot see it."""
    rows: Sequence[str]
    values: Sequence[Sequence[float | None]]
    scale: ColourScale
    row_title: str
    column_title: str
    show: Callable[[float], str]
    """How a number is written into its cell."""
    show_long: Callable[[float], str]
    """How it is written where there is room."""
    means: bool = True
    """Whether to add the mean of every row and every column."""
    blank_diagonal: bool = False
    """Whether cells of a row and column of the same number are left empty."""


def draw_heat_map(chart: HeatMap, grid: ColumnGrid) -> Markup:
    """Return the heat map as SVG; the grid's columns are its columns.

    The column apart, if there is one, does not count in the means of rows.
    """
    height = _row_height(len(chart.rows))
    bottom = _TOP + height * len(chart.rows)
    below = _mean_row_height(chart, height)
    width = 2 + (grid.mean_left + grid.mean_width if _has_mean_column(chart, grid) else grid.right)
    return element(
        "svg",
        element("text", chart.row_title, x=grid.gutter - LABEL_GAP, y=12, class_="name end"),
        join(_row(chart, grid, row, height) for row in range(len(chart.rows))),
        _mean_row(chart, grid, top=bottom + _MEAN_GAP, height=height) if below else "",
        _mean_column(chart, grid, height) if _has_mean_column(chart, grid) else "",
        join(column_labels(grid, baseline=bottom + below + 15, title=chart.column_title)),
        class_="chart",
        width=width,
        height=bottom + below + 42,
        viewBox=f"0 0 {width:g} {bottom + below + 42:g}",
        role="img",
        aria_label=chart.label,
    )


def _row_height(rows: int) -> float:
    return 30.0 if rows <= 8 else 24.0 if rows <= 14 else 19.0


def _has_mean_column(chart: HeatMap, grid: ColumnGrid) -> bool:
    return chart.means and len(grid.columns) > 1


def _mean_row_height(chart: HeatMap, height: float) -> float:
    return height + _MEAN_GAP if chart.means and len(chart.rows) > 1 else 0.0


def _row(chart: HeatMap, grid: ColumnGrid, row: int, height: float) -> Markup:
    top = _TOP + row * height
    name = chart.rows[row]
    cells = (
        _cell(
            chart,
            value,
            left=grid.left(column),
            top=top,
            width=grid.width_of(column),
            height=height,
            place=f"{name} · {place_name(chart.column_title, grid.names[column])}",
        )
        for column, value in enumerate(chart.values[row])
        if not (chart.blank_diagonal and row == column)
    )
    return join([_row_label(grid, name, middle=top + height / 2), *cells])


def _row_label(grid: ColumnGrid, name: str, *, middle: float, class_: str = "row end") -> Markup:
    shown = grid.shorten(name)
    return element(
        "text",
        shown,
        x=grid.gutter - LABEL_GAP,
        y=middle + 4,
        class_=class_,
        data_tip=name if shown != name else None,
    )


def _mean_row(chart: HeatMap, grid: ColumnGrid, *, top: float, height: float) -> Markup:
    """Return a row with every column's mean."""
    columns = range(len(grid.names))
    means = [mean([row[column] for row in chart.values]) for column in columns]
    cells = (
        _cell(
            chart,
            value,
            left=grid.left(column),
            top=top,
            width=grid.width_of(column),
            height=height,
            place=f"mean · {place_name(chart.column_title, grid.names[column])}",
        )
        for column, value in enumerate(means)
    )
    label = _row_label(grid, "mean", middle=top + height / 2, class_="tick end")
    everything = _cell(
        chart,
        mean([value for row in chart.values for value in row[: len(grid.columns)]]),
        left=grid.mean_left,
        top=top,
        width=grid.mean_width,
        height=height,
        place="mean of all",
    )
    return join([label, *cells, everything if _has_mean_column(chart, grid) else Markup("")])


def _mean_column(chart: HeatMap, grid: ColumnGrid, height: float) -> Markup:
    """Return a column with every row's mean."""
    return join(_mean_column_parts(chart, grid, height))


def _mean_column_parts(chart: HeatMap, grid: ColumnGrid, height: float) -> Iterator[Markup]:
    middle = grid.mean_left + grid.mean_width / 2
    yield element("text", "mean", x=middle, y=12, class_="tick mid")
    for row, name in enumerate(chart.rows):
        yield _cell(
            chart,
            mean(chart.values[row][: len(grid.columns)]),
            left=grid.mean_left,
            top=_TOP + row * height,
            width=grid.mean_width,
            height=height,
            place=f"{name} · mean",
        )


def _cell(
    chart: HeatMap,
    value: float | None,
    *,
    left: float,
    top: float,
    width: float,
    height: float,
    place: str,
) -> Markup:
    known = value if value is not None and math.isfinite(value) else None
    gap = 2.0 if width > 24 else 1.0
    box = element(
        "rect",
        class_="na" if known is None else chart.scale.css_class(known),
        x=left,
        y=top,
        width=width - gap,
        height=height - gap,
        rx=2 if width > 24 else 1,
        data_tip=f"{place}: {NO_VALUE if known is None else chart.show_long(known)}",
    )
    if width < _FITS_NUMBER:
        return box
    text = element(
        "text",
        NO_VALUE if known is None else chart.show(known),
        x=left + (width - gap) / 2,
        y=top + height / 2 + 3,
        class_="num",
    )
    return Markup(box + text)
