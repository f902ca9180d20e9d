"""Which inputs a layer's update speaks of: DᵀD of its matrices, and the metric made of it.

The rows of a task vector lie in the span of the inputs its layer was trained on (`fda.md` §2,
arXiv 2503.08099), so DᵀD stands for their second moments. `spectral` draws first anchors by it;
`metric: update` lets them move by it, too. That is our own: no paper has it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def update_gram(base: Tensors, expert: Tensors, *, width: int) -> Tensor:
    """Return DᵀD, (d, d) in float64 on the CPU; zero without an update.

    D stacks the task vectors of the matrices (outputs, inputs) with rows of length d, each over
    its Frobenius norm.
    """
    gram = torch.zeros(width, width, dtype=torch.float64)
    for name in sorted(expert):
        if expert[name].ndim == 2 and expert[name].shape[1] == width:
            delta = (expert[name] - base[name]).detach().to("cpu", torch.float64)
            norm = torch.linalg.vector_norm(delta)
            if norm > 0:
                delta /= norm
                gram += delta.T @ delta
    return gram


def root_of_update(base: Tensors, expert: Tensors, *, width: int) -> Tensor | None:
    """Return R = (DᵀD)^½ / s₁, symmetric, (d, d) in the expert's dtype and on its device.

    s₁ is D's largest singular value, so that R's is 1. None without an update in such matrices.
    """
    gram = update_gram(base, expert, width=width)
    if not gram.any():
        return None
    values, vectors = torch.linalg.eigh(gram)
    singular = values.clamp_min(0).sqrt()
    root = (vectors * (singular / singular[-1])) @ vectors.T
    like = next(iter(expert.values()))
    return root.to(device=like.device, dtype=like.dtype)
