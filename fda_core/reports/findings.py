"""What stands out in a merge: where to look first."""

from collections.abc import Iterator

from fda_core.contract.artifacts import Metrics
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.figures_adapt import start_name
from fda_core.reports.quantities import number, percent
from fda_core.reports.summary import distance_moved


def render_findings(metrics: Metrics) -> Markup:
    """Return a short list of sentences, or nothing where nothing stands out."""
    found = list(_finding_sentences(metrics))
    if not found:
        return Markup("")
    items = join(element("li", join(sentence)) for sentence in found)
    return element("section", element("h2", "What stands out"), element("ul", items))


def _finding_sentences(metrics: Metrics) -> Iterator[list[str]]:
    yield from _drift_findings(metrics)
    aligned = [
        (item.alignment_best, item.layer, item.expert)
        for item in metrics.construction
        if item.alignment_best is not None
    ]
    if len(aligned) > 1:
        value, layer, expert = min(aligned)
        yield [
            "Hardest to stand in for: ",
            *_place(layer, expert),
            f", alignment {number(value, digits=2)}.",
        ]
    distances = [(distance_moved(metrics, name), name) for name in metrics.experts]
    moved = [(distance, name) for distance, name in distances if distance is not None]
    if len(moved) > 1:
        (low, quiet), (high, loud) = min(moved), max(moved)
        yield [
            element("b", loud),
            f" moved furthest from the base ({percent(high, digits=2)} of its norm), ",
            element("b", quiet),
            f" least ({percent(low, digits=2)}).",
        ]


def _drift_findings(metrics: Metrics) -> Iterator[list[str]]:
    pairs = [
        (drift.result, drift.start, item.layer, expert)
        for item in metrics.adaptation
        for expert, drift in item.drift.items()
        if drift.result is not None
    ]
    compared = [(start, result) for result, start, _, _ in pairs if start is not None]
    if compared:
        nearer = sum(result < start for start, result in compared)
        yield [
            f"Adapting from {start_name(metrics)} brought the model nearer to its expert in ",
            element("b", f"{nearer:,} of {len(compared):,}"),
            " (layer, expert) pairs.",
        ]
    if len(pairs) > 1:
        result, _, layer, expert = max(pairs, key=lambda pair: pair[0])
        yield [
            "Farthest from its expert: ",
            *_place(layer, expert),
            f", drift {number(result, digits=2)}.",
        ]


def _place(layer: int, expert: str) -> list[str]:
    return [element("b", f"layer {layer}"), " of ", element("b", expert)]
