"""What all figures by layer and expert have in common: cells, scales, tables, legends."""

import math
from collections.abc import Iterable, Mapping, Sequence

from fda_core.contract.artifacts import Metrics
from fda_core.reports.drawing.colours import ColourScale, Kind
from fda_core.reports.drawing.legend import Entry, draw_entries
from fda_core.reports.drawing.markup import Markup
from fda_core.reports.figures import Table
from fda_core.reports.quantities import number

Cells = Sequence[Sequence[float | None]]


def by_cell(
    metrics: Metrics, values: Mapping[tuple[int, str], float | None]
) -> list[list[float | None]]:
    """Return values by (layer, expert) as a row for every expert, None where one is missing."""
    layers = range(metrics.layers)
    return [[values.get((layer, expert)) for layer in layers] for expert in metrics.experts]


def known(cells: Iterable[Sequence[float | None]]) -> list[float]:
    """Return the values that are there and finite."""
    return [value for row in cells for value in row if value is not None and math.isfinite(value)]


def has_gaps(cells: Cells) -> bool:
    """Say whether any cell has no value."""
    return len(known(cells)) < sum(len(row) for row in cells)


def rounded_scale(
    cells: Cells, *, low: float, high: float, kind: Kind = "sequential"
) -> ColourScale:
    """Return a scale from the tenth below the smallest value to the tenth above the largest.

    It stays between `low` and `high`: what lies beyond gets the end's colour. Without any value
    it runs over all of that.
    """
    values = [min(high, max(low, value)) for value in known(cells)]
    if not values:
        return ColourScale(low=low, high=high, kind=kind)
    begin = max(low, math.floor(min(values) * 10 + 1e-9) / 10)
    end = min(high, math.ceil(max(values) * 10 - 1e-9) / 10)
    if end - begin < 0.05:
        begin, end = max(low, begin - 0.1), min(high, begin + 0.1)
    return ColourScale(low=begin, high=end, kind=kind)


def grid_table(metrics: Metrics, values: Cells) -> Table:
    """Return a table with a row for every layer and a column for every expert."""
    rows = [
        (f"{layer}", *(number(row[layer]) for row in values)) for layer in range(metrics.layers)
    ]
    return Table(head=("layer", *metrics.experts), rows=rows)


def layer_legend(layers: int) -> Markup:
    """Return what colours the lines: every layer by name, or the first, middle and last."""
    if layers <= 12:
        shown = list(range(layers))
    else:
        shown = [round(step * (layers - 1) / 6) for step in range(7)]
    entries = [Entry(f"thick s{layer}", "line", str(layer)) for layer in shown]
    more = [Entry("median", "line", "median")] if layers > 3 else []
    return draw_entries([*entries, *more], title="Layer")
