"""What went into a merge: the experts and every setting that shaped the result."""

from fda_core.contract.artifacts import Manifest, Metrics
from fda_core.contract.plan import Plan
from fda_core.reports.averages import mean
from fda_core.reports.drawing.markup import Markup, element, join
from fda_core.reports.figures import Table, render_table
from fda_core.reports.public_names import model_name
from fda_core.reports.quantities import number, percent
from fda_core.reports.settings import parameter_rows
from fda_core.reports.summary import distance_moved


def render_ingredients(plan: Plan, metrics: Metrics, manifest: Manifest) -> Markup:
    """Return the table of experts and every setting that shaped the result."""
    settings = (
        element("div", element("dt", name), element("dd", value))
        for name, value in parameter_rows(plan, manifest)
    )
    return join(
        [
            element("h3", "Experts"),
            render_table(_experts(plan, metrics), label="Experts"),
            element("h3", "Settings"),
            element("dl", join(settings), class_="settings"),
        ]
    )


def _experts(plan: Plan, metrics: Metrics) -> Table:
    constructed, adapted = bool(metrics.construction), bool(metrics.adaptation)
    head = ["expert", "model", "weight", "moved (÷ base)"]
    head += ["alignment"] * constructed + ["drift, start", "drift, result"] * adapted
    rows = []
    for expert in plan.experts:
        drifts = [a.drift[expert.name] for a in metrics.adaptation if expert.name in a.drift]
        row = [
            expert.name,
            model_name(_given(plan, expert.name)),
            f"{expert.weight:g}",
            percent(distance_moved(metrics, expert.name), digits=2),
        ]
        if constructed:
            best = (c.alignment_best for c in metrics.construction if c.expert == expert.name)
            row.append(number(mean(best)))
        if adapted:
            row.append(number(mean(drift.start for drift in drifts)))
            row.append(number(mean(drift.result for drift in drifts)))
        rows.append(row)
    return Table(head=tuple(head), rows=rows, text_columns=2)


def _given(plan: Plan, name: str) -> str:
    """Return the address a user gave for an expert."""
    return next((e.model for e in plan.recipe.experts if e.name == name), name)
