"""Figures of what a merge took: time by stage, time by layer, every unit."""

import math

from fda_core.contract.artifacts import Metrics
from fda_core.contract.plan import Plan
from fda_core.reports.drawing.bar_chart import Bar, BarChart, draw_bars
from fda_core.reports.drawing.column_chart import ColumnChart, Part, draw_columns
from fda_core.reports.drawing.column_grid import ColumnGrid
from fda_core.reports.drawing.legend import Entry, draw_entries
from fda_core.reports.figures import Absent, Figure, Table
from fda_core.reports.quantities import count, duration, number, operations, percent, size
from fda_core.reports.summary import KindTotal, LayerRow, layer_rows, totals

_MIB = 2**20
_COLOURS = {
    "construct": "fill-construct",
    "adapt": "fill-adapt",
    "merge": "fill-merge",
    "publish": "fill-publish",
}


def cost_figures(plan: Plan, metrics: Metrics, grid: ColumnGrid) -> list[Figure | Absent]:
    """Return time by kind of work, time by layer and the table of units."""
    if not metrics.units:
        return [Absent(reason="No unit left a record of what it took.")]
    return [_by_kind(metrics), _by_layer(plan, metrics, grid)]


def unit_table(metrics: Metrics) -> Table:
    """Return a row for every unit, with one unit of measure a column."""
    head = (
        "unit",
        "kind",
        "layer",
        "expert",
        "from",
        "device",
        "time (s)",
        "peak (MiB)",
        "GFLOP",
        "read (MiB)",
        "written (MiB)",
    )
    rows = [
        (
            unit.id,
            unit.kind,
            "" if unit.layer is None else str(unit.layer),
            unit.expert or "",
            unit.source,
            unit.device,
            number(unit.cost.seconds, digits=2),
            number(unit.cost.peak_memory_bytes / _MIB, digits=0),
            number(unit.cost.flops / 1e9, digits=1),
            number(unit.cost.read_bytes / _MIB, digits=1),
            number(unit.cost.write_bytes / _MIB, digits=1),
        )
        for unit in metrics.units
    ]
    return Table(head=head, rows=rows, text_columns=6)


def _by_kind(metrics: Metrics) -> Figure:
    whole = totals(metrics)
    work = _work_seconds(metrics)
    longest = sum(work.values())
    bars = [
        Bar(name=name, value=seconds, text=_share(seconds, longest), css_class=_COLOURS[name])
        for name, seconds in work.items()
    ]
    chart = BarChart(label="Time by kind of work", bars=bars)
    return Figure(
        id="kinds",
        title="Where the time went",
        explain=(
            "Time added up over all units: construct makes anchors, adapt fits layers to them, "
            "merge does the algebra and writes shards, publish checks and finishes the output. "
            "With several workers less time passed on the clock."
        ),
        drawing=draw_bars(chart),
        table=Table(
            head=(
                "kind of unit",
                "units",
                "from cache",
                "time",
                "peak memory",
                "operations",
                "read",
                "written",
            ),
            rows=[_kind_row(kind) for kind in whole.kinds],
        ),
    )


def _work_seconds(metrics: Metrics) -> dict[str, float]:
    """Return seconds by kind of work; adapting happens inside merge units and is told apart."""
    adapt = math.fsum(item.seconds for item in metrics.adaptation)
    kinds = {kind.kind: kind.seconds for kind in totals(metrics).kinds}
    work = {
        "construct": kinds.get("construct", 0.0),
        "adapt": adapt,
        "merge": max(0.0, kinds.get("merge", 0.0) - adapt),
        "publish": kinds.get("publish", 0.0),
    }
    return {name: seconds for name, seconds in work.items() if seconds > 0 or name in kinds}


def _share(seconds: float, whole: float) -> str:
    share = seconds / whole if whole else 0.0
    shown = "under 1\u00a0%" if 0 < share < 0.01 else percent(share, digits=0)
    return f"{duration(seconds)} · {shown}"


def _kind_row(kind: KindTotal) -> tuple[str, ...]:
    return (
        kind.kind,
        str(kind.units),
        str(kind.cached),
        duration(kind.seconds),
        size(kind.peak_memory_bytes),
        operations(kind.flops),
        size(kind.read_bytes),
        size(kind.write_bytes),
    )


def _by_layer(plan: Plan, metrics: Metrics, grid: ColumnGrid) -> Figure | Absent:
    rows = [row for row in layer_rows(metrics) if row.layer is not None]
    merge = _merge_seconds(plan, metrics)
    rest = [merge.get(row.layer or 0, 0.0) for row in rows]
    if not any(row.construct_seconds or row.adapt_seconds for row in rows) and not any(rest):
        return Absent(
            reason="Units of this merge span several layers, so time is not known layer by layer."
        )
    parts = [
        Part(name=name, css_class=_COLOURS[name], values=values)
        for name, values in _stacks(rows, rest).items()
        if any(values)
    ]
    high = max(sum(values) for values in zip(*(_filled(part) for part in parts), strict=True))
    divisor, unit = (3600.0, "h") if high > 7200 else (60.0, "min") if high > 120 else (1.0, "s")
    scaled = [
        Part(
            name=part.name,
            css_class=part.css_class,
            values=[value / divisor for value in _filled(part)],
        )
        for part in parts
    ]
    chart = ColumnChart(
        label="Time by layer and kind of work",
        title=f"time ({unit})",
        column_title="layer",
        parts=scaled,
        show=lambda value: duration(value * divisor),
    )
    return Figure(
        id="layers-cost",
        title="Time by layer",
        explain=(
            "Time spent on each layer, all experts together. Layers of one size should cost "
            "the same; a short column usually had its anchors in the cache."
        ),
        drawing=draw_columns(chart, grid),
        legend=draw_entries([Entry(part.css_class, "box", part.name) for part in parts]),
        table=Table(
            head=("layer", "construct (s)", "adapt (s)", "merge (s)"),
            rows=[
                (
                    row.name,
                    number(row.construct_seconds, digits=2),
                    number(row.adapt_seconds, digits=2),
                    number(other, digits=2),
                )
                for row, other in zip(rows, rest, strict=True)
            ],
        ),
    )


def _stacks(rows: list[LayerRow], merge: list[float]) -> dict[str, list[float]]:
    return {
        "construct": [row.construct_seconds for row in rows],
        "adapt": [row.adapt_seconds for row in rows],
        "merge": merge,
    }


def _filled(part: Part) -> list[float]:
    return [value or 0.0 for value in part.values]


def _merge_seconds(plan: Plan, metrics: Metrics) -> dict[int, float]:
    """Return what merge units took beside adapting, where a unit has one layer only."""
    alone = {shard.number: shard.layers[0] for shard in plan.shards if len(shard.layers) == 1}
    layer_of = {
        unit.id: alone[unit.shard]
        for unit in plan.units
        if unit.kind == "merge" and unit.shard is not None and unit.shard in alone
    }
    adapt = {item.layer: item.seconds for item in metrics.adaptation}
    seconds: dict[int, float] = {}
    for unit in metrics.units:
        layer = unit.layer if unit.layer is not None else layer_of.get(unit.id)
        if unit.kind == "merge" and layer is not None:
            rest = max(0.0, unit.cost.seconds - adapt.get(layer, 0.0))
            seconds[layer] = seconds.get(layer, 0.0) + rest
    return seconds


def units_caption(metrics: Metrics) -> str:
    """Return how many units there were, and how many of them the cache had."""
    whole = totals(metrics)
    cached = f", {whole.cached:,} of them from the anchor cache" if whole.cached else ""
    return count(whole.units, "unit") + cached
