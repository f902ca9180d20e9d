"""Figures of task vectors against plain float64 arithmetic."""

import pytest
import torch

from fda_core.engine.task_vector_stats import BLOCK, TaskVectorStats
from fda_core.errors import NonFinite

SHAPES = [(3, 5), (BLOCK // 64 + 1, 64), (7,)]


def _tensors(seed=0):
    numbers = torch.Generator().manual_seed(seed)
    for shape in SHAPES:
        base = torch.randn(shape, generator=numbers)
        deltas = [0.1 * torch.randn(shape, generator=numbers) for _ in range(3)]
        for delta in deltas:
            delta[torch.rand(shape, generator=numbers) < 0.3] = 0.0
        yield base, deltas


def _filled():
    stats = TaskVectorStats(4, "abc")
    for base, deltas in _tensors():
        stats.add(base, deltas, "abc")
    return stats.result()


def _flat(k):
    return torch.cat([(t[1][k] if k < 3 else t[0]).flatten().double() for t in _tensors()])


def test_norms_and_cosines_are_those_of_the_joined_vectors():
    found = _filled()
    assert found.layer == 4
    assert found.base_norm == pytest.approx(float(_flat(3).norm()), rel=1e-6)
    for row in range(3):
        name = "abc"[row]
        assert found.norms[name] == pytest.approx(float(_flat(row).norm()), rel=1e-6)
        for column in range(3):
            cosine = torch.nn.functional.cosine_similarity(_flat(row), _flat(column), dim=0)
            assert found.cosines[row][column] == pytest.approx(float(cosine), abs=1e-6)


def test_conflicts_are_a_share_of_the_changed_elements():
    stacked = torch.stack([_flat(k) for k in range(3)])
    conflict = ((stacked > 0).any(0) & (stacked < 0).any(0)).sum()
    changed = (stacked != 0).any(0).sum()
    assert _filled().sign_conflict_ratio == pytest.approx(int(conflict) / int(changed), rel=1e-12)


def test_an_expert_that_lacks_a_tensor_adds_nothing_there():
    stats = TaskVectorStats(None, ["a", "b"])
    stats.add(torch.ones(4), [torch.ones(4)], ["b"])
    found = stats.result()
    assert found.norms == {"a": 0.0, "b": 2.0}
    assert found.cosines == ((None, None), (None, pytest.approx(1.0)))


def test_lost_are_the_moves_that_the_output_dtype_put_back():
    stats = TaskVectorStats(0, ["a"])
    base = torch.ones(4)
    merged = torch.tensor([1.0, 1.0001, 1.5, 1.0 + 2**-8])
    stats.add(base, [merged - base], ["a"])
    stats.add_result(base, merged, merged.bfloat16())
    assert stats.result().rounded_away_ratio == pytest.approx(2 / 3)


def test_nothing_is_lost_in_the_compute_dtype():
    stats = TaskVectorStats(0, ["a"])
    stats.add_result(torch.zeros(3), torch.ones(3), torch.ones(3))
    assert stats.result().rounded_away_ratio == 0.0


def test_squares_that_overflow_are_refused_by_layer():
    stats = TaskVectorStats(2, ["huge"])
    stats.add(torch.ones(3), [torch.full((3,), 1e30)], ["huge"])
    with pytest.raises(NonFinite, match=r"layer 2.*huge"):
        stats.result()
