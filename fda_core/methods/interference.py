"""The interference objective of WUDI-Merging and its two minimisers. arXiv 2503.08099.

For one matrix with task vectors τ_e of shape (o, i) and unknown M:

    L(M) = Σ_e ‖(M − τ_e) τ_eᵀ‖² / ‖τ_e‖²,    ∇L = 2 (M C − D),
    C = Σ_e τ_eᵀ τ_e / ‖τ_e‖² (i, i),          D = Σ_e τ_e τ_eᵀ τ_e / ‖τ_e‖² (o, i).

`adam` is the published descent, with C and D formed once (the authors' loop forms them anew
at each step). `filtered` is gradient flow solved in C's eigenbasis, after the closed forms of
the same group's MLLMerging repository: with C = Q Λ Qᵀ and a filter f(λ) between 0 and 1,

    M = M_0 (I − Q f Qᵀ) + D Q (f/λ) Qᵀ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fda_core.errors import NumericsError
from fda_core.methods.elementwise import squared_norm, sum_into_first
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spectral import columns_of, eigh, gram

if TYPE_CHECKING:
    from torch import Tensor

Filter = Callable[["Tensor"], "Tensor"]
"""From all i eigenvalues of C, smallest first, none negative, to f(λ) of the same shape."""


class Measured(NamedTuple):
    """A task vector and its Frobenius norm."""

    delta: Tensor
    norm: float


BETAS = (0.9, 0.999)
EPSILON = 1e-8

SMALLEST_DIVISOR = 1e-8
"""Below it eigenvalues are not divided by, as published."""


def measurable(deltas: Sequence[Tensor], *, name: str) -> list[Measured]:
    """Return the deltas with their norms, without those that count as zero.

    That is a squared norm below the smallest normal number of the dtype: C would divide by it.
    Norms are summed in float64: torch's float32 norm of a large tensor is visibly low, by 0.5 %
    at 59 million elements. Raises `NumericsError` on NaN or infinity.
    """
    measured = []
    for delta in deltas:
        norm = math.sqrt(squared_norm(delta))
        if not math.isfinite(norm):
            raise NumericsError(
                f"{name}: a task vector's norm is {norm}",
                hint="Look for NaN or infinity in this tensor of the experts.",
                tensor=name,
            )
        if norm**2 >= torch.finfo(delta.dtype).tiny:
            measured.append(Measured(delta, norm))
    return measured


def adam(experts: Sequence[Measured], *, start: float, learning_rate: float, steps: int) -> Tensor:
    """Return M after `steps` of Adam on L from M_0 = start · Σ τ_e, with the full gradient.

    Adam moves an entry by about the learning rate a step, whatever the size of the deltas, so
    the result depends on their absolute size. Overwrites all deltas and works in their memory;
    beyond it in that of C, of D and, with fewer than four deltas, of those missing.

    One expert from its own delta has no gradient and stays. That is said, not computed: M C − D
    leaves rounding where the literal loop has an exact zero, and Adam blows up what it is given.
    """
    if len(experts) == 1 and start == 1:
        return experts[0].delta
    c, d = _c_and_d(experts)
    deltas = [expert.delta for expert in experts]
    merged = sum_into_first(deltas).mul_(start)
    spare = list(deltas[1:4])
    while len(spare) < 3:
        spare.append(torch.empty_like(merged))
    gradient, mean, square = spare[0], spare[1].zero_(), spare[2].zero_()
    for step in range(1, steps + 1):
        torch.mm(merged, c, out=gradient).sub_(d).mul_(2)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        divisor = torch.sqrt(square, out=gradient)
        divisor.div_(math.sqrt(1 - BETAS[1] ** step)).add_(EPSILON)
        merged.addcdiv_(mean, divisor, value=-learning_rate / (1 - BETAS[0] ** step))
    return merged


def filtered(experts: Sequence[Measured], *, start: float, keep: Filter, name: str) -> Tensor:
    """Return M_0 (I − Q f Qᵀ) + D Q (f/λ) Qᵀ with M_0 = start · Σ τ_e and f = keep(λ).

    Factorised in float64 whatever the dtype, in the smaller of two spaces: that of C (i, i),
    or, when all deltas have fewer rows than i, that of the rows' Gram matrix (m·o, m·o), which
    has the same eigenvalues but for zeros. In the first delta's memory; overwrites the others.
    Peak memory beyond the inputs: about four such float64 matrices, in C's space also one
    float64 matrix (o, i).
    """
    rows, columns = experts[0].delta.shape
    if rows * len(experts) < columns:
        return _filtered_in_row_space(experts, start=start, keep=keep, name=name)
    return _filtered_in_column_space(experts, start=start, keep=keep, name=name)


def _filtered_in_column_space(
    experts: Sequence[Measured], *, start: float, keep: Filter, name: str
) -> Tensor:
    deltas = [expert.delta for expert in experts]
    columns = deltas[0].shape[1]
    c = _zeros(columns, columns, like=deltas[0])
    for delta, norm in experts:
        c.add_(gram(delta.T), alpha=norm**-2)
    values, vectors = eigh(c, name=name)
    del c
    passed, quotient = _filter_of(values, keep)

    d = _zeros(*deltas[0].shape, like=deltas[0])
    for delta, norm in experts:
        add_cube_(d, delta, divisor=norm**2)
    merged = sum_into_first(deltas).mul_(start)
    for part in columns_of(merged.T):
        first = merged[part].double()
        change = (d[part] @ vectors).mul_(quotient) - (first @ vectors).mul_(passed)
        merged[part] = first.addmm_(change, vectors.T).to(merged.dtype)
    return merged


def _filtered_in_row_space(
    experts: Sequence[Measured], *, start: float, keep: Filter, name: str
) -> Tensor:
    """Solve in the space of the stacked rows T = [τ_e/‖τ_e‖]_e of shape (m·o, i); C = Tᵀ T.

    With B = T Tᵀ = P Λ Pᵀ the eigenvectors Q = Tᵀ P Λ^(-1/2) of C cancel out. From the rows
    W = [‖τ_e‖ I]_e and R = [‖τ_e‖ B_ee]_e of (o, o) blocks come M_0 = start · W T and D = R T:

        M = (start · W + [R P (f/λ) − start · W P f] Pᵀ) T
    """
    deltas = [expert.delta for expert in experts]
    norms = [expert.norm for expert in experts]
    rows, columns = deltas[0].shape
    size = rows * len(deltas)

    def stacked(part: slice) -> Tensor:
        return torch.cat([delta[:, part].double().mul(1 / norm) for delta, norm in experts])

    b = _zeros(size, size, like=deltas[0])
    for part in columns_of(deltas[0], copies=len(deltas)):
        block = stacked(part)
        b.addmm_(block, block.T)
    values, vectors = eigh(b, name=name)
    null = values.new_zeros(columns - size)
    passed, quotient = _filter_of(torch.cat([null, values]), keep)
    passed, quotient = passed[-size:], quotient[-size:]

    change = _zeros(rows, size, like=deltas[0])
    for e, norm in enumerate(norms):
        own = slice(e * rows, (e + 1) * rows)
        change.add_((b[own, own] @ vectors[own]).mul_(quotient), alpha=norm)
        change.sub_(vectors[own] * passed, alpha=start * norm)
    change = change @ vectors.T
    for e, norm in enumerate(norms):
        own = slice(e * rows, (e + 1) * rows)
        change[:, own].diagonal().add_(start * norm)
    merged = deltas[0]
    for part in columns_of(merged, copies=len(deltas)):
        merged[:, part] = (change @ stacked(part)).to(merged.dtype)
    return merged


def _filter_of(values: Tensor, keep: Filter) -> tuple[Tensor, Tensor]:
    """Return f(λ) and f(λ)/λ; rounding below zero is removed first."""
    values = values.clamp(min=0)
    passed = keep(values)
    return passed, passed / values.clamp(min=SMALLEST_DIVISOR)


def _c_and_d(experts: Sequence[Measured]) -> tuple[Tensor, Tensor]:
    """Return C and D in the deltas' dtype; D by way of the smaller Gram matrix."""
    rows, columns = experts[0].delta.shape
    c, d = experts[0].delta.new_zeros(columns, columns), torch.zeros_like(experts[0].delta)
    for delta, norm in experts:
        if rows > columns:
            right = (delta.T @ delta).div_(norm**2)
            c.add_(right)
            d.addmm_(delta, right)
        else:
            c.addmm_(delta.T, delta, alpha=norm**-2)
            d.addmm_((delta @ delta.T).div_(norm**2), delta)
    return c, d


def add_cube_(total: Tensor, delta: Tensor, *, divisor: float) -> None:
    """Add τ τᵀ τ / divisor, in float64, by way of the smaller Gram matrix."""
    if delta.shape[0] > delta.shape[1]:
        total, delta = total.T, delta.T
    left = gram(delta).div_(divisor)
    for part in columns_of(delta):
        total[:, part].addmm_(left, delta[:, part].double())


def _zeros(*shape: int, like: Tensor) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=like.device)
