"""The search for σ against one plain construction per σ."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fda_core.anchors import config as settings
from fda_core.anchors import sigma_search
from fda_core.anchors.config import SIGMAS, TRIAL_STEPS, ConstructConfig
from fda_core.anchors.construct import Construction, construct
from fda_core.anchors.initialise import initial_anchors
from fda_core.anchors.sigma_search import Found, construct_from
from fda_core.errors import NonFinite
from tests.support.layers import LayerPair, layer_pair

STEPS = 12


@pytest.fixture(scope="module")
def bert() -> LayerPair:
    return layer_pair("bert")


@pytest.fixture(params=[3, STEPS, 50])
def trial_steps(request, monkeypatch) -> int:
    """Make trials short, as long as the run, or longer than it."""
    monkeypatch.setattr(settings, "TRIAL_STEPS", request.param)
    return min(request.param, STEPS)


def _config(sigma: float | str, **given: object) -> ConstructConfig:
    return ConstructConfig(
        **{
            "anchors": 6,
            "steps": STEPS,
            "init": "gaussian",
            "sigma": sigma,
            "optimiser": "adamw",
            **given,
        }
    )


class _Starts:
    """Draws first anchors as the engine does: the same noise for every σ."""

    def __init__(self, pair: LayerPair, tokens: int = 5, seed: int = 4) -> None:
        self._pair, self._tokens, self._seed = pair, tokens, seed

    def __call__(self, config: ConstructConfig) -> Tensor:
        return initial_anchors(
            self._pair.base,
            self._pair.expert,
            config=config,
            tokens=self._tokens,
            width=16,
            generator=torch.Generator().manual_seed(self._seed),
        )


def _search(pair: LayerPair, starts: _Starts, *, on_step=lambda *_: None, **given) -> Found:
    found = construct_from(
        pair.task,
        start_of=starts,
        config=_config("search", **given),
        on_step=on_step,
    )
    assert found is not None
    return found


def _plain(pair: LayerPair, starts: _Starts, sigma: float, **given) -> Construction:
    config = _config(sigma, **given)
    made = construct(pair.task, starts(config), config=config, on_step=lambda *_: None)
    assert made is not None
    return made


def _same(found: Found, plain: Construction) -> None:
    assert found.made.anchors.numpy().tobytes() == plain.anchors.numpy().tobytes()
    assert torch.equal(found.made.start, plain.start)
    assert found.made.losses == plain.losses
    assert found.made.cosines == plain.cosines
    assert found.made.best_step == plain.best_step
    assert found.made.settled == plain.settled


@pytest.mark.parametrize(
    ("given", "seed"),
    [
        *(({}, seed) for seed in (0, 1, 2)),
        ({"microbatch": 4}, 0),
        ({"cosine": "layer"}, 1),
        ({"distance": "l2"}, 2),
    ],
)
def test_the_sigma_with_the_best_trial_is_kept_and_goes_on_as_if_alone(
    bert, trial_steps, given, seed
):
    starts = _Starts(bert, seed=seed)
    found = _search(bert, starts, **given)
    naive = {
        sigma: max(_plain(bert, starts, sigma, steps=trial_steps, **given).alignments)
        for sigma in SIGMAS
    }
    assert {trial.sigma: trial.alignment for trial in found.trials} == naive
    assert found.sigma == max(SIGMAS, key=naive.__getitem__)
    _same(found, _plain(bert, starts, found.sigma, **given))


def test_the_choice_hangs_on_the_layer():
    chosen = {
        _search(layer_pair(kind), _Starts(layer_pair(kind))).sigma
        for kind in ("bert", "vit", "llama")
    }
    assert len(chosen) > 1


@pytest.mark.parametrize("kind", ["llama", "vit"])
def test_an_mlp_searches_on_rows(kind, trial_steps):
    pair = layer_pair(kind, scope="mlp")
    starts = _Starts(pair, tokens=0)
    found = _search(pair, starts)
    assert found.made.anchors.shape == (6, 16)
    assert {trial.steps for trial in found.trials} == {trial_steps}
    _same(found, _plain(pair, starts, found.sigma))


def test_one_anchor_and_one_step_are_enough(bert):
    found = _search(bert, _Starts(bert, tokens=1), anchors=1, steps=1)
    assert found.steps == len(SIGMAS)
    assert len(found.made.losses) == 1


def test_steps_are_counted_over_all_trials_up_to_what_was_planned(bert, trial_steps):
    seen = []
    found = _search(bert, _Starts(bert), on_step=lambda step, *_: seen.append(step))
    planned = STEPS + (len(SIGMAS) - 1) * trial_steps
    assert seen == list(range(1, planned + 1))
    assert found.steps == _config("search").steps_in_all == planned


def test_a_plateau_ends_a_trial_as_it_ends_a_run(bert):
    given = {"steps": 60, "patience": 5, "min_gain": 0.03}
    found = _search(bert, _Starts(bert), **given)
    _same(found, _plain(bert, _Starts(bert), found.sigma, **given))
    for trial in found.trials:
        plain = _plain(bert, _Starts(bert), trial.sigma, **given)
        assert trial.steps == len(plain.losses)
        assert trial.alignment == max(plain.alignments)
    assert found.made.settled


def test_of_equally_aligned_sigmas_the_earlier_is_kept(bert, monkeypatch):
    monkeypatch.setattr(sigma_search, "SIGMAS", (0.1, 0.1000001))
    fixed = _Starts(bert)(_config(0.1))
    config = _config("search")
    found = construct_from(
        bert.task,
        start_of=lambda _: fixed,
        config=config,
        on_step=lambda *_: None,
    )
    assert found.trials[0].alignment == found.trials[1].alignment
    assert found.sigma == 0.1


def test_a_zero_task_vector_is_not_searched_for(bert):
    def none_of(config: ConstructConfig) -> Tensor:
        pytest.fail(f"{config.sigma} was tried")

    same = {name: tensor.clone() for name, tensor in bert.base.items()}
    assert (
        construct_from(
            replace(bert.task, expert=same),
            start_of=none_of,
            config=_config("search"),
            on_step=pytest.fail,
        )
        is None
    )


def test_a_trial_that_is_no_number_names_its_sigma(bert):
    starts = _Starts(bert)

    def spoilt(config: ConstructConfig) -> Tensor:
        return starts(config) * (float("nan") if config.sigma == SIGMAS[1] else 1)

    with pytest.raises(NonFinite, match=f"sigma {SIGMAS[1]:g}: .*step 0") as caught:
        construct_from(
            bert.task,
            start_of=spoilt,
            config=_config("search"),
            on_step=lambda *_: None,
        )
    assert caught.value.context["step"] == 0


@pytest.mark.parametrize(
    ("given", "sigma"),
    [({"init": "gaussian", "sigma": 0.3}, 0.3), ({"init": "weight"}, None), ({}, None)],
)
def test_a_given_start_is_constructed_from_without_trials(bert, given, sigma):
    config = ConstructConfig(anchors=6, steps=3, **given)
    found = construct_from(
        bert.task,
        start_of=_Starts(bert),
        config=config,
        on_step=lambda *_: None,
    )
    assert (found.sigma, found.trials, found.steps) == (sigma, (), 3)


def test_trials_are_no_longer_than_the_run():
    assert _config("search", steps=5).trial_steps == 5
    assert _config("search", steps=1200).steps_in_all == 1200 + TRIAL_STEPS * (len(SIGMAS) - 1)
    assert _config(0.1, steps=1200).steps_in_all == 1200
