"""Figures of the whole comparison: accuracy by method, against its cost, and task by task."""

from collections.abc import Mapping, Sequence
from typing import Any

from fda_core.reports.drawing.colours import ColourScale
from fda_core.reports.drawing.column_grid import PAGE_WIDTH, column_grid
from fda_core.reports.drawing.heat_map import HeatMap, draw_heat_map
from fda_core.reports.drawing.legend import Entry, draw_entries, draw_scale
from fda_core.reports.drawing.line_chart import Scale
from fda_core.reports.drawing.point_chart import PointChart, Series, Spot, draw_points
from fda_core.reports.drawing.ranked_bars import BarGroup, RankedBar, RankedBars, draw_ranked_bars
from fda_core.reports.drawing.scales import log_span, span
from fda_core.reports.figures import Figure, Table
from fda_core.reports.quantities import NO_VALUE, number
from tests.bench.vision.table import percent

Contender = Mapping[str, Any]

FAMILIES: Mapping[str, tuple[str, frozenset[str]]] = {
    "averages": (
        "Averages",
        frozenset({"linear", "task_arithmetic", "slerp", "nuslerp", "karcher", "model_stock"}),
    ),
    "sparse": (
        "Sparse or sign-consistent averages",
        frozenset(
            {"ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties"}
            | {"della", "della_linear", "sce"}
        ),
    ),
    "spectral": ("Spectra of task vectors", frozenset({"tsvm", "iso_c", "iso_cts"})),
    "solved": (
        "Solved for, layer by layer",
        frozenset({"wudi", "iwudi", "swudi", "aswudi", "optmerge", "ace"}),
    ),
    "fda": ("Functional dual anchors", frozenset()),
    "plain": ("Other methods", frozenset()),
}
"""By the name of their colours: what they are called, and their methods."""
REFERENCE = "reference"


def family(contender: Contender) -> str:
    """Return the colours of a merge's family."""
    method = (contender["method"] or {}).get("name", contender["name"])
    if contender["group"] == "fda" or method == "fda":
        return "fda"
    return next((key for key, (_, methods) in FAMILIES.items() if method in methods), "plain")


def merges(results: Mapping[str, Any]) -> list[Contender]:
    """Return the contenders that are merges, in the table's order."""
    return [c for c in results["contenders"] if c["group"] != REFERENCE]


def references(results: Mapping[str, Any]) -> list[Contender]:
    """Return the base and the individual experts, as far as they are there."""
    return [c for c in results["contenders"] if c["group"] == REFERENCE]


def accuracy_figures(results: Mapping[str, Any]) -> list[Figure]:
    """Return the figures of results.json."""
    return [_bars(results), _against_cost(results), _by_task(results)]


def seconds(contender: Contender) -> float:
    """Return the CPU-seconds of both stages."""
    stages = (contender["construct"], contender["merge"])
    return float(sum(stage["cpu_seconds"] for stage in stages if stage))


def shown(estimate: Mapping[str, float]) -> str:
    """Return an accuracy in percent with its standard error."""
    return f"{percent(estimate['value'])} ± {100 * estimate['error']:.1f}"


def _bars(results: Mapping[str, Any]) -> Figure:
    by_family: dict[str, list[Contender]] = {key: [] for key in FAMILIES}
    for contender in merges(results):
        by_family[family(contender)].append(contender)
    groups = [
        BarGroup(
            name=FAMILIES[key][0],
            bars=[_bar(c, key) for c in sorted(found, key=lambda c: -c["mean"]["value"])],
        )
        for key, found in by_family.items()
        if found
    ]
    marks = [(c["name"], 100 * c["mean"]["value"]) for c in references(results)]
    chart = RankedBars(
        label="Mean accuracy of every method",
        title="mean accuracy over tasks (%)",
        groups=groups,
        marks=marks,
    )
    return Figure(
        id="accuracy",
        title="Mean accuracy by method",
        explain=(
            "Each merge as one model on all tasks, the mean of its accuracies. Whiskers are one "
            "standard error (over groups of alike images, and seeds where a method is random); "
            "two bars differ for sure only where the paired test says so: ≈ marks merges not "
            "worse than the best by more than two errors. Dashed lines are the base and each "
            "task’s own expert."
        ),
        drawing=draw_ranked_bars(chart),
        table=_mean_table(results),
    )


def _bar(contender: Contender, key: str) -> RankedBar:
    mark = " ≈" if contender["is_level_with_best"] else ""
    return RankedBar(
        name=contender["name"],
        value=100 * contender["mean"]["value"],
        error=100 * contender["mean"]["error"],
        text=shown(contender["mean"]) + mark,
        css_class=f"fill-{key}",
    )


def _mean_table(results: Mapping[str, Any]) -> Table:
    rows = [
        (
            c["name"],
            percent(c["mean"]["value"]),
            f"{100 * c['mean']['error']:.2f}",
            f"{100 * c['share']['value']:.1f}",
            NO_VALUE if c["gap"] is None else f"{100 * c['gap']['value']:+.2f}",
            NO_VALUE if c["gap"] is None else f"{100 * c['gap']['error']:.2f}",
            NO_VALUE if c["alignment"] is None else f"{c['alignment']:.3f}",
        )
        for c in results["contenders"]
    ]
    head = ("method", "mean (%)", "s.e.", "share of experts (%)", "to the best (points)", "s.e.")
    return Table(head=(*head, "alignment"), rows=rows)


def _against_cost(results: Mapping[str, Any]) -> Figure:
    found = merges(results)
    front = _front(found)
    series = [
        Series(
            family=key,
            spots=[_spot(c, c["name"] in front) for c in found if family(c) == key],
        )
        for key in FAMILIES
        if any(family(c) == key for c in found)
    ]
    values = [100 * (c["mean"]["value"] + s * c["mean"]["error"]) for c in found for s in (-1, 1)]
    marks = [c for c in references(results) if c["name"] != "base"]
    values += [100 * c["mean"]["value"] for c in marks]
    low, high = span(values)
    first, last = log_span([seconds(c) for c in found])
    chart = PointChart(
        label="Mean accuracy against CPU-seconds",
        x=Scale(title="CPU-seconds of both stages (log)", low=first, high=last, log=True),
        y=Scale(title="mean accuracy (%)", low=low, high=high),
        series=series,
        mark=(marks[0]["name"], 100 * marks[0]["mean"]["value"]) if marks else None,
        mark_side="begin",
        width=PAGE_WIDTH,
        height=420.0,
    )
    return Figure(
        id="cost",
        title="Accuracy against cost",
        explain=(
            "CPU-seconds on one thread of the whole command, constructing anchors included where "
            "a method does that, on a log axis. Named are the merges that no other beats in both "
            "accuracy and cost; the others say their names under the pointer and in the table. "
            f"The axis of accuracy begins at {low:.0f} %, not at 0."
        ),
        drawing=draw_points(chart),
        legend=draw_entries(
            [Entry(f"fill-{one.family}", "box", FAMILIES[one.family][0]) for one in series]
        ),
        table=_cost_table(found),
    )


def _spot(contender: Contender, is_named: bool) -> Spot:
    took, name = seconds(contender), contender["name"]
    return Spot(
        x=took,
        y=100 * contender["mean"]["value"],
        error=100 * contender["mean"]["error"],
        tip=f"{name}: {shown(contender['mean'])} %, {took:.0f} CPU s",
        label=name if is_named else "",
    )


def _front(found: Sequence[Contender]) -> set[str]:
    """Return the names no other contender beats in both."""
    return {
        c["name"]
        for c in found
        if not any(
            other["mean"]["value"] > c["mean"]["value"] and seconds(other) <= seconds(c)
            for other in found
        )
    }


def _cost_table(found: Sequence[Contender]) -> Table:
    head = ("method", "I: CPU s", "I: peak (MB)", "I: TFLOP", "II: CPU s", "II: peak (MB)")
    rows = [
        (c["name"], *_cost(c["construct"]), *_cost(c["merge"]), percent(c["mean"]["value"]))
        for c in found
    ]
    return Table(head=(*head, "II: TFLOP", "mean (%)"), rows=rows)


def _cost(stage: Mapping[str, float] | None) -> tuple[str, str, str]:
    if stage is None:
        return NO_VALUE, NO_VALUE, NO_VALUE
    return (
        number(stage["cpu_seconds"], digits=1),
        number(stage["peak_memory_bytes"] / 1e6, digits=0),
        f"{stage['flops'] / 1e12:.3g}",
    )


def _by_task(results: Mapping[str, Any]) -> Figure:
    tasks, found = [task["name"] for task in results["tasks"]], results["contenders"]
    values = [
        [*(100 * c["tasks"][task]["value"] for task in tasks), 100 * c["mean"]["value"]]
        for c in found
    ]
    flat = [value for row in values for value in row]
    scale = ColourScale(low=min(flat), high=max(flat))
    names = [c["name"] for c in found]
    chart = HeatMap(
        label="Accuracy of every method on every task",
        rows=names,
        values=values,
        scale=scale,
        row_title="method",
        column_title="task",
        show=lambda value: f"{value:.0f}",
        show_long=lambda value: f"{value:.1f} %",
        means=False,
    )
    rows = [
        (c["name"], *(shown(c["tasks"][task]) for task in tasks), shown(c["mean"])) for c in found
    ]
    return Figure(
        id="tasks",
        title="Accuracy by task",
        explain=(
            f"In percent on the {results['part']} part of each task; the last column is their "
            "mean. A row that is bright all along serves every task, a dark cell is a task that a "
            "merge forgot."
        ),
        drawing=draw_heat_map(chart, column_grid(tasks, names, extra="mean")),
        legend=draw_scale(scale, title="accuracy (%)"),
        table=Table(head=("method", *tasks, "mean"), rows=rows),
    )
