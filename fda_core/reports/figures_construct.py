"""Figures of stage I: how well the anchors of each layer and expert stand for its update."""

from collections.abc import Sequence

from fda_core.contract.artifacts import ConstructMetrics, Metrics
from fda_core.reports.averages import mean
from fda_core.reports.drawing.column_grid import ColumnGrid, column_grid
from fda_core.reports.drawing.curves import Point, clean, spread, thin
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import draw_scale
from fda_core.reports.drawing.line_chart import Line, LineChart, Scale, draw_line_chart
from fda_core.reports.drawing.markup import Markup
from fda_core.reports.drawing.scales import span
from fda_core.reports.figures import Absent, Figure, Table, panel, panels
from fda_core.reports.figures_spectrum import spectrum_figure
from fda_core.reports.layer_map import by_cell, grid_table, has_gaps, layer_legend, rounded_scale
from fda_core.reports.quantities import number
from fda_core.reports.sigma_trials import trial_figures
from fda_core.reports.summary import plateau_sentence

POINTS_PER_CURVE = 120
POINTS_IN_ALL = 36_000
"""Keeps a report of a thousand curves to a few hundred kilobytes."""


def construct_figures(metrics: Metrics, grid: ColumnGrid) -> list[Figure | Absent]:
    """Return the figures of stage I, or the one reason there are none."""
    if not metrics.construction:
        return [Absent(reason=_why_absent(metrics))]
    return [
        _alignment_map(metrics, grid),
        _construction_curves(metrics),
        *trial_figures(metrics, grid),
        _tensor_map(metrics),
        spectrum_figure(metrics),
    ]


def line_limit(curves: int) -> int:
    """Return how many points each of so many curves may have."""
    return max(24, min(POINTS_PER_CURVE, POINTS_IN_ALL // max(1, curves)))


def _why_absent(metrics: Metrics) -> str:
    if metrics.method == "fda":
        return "No anchors were measured in this merge, so there is no alignment to show."
    return (
        f"The method {metrics.method} merges weights directly and constructs no anchors, "
        "so there is no alignment, no drift and no loss to show."
    )


def _alignment_map(metrics: Metrics, grid: ColumnGrid) -> Figure:
    values = by_cell(
        metrics, {(item.layer, item.expert): item.alignment_best for item in metrics.construction}
    )
    scale = rounded_scale(values, low=-1.0, high=1.0)
    chart = HeatMap(
        label="Alignment reached, by expert and layer",
        rows=metrics.experts,
        values=values,
        scale=scale,
        row_title="expert",
        column_title="layer",
        show=lambda value: number(value, digits=2),
        show_long=number,
    )
    return Figure(
        id="alignment",
        title="Alignment reached",
        explain=(
            "Anchors are made-up inputs that stand in for an expert’s training data. Each cell "
            "is the cosine between the update they ask of the base and the update the expert "
            "really made: 1 is the same direction, 0 has nothing to do with it; brighter is better."
        ),
        drawing=draw_heat_map(chart, grid),
        legend=draw_scale(
            scale, title="Alignment (cosine)", high_word="better", missing=has_gaps(values)
        ),
        table=grid_table(metrics, values),
    )


def _construction_curves(metrics: Metrics) -> Figure | Absent:
    limit = line_limit(len(metrics.construction))
    curves = {
        (item.layer, item.expert): thin(
            clean(item.alignment.steps, item.alignment.values), limit=limit
        )
        for item in metrics.construction
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return Absent(reason="The alignment was not recorded step by step.")
    x = Scale(title="construction step", low=0.0, high=max((x for x, _ in points), default=1.0))
    low, high = span(y for _, y in points)
    y = Scale(title="alignment (cosine)", low=low, high=min(high, 1.0))
    drawn = (
        _expert_panel(
            expert,
            [item for item in metrics.construction if item.expert == expert],
            curves=curves,
            x=x,
            y=y,
        )
        for expert in metrics.experts
    )
    return Figure(
        id="construction",
        title="Alignment while the anchors were constructed",
        explain=(
            "One panel an expert, one thin line a layer, the median over layers in front. A "
            "line that is still climbing at its right end would gain from more steps; one that "
            "went flat early could have done with fewer." + plateau_sentence(metrics, before=" ")
        ),
        drawing=panels(drawn),
        legend=layer_legend(metrics.layers),
        table=_curve_table(metrics),
    )


def _expert_panel(
    expert: str,
    items: Sequence[ConstructMetrics],
    *,
    curves: dict[tuple[int, str], tuple[Point, ...]],
    x: Scale,
    y: Scale,
) -> Markup:
    lines = [
        Line(
            points=curves[item.layer, item.expert],
            css_class=f"thin s{item.layer}",
            label=f"layer {item.layer}",
        )
        for item in items
        if curves[item.layer, item.expert]
    ]
    if len(lines) > 3:
        middle = spread(line.points for line in lines).middle
        lines.append(Line(points=middle, css_class="median", label="median"))
    begin = number(mean([item.alignment_start for item in items]), digits=2)
    end = number(mean([item.alignment_best for item in items]), digits=2)
    chart = LineChart(label=f"Alignment over steps, {expert}", x=x, y=y, lines=lines)
    return panel(expert, f"mean {begin} → {end}", draw_line_chart(chart))


def _curve_table(metrics: Metrics) -> Table:
    head = (
        "expert",
        "layer",
        "init",
        "anchors × tokens",
        "start",
        "best",
        "best at step",
        "steps run",
    )
    rows = [
        (
            item.expert,
            str(item.layer),
            item.init,
            f"{item.anchors} × {item.tokens}" if item.tokens else f"{item.anchors} rows",
            number(item.alignment_start),
            number(item.alignment_best),
            str(item.best_step),
            f"{item.steps_run}, plateau" if item.settled else str(item.steps_run),
        )
        for item in metrics.construction
    ]
    return Table(head=head, rows=rows)


def _tensor_map(metrics: Metrics) -> Figure | Absent:
    parts = list(
        dict.fromkeys(part for item in metrics.construction for part in item.tensor_cosines)
    )
    if not parts:
        return Absent(reason="No alignment of single tensors was recorded.")
    layers = range(metrics.layers)
    values = [[_part_mean(metrics, part, layer) for layer in layers] for part in parts]
    scale = rounded_scale(values, low=-1.0, high=1.0)
    columns = tuple(str(layer) for layer in layers)
    chart = HeatMap(
        label="Alignment by tensor and layer, mean over experts",
        rows=parts,
        values=values,
        scale=scale,
        row_title="tensor of the layer",
        column_title="layer",
        show=lambda value: number(value, digits=2),
        show_long=number,
    )
    return Figure(
        id="tensors",
        title="Alignment, tensor by tensor",
        explain=(
            "The same cosine, apart for every tensor inside the layer and averaged over experts: "
            "a dark row is a kind of weight that the anchors speak for badly."
        ),
        drawing=draw_heat_map(chart, column_grid(columns, parts)),
        legend=draw_scale(
            scale, title="Alignment (cosine)", high_word="better", missing=has_gaps(values)
        ),
        table=Table(
            head=("tensor", *(f"layer {layer}" for layer in layers)),
            rows=[
                (part, *(number(value) for value in row))
                for part, row in zip(parts, values, strict=True)
            ],
        ),
    )


def _part_mean(metrics: Metrics, part: str, layer: int) -> float | None:
    return mean(
        [item.tensor_cosines.get(part) for item in metrics.construction if item.layer == layer]
    )
