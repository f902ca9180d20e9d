"""Facts about a merge in words, the same for the report and the model card."""

from collections.abc import Iterator, Mapping

import yaml

from fda_core.contract.artifacts import Manifest, Metrics
from fda_core.contract.plan import Plan
from fda_core.reports.public_names import model_name, public_text

PAPER_URL = "https://arxiv.org/abs/2510.21223"
PAPER_TITLE = "Model Merging with Functional Dual Anchors"


def output_name(plan: Plan) -> str:
    """Return how the merged model is called."""
    return model_name(plan.output)


def method_title(metrics: Metrics) -> str:
    """Return the method in words, with FDA's start."""
    if metrics.method != "fda":
        return metrics.method
    start = f", started from {metrics.start}" if metrics.start else ""
    return f"Functional Dual Anchors (fda){start}"


def is_fda(metrics: Metrics) -> bool:
    """Say whether the method is the one of the paper."""
    return metrics.method == "fda"


def parameter_rows(plan: Plan, manifest: Manifest) -> list[tuple[str, str]]:
    """Return every setting that shaped the result, nested ones as `construct.steps`."""
    recipe = plan.recipe
    rows = list(_flat(manifest.parameters))
    for expert in recipe.experts:
        rows += _flat(expert.parameters, f"experts.{expert.name}.")
    rows += [
        ("outside", recipe.outside),
        ("heads", recipe.heads),
        ("vocabulary", recipe.vocabulary),
        ("dtype.compute", recipe.dtype.compute),
        ("dtype.output", recipe.dtype.output),
        ("seed", str(manifest.seed)),
    ]
    return [(name, public_text(plan, value)) for name, value in rows]


def notices(plan: Plan, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the warnings and the notes of plan and run, each once, without local paths."""
    warnings = dict.fromkeys([*plan.warnings, *manifest.warnings])
    notes = dict.fromkeys([*plan.notes, *manifest.notes])
    return [public_text(plan, text) for text in warnings], [
        public_text(plan, text) for text in notes if text not in warnings
    ]


def weights_bytes(plan: Plan, manifest: Manifest) -> int:
    """Return the size of the merged weights, heads not counted."""
    written = sum(
        file.size_bytes
        for path, file in manifest.outputs.items()
        if path.endswith(".safetensors") and "/" not in path
    )
    return written or sum(shard.size_bytes for shard in plan.shards)


def output_dtypes(plan: Plan) -> str:
    """Return the dtypes of the output's tensors, the commonest first."""
    elements: dict[str, int] = {}
    for tensor in plan.tensors:
        count = 1
        for axis in tensor.shape:
            count *= axis
        elements[tensor.dtype] = elements.get(tensor.dtype, 0) + count
    return ", ".join(sorted(elements, key=lambda name: (-elements[name], name)))


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")
