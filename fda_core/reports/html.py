"""merge_report.html: one file that shows a merge to someone who was not there.

Works from a disk without a network: style, script and drawings are inside, nothing is
fetched. The same inputs give the same bytes.
"""

from collections.abc import Sequence

from fda_core.contract.artifacts import Manifest, Metrics
from fda_core.contract.plan import Plan
from fda_core.reports.drawing.column_grid import ColumnGrid, column_grid
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.figures import Absent, Figure, Table, details, render_figure, render_table
from fda_core.reports.figures_adapt import adapt_figures
from fda_core.reports.figures_construct import construct_figures
from fda_core.reports.figures_cost import cost_figures, unit_table
from fda_core.reports.figures_task_vectors import task_vector_figures
from fda_core.reports.headline import render_headline
from fda_core.reports.ingredients import render_ingredients
from fda_core.reports.page import Section, render_page
from fda_core.reports.public_names import model_name
from fda_core.reports.quantities import count, size
from fda_core.reports.settings import PAPER_TITLE, PAPER_URL, is_fda, output_name


def render_report(plan: Plan, metrics: Metrics, manifest: Manifest) -> str:
    """Return the whole page."""
    return render_page(
        f"{output_name(plan)}: merge report",
        render_headline(plan, metrics, manifest),
        sections=_sections(plan, metrics, manifest),
        footer="Every number here is also in merge_metrics.json and merge_manifest.json.",
        lines=metrics.layers,
    )


def _sections(plan: Plan, metrics: Metrics, manifest: Manifest) -> list[Section]:
    grid = _page_grid(metrics)
    inside = grid.without_extra()
    anchors = [Section("anchors", "Anchors", _figures(construct_figures(metrics, inside)))]
    if metrics.construction or metrics.adaptation:
        adapted = _figures(adapt_figures(metrics, inside))
        anchors.append(Section("adaptation", "Adaptation", adapted))
    return [
        Section("ingredients", "What went in", render_ingredients(plan, metrics, manifest)),
        *anchors,
        Section("vectors", "Task vectors", _figures(task_vector_figures(metrics, grid))),
        Section("cost", "Cost", _cost(plan, metrics, inside)),
        Section("provenance", "Provenance", _provenance(metrics, manifest)),
    ]


def _page_grid(metrics: Metrics) -> ColumnGrid:
    """Return the columns that all figures by layer stand in."""
    layers = [str(layer) for layer in range(metrics.layers)]
    outside = any(item.layer is None for item in metrics.task_vectors)
    return column_grid(layers, metrics.experts, extra="outside" if outside else "")


def _figures(figures: Sequence[Figure | Absent]) -> Markup:
    return join(render_figure(figure) for figure in figures)


def _cost(plan: Plan, metrics: Metrics, grid: ColumnGrid) -> Markup:
    figures = _figures(cost_figures(plan, metrics, grid))
    units = render_table(unit_table(metrics), label="All units")
    return Markup(figures + details("All units", units))


def _provenance(metrics: Metrics, manifest: Manifest) -> Markup:
    facts = [
        ("made", manifest.created),
        ("job", manifest.job_id),
        ("device", f"{manifest.device}, {count(manifest.threads, 'thread')}"),
        *((name, version) for name, version in manifest.versions.items()),
    ]
    return join(
        [
            element("p", join(_how(metrics)), class_="explain"),
            render_table(
                Table(head=("fact", "value"), rows=facts, text_columns=2), label="Provenance"
            ),
            details("Files read", render_table(_inputs(manifest), label="Files read")),
            details("Files written", render_table(_outputs(manifest), label="Files written")),
        ]
    )


def _how(metrics: Metrics) -> list[str]:
    parts: list[str] = [
        "Made again from the recipe beside this file: ",
        element("code", "fda merge merge_recipe.yaml"),
        ". Files are checked against the manifest by ",
        element("code", "fda verify"),
        ".",
    ]
    if is_fda(metrics):
        parts += [" The method: ", element("a", PAPER_TITLE, href=PAPER_URL), "."]
    return parts


def _inputs(manifest: Manifest) -> Table:
    rows = [
        (item.role, model_name(item.uri), size(item.size_bytes), item.sha256)
        for item in manifest.inputs
    ]
    return Table(head=("read for", "file", "size", "sha256"), rows=rows, text_columns=2)


def _outputs(manifest: Manifest) -> Table:
    rows = [
        (path, size(file.size_bytes), file.sha256)
        for path, file in sorted(manifest.outputs.items())
    ]
    return Table(head=("file", "size", "sha256"), rows=rows)
