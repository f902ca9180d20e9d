"""First anchors of a (layer, expert): `weight`, `gaussian` and `spectral` (`fda.md` §2, §6).

All return (n, t, d), or (n, d) with 0 tokens, in the dtype and on the device of the expert's
tensors. Random numbers are drawn on the CPU in float64 from the generator given, so that every
device and dtype starts from the same numbers.
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.update_metric import update_gram
from fda_core.errors import BadParameter

Tensors = Mapping[str, Tensor]


def initial_anchors(
    base: Tensors,
    expert: Tensors,
    *,
    config: ConstructConfig,
    tokens: int,
    width: int,
    generator: Generator,
) -> Tensor:
    """Return the first anchors, shape (n, t, d) = (config.anchors, tokens, width).

    With 0 tokens they are rows without a token axis, (n, d). `config.sigma` is a number here.
    """
    rows = config.anchors * max(tokens, 1)
    shape = (config.anchors, tokens, width) if tokens else (config.anchors, width)
    like = next(iter(expert.values()))
    if config.init == "gaussian":
        assert config.sigma != "search", "a search draws with each sigma it tries"
        drawn = torch.randn(rows, width, generator=generator, dtype=torch.float64) * config.sigma
    elif config.init == "weight":
        drawn = _weight_rows(expert, rows=rows, width=width, generator=generator)
    else:
        drawn = _spectral(
            base, expert, rows=rows, width=width, rank=config.rank, generator=generator
        )
    return drawn.to(device=like.device, dtype=like.dtype).reshape(shape)


def _rows_of_width(tensors: Tensors, width: int) -> Tensor:
    """Return the rows of every matrix whose row length is `width`, stacked, in float64."""
    fitting = [
        tensors[name].detach().to("cpu", torch.float64)
        for name in sorted(tensors)
        if tensors[name].ndim == 2 and tensors[name].shape[1] == width
    ]
    if not fitting:
        raise BadParameter(
            f"the layer has no matrix with rows of length {width} to start anchors from",
            hint="Use construct.init: gaussian.",
            key="method.construct.init",
        )
    return torch.cat(fitting)


def _weight_rows(expert: Tensors, *, rows: int, width: int, generator: Generator) -> Tensor:
    """Draw rows of the expert's matrices without replacement.

    Too few rows are filled up with means of two rows drawn at random.
    """
    pool = _rows_of_width(expert, width)
    order = torch.randperm(pool.shape[0], generator=generator)[:rows]
    drawn = pool[order]
    lacking = rows - drawn.shape[0]
    if lacking > 0:
        pairs = torch.randint(pool.shape[0], (lacking, 2), generator=generator)
        drawn = torch.cat([drawn, pool[pairs].mean(dim=1)])
    return drawn


def _spectral(
    base: Tensors, expert: Tensors, *, rows: int, width: int, rank: int, generator: Generator
) -> Tensor:
    """Draw noise in the head right-singular subspace of the layer's update.

    D as in `update_gram`; D = U S Vᵀ; X = C diag(S_k) V_kᵀ with C ~ N(0, 1), scaled to the
    Frobenius norm of the `weight` init. Only DᵀD, (d, d) in float64, is decomposed.
    """
    scale = torch.linalg.vector_norm(
        _weight_rows(expert, rows=rows, width=width, generator=generator)
    )
    gram = update_gram(base, expert, width=width)
    if not gram.any():
        return _weight_rows(expert, rows=rows, width=width, generator=generator)
    values, vectors = torch.linalg.eigh(gram)
    head = min(rank, width)
    singular = values[-head:].flip(0).clamp_min(0).sqrt()
    directions = _fixed_signs(vectors[:, -head:].flip(1))
    noise = torch.randn(rows, head, generator=generator, dtype=torch.float64)
    drawn = (noise * singular) @ directions.T
    return drawn * (scale / torch.linalg.vector_norm(drawn))


def _fixed_signs(vectors: Tensor) -> Tensor:
    """Return eigenvectors with their largest entry positive: LAPACK leaves the sign open."""
    largest = vectors.abs().argmax(dim=0)
    signs = vectors.gather(0, largest[None]).sign()
    return vectors * signs
