"""Stage II against a plain loop in float64, its two uses, and its degenerate cases."""

import math

import pytest
import torch

from fda_core.anchors.adapt import Coefficients, Elements, adapt
from fda_core.anchors.config import AdaptConfig
from fda_core.anchors.distances import relative_drift
from fda_core.blocks.block import evaluate
from fda_core.errors import Cancelled, NonFinite
from tests.support.layers import layer_pair

N = 10


@pytest.fixture(scope="module")
def pair():
    return layer_pair("vit")


@pytest.fixture(scope="module")
def pool(pair):
    x = torch.randn(N, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, evaluate(pair.block, pair.expert, x, batch=N)


def _fit(pair, variables, pool, *, on_epoch=lambda *_: None, seed=4, **settings):
    return adapt(
        pair.block,
        variables,
        *pool,
        config=AdaptConfig(**settings),
        generator=torch.Generator().manual_seed(seed),
        on_epoch=on_epoch,
    )


def _distance(kind, a, b):
    if kind == "l2":
        return ((a - b) ** 2).sum()
    if kind == "l1":
        return (a - b).abs().sum()
    return (1 - torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))).sum()


def _orders(epochs, seed=4):
    numbers = torch.Generator().manual_seed(seed)
    return [torch.randperm(N, generator=numbers) for _ in range(epochs)]


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_use_a_is_adam_on_the_layers_own_elements(pair, pool, distance):
    made = _fit(pair, Elements(pair.base), pool, epochs=3, batch=4, distance=distance)

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in pair.base.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-5)
    for order in _orders(3):
        for chosen in (order[:4], order[4:8], order[8:]):
            optimiser.zero_grad()
            _distance(distance, pair.block(leaves, pool[0][chosen]), pool[1][chosen]).backward()
            optimiser.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(made.tensors[name], leaf.detach(), rtol=0, atol=1e-12)


def test_a_cosine_takes_the_rate_of_every_minibatch_down_to_nothing(pair, pool):
    made = _fit(pair, Elements(pair.base), pool, epochs=2, batch=4, schedule="cosine")

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in pair.base.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-5)
    halves = [(order[:4], order[4:8], order[8:]) for order in _orders(2)]
    for step, chosen in enumerate(chosen for order in halves for chosen in order):
        optimiser.param_groups[0]["lr"] = 1e-5 * (1 + math.cos(math.pi * step / 6)) / 2
        optimiser.zero_grad()
        ((pair.block(leaves, pool[0][chosen]) - pool[1][chosen]) ** 2).sum().backward()
        optimiser.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(made.tensors[name], leaf.detach(), rtol=1e-9, atol=1e-12)


def test_use_b_is_adam_on_one_coefficient_per_element_of_each_task_vector(pair, pool):
    deltas = [
        {name: pair.expert[name] - pair.base[name] for name in pair.base},
        {name: torch.sin(pair.base[name] * 9) * 0.02 for name in pair.base},
    ]
    variables = Coefficients(pair.base, [(deltas[0], 0.3), (deltas[1], 0.5)])
    made = _fit(pair, variables, pool, epochs=2, batch=N)

    alphas = [
        {name: torch.full_like(tensor, first).requires_grad_() for name, tensor in delta.items()}
        for delta, first in zip(deltas, (0.3, 0.5), strict=True)
    ]
    leaves = [alpha for group in alphas for alpha in group.values()]
    optimiser = torch.optim.Adam(leaves, lr=1e-2)

    def layer():
        return {
            name: base + sum(a[name] * d[name] for a, d in zip(alphas, deltas, strict=True))
            for name, base in pair.base.items()
        }

    for order in _orders(2):
        optimiser.zero_grad()
        _distance("l2", pair.block(layer(), pool[0][order]), pool[1][order]).backward()
        optimiser.step()
    for name, tensor in layer().items():
        torch.testing.assert_close(made.tensors[name], tensor.detach(), rtol=0, atol=1e-10)


def test_losses_are_sums_over_each_epoch_and_the_end_over_all_anchors(pair, pool):
    made = _fit(pair, Elements(pair.base), pool, epochs=4, batch=N)
    begin = _distance("l2", evaluate(pair.block, pair.base, pool[0], batch=N), pool[1])
    end = _distance("l2", evaluate(pair.block, made.tensors, pool[0], batch=N), pool[1])
    assert len(made.losses) == 5
    assert made.losses[0] == pytest.approx(float(begin), rel=1e-9)
    assert made.losses[-1] == pytest.approx(float(end), rel=1e-9)
    assert made.losses[-1] < made.losses[0]


def test_elements_without_a_delta_cannot_move(pair, pool):
    delta = {name: torch.zeros_like(tensor) for name, tensor in pair.base.items()}
    delta["intermediate.dense.weight"][0, :] = 0.1
    made = _fit(pair, Coefficients(pair.base, [(delta, 1.0)]), pool, epochs=5)
    for name, tensor in made.tensors.items():
        moved = tensor != pair.base[name] + delta[name]
        assert not bool((moved & (delta[name] == 0)).any()), name
    assert bool(
        (
            made.tensors["intermediate.dense.weight"][0]
            != pair.base["intermediate.dense.weight"][0] + 0.1
        ).any()
    )


def test_no_epochs_keep_the_start(pair, pool):
    made = _fit(pair, Elements(pair.base), pool, epochs=0)
    assert all(torch.equal(made.tensors[name], pair.base[name]) for name in pair.base)
    assert len(made.losses) == 1


def test_started_from_the_only_expert_there_is_nothing_to_learn(pair, pool):
    made = _fit(pair, Elements(pair.expert), pool, epochs=1)
    assert made.losses[0] < 1e-20


def test_adaptation_repeats_to_the_bit_and_depends_on_the_seed(pair, pool):
    runs = [_fit(pair, Elements(pair.base), pool, epochs=3, batch=3, seed=s) for s in (4, 4, 5)]
    name = "output.dense.weight"
    assert torch.equal(runs[0].tensors[name], runs[1].tensors[name])
    assert not torch.equal(runs[0].tensors[name], runs[2].tensors[name])


def test_the_base_is_left_as_it_was(pair, pool):
    before = {name: tensor.clone() for name, tensor in pair.base.items()}
    _fit(pair, Elements(pair.base), pool, epochs=2)
    assert all(torch.equal(pair.base[name], before[name]) for name in before)


def test_a_loss_that_is_no_number_names_the_epoch(pair, pool):
    bad = pool[1].clone()
    bad[0, 0, 0] = math.inf
    with pytest.raises(NonFinite, match="epoch 0"):
        _fit(pair, Elements(pair.base), (pool[0], bad), epochs=2)


def test_stopping_is_noticed_within_an_epoch(pair, pool):
    def stop(epoch, _loss):
        if epoch == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        _fit(pair, Elements(pair.base), pool, epochs=9, on_epoch=stop)


def test_drift_is_one_for_the_base_and_nothing_for_the_expert():
    base, expert = torch.zeros(3, 2), torch.ones(3, 2)
    assert relative_drift(base, expert, base) == pytest.approx(1.0)
    assert relative_drift(expert, expert, base) == 0.0
    assert relative_drift(base, base, base) is None
