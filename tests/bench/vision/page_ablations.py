"""Figures of the ablations: a panel of accuracy and one of alignment for each group."""

from collections.abc import Mapping, Sequence
from typing import Any

from fda_core.reports.drawing.legend import Entry, draw_entries
from fda_core.reports.drawing.line_chart import Scale
from fda_core.reports.drawing.markup import Markup
from fda_core.reports.drawing.point_chart import PointChart, Series, Spot, draw_points
from fda_core.reports.drawing.scales import log_span, span
from fda_core.reports.figures import Absent, Figure, Table, panel, panels
from fda_core.reports.quantities import NO_VALUE
from tests.bench.vision.ablation_tables import accuracy, caption, signed

Point = Mapping[str, Any]

TITLES: Mapping[str, str] = {
    "init": "Where the anchors start",
    "steps": "Steps of construction",
    "construct distance": "Distance in construction",
    "adapt distance": "Distance in adaptation",
    "anchors": "Number of anchors",
    "tokens": "Tokens of an anchor",
    "objective": "One cosine a tensor, or one a layer",
    "optimiser": "Optimiser of the anchors",
    "experts": "Number of experts",
}
COLOURS: Mapping[str, str] = {"task_arithmetic": "averages", "tsvm": "spectral", "fda": "fda"}


def ablation_figures(found: Mapping[str, Any]) -> list[Figure | Absent]:
    """Return a figure for each group, and a sentence for those that were left out."""
    groups: dict[str, list[Point]] = {}
    for point in found["points"]:
        groups.setdefault(point["group"], []).append(point)
    figures: list[Figure | Absent] = []
    for group, points in groups.items():
        verdicts = [in_short(each) for each in found["findings"] if each["group"] == group]
        drawn = _experts(points) if group == "experts" else _settings(group, points)
        figures.append(_figure(group, points, drawn, verdicts))
    figures += [Absent(reason=f"{group}: {why}.") for group, why in found["skipped"].items()]
    return figures


def verdict_table(found: Mapping[str, Any]) -> Table:
    """Return what is found of every published direction."""
    rows = [
        (each["claim"], each["source"], signed(each["difference"]), each["verdict"])
        for each in found["findings"]
    ]
    return Table(head=("claim", "published", "here (points)", "verdict"), rows=rows, text_columns=2)


def in_short(finding: Mapping[str, Any]) -> str:
    """Return a claim, its figure in points and the verdict."""
    return f"{finding['claim']}: {signed(finding['difference'])}, {finding['verdict']}"


def introduction(found: Mapping[str, Any]) -> str:
    """Return what was varied and measured, in words."""
    return caption(found)


def _figure(group: str, points: Sequence[Point], drawn: Markup, verdicts: Sequence[str]) -> Figure:
    said = f"Published directions: {'; '.join(verdicts)}." if verdicts else ""
    explain = (
        "Whiskers are one standard error of each accuracy; differences are paired and surer than "
        "they look. Axes of accuracy do not begin at 0. "
    )
    return Figure(
        id=f"ablation-{group.replace(' ', '-')}",
        title=TITLES.get(group, group),
        explain=explain + (said or "Nothing is published on the direction of this one."),
        drawing=drawn,
        legend=_legend(points) if group == "experts" else "",
        table=_experts_table(points) if group == "experts" else _table(group, points),
    )


def _settings(group: str, points: Sequence[Point]) -> Markup:
    """Return the panels of accuracy and, where anchors have one, alignment."""
    drawn = [_panel(group, points, "Accuracy", "%", [_accuracy(p) for p in points])]
    aligned = [(p["alignment"], None) for p in points if p["alignment"] is not None]
    if len(aligned) == len(points) and len(set(aligned)) > 1:
        drawn.append(_panel(group, points, "Alignment", "mean cosine", aligned))
    return panels(drawn, wide=True)


def _accuracy(point: Point) -> tuple[float, float | None]:
    return 100 * point["accuracy"]["value"], 100 * point["accuracy"]["error"]


def _panel(
    group: str,
    points: Sequence[Point],
    title: str,
    unit: str,
    values: Sequence[tuple[float, float | None]],
) -> Markup:
    over_numbers = all(point["x"] is not None for point in points)
    spots = [
        Spot(
            x=point["x"] if over_numbers else float(place),
            y=value,
            error=error,
            tip=f"{group} {point['name']}: {value:.4g}" + (f" ± {error:.2g}" if error else ""),
        )
        for place, (point, (value, error)) in enumerate(zip(points, values, strict=True))
    ]
    low, high = _span(spots)
    chart = PointChart(
        label=f"{title} by {group}",
        x=_axis(group, points) if over_numbers else [point["name"] for point in points],
        x_title=group,
        y=Scale(title=unit, low=low, high=high),
        series=[Series(family="fda", spots=spots, joined=over_numbers)],
        ticks=[point["x"] for point in points] if over_numbers else (),
    )
    return panel(title, "", draw_points(chart))


def _axis(group: str, points: Sequence[Point]) -> Scale:
    first, last = log_span(point["x"] for point in points)
    return Scale(title=f"{group} (log)", low=first, high=last, log=True)


def _span(spots: Sequence[Spot]) -> tuple[float, float]:
    ends = [spot.y + sign * (spot.error or 0.0) for spot in spots for sign in (-1.0, 1.0)]
    return span(ends, pad_ratio=0.12)


def _experts(points: Sequence[Point]) -> Markup:
    """Return the panels of accuracy and of both gaps over the number of experts."""
    keys = ("accuracy", "gap", "gap_of_first")
    titles = ("Accuracy", "Gap to the experts", "Gap on the first two tasks")
    return panels(
        _experts_panel(points, key, title) for key, title in zip(keys, titles, strict=True)
    )


def _experts_panel(points: Sequence[Point], key: str, title: str) -> Markup:
    series = [
        Series(
            family=COLOURS.get(method, "plain"),
            spots=[
                Spot(
                    x=point["x"],
                    y=100 * point[key]["value"],
                    error=100 * point[key]["error"],
                    tip=f"{method}, {point['x']:.0f} experts: {signed(point[key])}",
                )
                for point in points
                if point["method"]["name"] == method
            ],
            joined=True,
        )
        for method in _methods(points)
    ]
    low, high = _span([spot for each in series for spot in each.spots])
    counts = sorted({point["x"] for point in points})
    chart = PointChart(
        label=f"{title} by number of experts",
        x=Scale(title="experts", low=counts[0] - 0.4, high=counts[-1] + 0.4),
        y=Scale(title="%" if key == "accuracy" else "points", low=low, high=high),
        series=series,
        ticks=counts,
        width=340.0,
        height=240.0,
    )
    return panel(title, "", draw_points(chart))


def _methods(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point["method"]["name"] for point in points))


def _legend(points: Sequence[Point]) -> Markup:
    return draw_entries(
        [Entry(f"fill-{COLOURS.get(name, 'plain')}", "box", name) for name in _methods(points)]
    )


def _table(group: str, points: Sequence[Point]) -> Table:
    head = (group, "alignment", "accuracy (%)", "less reference", "I: CPU s", "II: CPU s")
    rows = [
        (
            point["name"] + (" (reference)" if point["is_reference"] else ""),
            NO_VALUE if point["alignment"] is None else f"{point['alignment']:.3f}",
            accuracy(point["accuracy"]),
            signed(point["difference"]) if point["difference"] else NO_VALUE,
            *_seconds(point),
        )
        for point in points
    ]
    return Table(head=head, rows=rows)


def _experts_table(points: Sequence[Point]) -> Table:
    head = ("method, experts", "accuracy (%)", "gap", "gap, first two tasks")
    rows = [
        (
            point["name"],
            accuracy(point["accuracy"]),
            *(signed(point[key]) if point[key] else NO_VALUE for key in ("gap", "gap_of_first")),
            *_seconds(point),
        )
        for point in points
    ]
    return Table(head=(*head, "I: CPU s", "II: CPU s"), rows=rows)


def _seconds(point: Point) -> list[str]:
    stages = (point["construct"], point["merge"])
    return [f"{stage['cpu_seconds']:.0f}" if stage else NO_VALUE for stage in stages]
