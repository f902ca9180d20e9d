"""Decide what becomes of every tensor of the base, and cut them into shards."""

from collections.abc import Sequence

from fda_core.checkpoints.dtypes import DTYPES, FLOATS
from fda_core.contract.plan import PlannedShard, PlannedTensor, TensorRule
from fda_core.contract.recipe import Recipe
from fda_core.engine.inputs import Matched, Opened

SAFETENSORS_DTYPES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
}
PART_BYTES = 64 * 2**20
"""Size of the pieces in which a merge that ends in one file is worked on."""


def plan_tensors(matched: Matched, recipe: Recipe) -> list[PlannedTensor]:
    """Return one entry per tensor of the base, in the order they will be written.

    Order: outside and heads first, then layers ascending; by name inside each.
    """
    base = matched.base
    first, tied = base.family.first_layers(base.pinned.config), _tied_sources(base)
    planned = [
        _plan_one(canonical, name, matched, recipe, first, tied.get(canonical))
        for canonical, name in base.names.items()
    ]
    for note in _left_out(planned, matched):
        matched.notes.append(note)
    return sorted(planned, key=lambda t: (-1 if t.layer is None else t.layer, t.name))


def _plan_one(
    canonical: str,
    name: str,
    matched: Matched,
    recipe: Recipe,
    first: dict[str, int],
    tied_to: str | None,
) -> PlannedTensor:
    base = matched.base
    entry = base.pinned.tensors[name]
    place = base.family.place(canonical)
    having = tuple(e.name for e in matched.experts if name in e.names)
    if tied_to is not None:
        rule, reason = TensorRule.TIED, "tied"
    else:
        rule, reason = _rule(canonical, entry.dtype, place is not None, having, base, recipe)
    return PlannedTensor(
        name=name,
        layer=None if place is None else first[place[0].name] + place[1],
        part=name if place is None else place[2],
        rule=rule,
        reason=reason,
        tied_to=tied_to,
        experts=having if rule in (TensorRule.MERGE, TensorRule.AVERAGE) else (),
        dtype=_output_dtype(entry.dtype, recipe),
        shape=entry.shape,
        transposed=place is not None and len(entry.shape) == 2 and place[0].is_transposed(place[2]),
    )


def _rule(
    canonical: str,
    dtype: str,
    in_layer: bool,
    having: tuple[str, ...],
    base: Opened,
    recipe: Recipe,
) -> tuple[TensorRule, str]:
    if base.family.is_head(canonical):
        return TensorRule.BASE, "head"
    if dtype not in FLOATS or base.family.is_buffer(canonical):
        return TensorRule.BASE, "buffer"
    if in_layer:
        return TensorRule.MERGE, "layer"
    if not having:
        return TensorRule.BASE, "no expert has it"
    if recipe.outside == "base":
        return TensorRule.BASE, "outside"
    if recipe.outside == "average":
        return TensorRule.AVERAGE, "outside"
    return TensorRule.MERGE, "outside"


def _tied_sources(base: Opened) -> dict[str, str]:
    """Return, by canonical name of a tied copy, the base's name of what it is a copy of."""
    shapes = {canonical: base.pinned.tensors[name].shape for canonical, name in base.names.items()}
    tied = base.family.tied_sources(base.pinned.config, shapes)
    return {copy: base.names[source] for copy, source in tied.items()}


def _output_dtype(dtype: str, recipe: Recipe) -> str:
    if recipe.dtype.output == "as_base" or dtype not in FLOATS:
        return dtype
    return SAFETENSORS_DTYPES[recipe.dtype.output]


def _left_out(planned: Sequence[PlannedTensor], matched: Matched) -> list[str]:
    """Return a note for every group of tensors that is not simply merged."""
    notes = []
    groups: dict[str, list[str]] = {}
    for tensor in planned:
        if tensor.rule is TensorRule.BASE:
            groups.setdefault(f"kept from the base ({tensor.reason})", []).append(tensor.name)
        elif tensor.rule is TensorRule.TIED:
            groups.setdefault(f"tied: written as {tensor.tied_to}", []).append(tensor.name)
        elif 0 < len(tensor.experts) < len(matched.experts):
            groups.setdefault(f"merged from {', '.join(tensor.experts)} alone", []).append(
                tensor.name
            )
    for what, names in groups.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        notes.append(f"{what}: {shown}")
    return notes


def tensor_bytes(tensor: PlannedTensor) -> int:
    """Return the tensor's length in the output."""
    count = 1
    for axis in tensor.shape:
        count *= axis
    return count * DTYPES[tensor.dtype].size_bytes


def plan_shards(
    tensors: Sequence[PlannedTensor], recipe: Recipe, *, one_layer_each: bool
) -> tuple[list[PlannedShard], bool]:
    """Return the shards and whether publishing joins them into one file.

    A layer is never split. Below `recipe.shard_size` the output is one file, made of small
    pieces that different workers can write; above, every shard is final as written.
    """
    total = sum(tensor_bytes(tensor) for tensor in tensors)
    single = total <= recipe.shard_size
    limit = PART_BYTES if single else recipe.shard_size
    groups: list[list[PlannedTensor]] = []
    sizes: list[int] = []
    for run in _runs(tensors):
        size = sum(tensor_bytes(tensor) for tensor in run)
        fits = bool(groups) and sizes[-1] + size <= limit
        apart = one_layer_each and run[0].layer is not None
        if fits and not apart:
            groups[-1].extend(run)
            sizes[-1] += size
        else:
            groups.append(list(run))
            sizes.append(size)
    return [_shard(k, group, len(groups), single) for k, group in enumerate(groups, 1)], single


def _runs(tensors: Sequence[PlannedTensor]) -> list[list[PlannedTensor]]:
    """Return what may not be split: whole layers, and single tensors outside."""
    runs: list[list[PlannedTensor]] = []
    for tensor in tensors:
        if runs and tensor.layer is not None and runs[-1][0].layer == tensor.layer:
            runs[-1].append(tensor)
        else:
            runs.append([tensor])
    return runs


def _shard(number: int, group: Sequence[PlannedTensor], count: int, single: bool) -> PlannedShard:
    return PlannedShard(
        number=number,
        file=f"part-{number:05d}.safetensors"
        if single
        else f"model-{number:05d}-of-{count:05d}.safetensors",
        layers=tuple(sorted({t.layer for t in group if t.layer is not None})),
        tensors=tuple(t.name for t in group),
        size_bytes=sum(tensor_bytes(t) for t in group),
    )
