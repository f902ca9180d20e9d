"""Figures of the anchors' spectra and of how near they come to real features."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fda_core.reports.drawing.legend import Entry, draw_entries
from fda_core.reports.drawing.line_chart import Line, LineChart, Scale, draw_line_chart
from fda_core.reports.drawing.markup import Markup
from fda_core.reports.drawing.point_chart import PointChart, Series, Spot, draw_points
from fda_core.reports.drawing.scales import log_span, span
from fda_core.reports.figures import Figure, Table, panel, panels
from tests.bench.vision.subspace_tables import of_way, ways
from tests.bench.vision.uncertainty import standard_error

Cell = Mapping[str, Any]

FLOOR = 1e-4
FAMILIES: Sequence[str] = ("fda", "spectral", "averages", "plain")
"""Colours of starts, in order."""


def subspace_figures(found: Mapping[str, Any]) -> list[Figure]:
    """Return the figures of subspaces.json."""
    return [_spectra(found), _similarity(found)]


def in_short(finding: Mapping[str, Any]) -> str:
    """Return a claim, how much changed and the verdict."""
    claim, change = finding["claim"], finding["difference"]
    return (
        f"From a {finding['init']} start {claim}: by {change['value']:+.3g} ± "
        f"{change['error']:.2g}, {finding['verdict']}."
    )


def colours(found: Mapping[str, Any]) -> int:
    """Return how many colours the curves need: one for each number of steps."""
    return len(found["steps"])


def _spectra(found: Mapping[str, Any]) -> Figure:
    steps = found["steps"]
    entries = [Entry(f"s{n} thick", "line", f"{k} steps") for n, k in enumerate(steps)]
    said = [in_short(f) for f in found["findings"] if f["of"] != "similarity"]
    return Figure(
        id="spectra",
        title="Spectra of the anchors",
        explain=(
            "Singular values over the largest, means over tasks and layers, on a log axis: a "
            "line that falls steeply is a spectrum with a long tail. Real features are the "
            f"layer’s inputs for {found['images']} train images of each task, used for "
            "measuring only. " + " ".join(said)
        ),
        drawing=panels(
            [
                panel(f"start {init}", optimiser, _spectrum_chart(found, init, optimiser))
                for init, optimiser in ways(found["anchors"])
            ],
            wide=True,
        ),
        legend=draw_entries([*entries, Entry("median", "line", "real features")]),
        table=_spectrum_table(found),
    )


def _spectrum_chart(found: Mapping[str, Any], init: str, optimiser: str) -> Markup:
    cells = of_way(found["anchors"], init, optimiser)
    curves = [
        _mean_curve([cell["stages"][number]["spectrum"] for cell in cells])
        for number in range(len(found["steps"]))
    ]
    real = _mean_curve([feature["spectrum"] for feature in found["features"]])
    longest = max(len(curve) for curve in curves)
    real = real[:longest]
    low, high = log_span([y for curve in (*curves, real) for _, y in curve])
    lines = [
        Line(points=curve, css_class=f"s{number} thick", label=f"{steps} steps")
        for number, (steps, curve) in enumerate(zip(found["steps"], curves, strict=True))
    ]
    chart = LineChart(
        label=f"Singular values of anchors from a {init} start",
        x=Scale(title="rank", low=1.0, high=float(longest)),
        y=Scale(title="share of the largest (log)", low=low, high=high, log=True),
        lines=[*lines, Line(points=real, css_class="median", label="real features")],
        width=480.0,
        height=280.0,
    )
    return draw_line_chart(chart)


def _mean_curve(spectra: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return (rank, mean) as far as all spectra reach and are no rounding."""
    means = [fmean(values) for values in zip(*spectra, strict=False)]
    return [(float(rank), value) for rank, value in enumerate(means, 1) if value > FLOOR]


def _spectrum_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{init}, {optimiser}, {steps} steps",
            f"{_mean(cells, number, 'effective_rank'):.1f}",
            f"{100 * _mean(cells, number, 'head_energy'):.1f}",
        )
        for init, optimiser in ways(found["anchors"])
        for cells in [of_way(found["anchors"], init, optimiser)]
        for number, steps in enumerate(found["steps"])
    ]
    real = (
        "real features",
        f"{fmean(f['effective_rank'] for f in found['features']):.1f}",
        f"{100 * fmean(f['head_energy'] for f in found['features']):.1f}",
    )
    return Table(
        head=("anchors", "effective rank", "energy of the top 20 % (%)"), rows=[*rows, real]
    )


def _mean(cells: Sequence[Cell], number: int, key: str) -> float:
    return fmean(cell["stages"][number][key] for cell in cells)


def _similarity(found: Mapping[str, Any]) -> Figure:
    all_ways = ways(found["anchors"])
    series = [
        Series(family=colour, spots=_similar_spots(found, *way), joined=True)
        for way, colour in zip(all_ways, _colours(len(all_ways)), strict=True)
    ]
    chance = fmean(cell["chance"] for cell in found["anchors"])
    ends = [s.y + k * (s.error or 0.0) for each in series for s in each.spots for k in (-1, 1)]
    low, high = span([*ends, chance])
    last = float(found["steps"][-1])
    said = [in_short(f) for f in found["findings"] if f["of"] == "similarity"]
    chart = PointChart(
        label="Similarity of the anchors’ strongest directions with those of real features",
        x=Scale(title="steps of construction", low=-0.03 * last, high=1.03 * last),
        y=Scale(title="tr(P P̂) / k", low=low, high=high),
        series=series,
        ticks=found["steps"],
        mark=("by chance", chance),
        width=720.0,
        height=320.0,
    )
    return Figure(
        id="similarity",
        title="Anchors and real features",
        explain=(
            "How much of the subspace of the anchors’ strongest directions lies in that of the "
            "real features’ strongest: 1 is the same subspace, the dashed line what two random "
            "ones share. Whiskers are one standard error over tasks and layers. " + " ".join(said)
        ),
        drawing=draw_points(chart),
        legend=draw_entries(
            [
                Entry(f"fill-{colour}", "box", f"start {init}, {optimiser}")
                for (init, optimiser), colour in zip(all_ways, _colours(len(all_ways)), strict=True)
            ]
        ),
        table=_similarity_table(found),
    )


def _colours(count: int) -> list[str]:
    return [FAMILIES[min(number, len(FAMILIES) - 1)] for number in range(count)]


def _similar_spots(found: Mapping[str, Any], init: str, optimiser: str) -> list[Spot]:
    cells, spots = of_way(found["anchors"], init, optimiser), []
    for number, steps in enumerate(found["steps"]):
        values = [cell["stages"][number]["similarity"] for cell in cells]
        value, error = fmean(values), standard_error(values)
        tip = f"{init}, {optimiser}, {steps} steps: {value:.3f} ± {error:.3f}"
        spots.append(Spot(x=float(steps), y=value, error=error, tip=tip))
    return spots


def _similarity_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{cell['task']}, layer {cell['layer']}",
            f"{cell['init']}, {cell['optimiser']}",
            *(f"{stage['similarity']:.3f}" for stage in cell["stages"]),
            f"{cell['chance']:.3f}",
        )
        for cell in found["anchors"]
    ]
    head = ("expert and layer", "start", *(f"{k} steps" for k in found["steps"]), "by chance")
    return Table(head=head, rows=rows, text_columns=2)
