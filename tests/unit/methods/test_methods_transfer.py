"""`transfer: full`: a merged matrix carries the experts' updates at full size, on average."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter
from fda_core.methods.registry import METHODS, describe, resolve
from fda_core.methods.transfer import carried, carry_all_, probe
from tests.unit.methods.test_methods_ace_optmerge import merged_delta, relative, task_vectors
from tests.unit.methods.test_methods_memory import VARIANTS, deltas_of, needed

SHAPES = [(1, 1), (1, 6), (6, 1), (5, 5), (4, 9), (9, 4)]
TAKING = [name for name in METHODS if "transfer" in describe(name)["parameters"]["properties"]]


def shares(merged, deltas):
    """Return c_e of every expert from the definition, with G_e formed."""
    merged, found = merged.double().numpy(), []
    for delta in (each.double().numpy() for each in deltas):
        second_moments = delta.T @ delta
        own = np.sum((delta @ second_moments) * delta)
        found.append(np.sum((merged @ second_moments) * delta) / own)
    return found


def test_the_matrix_methods_take_it_and_no_others():
    assert {"tsvm", "iso_c", "iso_cts", "wudi", "iwudi", "swudi", "aswudi"} <= set(TAKING)
    assert "task_arithmetic" not in TAKING


@settings(deadline=None, max_examples=40)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 50), experts=st.integers(1, 4))
def test_probing_gives_the_mean_share_of_the_definition(shape, seed, experts):
    deltas = task_vectors(shape, [1e-4, 1.0, 3.0, 1e3][:experts], seed=seed)
    (merged,) = task_vectors(shape, [1.0], seed=seed + 1000)
    expected = np.mean(shares(merged, deltas))
    assert carried(merged, probe(deltas)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_what_it_makes_carries_all_or_is_what_was_published(name, shape):
    deltas = task_vectors(shape, [0.01, 0.02, 0.03], dtype=torch.float32)
    published = merged_delta(name, deltas)
    full = merged_delta(name, deltas, transfer="full")
    share = np.mean(shares(published, deltas))
    assert share > 0.1, "the case must not be one that is left as it is"
    assert relative(full, published.double().numpy() / share) < 2e-4
    assert np.mean(shares(full, deltas)) == pytest.approx(1.0, abs=2e-4)


def test_scale_multiplies_what_carries_all():
    deltas = task_vectors((8, 12), [1.0, 2.0])
    full = merged_delta("iwudi", deltas, transfer="full")
    half = merged_delta("iwudi", deltas, transfer="full", scale=0.5)
    torch.testing.assert_close(half, full / 2)


def test_one_expert_is_carried_whole_already():
    deltas = task_vectors((8, 12), [1.0])
    torch.testing.assert_close(merged_delta("tsvm", deltas, transfer="full"), deltas[0])


def test_a_delta_that_carries_almost_nothing_is_left_as_it_is():
    deltas = task_vectors((6, 6), [1.0, 1.0])
    probing = probe(deltas)
    for share in (0.05, -0.5):
        merged = deltas[0] * (share / carried(deltas[0], probing))
        assert torch.equal(carry_all_(merged.clone(), probing), merged)


def test_it_asks_for_more_memory():
    plain = resolve(MethodSpec(name="tsvm"))
    full = resolve(MethodSpec(name="tsvm", parameters={"transfer": "full"}))
    assert full.workspace_tensors == plain.workspace_tensors + 4


def test_another_word_is_refused():
    with pytest.raises(BadParameter, match="transfer"):
        resolve(MethodSpec(name="tsvm", parameters={"transfer": "all"}))


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("shape", [(512, 1024), (1024, 512)])
def test_a_matrix_needs_no_more_than_it_then_declares(name, shape, monkeypatch):
    monkeypatch.setitem(VARIANTS, name, {**VARIANTS[name], "transfer": "full"})
    declared = resolve(MethodSpec(name=name, parameters={"transfer": "full"})).workspace_tensors
    assert needed(name, deltas_of(shape, 3)) <= declared
