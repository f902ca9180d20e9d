"""The plateau stop: exactly where a hand-rolled loop stops, and no trace of it when it is off."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import Construction, Descent, construct, has_settled, pose
from tests.support.layers import LayerPair, layer_pair

STEPS = 60


@pytest.fixture(scope="module")
def bert() -> LayerPair:
    return layer_pair("bert")


def _start() -> Tensor:
    return torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _config(**given: object) -> ConstructConfig:
    return ConstructConfig(**{"anchors": 6, "steps": STEPS, "optimiser": "adamw", **given})


def _run(pair: LayerPair, **given: object) -> Construction:
    config = _config(**given)
    made = construct(pair.task, _start(), config=config, on_step=lambda *_: None)
    assert made is not None
    return made


def _hand_rolled(pair: LayerPair, config: ConstructConfig) -> tuple[Tensor, list[float]]:
    """Return anchors and alignments of the loop as it was before there was a plateau stop."""
    problem = pose(pair.task, config=config)
    x = _start().requires_grad_(True)
    optimiser = torch.optim.AdamW([x], lr=0.01, weight_decay=0.01)
    best, lowest, alignments = x.detach().clone(), float("inf"), []
    for _ in range(config.steps):
        loss, _cosines, x.grad = problem.loss_and_gradient(x)
        if loss < lowest:
            best, lowest = x.detach().clone(), loss
        alignments.append(problem.alignment(loss))
        optimiser.step()
        window = config.patience
        if window is not None and len(alignments) > window:
            before = max(alignments[: len(alignments) - window])
            if max(alignments) - before < config.min_gain:
                break
    return best, alignments


@pytest.mark.parametrize("microbatch", [None, 4])
@pytest.mark.parametrize(("patience", "min_gain"), [(1, 0.005), (5, 0.03), (20, 0.1), (59, 1.0)])
def test_it_stops_exactly_where_a_hand_rolled_loop_does(bert, patience, min_gain, microbatch):
    given = {"patience": patience, "min_gain": min_gain, "microbatch": microbatch}
    best, alignments = _hand_rolled(bert, _config(**given))
    made = _run(bert, **given)
    assert made.alignments == tuple(alignments)
    assert torch.equal(made.anchors, best)
    assert made.settled == (len(alignments) < STEPS)


def test_some_of_these_stop_early_and_some_do_not(bert):
    assert _run(bert, patience=5, min_gain=0.03).settled
    assert len(_run(bert, patience=59, min_gain=1.0).losses) == STEPS


def test_without_patience_anchors_are_byte_for_byte_those_of_the_plain_loop(bert):
    best, alignments = _hand_rolled(bert, _config())
    made = _run(bert)
    assert made.anchors.numpy().tobytes() == best.numpy().tobytes()
    assert made.alignments == tuple(alignments)
    assert not made.settled


def test_stopping_early_is_the_same_run_with_fewer_steps(bert):
    early = _run(bert, patience=10, min_gain=0.05)
    plain = _run(bert, steps=len(early.losses))
    assert len(early.losses) < STEPS
    assert torch.equal(early.anchors, plain.anchors)
    assert early.losses == plain.losses


def test_a_descent_in_pieces_has_the_bytes_of_one_in_a_piece(bert):
    config = _config(patience=10, min_gain=0.05)
    problem = pose(bert.task, config=config)
    pieces = Descent(problem, _start())
    for until in (1, 7, 7, STEPS):
        pieces.advance(until, on_step=lambda *_: None)
    whole = _run(bert, patience=10, min_gain=0.05)
    assert torch.equal(pieces.result().anchors, whole.anchors)
    assert pieces.result().losses == whole.losses


@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    patience=st.integers(1, 12),
    min_gain=st.floats(1e-6, 1),
)
@settings(max_examples=200)
def test_it_has_settled_if_no_step_of_the_window_beats_all_before_by_the_gain(
    values, patience, min_gain
):
    bests = [max(values[: k + 1]) for k in range(len(values))]
    before, window = values[:-patience], values[-patience:]
    expected = bool(before) and not any(value - max(before) >= min_gain for value in window)
    assert has_settled(bests, patience=patience, min_gain=min_gain) == expected
    assert not has_settled(bests, patience=None, min_gain=min_gain)
