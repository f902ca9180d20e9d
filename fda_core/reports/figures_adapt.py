"""Figures of stage II: how near the merged layers came to every expert."""

from fda_core.contract.artifacts import AdaptMetrics, Metrics
from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.column_grid import PAGE_WIDTH, ColumnGrid
from fda_core.reports.drawing.curves import Point, clean, spread, thin
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import draw_scale
from fda_core.reports.drawing.line_chart import Line, LineChart, Scale, draw_line_chart
from fda_core.reports.drawing.markup import Markup, element
from fda_core.reports.drawing.scales import log_span
from fda_core.reports.figures import Absent, Figure, Table
from fda_core.reports.figures_construct import line_limit
from fda_core.reports.layer_map import Cells, by_cell, has_gaps, known, layer_legend, rounded_scale
from fda_core.reports.quantities import NO_VALUE, duration, number, percent, significant

WORST_DRIFT = 1.5
"""End of the colour scale: one layer gone astray must not paint all others alike."""


def adapt_figures(metrics: Metrics, grid: ColumnGrid) -> list[Figure | Absent]:
    """Return the figures of stage II, or the one reason there are none."""
    if not metrics.adaptation:
        reason = "No layer was adapted in this merge, so there is no drift and no loss to show."
        return [Absent(reason=reason)]
    return [_drift_maps(metrics, grid), _loss_curves(metrics)]


def start_name(metrics: Metrics) -> str:
    """Return how the model that adaptation began from is called."""
    return metrics.start or "base"


def _drift_maps(metrics: Metrics, grid: ColumnGrid) -> Figure:
    before = by_cell(
        metrics,
        {
            (a.layer, name): drift.start
            for a in metrics.adaptation
            for name, drift in a.drift.items()
        },
    )
    after = by_cell(
        metrics,
        {
            (a.layer, name): drift.result
            for a in metrics.adaptation
            for name, drift in a.drift.items()
        },
    )
    scale = rounded_scale([*before, *after], low=0.0, high=WORST_DRIFT, kind="reversed")
    start = start_name(metrics)
    return Figure(
        id="drift",
        title="Drift: how far from each expert, before and after",
        explain=(
            "How far a layer’s outputs are from the expert’s, on the expert’s own anchors, as a "
            "share of how far the base’s are: 0 is the expert itself, 1 no nearer than the base. "
            f"Above the start ({start}), below the result, on one scale; brighter is nearer."
        ),
        drawing=Markup(
            element("h4", f"Start ({start})")
            + _drift_map(metrics, grid, before, scale, f"Drift of the start ({start})")
            + element("h4", "Result")
            + _drift_map(metrics, grid, after, scale, "Drift of the result")
        ),
        legend=draw_scale(
            scale,
            title="Drift (base = 1)",
            low_word="nearer",
            high_word=_far_word([*before, *after]),
            missing=has_gaps([*before, *after]),
        ),
        table=_drift_table(metrics, before, after),
    )


def _far_word(cells: Cells) -> str:
    beyond = any(value > WORST_DRIFT for value in known(cells))
    return f"farther, {WORST_DRIFT:g} and above alike" if beyond else "farther"


def _drift_map(
    metrics: Metrics, grid: ColumnGrid, values: Cells, scale: ColourScale, label: str
) -> Markup:
    chart = HeatMap(
        label=f"{label}, by expert and layer",
        rows=metrics.experts,
        values=values,
        scale=scale,
        row_title="expert",
        column_title="layer",
        show=lambda value: number(value, digits=2),
        show_long=number,
    )
    return draw_heat_map(chart, grid)


def _drift_table(metrics: Metrics, before: Cells, after: Cells) -> Table:
    rows = []
    for row, expert in enumerate(metrics.experts):
        for layer in range(metrics.layers):
            start, result = before[row][layer], after[row][layer]
            change = result / start - 1 if start and result is not None else None
            rows.append(
                (expert, str(layer), number(start), number(result), percent(change, digits=1))
            )
    return Table(head=("expert", "layer", "start", "result", "change"), rows=rows)


def _loss_curves(metrics: Metrics) -> Figure | Absent:
    limit = line_limit(len(metrics.adaptation))
    curves = {item.layer: _relative(item, limit) for item in metrics.adaptation}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return Absent(reason="No loss above zero was recorded while the layers were adapted.")
    lines = [
        Line(points=curve, css_class=f"thin s{layer}", label=f"layer {layer}")
        for layer, curve in curves.items()
        if curve
    ]
    if len(lines) > 3:
        middle = spread(line.points for line in lines).middle
        lines.append(Line(points=middle, css_class="median", label="median"))
    low, high = log_span(y for _, y in points)
    chart = LineChart(
        label="Adaptation loss, divided by its first value",
        x=Scale(title=_loss_steps(metrics), low=0.0, high=max(max(x for x, _ in points), 1.0)),
        y=Scale(title="loss ÷ first loss (log)", low=low, high=high, log=True),
        lines=lines,
        width=PAGE_WIDTH,
        height=300.0,
    )
    return Figure(
        id="loss",
        title="Loss while the layers were adapted",
        explain=(
            "One line a layer, each divided by its own first value so that layers of any size "
            "can be compared: 0.1 means that nine tenths of the misfit to the experts are gone. "
            "What is left where lines go flat is where the experts want different things."
        ),
        drawing=draw_line_chart(chart),
        legend=layer_legend(metrics.layers),
        table=_loss_table(metrics),
    )


def _loss_steps(metrics: Metrics) -> str:
    """Return what the curves count: one value an epoch, or more."""
    curves = [(item.loss.steps, item.epochs) for item in metrics.adaptation]
    by_epoch = all(steps[-1] <= epochs for steps, epochs in curves if steps)
    return "epoch" if by_epoch else "adaptation step"


def _relative(item: AdaptMetrics, limit: int) -> tuple[Point, ...]:
    """Return the curve divided by its first value; what a log axis cannot show is left out."""
    points = clean(item.loss.steps, item.loss.values)
    if not points or points[0][1] <= 0:
        return ()
    first = points[0][1]
    return thin([(x, y / first) for x, y in points if y > 0], limit=limit)


def _loss_table(metrics: Metrics) -> Table:
    head = ("layer", "variables", "epochs", "first loss", "last loss", "last ÷ first", "time")
    rows = []
    for item in metrics.adaptation:
        points = clean(item.loss.steps, item.loss.values)
        first = points[0][1] if points else None
        last = points[-1][1] if points else None
        ratio = number(last / first) if first and last is not None else NO_VALUE
        rows.append(
            (
                str(item.layer),
                item.variables,
                str(item.epochs),
                significant(first),
                significant(last),
                ratio,
                duration(item.seconds),
            )
        )
    return Table(head=head, rows=rows, text_columns=2)
