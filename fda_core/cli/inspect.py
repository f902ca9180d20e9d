"""`fda inspect`: a checkpoint from its headers."""

from collections import Counter
from collections.abc import Mapping

from rich.markup import escape

from fda_core.checkpoints.adapters import RawAdapter, is_adapter, open_adapter
from fda_core.checkpoints.index import RawCheckpoint, open_checkpoint
from fda_core.checkpoints.layers import Family
from fda_core.checkpoints.unlisted import family_of_checkpoint
from fda_core.cli.console import out, print_json, size
from fda_core.cli.options import here
from fda_core.contract.plan import TensorEntry
from fda_core.contract.uris import normalise
from fda_core.errors import UnknownArchitecture
from fda_core.storage.base import Storage


def inspect_checkpoint(uri: str, storage: Storage, *, as_json: bool) -> None:
    """Print what the headers of a checkpoint show."""
    address = normalise(uri, cwd=here())
    if is_adapter(storage, address):
        facts = _adapter_facts(open_adapter(storage, address))
    else:
        facts = _facts(open_checkpoint(storage, address))
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if key in ("tensors", "targets"):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{name} {count}" for name, count in value.items())
        if key == "bytes" and isinstance(value, int):
            shown = size(value)
        out.print(f"[bold]{key:<12}[/] {escape(str(shown))}", soft_wrap=True)


def _adapter_facts(raw: RawAdapter) -> dict[str, object]:
    return {
        "uri": raw.uri,
        "adapter": raw.describe(),
        "base_model": raw.config.base_model,
        "task": raw.config.task,
        **_sizes(raw),
        "ranks": list(raw.ranks),
        "scales": list(raw.scales),
        "targets": sorted(raw.targets),
        "whole": sorted(raw.whole),
        "tensors": _places(raw.tensors),
    }


def _sizes(raw: RawCheckpoint | RawAdapter) -> dict[str, object]:
    entries = raw.tensors.values()
    return {
        "files": list(raw.files),
        "tensor_count": len(entries),
        "parameters": sum(entry.numel for entry in entries),
        "bytes": sum(entry.size_bytes for entry in entries),
        "dtypes": dict(Counter(entry.dtype for entry in entries)),
    }


def _facts(raw: RawCheckpoint) -> dict[str, object]:
    facts: dict[str, object] = {
        "uri": raw.uri,
        "model_type": raw.config.get("model_type"),
        **_sizes(raw),
        "side_files": list(raw.sidecars),
    }
    try:
        family = family_of_checkpoint(raw)
    except UnknownArchitecture as problem:
        facts["family"] = f"unknown ({problem.message})"
    else:
        facts.update(_structure(raw, family))
    facts["tensors"] = _places(raw.tensors)
    return facts


def _places(entries: Mapping[str, TensorEntry]) -> dict[str, object]:
    return {
        name: {"dtype": e.dtype, "shape": list(e.shape), "file": e.file}
        for name, e in sorted(entries.items())
    }


def _structure(raw: RawCheckpoint, family: Family) -> dict[str, object]:
    prefix = family.prefix_of(raw.tensors)
    canonical = {family.canonical(name, prefix): name for name in raw.tensors}
    shapes = {short: raw.tensors[name].shape for short, name in canonical.items()}
    layers = {
        (place[0].name, place[1]) for name in canonical if (place := family.place(name)) is not None
    }
    return {
        "family": family.name,
        "prefix": prefix,
        "layers": len(layers),
        "heads": sorted(name for short, name in canonical.items() if family.is_head(short)),
        "tied": [
            f"{canonical[copy]} = {canonical[source]}"
            for copy, source in family.tied_sources(raw.config, shapes).items()
        ],
        "fda": bool(family.towers) and all(tower.block for tower in family.towers),
    }
