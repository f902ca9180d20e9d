"""The figure of the anchors' spectra: construction makes them long-tailed, as real features are."""

import math
from collections.abc import Sequence

from fda_core.contract.artifacts import Metrics
from fda_core.reports.averages import quantile
from fda_core.reports.drawing.column_grid import PAGE_WIDTH
from fda_core.reports.drawing.curves import Point, spread
from fda_core.reports.drawing.legend import Entry, draw_entries
from fda_core.reports.drawing.line_chart import Band, Line, LineChart, Scale, draw_line_chart
from fda_core.reports.drawing.scales import log_span
from fda_core.reports.figures import Absent, Figure, Table
from fda_core.reports.quantities import NO_VALUE, percent

_FLOOR = 1e-7
"""Singular values below it are rounding; a log axis down there would hide the rest."""
_RANKS = 60


def spectrum_figure(metrics: Metrics) -> Figure | Absent:
    """Return the spread of the anchors' singular values before and after construction."""
    begin = [_spectrum(item.spectrum_start) for item in metrics.construction]
    end = [_spectrum(item.spectrum_end) for item in metrics.construction]
    points = [point for curve in (*begin, *end) for point in curve]
    if not points:
        return Absent(reason="No singular values of the anchors were recorded.")
    low, high = log_span(y for _, y in points)
    first, last = (spread(curves, low_share=0.1, high_share=0.9) for curves in (begin, end))
    chart = LineChart(
        label="Singular values of the anchors, at the start and at the end",
        x=Scale(title="rank of the singular value", low=1.0, high=max(x for x, _ in points)),
        y=Scale(title="share of the largest (log)", low=low, high=high, log=True),
        bands=[
            Band(low=first.low, high=first.high, css_class="band-start"),
            Band(low=last.low, high=last.high, css_class="band-end"),
        ],
        lines=[
            Line(points=first.middle, css_class="line-start", label="start, median"),
            Line(points=last.middle, css_class="line-end", label="end, median"),
        ],
        width=PAGE_WIDTH,
        height=300.0,
    )
    return Figure(
        id="spectra",
        title="Spectrum of the anchors",
        explain=(
            "How the anchors’ energy is spread over directions, largest first: a line that drops "
            "steeply means that a few directions carry nearly everything, as in real features. "
            f"The strongest fifth of the directions holds {_head_share(metrics, 'start')} of the "
            f"energy at the start and {_head_share(metrics, 'end')} at the end (median)."
        ),
        drawing=draw_line_chart(chart),
        legend=draw_entries(
            [
                Entry("line-start", "line", "start, median over all layers and experts"),
                Entry("band-start", "box", "start, 10 to 90 %"),
                Entry("line-end", "line", "end, median"),
                Entry("band-end", "box", "end, 10 to 90 %"),
            ]
        ),
        table=_spectrum_table(begin, end),
    )


def _spectrum(values: Sequence[float]) -> tuple[Point, ...]:
    """Return (rank, value) at no more than `_RANKS` ranks, the first ones all kept."""
    count = len(values)
    steps = range(_RANKS) if count else ()
    ranks = sorted({round(count ** (step / (_RANKS - 1))) for step in steps})
    return tuple(
        (float(rank), values[rank - 1])
        for rank in ranks
        if math.isfinite(values[rank - 1]) and values[rank - 1] > _FLOOR
    )


def _head_share(metrics: Metrics, moment: str) -> str:
    shares = []
    for item in metrics.construction:
        values = item.spectrum_start if moment == "start" else item.spectrum_end
        energy = [value * value for value in values if math.isfinite(value)]
        if energy and sum(energy) > 0:
            shares.append(sum(energy[: max(1, len(energy) // 5)]) / sum(energy))
    return percent(quantile(shares, 0.5), digits=0) if shares else NO_VALUE


def _spectrum_table(begin: Sequence[Sequence[Point]], end: Sequence[Sequence[Point]]) -> Table:
    head = (
        "rank",
        "start, 10 %",
        "start, median",
        "start, 90 %",
        "end, 10 %",
        "end, median",
        "end, 90 %",
    )
    ranks = sorted({rank for curve in (*begin, *end) for rank, _ in curve})
    return Table(head=head, rows=[_rank_row(rank, begin, end) for rank in ranks])


def _rank_row(
    rank: float, begin: Sequence[Sequence[Point]], end: Sequence[Sequence[Point]]
) -> list[str]:
    row = [f"{rank:.0f}"]
    for curves in (begin, end):
        found = [y for curve in curves for x, y in curve if x == rank]
        row += [f"{quantile(found, q):.3g}" if found else NO_VALUE for q in (0.1, 0.5, 0.9)]
    return row
