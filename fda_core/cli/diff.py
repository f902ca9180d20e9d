"""`fda diff`: how far one checkpoint is from another, layer by layer."""

import math
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from fda_core.checkpoints.index import RawCheckpoint, open_checkpoint
from fda_core.checkpoints.layers import Family
from fda_core.checkpoints.unlisted import family_of_checkpoint
from fda_core.cli.console import out, print_json
from fda_core.cli.options import here
from fda_core.contract.plan import TensorEntry
from fda_core.contract.uris import normalise
from fda_core.errors import NotSameBase, ShapeMismatch
from fda_core.storage.base import Storage

if TYPE_CHECKING:
    from torch import Tensor

Norms = dict[int | None, list[float]]
"""By layer: ‖B − A‖ and ‖A‖."""

SQUARES = 1e-140, 1e140
"""Largest elements between these have squares, and sums of them, that float64 holds."""


def diff_checkpoints(a: str, b: str, storage: Storage, *, as_json: bool) -> None:
    """Print ‖B − A‖, ‖A‖ and their ratio for every layer and for everything outside."""
    cwd = here()
    first, second = (open_checkpoint(storage, normalise(uri, cwd=cwd)) for uri in (a, b))
    family = family_of_checkpoint(first)
    if family_of_checkpoint(second, like=family) is not family:
        raise NotSameBase(
            f"{a} and {b} are models of different families",
            hint="Compare a checkpoint with its base, or two of one base.",
        )
    ours, theirs = (_names(family, raw) for raw in (first, second))
    apart = [
        name
        for name in sorted(set(ours) & set(theirs))
        if not _comparable(first.tensors[ours[name]], second.tensors[theirs[name]])
    ]
    norms = _norms(storage, first, second, family, ours, theirs)
    rows = [
        {
            "layer": layer,
            "difference": _number(change),
            "norm": _number(norm),
            "relative_change": _number(change / norm) if norm > 0 else None,
        }
        for layer, (change, norm) in sorted(norms.items(), key=lambda i: (i[0] is None, i[0] or 0))
    ]
    only = {
        "only_a": sorted(ours[name] for name in set(ours) - set(theirs)),
        "only_b": sorted(theirs[name] for name in set(theirs) - set(ours)),
        "not_compared": sorted(ours[name] for name in apart),
    }
    if as_json:
        print_json({"layers": rows, **only})
        return
    _print(rows, only)


def _names(family: Family, raw: RawCheckpoint) -> dict[str, str]:
    prefix = family.prefix_of(raw.tensors)
    return {family.canonical(name, prefix): name for name in raw.tensors}


def _norms(
    storage: Storage,
    first: RawCheckpoint,
    second: RawCheckpoint,
    family: Family,
    ours: dict[str, str],
    theirs: dict[str, str],
) -> Norms:
    import torch

    from fda_core.checkpoints.reader import TensorReader
    from fda_core.engine.guards import require_finite

    readers = TensorReader(storage, first), TensorReader(storage, second)
    norms: Norms = {}
    begins = family.first_layers(first.config)
    for name in sorted(set(ours) & set(theirs)):
        one, other = first.tensors[ours[name]], second.tensors[theirs[name]]
        if one.shape != other.shape and not family.is_head(name):
            raise ShapeMismatch(
                f"{ours[name]}: A has {one.shape}, B has {other.shape}",
                hint="Compare a checkpoint with its base, or two of one base.",
                tensor=ours[name],
            )
        if not _comparable(one, other):
            continue
        place = family.place(name)
        layer = begins[place[0].name] + place[1] if place else None
        x = readers[0].read(ours[name], dtype=torch.float64)
        y = readers[1].read(theirs[name], dtype=torch.float64)
        require_finite(x, name=ours[name], whose=first.uri)
        require_finite(y, name=theirs[name], whose=second.uri)
        total = norms.setdefault(layer, [0.0, 0.0])
        total[0] = math.hypot(total[0], _distance(x, y))
        total[1] = math.hypot(total[1], _norm(x))
    return norms


def _distance(x: "Tensor", y: "Tensor") -> float:
    apart = y - x
    if bool(apart.isfinite().all()):
        return _norm(apart)
    return 2.0 * _norm(y / 2.0 - x / 2.0)


def _norm(values: "Tensor") -> float:
    """Return ‖values‖ of finite float64 values, though their squares may not be such numbers."""
    import torch

    largest = float(values.abs().max()) if values.numel() else 0.0
    if largest == 0.0 or SQUARES[0] < largest < SQUARES[1]:
        return float(torch.linalg.vector_norm(values))
    return largest * float(torch.linalg.vector_norm(values / largest))


def _number(value: float) -> float | None:
    """Return a number that JSON can say; None for one above all of float64."""
    return value if math.isfinite(value) else None


def _comparable(one: TensorEntry, other: TensorEntry) -> bool:
    """Say whether two tensors have a distance: floats of one shape, as most are."""
    return one.shape == other.shape and all(e.dtype.startswith(("F", "BF")) for e in (one, other))


def _shown(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _print(rows: list[dict[str, float | None]], only: dict[str, list[str]]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("layer", "‖B − A‖", "‖A‖", "relative change"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            "outside" if row["layer"] is None else str(row["layer"]),
            *(_shown(row[key], ".4g") for key in ("difference", "norm")),
            _shown(row["relative_change"], ".4%"),
        )
    out.print(table)
    for key, names in only.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            shown = escape(", ".join(names[:5]) + more)
            out.print(f"{key.replace('_', ' ').upper()}: {shown}", soft_wrap=True)
