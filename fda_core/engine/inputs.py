"""Open the inputs of a merge from their headers, and match every expert to the base.

Nothing is skipped: a tensor is shared, set aside as a head, left out by a stated rule, or
the reason for a refusal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from fda_core.checkpoints.adapters import RawAdapter, is_adapter, open_adapter
from fda_core.checkpoints.dtypes import FLOATS
from fda_core.checkpoints.index import RawCheckpoint, open_checkpoint
from fda_core.checkpoints.layers import Family, Tower
from fda_core.checkpoints.unlisted import family_of_checkpoint, is_integer_buffer, is_unlisted
from fda_core.contract.plan import PinnedCheckpoint, PlannedAdapter, PlannedExpert, TensorEntry
from fda_core.contract.recipe import Expert, Recipe
from fda_core.engine.adapter_targets import (
    AdapterNames,
    adapter_config,
    low_rank_updates,
    updated_heads,
)
from fda_core.engine.config_differences import check_function, tuned_differences
from fda_core.engine.tokenizer_differences import tokenizer_warnings
from fda_core.engine.vocabulary import HINT as VOCABULARY_HINT
from fda_core.engine.vocabulary import rows_differ, rows_note
from fda_core.errors import (
    CheckpointError,
    MissingTensor,
    NotSameBase,
    ShapeMismatch,
    UnexpectedTensor,
    UnsupportedAdapter,
    UnsupportedDtype,
)
from fda_core.storage.base import Storage

UNQUANTISED_HINT = "Merge the unquantised checkpoints."


@dataclass(frozen=True, kw_only=True)
class Opened:
    """One checkpoint with its tensors by canonical name."""

    whose: str
    pinned: PinnedCheckpoint
    family: Family
    names: Mapping[str, str]
    """Canonical name to name on disk."""
    adapter: PlannedAdapter | None = None
    """Set for an adapter, whose names are of whole tensors only; it has all others of the base."""


@dataclass(kw_only=True)
class Matched:
    """The base, the experts, and what was noticed on the way."""

    base: Opened
    experts: list[PlannedExpert]
    vocabulary: Literal["refuse", "base"] = "refuse"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def open_inputs(recipe: Recipe, storage: Storage) -> Matched:
    """Open base and experts at once and match them, or raise what does not fit."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        opening = pool.submit(open_checkpoint, storage, recipe.base)
        raw = pool.map(lambda expert: _open_expert(storage, expert.model), recipe.experts)
        base = _read("base", opening.result())
        experts = list(raw)
    opened = [_read_any(e.name, r, base) for e, r in zip(recipe.experts, experts, strict=True)]
    _check_layers(base)
    matched = Matched(base=base, experts=[], vocabulary=recipe.vocabulary)
    if is_unlisted(base.family):
        matched.notes.append(_unlisted_note(base.family))
    for expert, candidate, found in zip(recipe.experts, opened, experts, strict=True):
        if isinstance(found, RawAdapter):
            matched.notes.append(f"{expert.name}: {found.describe()}")
        matched.experts.append(_match(expert, candidate, matched))
    pins = {expert.name: expert.checkpoint for expert in matched.experts}
    matched.warnings += tokenizer_warnings(base.pinned, pins, storage)
    return matched


def _open_expert(storage: Storage, uri: str) -> RawCheckpoint | RawAdapter:
    return open_adapter(storage, uri) if is_adapter(storage, uri) else open_checkpoint(storage, uri)


def layer_count(family: Family, config: Mapping[str, object], tower: Tower, where: str) -> int:
    """Return how many layers config.json says a tower has."""
    depth = tower.settings(config).get(tower.depth)
    if not isinstance(depth, int) or isinstance(depth, bool) or not 0 < depth < 100_000:
        raise CheckpointError(
            f"{where}: config.json has {tower.depth} = {depth!r}; a {family.name} model needs a "
            "number of layers there",
            hint="Check that config.json belongs to these weights.",
            uri=where,
        )
    return depth


def _read(whose: str, raw: RawCheckpoint, *, base: Opened | None = None) -> Opened:
    family = family_of_checkpoint(raw, like=base.family if base else None)
    if raw.config.get("quantization_config"):
        raise UnsupportedDtype(
            f"{whose}: the weights are quantised (config.json has quantization_config)",
            hint="Merge the unquantised checkpoints and quantise the result.",
            expert=whose,
        )
    prefix = family.prefix_of(raw.tensors)
    names = _canonical_names(whose, raw, family, prefix)
    pinned = PinnedCheckpoint(
        uri=raw.uri,
        family=family.name,
        config=raw.config,
        prefix=prefix,
        files=dict(raw.files),
        tensors=dict(raw.tensors),
        config_file=raw.config_file,
        sidecars=dict(raw.sidecars),
    )
    return Opened(whose=whose, pinned=pinned, family=family, names=names)


def _canonical_names(whose: str, raw: RawCheckpoint, family: Family, prefix: str) -> dict[str, str]:
    """Return every tensor's name on disk by its canonical one.

    A tied tensor that is stored only as its copy goes by what it is a copy of: loaders tie
    either way round, whichever of the two is there.
    """
    names: dict[str, str] = {}
    for name in raw.tensors:
        canonical = family.canonical(name, prefix)
        if canonical in names:
            raise CheckpointError(
                f"{whose}: {names[canonical]!r} and {name!r} are two spellings of one tensor",
                hint="Remove the one that is out of date.",
                expert=whose,
                tensor=name,
            )
        names[canonical] = name
    for copy, source in family.tied_pairs(raw.config):
        if copy in names and source not in names:
            names[source] = names.pop(copy)
    return names


def _read_any(whose: str, raw: RawCheckpoint | RawAdapter, base: Opened) -> Opened:
    return (
        _read_adapter(whose, raw, base)
        if isinstance(raw, RawAdapter)
        else _read(whose, raw, base=base)
    )


def _read_adapter(whose: str, raw: RawAdapter, base: Opened) -> Opened:
    """Return an adapter as its own tensors and updates, with what config.json would say."""
    names = AdapterNames(raw, base, whose=whose)
    return Opened(
        whose=whose,
        pinned=PinnedCheckpoint(
            uri=raw.uri,
            family=base.family.name,
            config=adapter_config(raw, base.pinned.config),
            prefix=names.prefix,
            files=dict(raw.files),
            tensors=dict(raw.tensors),
            sidecars={},
        ),
        family=base.family,
        names=names.whole,
        adapter=PlannedAdapter(
            base_model=raw.config.base_model,
            updates=low_rank_updates(raw, base, names, whose=whose),
        ),
    )


def _check_layers(base: Opened) -> None:
    """Refuse a base whose layers are not those its config describes."""
    parts: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for canonical, name in base.names.items():
        entry = base.pinned.tensors[name]
        if entry.dtype not in FLOATS and _is_weight(base.family, canonical, entry):
            raise UnsupportedDtype(
                f"base: {name} has dtype {entry.dtype}; weights are merged in floating point",
                hint=UNQUANTISED_HINT,
                tensor=name,
            )
        place = base.family.place(canonical)
        if place is None:
            continue
        tower, layer, part = place
        parts.setdefault(tower.name, {}).setdefault(layer, {})[part] = entry.shape
    if is_unlisted(base.family):
        return
    for tower in base.family.towers:
        depth = layer_count(base.family, base.pinned.config, tower, base.pinned.uri)
        _check_tower(tower, depth, parts.get(tower.name, {}), base.pinned.tensors)


def _is_weight(family: Family, canonical: str, entry: TensorEntry) -> bool:
    """Say whether a tensor is a weight, however it is stored, and no buffer such as positions."""
    if family.is_head(canonical) or family.is_buffer(canonical):
        return False
    named = canonical.endswith(".weight") or family.place(canonical) is not None
    return named or entry.dtype in FLOATS or entry.dtype.startswith("F8_")


def _check_tower(
    tower: Tower,
    depth: int,
    found: Mapping[int, Mapping[str, tuple[int, ...]]],
    names: Iterable[str],
) -> None:
    if sorted(found) != list(range(depth)):
        lacking = sorted(set(range(depth)) - set(found))
        extra = sorted(set(found) - set(range(depth)))
        what = f"layer {lacking[0]} is missing" if lacking else f"layer {extra[0]} is one too many"
        if not found:
            what = f"no name is that of a layer; one is {min(names)}"
        raise MissingTensor(
            f"base: config.json says {depth} layers ({tower.depth}), the weights have "
            f"{len(found)}: {what}",
            hint="Check that config.json and the weights belong together.",
            layer=lacking[0] if lacking else extra[0],
        )
    second = found[min(1, depth - 1)]
    more = {p: shape for p, shape in second.items() if tower.module_of(p) in tower.not_first}
    usual = {**more, **found[0]}
    for layer in range(1, depth):
        if found[layer] != usual:
            odd = sorted(set(found[layer].items()) ^ set(usual.items()))[0]
            raise MissingTensor(
                f"base: layer {layer} does not have the same tensors as layer 0: {odd[0]} {odd[1]}",
                hint="Check that all shards of the base are there and of one model.",
                layer=layer,
                tensor=odd[0],
            )


def _match(expert: Expert, found: Opened, matched: Matched) -> PlannedExpert:
    """Return the expert with its names mapped to the base's, or refuse it."""
    base = matched.base
    _same_model(base, found)
    matched.warnings.extend(_tuned_otherwise(base, found))
    if found.pinned.prefix != base.pinned.prefix:
        matched.notes.append(_prefix_note(base, found))
    _check_expert_layers(base, found)
    names: dict[str, str] = {}
    for canonical, name in base.names.items():
        if base.family.is_head(canonical) or base.family.is_buffer(canonical):
            continue
        if canonical in found.names:
            own = found.names[canonical]
            ours, theirs = base.pinned.tensors[name], found.pinned.tensors[own]
            if matched.vocabulary == "base" and rows_differ(base.family, canonical, ours, theirs):
                matched.notes.append(rows_note(name, ours, theirs, whose=expert.name))
                theirs = theirs.model_copy(update={"shape": ours.shape})
            _check_pair(name, ours, theirs, found.whose, base)
            if _is_copy(base, canonical, name) != _is_copy(found, canonical, own):
                matched.notes.append(
                    f"{expert.name}: its {own} stands for the base's {name}, which is tied to it"
                )
            names[name] = own
        elif found.adapter is not None:
            names[name] = name
    _check_whole_copies(base, found)
    heads, strange = _own_tensors(base, found)
    updated = updated_heads(base, found)
    names |= updated
    if strange:
        matched.warnings.append(
            f"{expert.name}: {len(strange)} tensors outside the layers that the base lacks are "
            f"set aside with its heads: {_some(strange)}"
        )
    return PlannedExpert(
        name=expert.name,
        weight=expert.weight,
        checkpoint=found.pinned,
        names=names,
        heads=tuple(sorted({*heads, *strange} - set(updated.values()) | set(updated))),
        adapter=found.adapter,
    )


def _same_model(base: Opened, found: Opened) -> None:
    if found.family.name != base.family.name:
        raise NotSameBase(
            f"expert {found.whose!r} is a {found.family.name} model, the base is "
            f"{base.family.name}",
            hint="All experts must be fine-tuned from the base.",
            expert=found.whose,
        )
    for tower in base.family.towers:
        ours, theirs = (tower.settings(c.pinned.config) for c in (base, found))
        for key in (tower.depth, tower.width):
            if theirs.get(key) != ours.get(key):
                raise NotSameBase(
                    f"expert {found.whose!r} has {key} {theirs.get(key)}, the base has "
                    f"{ours.get(key)}",
                    hint="Check that the expert was fine-tuned from this base.",
                    expert=found.whose,
                    key=key,
                )
        check_function(ours, theirs, whose=found.whose)


def _tuned_otherwise(base: Opened, found: Opened) -> Iterator[str]:
    ours, theirs = (_views(base.family, each.pinned.config) for each in (base, found))
    for one, other in zip(ours, theirs, strict=True):
        for difference in tuned_differences(one, other):
            yield f"{found.whose}: its config has {difference}; the output gets the base's"


def _views(family: Family, config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a config as each tower sees it, or as it is where no towers are known."""
    return [tower.settings(config) for tower in family.towers] or [config]


def _check_expert_layers(base: Opened, found: Opened) -> None:
    """Refuse an expert whose layers have a tensor too few or too many."""
    for canonical in base.names:
        if base.family.place(canonical) and canonical not in found.names and not found.adapter:
            alike = _ending_in(canonical, found.names.values())
            raise MissingTensor(
                f"expert {found.whose!r} lacks {base.names[canonical]}, which the base has"
                + (f"; it has {alike}" if alike else ""),
                hint="Save the expert without what was wrapped around the model."
                if alike
                else "Check that all shards of the expert are there and that it was fine-tuned "
                "from this base.",
                tensor=base.names[canonical],
                expert=found.whose,
            )
    for canonical, name in found.names.items():
        if base.family.place(canonical) and canonical not in base.names:
            if is_unlisted(base.family) and is_integer_buffer(name, found.pinned.tensors[name]):
                continue
            raise UnexpectedTensor(
                f"expert {found.whose!r} has {name} inside a layer, which the base lacks",
                hint="Fold adapters into the weights first, or check the base.",
                tensor=name,
                expert=found.whose,
            )


def _check_whole_copies(base: Opened, found: Opened) -> None:
    """Refuse an adapter that brings a tied copy alone: it would be written over by its source."""
    for copy, source in base.family.tied_pairs(base.pinned.config) if found.adapter else ():
        if copy in found.names and source not in found.names and {copy, source} <= set(base.names):
            raise UnsupportedAdapter(
                f"expert {found.whose!r} has {found.names[copy]} whole, which is tied to "
                f"{base.names[source]}",
                hint="Merge it into its base with PEFT's merge_and_unload(), write "
                "tie_word_embeddings: false into all config.json, and give that model.",
                expert=found.whose,
                tensor=base.names[copy],
            )


def _is_copy(checkpoint: Opened, canonical: str, name: str) -> bool:
    """Say whether a name is that of the tied copy, stored in place of the tensor itself."""
    return checkpoint.family.canonical(name, checkpoint.pinned.prefix) != canonical


def _ending_in(canonical: str, names: Iterable[str]) -> str | None:
    """Return the first name that is a canonical one behind a prefix nobody knows."""
    return next((name for name in names if name.endswith(f".{canonical}")), None)


def _check_pair(
    name: str, ours: TensorEntry, theirs: TensorEntry, whose: str, base: Opened
) -> None:
    canonical = base.family.canonical(name, base.pinned.prefix)
    if theirs.shape != ours.shape:
        raise ShapeMismatch(
            f"{name}: expert {whose!r} has {theirs.shape}, base has {ours.shape}",
            hint=VOCABULARY_HINT
            if rows_differ(base.family, canonical, ours, theirs)
            else "Check that the expert was fine-tuned from this base.",
            tensor=name,
            expert=whose,
        )
    if (ours.dtype in FLOATS) != (theirs.dtype in FLOATS):
        raise UnsupportedDtype(
            f"{name}: expert {whose!r} has dtype {theirs.dtype}, base has {ours.dtype}; weights "
            "are merged in floating point",
            hint=UNQUANTISED_HINT,
            tensor=name,
            expert=whose,
        )


def _own_tensors(base: Opened, found: Opened) -> tuple[list[str], list[str]]:
    """Return the expert's head tensors, and its other tensors that the base lacks."""
    heads, strange = [], []
    for canonical, name in found.names.items():
        if base.family.is_head(canonical):
            heads.append(name)
        elif canonical not in base.names and not base.family.is_buffer(canonical):
            strange.append(name)
    return heads, strange


def _unlisted_note(family: Family) -> str:
    stacks = [f"{tower.found[0]} in {tower.name}" for tower in family.towers if tower.found]
    return (
        f"{family.name} is no family that is described here: its layers "
        f"({', '.join(stacks) or 'none'}) and heads are told by their names"
    )


def _prefix_note(base: Opened, found: Opened) -> str:
    ours = base.pinned.prefix
    theirs = found.pinned.prefix
    if ours and not theirs:
        return f"{found.whose}: its names lack the base's prefix {ours!r}; matched without it"
    if theirs and not ours:
        return f"{found.whose}: its names carry the prefix {theirs!r}, which the base's lack; \
matched without it"
    return f"{found.whose}: its prefix {theirs!r} stands for the base's {ours!r}"


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
