"""Vocabularies of different length: refused, or the base's rows kept.

Row k is taken to be the same token in both checkpoints, as it is where tokens were appended.
"""

from fda_core.checkpoints.layers import Family
from fda_core.contract.plan import TensorEntry

HINT = (
    "Their vocabularies differ. `vocabulary: base` in the recipe keeps the base's rows and takes "
    "the expert's as far as both have them."
)


def rows_differ(family: Family, canonical: str, ours: TensorEntry, theirs: TensorEntry) -> bool:
    """Say whether two tensors have one row per token, of equal width, and not equally many."""
    return (
        canonical in family.vocabulary
        and len(ours.shape) > 0
        and ours.shape != theirs.shape
        and ours.shape[1:] == theirs.shape[1:]
    )


def rows_note(name: str, ours: TensorEntry, theirs: TensorEntry, *, whose: str) -> str:
    """Return what a plan says of a tensor whose rows were made to fit."""
    rows, own = ours.shape[0], theirs.shape[0]
    what = (
        f"its rows from {rows} on are left out"
        if own > rows
        else f"it takes no part in the rows from {own} on"
    )
    return f"{whose}: {name} has {own} rows, the base {rows} (vocabulary: base): {what}"
