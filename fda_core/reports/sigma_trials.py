"""What a search for σ tried: one row a layer, the same for the report and the model card."""

from collections import Counter

from fda_core.contract.artifacts import ConstructMetrics, Metrics
from fda_core.reports.averages import mean
from fda_core.reports.drawing.column_grid import ColumnGrid
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import draw_scale
from fda_core.reports.figures import Figure, Table
from fda_core.reports.layer_map import has_gaps, rounded_scale
from fda_core.reports.quantities import number

TRIALS_EXPLAINED = (
    "Each σ was tried for a few steps for every layer and expert, and the best-aligned start went "
    "on. The alignments are those after the trial, means over experts; single ones are in "
    "merge_metrics.json."
)


def trial_table(metrics: Metrics) -> Table | None:
    """Return every layer's choices and the mean alignment of each σ, or None without a search."""
    sigmas = _sigmas(metrics)
    if not sigmas:
        return None
    rows = [
        (
            str(layer),
            _chosen(_of_layer(metrics, layer)),
            *(number(_mean_alignment(metrics, layer, sigma)) for sigma in sigmas),
        )
        for layer in range(metrics.layers)
    ]
    head = ("layer", "σ chosen", *(f"σ {sigma:g}" for sigma in sigmas))
    return Table(head=head, rows=rows, text_columns=2)


def trial_figures(metrics: Metrics, grid: ColumnGrid) -> list[Figure]:
    """Return the figure of the trials; none without a search."""
    table, sigmas = trial_table(metrics), _sigmas(metrics)
    if table is None:
        return []
    layers = range(metrics.layers)
    values = [[_mean_alignment(metrics, layer, sigma) for layer in layers] for sigma in sigmas]
    scale = rounded_scale(values, low=-1.0, high=1.0)
    chart = HeatMap(
        label="Alignment after the trial, by σ and layer",
        rows=[f"{sigma:g}" for sigma in sigmas],
        values=values,
        scale=scale,
        row_title="σ",
        column_title="layer",
        show=lambda value: number(value, digits=2),
        show_long=number,
    )
    return [
        Figure(
            id="sigma",
            title="The search for σ",
            explain=TRIALS_EXPLAINED,
            drawing=draw_heat_map(chart, grid),
            legend=draw_scale(
                scale, title="Alignment (cosine)", high_word="better", missing=has_gaps(values)
            ),
            table=table,
        )
    ]


def _sigmas(metrics: Metrics) -> list[float]:
    return list(dict.fromkeys(t.sigma for item in metrics.construction for t in item.trials))


def _of_layer(metrics: Metrics, layer: int) -> list[ConstructMetrics]:
    return [item for item in metrics.construction if item.layer == layer]


def _chosen(items: list[ConstructMetrics]) -> str:
    """Return the layer's σ, or how many experts chose which: 0.1 × 5, 1 × 2."""
    counts = Counter(item.sigma for item in items if item.sigma is not None)
    found = counts.most_common()
    if len(found) < 2:
        return "".join(f"{sigma:g}" for sigma in counts)
    return ", ".join(f"{sigma:g} × {amount}" for sigma, amount in found)


def _mean_alignment(metrics: Metrics, layer: int, sigma: float) -> float | None:
    items = _of_layer(metrics, layer)
    return mean(t.alignment for item in items for t in item.trials if t.sigma == sigma)
