"""The optimisers of stage I: the polar factor, Muon against its formulas, AdamW against torch."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fda_core.anchors import config as defaults
from fda_core.anchors.config import SIGMAS, ConstructConfig
from fda_core.anchors.construct import Construction, Descent, construct, pose
from fda_core.anchors.optimisers import optimiser_of, polar_factor, rate_share
from fda_core.anchors.sigma_search import construct_from
from tests.support.layers import LayerPair, layer_pair

SHAPES = [(6, 5, 16), (2, 5, 16), (40, 16), (4, 16), (1, 1, 16), (16, 16), (12, 1)]
"""Anchors as a matrix: tall, wide, rows of scope mlp tall and wide, a vector, square, narrow."""


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=numbers, dtype=torch.float64).to(dtype)


def _with_spectrum(rows: int, columns: int, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U S Vᵀ, U and V for singular values of one's own."""
    left = torch.linalg.qr(_random(rows, len(values), seed=1))[0]
    right = torch.linalg.qr(_random(columns, len(values), seed=2))[0]
    return left * values @ right.T, left, right


# --- the polar factor -------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (40, 12), (12, 40), (12, 300)])
def test_the_polar_factor_keeps_singular_vectors_and_levels_singular_values(
    rows: int, columns: int
) -> None:
    values = torch.linspace(1.0, 0.05, 12, dtype=torch.float64) * 37.0
    matrix, left, right = _with_spectrum(rows, columns, values)
    found = left.T @ polar_factor(matrix) @ right
    levelled = found.diagonal()
    torch.testing.assert_close(found, torch.diag(levelled), rtol=0, atol=1e-9)
    assert 0.68 < float(levelled.min()) <= float(levelled.max()) < 1.14


def test_every_singular_value_is_the_quintic_five_times_over() -> None:
    values = torch.tensor([1.0, 0.3, 0.05, 0.004, 1e-4, 0.0], dtype=torch.float64)
    matrix, left, right = _with_spectrum(9, 30, values)
    expected = values / torch.linalg.vector_norm(values)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = (left.T @ polar_factor(matrix) @ right).diagonal()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.sampled_from([1e-12, 1, 1e12]))
@settings(max_examples=60, deadline=None)
def test_neither_scale_nor_transposition_matters_to_the_polar_factor(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    matrix = _random(rows, columns, seed=seed)
    found = polar_factor(matrix)
    torch.testing.assert_close(polar_factor(matrix * scale), found, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(polar_factor(matrix.T).T, found, rtol=1e-7, atol=1e-9)
    assert float(torch.linalg.svdvals(found).max()) < 1.21


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_polar_factor_of_zero_is_zero(dtype: torch.dtype) -> None:
    zero = torch.zeros(3, 5, dtype=dtype)
    assert torch.equal(polar_factor(zero), zero)


def test_float32_stays_float32_and_is_close_to_float64() -> None:
    matrix = _random(20, 48)
    single = polar_factor(matrix.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), polar_factor(matrix), rtol=0, atol=1e-4)


# --- schedules --------------------------------------------------------------------------


def test_the_cosine_schedule_falls_from_one_to_zero_through_a_half() -> None:
    shares = [rate_share("cosine", k, steps=200) for k in range(201)]
    assert (shares[0], shares[100], shares[200]) == (1.0, pytest.approx(0.5), 0.0)
    assert shares[50] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert all(later < earlier for earlier, later in pairwise(shares))
    assert rate_share("cosine", 0, steps=1) == 1.0
    assert rate_share("cosine", 300, steps=200) == 0.0
    assert {rate_share("constant", k, steps=200) for k in range(300)} == {1.0}


# --- one optimiser at a time ------------------------------------------------------------


def _moved(start: Tensor, gradients: list[Tensor], **given: object) -> Tensor:
    config = ConstructConfig(**{"steps": len(gradients), **given})
    anchors = start.clone().requires_grad_(True)
    optimiser = optimiser_of(anchors, config=config)
    for gradient in gradients:
        optimiser.step(gradient.clone())
    assert anchors.grad is None
    return anchors.detach()


def _naive_muon(start: Tensor, gradients: list[Tensor], rates: list[float]) -> Tensor:
    """Take steps by the formulas, on the transposed matrix where it has more rows than columns."""
    x = start.reshape(-1, start.shape[-1]).clone()
    unit = (x**2).mean().sqrt()
    m = torch.zeros_like(x)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient.reshape(x.shape)
        m = 0.85 * m + (1 - 0.85) * g
        u = (1 - 0.85) * g + 0.85 * m
        u = u.T if u.shape[0] > u.shape[1] else u
        o = u / (u**2).sum().sqrt()
        for _ in range(5):
            square = torch.einsum("rk,sk->rs", o, o)
            cubic = torch.einsum("rs,sk->rk", square, o)
            quintic = torch.einsum("rs,sk->rk", square, cubic)
            o = 3.4445 * o - 4.7750 * cubic + 2.0315 * quintic
        o = o / (o**2).mean().sqrt()
        o = o if o.shape == x.shape else o.T
        x = x - rate * unit * o
    return x.reshape(start.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("schedule", ["cosine", "constant", None])
def test_muon_follows_its_formulas(shape: tuple[int, ...], schedule: str | None) -> None:
    start = 0.3 * _random(*shape)
    gradients = [_random(*shape, seed=seed) for seed in range(1, 8)]
    shares = [(1 + math.cos(math.pi * k / 7)) / 2 for k in range(7)]
    rates = [0.4 * (1.0 if schedule == "constant" else share) for share in shares]
    found = _moved(start, gradients, optimiser="muon", schedule=schedule, learning_rate=0.4)
    expected = _naive_muon(start, gradients, rates)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def _metric(width: int, seed: int = 9) -> Tensor:
    """Return a symmetric root with singular values from 1 down to nothing."""
    turn = torch.linalg.qr(_random(width, width, seed=seed))[0]
    return turn * torch.linspace(1, 0, width, dtype=torch.float64) ** 2 @ turn.T


def _in_a_metric(start: Tensor, gradients: list[Tensor], root: Tensor, rate: float) -> Tensor:
    anchors = start.clone().requires_grad_(True)
    config = ConstructConfig(
        steps=len(gradients), optimiser="muon", metric="update", learning_rate=rate
    )
    optimiser = optimiser_of(anchors, config=config, metric_root=root)
    for gradient in gradients:
        optimiser.step(gradient.clone())
    return anchors.detach()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_in_a_metric_is_a_step_of_the_coefficients(shape: tuple[int, ...]) -> None:
    """X = C R, ∇_C = ∇_X R: Muon's direction for C, led back to X, in the length Muon has."""
    start, gradient = _random(*shape), _random(*shape, seed=1)
    root = _metric(shape[-1])
    found = _in_a_metric(start, [gradient], root, 0.4)
    of_coefficients = torch.zeros(*shape, dtype=torch.float64).reshape(-1, shape[-1])
    of_coefficients += polar_factor((gradient @ root).reshape(-1, shape[-1]))
    move = (of_coefficients @ root).reshape(shape)
    if not move.any():
        assert torch.equal(found, start)
        return
    move *= 0.4 * (start.pow(2).mean() / move.pow(2).mean()).sqrt()
    torch.testing.assert_close(found, start - move, rtol=1e-9, atol=1e-12)


def test_the_plain_metric_is_the_unit_matrix() -> None:
    start = _random(6, 5, 16)
    gradients = [_random(6, 5, 16, seed=seed) for seed in (1, 2, 3)]
    found = _in_a_metric(start, gradients, torch.eye(16, dtype=torch.float64), 0.4)
    plain = _moved(start, gradients, optimiser="muon", learning_rate=0.4)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_turning_anchors_and_metric_turns_the_path() -> None:
    start = _random(6, 5, 16)
    gradients = [_random(6, 5, 16, seed=seed) for seed in (1, 2, 3)]
    turn = torch.linalg.qr(_random(16, 16, seed=4))[0]
    root = _metric(16)
    found = _in_a_metric(start, gradients, root, 0.4)
    turned = _in_a_metric(start @ turn, [g @ turn for g in gradients], turn.T @ root @ turn, 0.4)
    torch.testing.assert_close(turned, found @ turn, rtol=1e-8, atol=1e-9)


def test_directions_that_the_metric_lacks_are_left_alone() -> None:
    start, gradient = _random(6, 5, 16), _random(6, 5, 16, seed=1)
    keep = torch.zeros(16, dtype=torch.float64)
    keep[:5] = 1
    moved = _in_a_metric(start, [gradient], torch.diag(keep), 0.4)
    assert torch.equal(moved[..., 5:], start[..., 5:])
    assert not torch.isclose(moved[..., :5], start[..., :5]).any()


def test_a_step_has_the_starts_root_mean_square_times_the_rate() -> None:
    start = 0.02 * _random(6, 5, 16)
    moved = _moved(start, [_random(6, 5, 16, seed=1)], optimiser="muon", learning_rate=0.25)
    assert float((moved - start).pow(2).mean() / start.pow(2).mean()) == pytest.approx(0.25**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [2.0, 0.25])
def test_a_scaled_start_moves_in_proportion_whatever_the_gradients_length(
    factor: float, dtype: torch.dtype
) -> None:
    start = _random(6, 5, 16, dtype=dtype)
    gradients = [_random(6, 5, 16, seed=seed, dtype=dtype) for seed in (1, 2, 3)]
    plain = _moved(start, gradients, optimiser="muon")
    scaled = _moved(start * factor, [g / factor for g in gradients], optimiser="muon")
    assert torch.equal(scaled, plain * factor)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_gradient_moves_nothing(schedule: str, dtype: torch.dtype) -> None:
    start = _random(6, 5, 16, dtype=dtype)
    still = [torch.zeros_like(start)] * 3
    assert torch.equal(_moved(start, still, optimiser="muon", schedule=schedule), start)
    zero = torch.zeros_like(start)
    assert torch.equal(_moved(zero, [start], optimiser="muon"), zero)


def test_a_gradient_far_below_one_is_followed_as_one_of_any_length() -> None:
    start, gradient = _random(4, 16).float(), _random(4, 16, seed=1).float()
    tiny = _moved(start, [gradient * 2.0**-40], optimiser="muon")
    assert torch.equal(tiny, _moved(start, [gradient], optimiser="muon"))


@pytest.mark.parametrize("schedule", ["constant", "cosine", None])
@pytest.mark.parametrize("given", [{}, {"learning_rate": 0.3, "weight_decay": 0.2}])
def test_adamw_is_torchs_to_the_byte(schedule: str | None, given: dict[str, float]) -> None:
    start = _random(6, 5, 16, dtype=torch.float32)
    gradients = [_random(6, 5, 16, seed=seed, dtype=torch.float32) for seed in range(1, 9)]
    x = start.clone().requires_grad_(True)
    rate = given.get("learning_rate", 0.01)
    adamw = torch.optim.AdamW([x], lr=rate, weight_decay=given.get("weight_decay", 0.01))
    for k, gradient in enumerate(gradients):
        if schedule == "cosine":
            adamw.param_groups[0]["lr"] = rate * (0.5 * (1 + math.cos(math.pi * k / 8)))
        x.grad = gradient.clone()
        adamw.step()
    found = _moved(start, gradients, optimiser="adamw", schedule=schedule, **given)
    assert torch.equal(found, x.detach())


# --- whole descents ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert() -> LayerPair:
    return layer_pair("bert")


def _start(*shape: int) -> Tensor:
    return _random(*(shape or (6, 5, 16)), seed=3)


def _config(**given: object) -> ConstructConfig:
    return ConstructConfig(**{"anchors": 6, "steps": 12, "optimiser": "muon", **given})


def _run(pair: LayerPair, start: Tensor, **given: object) -> Construction:
    config = _config(**given)
    made = construct(pair.task, start, config=config, on_step=lambda *_: None)
    assert made is not None
    return made


def _looped(pair: LayerPair, start: Tensor, **given: object) -> tuple[Tensor, list[float]]:
    """Return best anchors and losses of Muon written out around J's gradient."""
    config = _config(**given)
    problem = pose(pair.task, config=config)
    assert problem is not None
    gradients: list[Tensor] = []
    path, losses = [start], []
    rates = [(1 + math.cos(math.pi * k / config.steps)) / 2 for k in range(config.steps)]
    for step in range(config.steps):
        loss, _, gradient = problem.loss_and_gradient(path[-1].clone().requires_grad_(True))
        losses.append(loss)
        gradients.append(gradient)
        path.append(_naive_muon(start, gradients, rates[: step + 1]))
    return path[min(range(config.steps), key=losses.__getitem__)], losses


@pytest.mark.parametrize("shape", [(6, 5, 16), (2, 3, 16)], ids=["tall", "wide"])
def test_a_descent_is_muon_on_the_gradient_of_j(bert: LayerPair, shape: tuple[int, ...]) -> None:
    _agrees(bert, _start(*shape))


@pytest.mark.parametrize("rows", [6, 40])
def test_an_mlp_descends_on_rows(rows: int) -> None:
    _agrees(layer_pair("llama", scope="mlp"), _start(rows, 16))


def _agrees(pair: LayerPair, start: Tensor) -> None:
    best, losses = _looped(pair, start)
    made = _run(pair, start)
    torch.testing.assert_close(torch.tensor(made.losses), torch.tensor(losses), rtol=1e-6, atol=0)
    torch.testing.assert_close(made.anchors, best, rtol=1e-5, atol=1e-6)
    assert made.anchors.shape == start.shape


@pytest.mark.parametrize("microbatch", [1, 4])
def test_microbatches_change_only_the_order_of_sums(bert: LayerPair, microbatch: int) -> None:
    whole, pieces = _run(bert, _start()), _run(bert, _start(), microbatch=microbatch)
    torch.testing.assert_close(
        torch.tensor(pieces.losses), torch.tensor(whole.losses), rtol=1e-8, atol=0
    )
    torch.testing.assert_close(pieces.anchors, whole.anchors, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "given", [{}, {"schedule": "constant"}, {"optimiser": "adamw", "schedule": "cosine"}]
)
def test_a_descent_in_pieces_has_the_bytes_of_one_in_a_piece(
    bert: LayerPair, given: dict[str, str]
) -> None:
    config = _config(**given)
    problem = pose(bert.task, config=config)
    assert problem is not None
    pieces = Descent(problem, _start())
    for until in (1, 7, 7, 12):
        pieces.advance(until, on_step=lambda *_: None)
    whole = _run(bert, _start(), **given)
    assert torch.equal(pieces.result().anchors, whole.anchors)
    assert pieces.result().losses == whole.losses


@pytest.mark.parametrize("given", [{}, {"optimiser": "adamw", "schedule": "cosine"}])
def test_a_searched_sigma_goes_on_with_the_schedule_of_the_whole_run(
    bert: LayerPair, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setattr(defaults, "TRIAL_STEPS", 4)

    def start_of(config: ConstructConfig) -> Tensor:
        return config.sigma * _start()

    found = construct_from(
        bert.task,
        start_of=start_of,
        config=_config(init="gaussian", sigma="search", **given),
        on_step=lambda *_: None,
    )
    assert found is not None
    plain = {sigma: _run(bert, sigma * _start(), **given) for sigma in SIGMAS}
    for trial in found.trials:
        assert trial.alignment == max(plain[trial.sigma].alignments[:4])
    assert torch.equal(found.made.anchors, plain[found.sigma].anchors)
    assert found.made.losses == plain[found.sigma].losses


def test_a_plateau_stops_it_on_the_way_of_the_whole_run(bert: LayerPair) -> None:
    whole = _run(bert, _start(), steps=60)
    early = _run(bert, _start(), steps=60, patience=5, min_gain=0.02)
    assert early.settled
    assert len(early.losses) < 60
    assert early.losses == whole.losses[: len(early.losses)]


def test_ten_steps_of_muon_pass_forty_of_adamw(bert: LayerPair) -> None:
    muon = _run(bert, _start(), steps=40, learning_rate=0.3)
    adamw = _run(bert, _start(), steps=40, optimiser="adamw")
    assert max(muon.alignments[:10]) > max(adamw.alignments)


def test_float32_follows_float64_for_some_steps(bert: LayerPair) -> None:
    config = _config(steps=4)
    single = construct(
        replace(
            bert.task,
            base={k: v.float() for k, v in bert.base.items()},
            expert={k: v.float() for k, v in bert.expert.items()},
        ),
        _start().float(),
        config=config,
        on_step=lambda *_: None,
    )
    assert single is not None
    assert single.anchors.dtype == torch.float32
    wide = _run(bert, _start(), steps=4)
    torch.testing.assert_close(
        torch.tensor(single.losses), torch.tensor(wide.losses), rtol=1e-3, atol=0
    )


# --- settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({"optimiser": "adamw"}, ("constant", 0.01, 0.01)),
        ({"optimiser": "muon"}, ("cosine", 1.0, None)),
        ({"optimiser": "adamw", "schedule": "cosine"}, ("cosine", 0.01, 0.01)),
        ({"optimiser": "muon", "schedule": "constant"}, ("constant", 1.0, None)),
        ({"optimiser": "adamw", "weight_decay": 0.0}, ("constant", 0.01, 0.0)),
        ({"optimiser": "muon", "learning_rate": 0.3}, ("cosine", 0.3, None)),
    ],
)
def test_what_is_unset_hangs_on_the_optimiser(
    given: dict[str, object], settled: tuple[object, ...]
) -> None:
    found = ConstructConfig(**given).settled()
    assert (found.schedule, found.learning_rate, found.weight_decay) == settled
    assert found.settled() == found
    assert ConstructConfig.model_validate(found.model_dump()) == found


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_a_weight_decay_for_muon_is_refused(weight_decay: float) -> None:
    with pytest.raises(ValueError, match=r"weight_decay is .* not for optimiser: muon"):
        ConstructConfig(optimiser="muon", weight_decay=weight_decay)
