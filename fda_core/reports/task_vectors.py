"""Task-vector measurements, one for every layer.

Units measure the tensors of their own shard, so what lies outside of layers can come in
several pieces. Norms and cosines of pieces add up exactly; their ratios are averaged by the
pieces' squared base norms, since their element counts are not kept.
"""

import math
from collections.abc import Sequence

from fda_core.contract.artifacts import Metrics, TaskVectorMetrics


def vectors_by_layer(metrics: Metrics) -> list[TaskVectorMetrics]:
    """Return one measurement a layer, in order, and outside last."""
    pieces: dict[int | None, list[TaskVectorMetrics]] = {}
    for piece in metrics.task_vectors:
        pieces.setdefault(piece.layer, []).append(piece)
    places = sorted(pieces, key=lambda layer: (layer is None, layer or 0))
    return [_joined(pieces[layer]) for layer in places]


def norm_ratios(vectors: TaskVectorMetrics) -> dict[str, float | None]:
    """Return every expert's task-vector norm divided by the base's; None for a zero base."""
    base = vectors.base_norm
    return {name: norm / base if base > 0 else None for name, norm in vectors.norms.items()}


def pair_cosines(vectors: TaskVectorMetrics) -> list[float | None]:
    """Return the cosines of all pairs, each once: (0, 1), (0, 2), ..., (1, 2), ..."""
    return [
        value
        for row, cosines in enumerate(vectors.cosines)
        for column, value in enumerate(cosines)
        if column > row
    ]


def _joined(pieces: Sequence[TaskVectorMetrics]) -> TaskVectorMetrics:
    if len(pieces) == 1:
        return pieces[0]
    names = list(dict.fromkeys(name for piece in pieces for name in piece.norms))
    shares = _shares([piece.base_norm**2 for piece in pieces])
    return TaskVectorMetrics(
        layer=pieces[0].layer,
        base_norm=math.hypot(*(piece.base_norm for piece in pieces)),
        norms={n: math.hypot(*(piece.norms.get(n, 0.0) for piece in pieces)) for n in names},
        cosines=_joined_cosines(pieces),
        sign_conflict_ratio=_weighed([p.sign_conflict_ratio for p in pieces], shares),
        rounded_away_ratio=_weighed([p.rounded_away_ratio for p in pieces], shares),
    )


def _joined_cosines(pieces: Sequence[TaskVectorMetrics]) -> tuple[tuple[float | None, ...], ...]:
    """Return the cosines of the joined vectors, by adding up inner products."""
    count = max(len(piece.cosines) for piece in pieces)
    return tuple(
        tuple(_joined_cosine(pieces, row, column) for column in range(count))
        for row in range(count)
    )


def _joined_cosine(pieces: Sequence[TaskVectorMetrics], row: int, column: int) -> float | None:
    product = first = second = 0.0
    for piece in pieces:
        norms = list(piece.norms.values())
        product += (piece.cosines[row][column] or 0.0) * norms[row] * norms[column]
        first, second = math.hypot(first, norms[row]), math.hypot(second, norms[column])
    return product / (first * second) if first > 0 and second > 0 else None


def _shares(weights: Sequence[float]) -> list[float]:
    whole = math.fsum(weights)
    return [weight / whole if whole > 0 else 1 / len(weights) for weight in weights]


def _weighed(values: Sequence[float], shares: Sequence[float]) -> float:
    return math.fsum(value * share for value, share in zip(values, shares, strict=True))
