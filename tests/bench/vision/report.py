"""report.html: every figure of the benchmark on one page that needs no network.

    python -m tests.bench.vision.report [--cache bench-output/vision]

Made from results.json, ablations.json, subspaces.json, levers.json and proxy.json under the
cache, as far as they are there; what is not says how to make it. The layouts are documented in
results.py, ablations.py, subspaces.py and page_levers.py.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.figures import Absent, Figure, Table, details, render_figure, render_table
from fda_core.reports.page import Section, render_page
from tests.bench.vision.appearing import write_text
from tests.bench.vision.catalogue import DEFAULT_CACHE
from tests.bench.vision.page_ablations import ablation_figures, introduction, verdict_table
from tests.bench.vision.page_accuracy import accuracy_figures, merges, references, shown
from tests.bench.vision.page_levers import lever_table, proxy_figure
from tests.bench.vision.page_subspaces import colours, subspace_figures

FILES = ("results", "ablations", "subspaces", "levers", "proxy")
LEVERS = Path(__file__).with_name("levers.json")
"""What was tried to be faster and better, as measured once; one in the cache comes first."""
MAKERS: Mapping[str, tuple[str, str]] = {
    "results": ("python -m tests.bench.vision", "merges and judges every method"),
    "ablations": ("python -m tests.bench.vision.ablations", "varies FDA’s settings one by one"),
    "subspaces": ("python -m tests.bench.vision.subspaces", "looks into the anchors"),
}
"""What makes a file that is not there, and what it does."""


def write(cache: Path) -> Path | None:
    """Write the page from what is under the cache and return it, or None if nothing is."""
    found = {name: read(cache / f"{name}.json") for name in FILES}
    if not any(found.values()):
        return None
    found["levers"] = found["levers"] or read(LEVERS)
    write_text(cache / "report.html", render(found))
    return cache / "report.html"


def read(file: Path) -> Any:
    """Return a file's data, or None if it is not there."""
    return json.loads(file.read_text()) if file.exists() else None


def render(found: Mapping[str, Any]) -> str:
    """Return the page from the files' data by name, None for those that are not there."""
    subspaces = found["subspaces"]
    sections = [
        Section("methods", "Methods", _methods(found["results"])),
        Section("ablations", "Ablations", _ablations(found["ablations"])),
        Section("anchors", "Anchors", _anchors(subspaces)),
    ]
    if found["levers"]:
        sections.append(Section("levers", "Levers", _levers(found["levers"])))
    if found["proxy"]:
        drawn = render_figure(proxy_figure(found["proxy"]))
        sections.append(Section("choosing", "Choosing without data", drawn))
    return render_page(
        "Vision benchmark",
        _header(found["results"]),
        sections=sections,
        footer="Every number here is also in the JSON files beside this page.",
        lines=colours(subspaces) if subspaces else 1,
    )


def _methods(results: Mapping[str, Any] | None) -> Markup:
    if results is None:
        return _absent("results")
    left_out = "; ".join(f"{name} {reason}" for name, reason in results["left_out"].items())
    said = element("p", f"Left out: {left_out}.", class_="explain") if left_out else Markup("")
    return Markup(_figures(accuracy_figures(results)) + said)


def _ablations(ablations: Mapping[str, Any] | None) -> Markup:
    if ablations is None:
        return _absent("ablations")
    verdicts = verdict_table(ablations)
    return join(
        [
            element("p", introduction(ablations), class_="explain"),
            render_table(verdicts, label="Published directions") if verdicts.rows else "",
            _figures(ablation_figures(ablations)),
        ]
    )


def _anchors(subspaces: Mapping[str, Any] | None) -> Markup:
    return _absent("subspaces") if subspaces is None else _figures(subspace_figures(subspaces))


def _levers(levers: Sequence[Mapping[str, Any]]) -> Markup:
    explain = (
        "What was tried to construct faster or merge better, kept or rejected by its numbers: "
        "before → after."
    )
    table = render_table(lever_table(levers), label="Levers")
    return Markup(element("p", explain, class_="explain") + table)


def _figures(figures: Sequence[Figure | Absent]) -> Markup:
    return join(render_figure(figure) for figure in figures)


def _absent(name: str) -> Markup:
    command, what = MAKERS[name]
    said = (f"{name}.json is not there yet: ", element("code", command), f" {what}.")
    return element("p", *said, class_="absent")


def _header(results: Mapping[str, Any] | None) -> Markup:
    parts = [
        element("p", "Benchmark", class_="eyebrow"),
        element("h1", "Merging vision experts"),
    ]
    if results is not None:
        parts += [
            element("p", _lead(results), class_="lead"),
            element("div", join(_tiles(results)), class_="tiles"),
            details("Tasks", _tasks(results)),
        ]
    return element("header", join(parts))


def _lead(results: Mapping[str, Any]) -> str:
    images = sum(task["images"][results["part"]] for task in results["tasks"])
    machine = results["machine"]
    return (
        f"{len(merges(results))} merges of {len(results['tasks'])} fine-tunes of DINOv2-S/14, "
        f"judged on {images:,} {results['part']} images with each task’s frozen head. "
        f"{results['made'][:10]}, {machine['processor']}, one core, torch {machine['torch']}."
    )


def _tiles(results: Mapping[str, Any]) -> list[Markup]:
    found = [
        _tile(c["name"].capitalize(), shown(c["mean"]), "mean accuracy, %")
        for c in references(results)
    ]
    for group, name in (("data-free", "Highest mean without FDA"), ("fda", "Highest mean of FDA")):
        best = max(
            (c for c in merges(results) if c["group"] == group),
            key=lambda c: c["mean"]["value"],
            default=None,
        )
        if best is not None:
            share = f"{best['name']}, {100 * best['share']['value']:.1f} % of the experts"
            found.append(_tile(name, shown(best["mean"]), share))
    return found


def _tile(name: str, value: str, caption: str) -> Markup:
    return element(
        "div",
        element("p", name, class_="tile-name"),
        element("p", value, class_="tile-value"),
        element("p", caption, class_="tile-caption"),
        class_="tile",
    )


def _tasks(results: Mapping[str, Any]) -> Markup:
    part = results["part"]
    rows = [
        (
            task["name"],
            str(task["classes"]),
            str(task["images"]["train"]),
            str(task["images"][part]),
            str(task.get("groups", task["images"])[part]),
        )
        for task in results["tasks"]
    ]
    head = ("task", "classes", "train images", f"{part} images", f"{part} groups")
    return render_table(Table(head=head, rows=rows), label="Tasks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    chosen = parser.parse_args(arguments)
    print(write(chosen.cache) or "nothing is there to report")


if __name__ == "__main__":
    main()
