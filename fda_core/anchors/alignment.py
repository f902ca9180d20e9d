"""How well an induced gradient points along the task vector, and the derivative of that.

J = Σ_p 1 − cos(g_p, τ_p), or one cosine over the layer read as one vector (`fda.md` §2,
arXiv 2510.21223 eq. 4). ∂J/∂g has a closed form, which is what construction needs: with
v = ∂J/∂g held fixed, ∇_X J = ∇_X Σ_p ⟨g_p(X), v_p⟩.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fda_core.anchors.distances import NORM_FLOOR
from fda_core.anchors.sums import inner


@dataclass(frozen=True, kw_only=True)
class Directions:
    """The task vector of one layer, ready to be compared with gradients.

    `counted` are the tensors with a direction (τ_p ≠ 0), in sorted order, and `norms` their
    ‖τ_p‖; `unit` has τ_p/‖τ_p‖ of those whose gradient can be anything but zero.
    """

    counted: tuple[str, ...]
    zero: tuple[str, ...]
    unit: Mapping[str, Tensor]
    norms: Mapping[str, float]


def directions(
    base: Mapping[str, Tensor], expert: Mapping[str, Tensor], *, insensitive: frozenset[str]
) -> Directions:
    """Return the layer's task vector by tensor, normalised in float64.

    A tensor the output does not depend on counts with cosine 0 and gives no derivative: its
    computed gradient is rounding noise, and the direction of noise would be followed.
    """
    counted, zero, unit, norms = [], [], {}, {}
    for name in sorted(base):
        delta = (expert[name] - base[name]).double()
        norm = float(torch.linalg.vector_norm(delta))
        if norm == 0.0:
            zero.append(name)
            continue
        counted.append(name)
        norms[name] = norm
        if name not in insensitive:
            unit[name] = (delta / norm).to(base[name].dtype)
    return Directions(counted=tuple(counted), zero=tuple(zero), unit=unit, norms=norms)


def per_tensor(
    gradients: Sequence[Tensor], towards: Directions
) -> tuple[float, dict[str, float], list[Tensor]]:
    """Return J, the cosine of every counted tensor, and v_p = ∂J/∂g_p for `towards.unit`.

    v_p = −(τ̂_p − cos·ĝ_p)/‖g_p‖. Sums are read in float64. J is Σ over counted tensors.
    """
    cosines = dict.fromkeys(towards.counted, 0.0)
    along_unit, sizes = _products(gradients, towards)
    slopes = []
    for k, (name, unit) in enumerate(towards.unit.items()):
        size = max(sizes[k], NORM_FLOOR)
        cosine = along_unit[k] / size
        cosines[name] = cosine
        along = cosine / size**2 if sizes[k] > NORM_FLOOR else 0.0
        slopes.append((gradients[k] * along).add_(unit, alpha=-1.0 / size))
    loss = sum(1.0 - cosines[name] for name in towards.counted)
    return loss, cosines, slopes


def whole_layer(
    gradients: Sequence[Tensor], towards: Directions
) -> tuple[float, dict[str, float], list[Tensor]]:
    """Return J = 1 − cos over the layer as one vector, per-tensor cosines, and v = ∂J/∂g."""
    along_unit, sizes = _products(gradients, towards)
    norms = [towards.norms[name] for name in towards.unit]
    length = sum(norm**2 for norm in towards.norms.values()) ** 0.5
    size = max(sum(each**2 for each in sizes) ** 0.5, NORM_FLOOR)
    cosine = sum(norm * each for norm, each in zip(norms, along_unit, strict=True)) / (
        length * size
    )
    cosines = dict.fromkeys(towards.counted, 0.0)
    slopes = []
    for k, (name, unit) in enumerate(towards.unit.items()):
        cosines[name] = along_unit[k] / max(sizes[k], NORM_FLOOR)
        along = cosine / size**2 if size > NORM_FLOOR else 0.0
        slopes.append((gradients[k] * along).add_(unit, alpha=-norms[k] / (length * size)))
    return 1.0 - cosine, cosines, slopes


OBJECTIVES = {"per_tensor": per_tensor, "layer": whole_layer}


def _products(gradients: Sequence[Tensor], towards: Directions) -> tuple[list[float], list[float]]:
    """Return ⟨g_p, τ̂_p⟩ and ‖g_p‖ of every tensor, with one wait for the device."""
    along = [inner(g, unit) for g, unit in zip(gradients, towards.unit.values(), strict=True)]
    squares = [inner(gradient, gradient) for gradient in gradients]
    numbers = torch.stack(along + squares).tolist()
    return numbers[: len(along)], [square**0.5 for square in numbers[len(along) :]]
