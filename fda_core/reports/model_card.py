"""README.md of a merged model, in the form model hubs read.

The card travels with the weights, so nothing in it points into the machine that made them.
"""

import re
from collections.abc import Sequence

import yaml

from fda_core.contract.artifacts import Manifest, Metrics
from fda_core.contract.plan import Plan, PlannedExpert
from fda_core.reports.averages import mean
from fda_core.reports.markdown import block, code, plain, table
from fda_core.reports.public_names import hub_id, model_name
from fda_core.reports.quantities import count, duration, number, percent, size
from fda_core.reports.settings import (
    PAPER_TITLE,
    PAPER_URL,
    is_fda,
    method_title,
    notices,
    output_dtypes,
    output_name,
    parameter_rows,
    weights_bytes,
)
from fda_core.reports.sigma_trials import TRIALS_EXPLAINED, trial_table
from fda_core.reports.summary import LayerRow, layer_rows, plateau_sentence, totals

_FDA = (
    "For every layer and expert, Functional Dual Anchors makes a few inputs (anchors) whose "
    "gradient on the base points the way the expert moved, and then fits the merged layer to "
    "what all experts answer on their anchors. No training data is used."
)
_CITATION = f"""\
@article{{shi2025fda,
  title   = {{{PAPER_TITLE}}},
  author  = {{Shi, Kexuan and Wen, Yandong and Liu, Weiyang}},
  journal = {{arXiv preprint arXiv:2510.21223}},
  year    = {{2025}},
  url     = {{{PAPER_URL}}}
}}"""


def render_model_card(plan: Plan, metrics: Metrics, manifest: Manifest) -> str:
    """Return the card: front matter, what was merged and how, how to use and check it."""
    parts = [
        f"---\n{_front_matter(plan, metrics)}---",
        f"# {plain(output_name(plan))}",
        _lead(plan, metrics, manifest),
        _notices(plan, manifest),
        f"## What was merged\n\n{_ingredients(plan)}",
        f"## How\n\n{_method(plan, metrics, manifest)}",
        f"## Layer by layer\n\n{_layers(metrics)}",
        f"## Use\n\n{_use(plan)}",
        f"## Task heads\n\n{_heads(plan)}",
        f"## Reproduce and check\n\n{_reproduce(manifest)}",
        f"## Citation\n\n{block('bibtex', _CITATION)}" if is_fda(metrics) else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(plan: Plan, metrics: Metrics) -> str:
    uris = [plan.recipe.base, *(expert.model for expert in plan.recipe.experts)]
    tags = ["merge", "model-merging", metrics.method]
    if is_fda(metrics):
        tags += ["functional-dual-anchors", "arxiv:2510.21223"]
    front = {
        "library_name": "transformers",
        "tags": list(dict.fromkeys(tags)),
        "base_model": list(dict.fromkeys(hub_id(uri) for uri in uris)),
        "base_model_relation": "merge",
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10**6)


def _lead(plan: Plan, metrics: Metrics, manifest: Manifest) -> str:
    base = code(model_name(plan.recipe.base))
    experts = count(len(plan.experts), "fine-tuned expert")
    dtypes = output_dtypes(plan)
    layers = [count(plan.layers, "layer"), f"width {plan.width}"] if plan.layers else []
    facts = ", ".join(
        [
            *layers,
            size(weights_bytes(plan, manifest)) + (f" of {dtypes} weights" if dtypes else ""),
        ]
    )
    return (
        f"{experts[:1].upper()}{experts[1:]} of {base} merged into one model by "
        f"{plain(method_title(metrics))}. {plan.family} family, {facts}. "
        "Figures of every step are in `merge_report.html`."
    )


def _notices(plan: Plan, manifest: Manifest) -> str:
    warnings, notes = notices(plan, manifest)
    lines = [f"- **Warning.** {plain(text)}" for text in warnings]
    lines += [f"- **Note.** {plain(text)}" for text in notes]
    return "\n".join(lines)


def _ingredients(plan: Plan) -> str:
    base = ("base", "", code(model_name(plan.recipe.base)), "")
    experts = [
        ("expert", code(expert.name), code(model_name(expert.model)), f"{expert.weight:g}")
        for expert in plan.recipe.experts
    ]
    origin = (
        "The licences of the base and of the experts apply to this model; this card states none."
    )
    return f"{table(('role', 'name', 'model', 'weight'), [base, *experts], words=3)}\n\n{origin}"


def _method(plan: Plan, metrics: Metrics, manifest: Manifest) -> str:
    rows = [(code(name), code(value)) for name, value in parameter_rows(plan, manifest)]
    parts = [
        _FDA if is_fda(metrics) else "",
        f"Method `{metrics.method}`, with these settings:",
        table(("setting", "value"), rows, words=2),
    ]
    return "\n\n".join(part for part in parts if part)


def _layers(metrics: Metrics) -> str:
    rows = layer_rows(metrics)
    measured = bool(metrics.construction or metrics.adaptation)
    reading = (
        "Means over experts. *Alignment* is the cosine between the update the anchors ask for "
        "and the expert's own, 1 at best. *Drift* is the distance from the expert as a share of "
        "the base's: 0 is the expert, 1 the base."
        if measured
        else f"The method `{metrics.method}` makes no anchors, so alignment and drift do not exist."
    )
    head = ["layer", "moved (÷ base)", "sign conflicts"]
    more = ("alignment, start", "alignment", "drift, start", "drift, result", "construct", "adapt")
    cells = [_layer_cells(row, measured=measured) for row in rows]
    if measured:
        head, cells = [*head, *more], [*cells, _mean_cells(metrics)]
    plateau = plateau_sentence(metrics)
    if plateau:
        head.append("steps")
        cells = [(*row, cell) for row, cell in zip(cells, _step_cells(rows), strict=True)]
    parts = [reading, table(head, cells), plateau, *_trials(metrics)]
    return "\n\n".join(part for part in parts if part)


def _step_cells(rows: Sequence[LayerRow]) -> list[str]:
    """Return a cell a layer, then their mean."""
    steps = [row.construct_steps for row in rows]
    inside = ["" if row.layer is None else number(row.construct_steps, digits=0) for row in rows]
    return [*inside, f"**{number(mean(steps), digits=0)}**"]


def _trials(metrics: Metrics) -> list[str]:
    found = trial_table(metrics)
    return [TRIALS_EXPLAINED, table(found.head, found.rows, words=2)] if found else []


def _layer_cells(row: LayerRow, *, measured: bool) -> tuple[str, ...]:
    cells = (row.name, percent(row.task_vector_ratio, digits=2), percent(row.sign_conflict_ratio))
    if not measured:
        return cells
    inside = row.layer is not None
    return (
        *cells,
        number(row.alignment_start),
        number(row.alignment_best),
        number(row.drift_start),
        number(row.drift_result),
        duration(row.construct_seconds) if inside else "",
        duration(row.adapt_seconds) if inside else "",
    )


def _mean_cells(metrics: Metrics) -> tuple[str, ...]:
    whole = totals(metrics)
    rows = [row for row in layer_rows(metrics) if row.layer is not None]
    cells = (
        "mean",
        percent(whole.task_vector_ratio, digits=2),
        percent(whole.sign_conflict_ratio),
        number(whole.alignment_start),
        number(whole.alignment_best),
        number(whole.drift_start),
        number(whole.drift_result),
        duration(sum(row.construct_seconds for row in rows) / max(1, len(rows))),
        duration(sum(row.adapt_seconds for row in rows) / max(1, len(rows))),
    )
    return tuple(f"**{cell}**" for cell in cells)


def _use(plan: Plan) -> str:
    kind = _architecture(plan.base.config)
    folder = _quoted(output_name(plan))
    text = f"from transformers import {kind}\n\nmodel = {kind}.from_pretrained({folder})"
    return block("python", text)


def _heads(plan: Plan) -> str:
    if plan.recipe.heads == "drop":
        return (
            "Task heads are never merged, and this merge did not keep them: take each head from "
            "its expert."
        )
    having = [expert for expert in plan.experts if expert.heads]
    if not having:
        return "The experts have no task heads of their own."
    rows = [
        (code(expert.name), code(_head_file(expert)), ", ".join(map(code, expert.heads)))
        for expert in having
    ]
    return "\n\n".join(
        [
            "Task heads are never merged. Each expert's own lies aside, under its own names:",
            table(("expert", "file", "tensors"), rows, words=3),
            f"A model with the head of {code(having[0].name)}:",
            block("python", _head_example(plan, having[0])),
        ]
    )


def _head_file(expert: PlannedExpert) -> str:
    return f"heads/{expert.name}.safetensors"


def _head_example(plan: Plan, expert: PlannedExpert) -> str:
    kind = _architecture(expert.checkpoint.config)
    labels = expert.checkpoint.config.get("id2label")
    more = f", num_labels={len(labels)}" if isinstance(labels, dict) and labels else ""
    folder = output_name(plan)
    return f"""\
from safetensors.torch import load_file
from transformers import {kind}

model = {kind}.from_pretrained(
    {_quoted(folder)}{more}, ignore_mismatched_sizes=True
)
head = load_file({_quoted(f"{folder}/{_head_file(expert)}")})
loaded = model.load_state_dict(head, strict=False)
assert not loaded.unexpected_keys, loaded.unexpected_keys"""


def _reproduce(manifest: Manifest) -> str:
    versions = [(code(name), code(version)) for name, version in manifest.versions.items()]
    versions.append(("device", plain(f"{manifest.device}, {count(manifest.threads, 'thread')}")))
    return "\n\n".join(
        [
            block(
                "sh",
                "fda merge merge_recipe.yaml   # the same merge again\n"
                "fda verify .                  # are these the files that were written?",
            ),
            "The recipe names the inputs as they lay where it ran; give your own addresses. The "
            "digests of everything read and written are in `merge_manifest.json`, all numbers in "
            "`merge_metrics.json`. Made with:",
            table(("what", "version"), versions, words=2),
        ]
    )


def _architecture(config: dict[str, object]) -> str:
    """Return the class a checkpoint says it is, or the one that finds out by itself."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else ""
    return first if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(first)) else "AutoModel"


def _quoted(text: str) -> str:
    """Return a Python string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
