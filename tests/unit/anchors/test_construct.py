"""Stage I against an independent double backward in float64, closed forms and degenerate cases.

The oracle knows nothing of our blocks, name tables or derivatives: it takes the library's own
modules, asks autograd for the gradient of the similarity with a graph, takes cosines with
torch's function and lets autograd differentiate all of it.
"""

import math
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import construct, spectrum
from fda_core.anchors.layer_task import LayerTask
from fda_core.errors import Cancelled, NonFinite
from tests.support.layers import STACKS, LayerPair, layer_pair

STEPS = 10


def _oracle_similarity(distance: str, a: Tensor, b: Tensor) -> Tensor:
    if distance == "cosine":
        return cosine_similarity(a.flatten(1), b.flatten(1)).mean()
    if distance == "l2":
        return -((a - b) ** 2).mean()
    return -(a - b).abs().mean()


def _oracle(pair: LayerPair, start: Tensor, *, distance: str, whole: bool, steps: int = STEPS):
    """Return anchors after every step and the loss before it."""
    base, expert = pair.base_module, pair.expert_module
    parameters = list(base.parameters())
    deltas = [(e - b).detach() for b, e in zip(parameters, expert.parameters(), strict=True)]
    x = start.clone().requires_grad_()
    optimiser = torch.optim.AdamW([x], lr=1e-2)
    losses, path = [], []
    for _ in range(steps):
        optimiser.zero_grad()
        similarity = _oracle_similarity(distance, pair.call(base, x), pair.call(expert, x))
        gradients = torch.autograd.grad(similarity, parameters, create_graph=True)
        if whole:
            g = torch.cat([gradient.flatten() for gradient in gradients])
            t = torch.cat([delta.flatten() for delta in deltas])
            loss = 1 - cosine_similarity(g, t, dim=0)
        else:
            loss = sum(
                1 - cosine_similarity(g.flatten(), t.flatten(), dim=0)
                for g, t in zip(gradients, deltas, strict=True)
            )
        loss.backward()
        losses.append(float(loss.detach()))
        optimiser.step()
        path.append(x.detach().clone())
    return path, losses


def _start(n: int = 6, t: int = 5, d: int = 16) -> Tensor:
    return torch.randn(n, t, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _run(pair, start, *, steps=STEPS, on_step=lambda *_: None, **settings):
    config = ConstructConfig(steps=steps, anchors=len(start), optimiser="adamw", **settings)
    return construct(pair.task, start, config=config, on_step=on_step)


@pytest.fixture(scope="module")
def bert() -> LayerPair:
    return layer_pair("bert")


@pytest.fixture
def all_in_float64(monkeypatch):
    """Let the library keep float64 where it takes softmaxes and root mean squares in float32.

    In float32 the softmax's rounding is the gradient of a key bias, which the oracle's cosine
    divides by its own length.
    """
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim, **_dtype: torch.softmax(x, dim=dim)
    )

    def normed(x, eps):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for name in ("llama", "mistral", "qwen2", "qwen3", "phi3"):
        module = import_module(f"transformers.models.{name}.modeling_{name}")
        norm = getattr(module, f"{name.capitalize()}RMSNorm")
        monkeypatch.setattr(
            norm, "forward", lambda self, x: self.weight * normed(x, self.variance_epsilon)
        )
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

    monkeypatch.setattr(
        Gemma2RMSNorm, "forward", lambda self, x: normed(x, self.eps) * (1 + self.weight)
    )


@pytest.mark.usefixtures("all_in_float64")
@pytest.mark.parametrize("kind", STACKS)
def test_anchors_and_alignment_agree_with_a_double_backward_for_ten_steps(kind):
    _agree_for_ten_steps(layer_pair(kind), _start())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "phi3", "distilbert", "vit"])
@pytest.mark.parametrize("tokens", [0, 3])
def test_an_mlp_alone_agrees_on_rows_and_on_tokens(kind, tokens):
    pair = layer_pair(kind, scope="mlp")
    _agree_for_ten_steps(pair, _start(t=tokens) if tokens else _start(t=1)[:, 0])


def _agree_for_ten_steps(pair, start):
    path, losses = _oracle(pair, start, distance="cosine", whole=False, steps=STEPS + 1)
    made = _run(pair, start, steps=STEPS + 1)
    count = len(pair.base)
    torch.testing.assert_close(torch.tensor(made.losses), torch.tensor(losses), rtol=1e-7, atol=0)
    expected = [1 - loss / count for loss in losses]
    torch.testing.assert_close(
        torch.tensor(made.alignments), torch.tensor(expected), rtol=0, atol=1e-7
    )
    best = min(range(STEPS + 1), key=losses.__getitem__)
    assert made.best_step == best > 0
    torch.testing.assert_close(made.anchors, path[best - 1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("distance", ["cosine", "l2", "l1"])
@pytest.mark.parametrize("cosine", ["per_tensor", "layer"])
def test_every_distance_and_cosine_agrees_with_the_double_backward(bert, distance, cosine):
    start = _start()
    _, losses = _oracle(bert, start, distance=distance, whole=cosine == "layer")
    made = _run(bert, start, distance=distance, cosine=cosine)
    torch.testing.assert_close(torch.tensor(made.losses), torch.tensor(losses), rtol=1e-6, atol=0)


@pytest.mark.parametrize("microbatch", [1, 4, 6])
@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_microbatches_change_nothing_but_the_order_of_sums(bert, microbatch, distance):
    start = _start()
    whole = _run(bert, start, distance=distance)
    pieces = _run(bert, start, distance=distance, microbatch=microbatch)
    torch.testing.assert_close(
        torch.tensor(pieces.losses), torch.tensor(whole.losses), rtol=1e-10, atol=0
    )
    torch.testing.assert_close(pieces.anchors, whole.anchors, rtol=1e-8, atol=1e-10)


class _Linear:
    """φ(W, x) = W x for every token: the one layer whose J has a closed form."""

    insensitive = frozenset()

    def __call__(self, tensors, x):
        return x @ tensors["weight"].T


def test_one_anchor_of_a_linear_layer_follows_the_closed_form():
    """With S = −mean‖ΔW x‖², g ∝ ΔW x xᵀ, so cos = ‖ΔW x‖ / (‖x‖ ‖ΔW‖)."""
    numbers = torch.Generator().manual_seed(5)
    base = torch.randn(4, 7, generator=numbers, dtype=torch.float64)
    delta = torch.randn(4, 7, generator=numbers, dtype=torch.float64)
    x = torch.randn(1, 1, 7, generator=numbers, dtype=torch.float64)
    seen = []

    config = ConstructConfig(steps=3, anchors=1, distance="l2", optimiser="adamw", weight_decay=0.0)
    made = construct(
        LayerTask(block=_Linear(), base={"weight": base}, expert={"weight": base + delta}, width=7),
        x,
        config=config,
        on_step=lambda _step, loss, _alignment: seen.append(loss),
    )

    y = x.flatten().clone().requires_grad_()
    optimiser = torch.optim.AdamW([y], lr=0.01, weight_decay=0.0)
    for loss in seen:
        size = torch.linalg.vector_norm
        closed = 1 - size(delta @ y) / (size(y) * size(delta))
        assert loss == pytest.approx(float(closed.detach()), rel=1e-12)
        optimiser.zero_grad()
        closed.backward()
        optimiser.step()
    assert made.losses == tuple(seen)


def test_a_rank_one_update_is_reached_by_its_right_singular_vector():
    right = torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left = torch.randn(4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    base = {"weight": torch.zeros(4, 7, dtype=torch.float64)}
    expert = {"weight": torch.outer(left, right)}
    made = construct(
        LayerTask(block=_Linear(), base=base, expert=expert, width=7),
        right.reshape(1, 1, 7),
        config=ConstructConfig(steps=1, anchors=1, distance="l2"),
        on_step=lambda *_: None,
    )
    assert made.alignments[0] == pytest.approx(1.0, abs=1e-12)


def test_the_best_anchors_seen_are_kept_not_the_last(bert):
    made = _run(bert, _start(), learning_rate=3.0, steps=12)
    assert made.best_step < 11
    assert made.losses[made.best_step] == min(made.losses)
    again = _run(bert, made.anchors, steps=1)
    assert again.losses[0] == pytest.approx(min(made.losses), rel=1e-9)


def test_a_zero_task_vector_gives_no_anchors(bert):
    config = ConstructConfig(steps=3, anchors=6)
    same = {name: tensor.clone() for name, tensor in bert.base.items()}
    never = pytest.fail
    assert (
        construct(replace(bert.task, expert=same), _start(), config=config, on_step=never) is None
    )


def test_a_tensor_without_a_task_vector_is_left_out_of_sum_and_mean(bert):
    expert = {**bert.expert, "output.dense.bias": bert.base["output.dense.bias"].clone()}
    made = construct(
        replace(bert.task, expert=expert),
        _start(),
        config=ConstructConfig(steps=1, anchors=6),
        on_step=lambda *_: None,
    )
    assert made.zero == ("output.dense.bias",)
    assert "output.dense.bias" not in made.cosines
    mean = sum(made.cosines.values()) / (len(bert.base) - 1)
    assert made.alignments[0] == pytest.approx(mean, rel=1e-12)


def test_a_key_bias_counts_with_cosine_zero(bert):
    made = _run(bert, _start(), steps=1)
    assert made.cosines["attention.self.key.bias"] == 0.0
    assert len(made.cosines) == len(bert.base)


def test_equal_experts_give_equal_anchors(bert):
    first, second = _run(bert, _start()), _run(bert, _start())
    assert torch.equal(first.anchors, second.anchors)
    assert first.losses == second.losses


def test_float32_follows_float64_closely(bert):
    single = LayerPair(
        block=bert.block,
        base={k: v.float() for k, v in bert.base.items()},
        expert={k: v.float() for k, v in bert.expert.items()},
        base_module=bert.base_module,
        expert_module=bert.expert_module,
        more=bert.more,
        named=bert.named,
    )
    wide, narrow = _run(bert, _start()), _run(single, _start().float())
    torch.testing.assert_close(
        torch.tensor(narrow.losses), torch.tensor(wide.losses), rtol=1e-4, atol=0
    )
    assert narrow.anchors.dtype == torch.float32


def test_alignment_rises(bert):
    made = _run(bert, _start(), steps=60)
    assert made.alignments[made.best_step] > made.alignments[0] + 0.15


def test_a_loss_that_is_no_number_names_the_step(bert):
    start = _start()
    start[0, 0, 0] = math.nan
    with pytest.raises(NonFinite, match="step 0"):
        _run(bert, start)


def test_stopping_is_noticed_within_a_step(bert):
    def stop(step, _loss, _alignment):
        if step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        _run(bert, _start(), on_step=stop)


def test_inputs_are_left_as_they_were(bert):
    start = _start()
    before = {name: tensor.clone() for name, tensor in bert.base.items()}
    _run(bert, start, steps=2)
    assert torch.equal(start, _start())
    for name, tensor in bert.base.items():
        assert torch.equal(tensor, before[name])
        assert not tensor.requires_grad


def test_the_spectrum_is_of_the_rows_and_starts_at_one():
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    values = torch.linalg.svdvals(x.reshape(12, 6))
    found = torch.tensor(spectrum(x), dtype=torch.float64)
    torch.testing.assert_close(found, values / values[0])
    assert spectrum(torch.zeros(2, 3, 4)) == (0.0,) * 4
