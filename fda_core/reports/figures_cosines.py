"""The figure of how the experts' updates agree."""

from itertools import combinations

from fda_core.contract.artifacts import Metrics, TaskVectorMetrics
from fda_core.reports.averages import mean
from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.column_grid import PAGE_WIDTH, ColumnGrid, column_grid
from fda_core.reports.drawing.curves import spread
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import Entry, draw_entries, draw_scale
from fda_core.reports.drawing.line_chart import Band, Line, LineChart, Scale, draw_line_chart
from fda_core.reports.drawing.markup import Markup, element
from fda_core.reports.drawing.scales import round_up, span
from fda_core.reports.figures import Figure, Table
from fda_core.reports.layer_map import Cells, has_gaps, known
from fda_core.reports.quantities import number
from fda_core.reports.task_vectors import pair_cosines

PAIRS_IN_ROWS = 28
"""Up to eight experts every pair has a row; with more, a matrix of means says it better."""
_LEAST_RANGE = 0.1
"""Cosines below it are next to nothing and should look like that."""


def cosine_figure(metrics: Metrics, vectors: list[TaskVectorMetrics]) -> Figure:
    """Return how well the experts agree, pair by pair; `vectors` are in layer order."""
    pairs = list(combinations(metrics.experts, 2))
    cells = _pair_cells(vectors, len(pairs))
    largest = max((abs(value) for value in known(cells)), default=1.0)
    high = min(1.0, round_up(max(largest, _LEAST_RANGE)))
    scale = ColourScale(low=-high, high=high, kind="diverging")
    names = [f"{first} · {second}" for first, second in pairs]
    if len(pairs) <= PAIRS_IN_ROWS:
        drawing = _pair_map(vectors, names, cells, scale)
        reading = "One row for every pair of experts."
    else:
        drawing = Markup(
            element("h4", "Mean over layers, expert by expert")
            + _mean_matrix(metrics, vectors, scale)
            + element("h4", "All pairs, layer by layer")
            + _pair_bands(vectors)
        )
        reading = "Experts are numbered as in the rows; below, the spread over all pairs."
    return Figure(
        id="cosines",
        title="Do the experts pull the same way?",
        explain=(
            "Cosine between the updates of two experts: 0 means that they changed different "
            "things and merge easily, above 0 that they agree, below 0 that they undo each "
            f"other. {reading}"
        ),
        drawing=drawing,
        legend=draw_scale(
            scale, title="Cosine", low_word="oppose", high_word="agree", missing=has_gaps(cells)
        ),
        table=Table(
            head=("pair", *(_column_word(name) for name in _layer_names(vectors))),
            rows=[
                (name, *(number(value) for value in row))
                for name, row in zip(names, cells, strict=True)
            ],
        ),
    )


def _column_word(name: str) -> str:
    return f"layer {name}" if name.isdigit() else name


def _pair_cells(vectors: list[TaskVectorMetrics], pairs: int) -> list[list[float | None]]:
    """Return a row for every pair and a column for every layer."""
    columns = [pair_cosines(item) for item in vectors]
    return [
        [column[pair] if pair < len(column) else None for column in columns]
        for pair in range(pairs)
    ]


def _pair_map(
    vectors: list[TaskVectorMetrics], names: list[str], cells: Cells, scale: ColourScale
) -> Markup:
    chart = HeatMap(
        label="Cosine of task vectors, by pair of experts and layer",
        rows=names,
        values=cells,
        scale=scale,
        row_title="pair",
        column_title="layer",
        show=lambda value: number(value, digits=2),
        show_long=number,
    )
    return draw_heat_map(chart, _grid(vectors, names))


def _grid(vectors: list[TaskVectorMetrics], rows: list[str]) -> ColumnGrid:
    layers = [str(item.layer) for item in vectors if item.layer is not None]
    return column_grid(layers, rows, extra="outside" if vectors[-1].layer is None else "")


def _mean_matrix(metrics: Metrics, vectors: list[TaskVectorMetrics], scale: ColourScale) -> Markup:
    """Return experts by experts; columns are numbers since twenty names have no room."""
    inside = [item for item in vectors if item.layer is not None] or vectors
    count = len(metrics.experts)
    values = [
        [_mean_pair(inside, row, column) if row != column else None for column in range(count)]
        for row in range(count)
    ]
    rows = [f"{number_} {name}" for number_, name in enumerate(metrics.experts, start=1)]
    columns = [str(number_) for number_ in range(1, count + 1)]
    chart = HeatMap(
        label="Cosine of task vectors, expert by expert, mean over layers",
        rows=rows,
        values=values,
        scale=scale,
        row_title="expert",
        column_title="expert, by number",
        show=lambda value: number(value, digits=2),
        show_long=number,
        means=False,
        blank_diagonal=True,
    )
    return draw_heat_map(chart, column_grid(columns, rows))


def _mean_pair(vectors: list[TaskVectorMetrics], row: int, column: int) -> float | None:
    return mean(
        [
            item.cosines[row][column]
            for item in vectors
            if row < len(item.cosines) and column < len(item.cosines[row])
        ]
    )


def _pair_bands(vectors: list[TaskVectorMetrics]) -> Markup:
    """Return median and range over all pairs, layer by layer."""
    layers = [(item.layer, pair_cosines(item)) for item in vectors if item.layer is not None]
    count = max((len(values) for _, values in layers), default=0)
    curves = [
        [(float(layer), value) for layer, values in layers if (value := values[pair]) is not None]
        for pair in range(count)
    ]
    middle, tenth = spread(curves), spread(curves, low_share=0.1, high_share=0.9)
    low, high = span([y for _, y in (*middle.low, *middle.high)])
    chart = LineChart(
        label="Cosine of all pairs by layer: range and median",
        x=Scale(title="layer", low=0.0, high=float(max((layer for layer, _ in layers), default=1))),
        y=Scale(title="cosine", low=low, high=high),
        bands=[
            Band(low=middle.low, high=middle.high, css_class="band-end"),
            Band(low=tenth.low, high=tenth.high, css_class="band-end"),
        ],
        lines=[Line(points=middle.middle, css_class="line-end", label="median")],
        width=PAGE_WIDTH,
        height=220.0,
    )
    words = [
        Entry("line-end", "line", "median over pairs"),
        Entry("band-end", "box", "10 to 90 % (darker), all pairs (lighter)"),
    ]
    return Markup(draw_entries(words) + draw_line_chart(chart))


def _layer_names(vectors: list[TaskVectorMetrics]) -> tuple[str, ...]:
    """Return what the columns are called."""
    return tuple("outside" if item.layer is None else str(item.layer) for item in vectors)
