"""Finite checks: no NaN or infinity goes in or comes out unnamed."""

import torch
from torch import Tensor

from fda_core.errors import NonFinite


def require_finite(tensor: Tensor, *, name: str, whose: str) -> None:
    """Raise `NonFinite` with the first bad position of a tensor that has one.

    Eight-bit floats are copied to float32 for it.
    """
    if not tensor.is_floating_point():
        return
    if tensor.itemsize == 1:
        tensor = tensor.float()  # torch has neither aminmax nor isfinite of eight-bit floats
    if is_finite(tensor):
        return
    flat = (~tensor.isfinite()).flatten()
    first = int(flat.nonzero()[0])
    position = tuple(int(axis) for axis in torch.unravel_index(torch.tensor(first), tensor.shape))
    value = float(tensor.flatten()[first])
    raise NonFinite(
        f"{whose}: {name}{list(position)} is {value} ({int(flat.sum())} of {tensor.numel()} "
        "elements are not finite)",
        hint="Repair or replace the checkpoint; a merge would spread it."
        if whose != "result"
        else "The method's numbers ran away: lower its scale or learning rate, or use "
        "dtype.compute: float64 or a wider dtype.output.",
        tensor=name,
        expert=whose,
        position=list(position),
        value=str(value),
    )


def require_variances(tensor: Tensor, *, name: str) -> None:
    """Raise `NonFinite` for a batch norm's running variance below zero: it has no square root."""
    if name.rpartition(".")[2] != "running_var" or tensor.numel() == 0:
        return
    least = float(tensor.min())
    if least < 0:
        raise NonFinite(
            f"result: {name} has a variance of {least:g}, of which a batch norm makes NaN",
            hint="Lower the method's scale, or keep the base's statistics with the method's "
            "exclude: ['*.running_mean', '*.running_var'].",
            tensor=name,
            expert="result",
            value=str(least),
        )


def is_finite(tensor: Tensor) -> bool:
    """Say whether a tensor has no NaN and no infinity, in one pass without a copy.

    Smallest and largest element are NaN if any is, and infinite if one is.
    """
    if tensor.numel() == 0:
        return True
    ends = torch.stack(torch.aminmax(tensor))
    return bool(ends.isfinite().all())
