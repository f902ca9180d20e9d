"""Figures of what goes into a merge: how large the experts' updates are and how they agree."""

from dataclasses import replace

from fda_core.contract.artifacts import Metrics, TaskVectorMetrics
from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.column_chart import ColumnChart, Part, draw_columns
from fda_core.reports.drawing.column_grid import ColumnGrid
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import draw_scale
from fda_core.reports.drawing.scales import round_up
from fda_core.reports.figures import Absent, Figure, Table
from fda_core.reports.figures_cosines import cosine_figure
from fda_core.reports.layer_map import has_gaps, known
from fda_core.reports.quantities import percent, significant
from fda_core.reports.task_vectors import norm_ratios, vectors_by_layer


def task_vector_figures(metrics: Metrics, grid: ColumnGrid) -> list[Figure | Absent]:
    """Return the figures of the experts' updates, in the columns of the page's grid."""
    vectors = vectors_by_layer(metrics)
    if not vectors:
        return [Absent(reason="No task vectors were measured in this merge.")]
    inside = tuple(str(item.layer) for item in vectors if item.layer is not None)
    own = replace(grid, columns=inside, extra="outside" if vectors[-1].layer is None else "")
    return [
        _norm_map(metrics, vectors, own),
        *_agreement(metrics, vectors, own),
        _rounding(vectors, own),
    ]


def _agreement(
    metrics: Metrics, vectors: list[TaskVectorMetrics], grid: ColumnGrid
) -> list[Figure | Absent]:
    if len(metrics.experts) < 2:
        return [Absent(reason="With one expert there are no cosines and no sign conflicts.")]
    return [cosine_figure(metrics, vectors), _conflicts(vectors, grid)]


def _norm_map(metrics: Metrics, vectors: list[TaskVectorMetrics], grid: ColumnGrid) -> Figure:
    ratios = [norm_ratios(item) for item in vectors]
    values = [[ratio.get(expert) for ratio in ratios] for expert in metrics.experts]
    scale = ColourScale(low=0.0, high=round_up(max(known(values), default=1.0) * 100))
    shown = [[None if v is None else v * 100 for v in row] for row in values]
    chart = HeatMap(
        label="Size of the task vectors relative to the base, by expert and layer",
        rows=metrics.experts,
        values=shown,
        scale=scale,
        row_title="expert",
        column_title="layer",
        show=_short_percent,
        show_long=lambda value: f"{significant(value)} %",
    )
    head = ("layer", "norm of the base", *(f"{expert}, % of base" for expert in metrics.experts))
    rows = [
        (name, significant(item.base_norm), *(significant(row[column]) for row in shown))
        for column, (name, item) in enumerate(zip(grid.names, vectors, strict=True))
    ]
    return Figure(
        id="norms",
        title="How far each expert moved",
        explain=(
            "Norm of the expert’s update in per cent of the norm of the base’s weights. A bright "
            "row is an expert trained hard or long, which can drown the others in a plain "
            "average; “outside” is everything in no layer, such as embeddings, and not in the mean."
        ),
        drawing=draw_heat_map(chart, grid),
        legend=draw_scale(
            scale, title="Task vector ÷ base (%)", high_word="moved more", missing=has_gaps(values)
        ),
        table=Table(head=head, rows=rows),
    )


def _short_percent(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _conflicts(vectors: list[TaskVectorMetrics], grid: ColumnGrid) -> Figure:
    values = [item.sign_conflict_ratio * 100 for item in vectors]
    chart = ColumnChart(
        label="Sign conflicts by layer",
        title="weights in conflict (% of changed)",
        column_title="layer",
        parts=[Part(name="in conflict", css_class="fill-plain", values=values)],
        show=lambda value: f"{value:.2f} %",
    )
    return Figure(
        id="conflicts",
        title="Sign conflicts",
        explain=(
            "Share of the changed weights that one expert raised and another lowered. Averaging "
            "cancels them; with many experts a high share is normal."
        ),
        drawing=draw_columns(chart, grid),
        table=Table(
            head=("layer", "in conflict"),
            rows=[
                (name, percent(item.sign_conflict_ratio, digits=2))
                for name, item in zip(grid.names, vectors, strict=True)
            ],
        ),
    )


def _rounding(vectors: list[TaskVectorMetrics], grid: ColumnGrid) -> Figure | Absent:
    if not any(item.rounded_away_ratio > 0 for item in vectors):
        return Absent(reason="The output dtype rounded none of the merge’s changes away.")
    chart = ColumnChart(
        label="Changes lost to rounding, by layer",
        title="changes lost (% of changed weights)",
        column_title="layer",
        parts=[
            Part(
                name="rounded away",
                css_class="fill-plain",
                values=[item.rounded_away_ratio * 100 for item in vectors],
            )
        ],
        show=lambda value: f"{value:.3f} %",
        height=120.0,
    )
    return Figure(
        id="rounding",
        title="Changes lost to rounding",
        explain=(
            "Share of the weights whose change was too small for the dtype of the output, so "
            "that the base’s value was written. A wider output dtype keeps them."
        ),
        drawing=draw_columns(chart, grid),
        table=Table(
            head=("layer", "rounded away"),
            rows=[
                (name, percent(item.rounded_away_ratio, digits=3))
                for name, item in zip(grid.names, vectors, strict=True)
            ],
        ),
    )
