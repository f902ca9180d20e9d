"""The top of the report: what was merged, the key numbers, what stands out."""

from collections.abc import Iterator

from fda_core.contract.artifacts import Manifest, Metrics
from fda_core.contract.plan import Plan
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.figures_adapt import start_name
from fda_core.reports.figures_cost import units_caption
from fda_core.reports.findings import render_findings
from fda_core.reports.public_names import model_name
from fda_core.reports.quantities import count, duration, number, percent, size
from fda_core.reports.settings import (
    method_title,
    notices,
    output_dtypes,
    output_name,
    weights_bytes,
)
from fda_core.reports.summary import Totals, totals


def render_headline(plan: Plan, metrics: Metrics, manifest: Manifest) -> Markup:
    """Return title, key numbers, what stands out, warnings and notes."""
    return element(
        "header",
        element("p", "Merge report", class_="eyebrow"),
        element("h1", output_name(plan)),
        element("p", join(_sentence(plan, metrics)), class_="lead"),
        element("div", join(_tiles(plan, metrics, manifest)), class_="tiles"),
        render_findings(metrics),
        _notices(plan, manifest),
    )


def _sentence(plan: Plan, metrics: Metrics) -> Iterator[str]:
    yield element("b", method_title(metrics))
    yield f" merged {count(len(plan.experts), 'expert')} into one copy of "
    yield element("b", model_name(plan.recipe.base))
    layers = f"{count(plan.layers, 'layer')}, width {plan.width}" if plan.layers else "no layers"
    yield f", a {plan.family} model of {layers}."


def _tiles(plan: Plan, metrics: Metrics, manifest: Manifest) -> Iterator[Markup]:
    whole = totals(metrics)
    yield from _quality_tiles(metrics, whole)
    shards = "one file" if plan.single_file else count(len(plan.shards), "shard")
    yield _tile("Merged", f"{plan.layers} × {len(plan.experts)}", "layers × experts")
    yield _tile("Compute time", duration(whole.seconds), units_caption(metrics))
    yield _tile("Peak memory", size(whole.peak_memory_bytes), f"largest unit, on {manifest.device}")
    dtypes = output_dtypes(plan)
    caption = f"weights, {shards}" + (f", {dtypes}" if dtypes else "")
    yield _tile("Size", size(weights_bytes(plan, manifest)), caption)


def _quality_tiles(metrics: Metrics, whole: Totals) -> Iterator[Markup]:
    if whole.alignment_best is not None:
        yield _change_tile(
            "Alignment of the anchors",
            whole.alignment_start,
            whole.alignment_best,
            caption="start → reached; 1 stands in for the experts’ data perfectly",
        )
    if whole.drift_result is not None:
        yield _change_tile(
            "Drift from the experts",
            whole.drift_start,
            whole.drift_result,
            caption=f"{start_name(metrics)} → result; 0 is the expert, 1 the base",
        )
    if whole.alignment_best is not None or whole.drift_result is not None:
        return
    if whole.task_vector_ratio is not None:
        ratio = percent(whole.task_vector_ratio, digits=2)
        yield _tile("Experts moved", ratio, "mean task vector ÷ base", wide=True)
    if whole.task_vector_cosine is not None:
        cosine = number(whole.task_vector_cosine, digits=2)
        yield _tile("Agreement", cosine, "mean cosine of two experts’ updates", wide=True)


def _change_tile(name: str, start: float | None, end: float, *, caption: str) -> Markup:
    """Return a tile with both numbers and where they lie between 0 and 1."""
    first = element("span", f"{number(start, digits=2)} → ", class_="from")
    value = element(
        "p", first if start is not None else "", number(end, digits=2), class_="tile-value"
    )
    return element(
        "div",
        element("p", name, class_="tile-name"),
        value,
        _track(start, end),
        element("p", caption, class_="tile-caption"),
        class_="tile wide",
    )


def _track(start: float | None, end: float) -> Markup:
    """Return a line from 0 to 1 with a hollow point at the start and a full one at the end."""
    here = _on_track(end)
    there = here if start is None else _on_track(start)
    return element(
        "svg",
        element("line", x1=8, x2=292, y1=9, y2=9, class_="track"),
        element("line", x1=there, x2=here, y1=9, y2=9, class_="track-change"),
        element("circle", cx=there, cy=9, r=5, class_="track-start") if start is not None else "",
        element("circle", cx=here, cy=9, r=6, class_="track-end"),
        element("text", "0", x=0, y=13, class_="tick end"),
        element("text", "1", x=300, y=13, class_="tick"),
        class_="chart track-chart",
        viewBox="-10 0 320 18",
        width=320,
        height=18,
        aria_hidden="true",
    )


def _on_track(value: float) -> float:
    return 8 + 284 * min(1.0, max(0.0, value))


def _tile(name: str, value: str, caption: str, *, wide: bool = False) -> Markup:
    return element(
        "div",
        element("p", name, class_="tile-name"),
        element("p", value, class_="tile-value"),
        element("p", caption, class_="tile-caption"),
        class_="tile wide" if wide else "tile",
    )


def _notices(plan: Plan, manifest: Manifest) -> Markup:
    warnings, notes = notices(plan, manifest)
    return join(
        [
            *(_notice("warning", "▲ Warning", text) for text in warnings),
            *(_notice("note", "● Note", text) for text in notes),
        ]
    )


def _notice(kind: str, word: str, text: str) -> Markup:
    return element("p", element("b", word), " ", text, class_=f"notice {kind}")
