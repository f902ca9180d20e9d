"""The formulas of `engine.costs` against what torch counts while the product's own code runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fda_core.anchors.adapt import Coefficients, Elements, Variables, adapt
from fda_core.anchors.config import AdaptConfig, ConstructConfig
from fda_core.anchors.construct import pose
from fda_core.anchors.optimisers import optimiser_of
from fda_core.anchors.sums import PIECE
from fda_core.blocks.masked import MASKED
from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.contract.recipe import MethodSpec
from fda_core.engine.costs import passes
from fda_core.engine.costs.layers import (
    ROTARY,
    Rows,
    adapt_epoch,
    construct_step,
    evaluation,
    metric_step,
    muon_step,
)
from fda_core.engine.costs.methods import method_work
from fda_core.engine.costs.unit_work import construct_work
from fda_core.methods import interference, spectral
from fda_core.methods.base import TensorInputs
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from tests.support.counting import product_flops, traffic
from tests.support.sized_layers import SizedLayer, sized_layer

WIDTHS = {"width": 64, "heads": 4, "inner": 256}
LAYERS: list[tuple[str, Any, int]] = [
    ("bert", "layer", 5),
    ("bert", "layer", 33),
    ("roberta", "layer", 5),
    ("distilbert", "layer", 9),
    ("vit", "layer", 17),
    ("dinov2", "layer", 17),
    ("clip_vision", "layer", 10),
    ("gpt2", "layer", 9),
    ("llama", "layer", 9),
    ("llama", "mlp", 0),
    ("vit", "mlp", 0),
    ("dinov2", "mlp", 0),
]
OTHERS: list[tuple[str, Any, int]] = [
    ("siglip_vision", "layer", 10),
    ("gpt_neox", "layer", 9),
    ("gpt_neox", "mlp", 0),
    ("olmo2", "layer", 9),
    ("gemma3_text", "layer", 9),
]
"""Whose products are held to the count; what they move was never measured."""


@pytest.fixture(params=LAYERS, ids=lambda case: "-".join(map(str, case)), scope="module")
def case(request: pytest.FixtureRequest) -> tuple[SizedLayer, Rows]:
    return sized(*request.param)


def sized(kind: str, scope: Any, tokens: int) -> tuple[SizedLayer, Rows]:
    layer = sized_layer(kind, **WIDTHS, scope=scope)
    return layer, Rows(anchors=12 if tokens else 96, tokens=tokens, item=4)


def anchors(rows: Rows, width: int = WIDTHS["width"]) -> Tensor:
    shape = (rows.anchors, rows.tokens, width) if rows.tokens else (rows.anchors, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def step_of(layer: SizedLayer, rows: Rows, *, microbatch: int | None) -> Callable[[], object]:
    config = ConstructConfig(anchors=rows.anchors, microbatch=microbatch)
    problem = pose(layer.task, config=config)
    assert problem is not None
    x = anchors(rows).requires_grad_(True)
    return lambda: problem.loss_and_gradient(x)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_construction_step_has_the_products_that_are_counted(
    case: tuple[SizedLayer, Rows], pieces: int
) -> None:
    layer, rows = case
    microbatch = None if pieces == 1 else rows.anchors // pieces
    counted = product_flops(step_of(layer, rows, microbatch=microbatch))
    assert construct_step(layer.size, rows, pieces=pieces).flops == counted


def test_layers_with_rotary_positions_are_those_that_the_library_gives_them() -> None:
    assert set(MASKED) - {"gpt2"} == ROTARY


@pytest.mark.parametrize(("kind", "scope", "tokens"), OTHERS)
def test_other_layers_products_are_counted_too(kind: str, scope: Any, tokens: int) -> None:
    layer, rows = sized(kind, scope, tokens)
    counted = product_flops(step_of(layer, rows, microbatch=None))
    assert construct_step(layer.size, rows).flops == counted


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_construction_step_moves_and_starts_about_what_is_counted(
    case: tuple[SizedLayer, Rows], pieces: int
) -> None:
    layer, rows = case
    microbatch = None if pieces == 1 else rows.anchors // pieces
    found = traffic(step_of(layer, rows, microbatch=microbatch))
    reckoned = construct_step(layer.size, rows, pieces=pieces)
    assert reckoned.traffic_bytes == pytest.approx(found.bytes, rel=0.2)
    assert reckoned.launches == pytest.approx(found.operations, rel=0.2)


MATRICES = [(6, 5), (64, 5), (40, 0), (200, 0), (16, 4), (1, 1)]
"""Anchors and tokens: n·t below, above and equal to the width of 64, with tokens and without."""


@pytest.mark.parametrize(("count", "tokens"), MATRICES)
def test_a_step_of_muon_is_what_is_counted(count: int, tokens: int) -> None:
    rows = Rows(anchors=count, tokens=tokens, item=4)
    x = anchors(rows).requires_grad_(True)
    muon = optimiser_of(x, config=ConstructConfig(optimiser="muon"))
    gradient = torch.randn_like(x.detach())
    reckoned = muon_step(rows, x.shape[-1])
    assert reckoned.flops == product_flops(lambda: muon.step(gradient))
    found = traffic(lambda: muon.step(gradient))
    assert reckoned.traffic_bytes == pytest.approx(found.bytes, rel=0.2, abs=1000)
    assert reckoned.launches == pytest.approx(found.operations, rel=0.2)


@pytest.mark.parametrize(("count", "tokens"), MATRICES)
def test_a_metric_adds_what_is_counted(count: int, tokens: int) -> None:
    rows = Rows(anchors=count, tokens=tokens, item=4)
    x = anchors(rows).requires_grad_(True)
    width = x.shape[-1]
    root = torch.eye(width)
    config = ConstructConfig(optimiser="muon", metric="update")
    muon = optimiser_of(x, config=config, metric_root=root)
    gradient = torch.randn_like(x.detach())
    reckoned = muon_step(rows, width) + metric_step(rows, width)
    assert reckoned.flops == product_flops(lambda: muon.step(gradient))
    found = traffic(lambda: muon.step(gradient))
    assert reckoned.launches == pytest.approx(found.operations, rel=0.2)


@pytest.mark.parametrize("microbatch", [None, 4])
def test_a_construction_with_muon_is_its_steps_and_muons(microbatch: int | None) -> None:
    layer = sized_layer("bert", **WIDTHS)
    work = {}
    settings = {
        "adamw": {"optimiser": "adamw"},
        "muon": {"optimiser": "muon"},
        "metric": {"optimiser": "muon", "metric": "update"},
    }
    for name, chosen in settings.items():
        given = {**chosen, "anchors": 12, "steps": 7, "microbatch": microbatch}
        method = resolve(MethodSpec(name="fda", parameters={"construct": given}))
        assert isinstance(method, Fda)
        work[name] = construct_work(layer.size, method, tokens=5, item=4, microbatch=microbatch)
    more = muon_step(Rows(anchors=12, tokens=5, item=4), WIDTHS["width"])
    assert work["muon"] == work["adamw"] + more * 7
    turned = metric_step(Rows(anchors=12, tokens=5, item=4), WIDTHS["width"])
    assert work["metric"] == work["muon"] + turned * 7


def epochs(
    layer: SizedLayer, rows: Rows, *, deltas: int, batch: int, count: int
) -> Callable[[], object]:
    x = anchors(rows)
    variables: Variables = Elements(layer.base)
    if deltas:
        delta = {part: layer.expert[part] - layer.base[part] for part in layer.base}
        variables = Coefficients(layer.base, [(delta, 0.3)] * deltas)
    targets = layer.block(layer.expert, x)
    return lambda: adapt(
        layer.block,
        variables,
        x,
        targets,
        config=AdaptConfig(epochs=count, batch=batch, learning_rate=1e-4),
        generator=torch.Generator().manual_seed(0),
        on_epoch=lambda *_: None,
    )


@pytest.mark.parametrize("deltas", [0, 1, 3])
def test_an_epoch_of_adaptation_is_what_is_counted(
    case: tuple[SizedLayer, Rows], deltas: int
) -> None:
    layer, rows = case
    batch = rows.anchors // 2
    runs = [epochs(layer, rows, deltas=deltas, batch=batch, count=count) for count in (1, 2)]
    reckoned = adapt_epoch(layer.size, rows, batch=batch, deltas=deltas)
    one, two = (product_flops(run) for run in runs)
    assert reckoned.flops == two - one
    assert evaluation(layer.size, rows, batch=batch).flops == one - reckoned.flops
    first, both = (traffic(run) for run in runs)
    assert reckoned.traffic_bytes == pytest.approx(both.bytes - first.bytes, rel=0.25)
    assert reckoned.launches == pytest.approx(both.operations - first.operations, rel=0.25)


def test_inner_products_come_in_pieces_of_the_length_that_is_counted() -> None:
    assert passes.DOT_PIECE == PIECE


SHAPES = [(48, 48), (40, 96), (96, 40), (24, 96)]


def matrix(shape: tuple[int, int], experts: int) -> PlannedTensor:
    return PlannedTensor(
        name="w",
        layer=0,
        part="w",
        rule=TensorRule.MERGE,
        reason="layer",
        experts=tuple("abcdefgh"[:experts]),
        dtype="F32",
        shape=shape,
    )


@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["task_arithmetic", "tsvm", "wudi", "iwudi"])
def test_a_method_has_the_products_that_are_counted(
    name: str, shape: tuple[int, int], experts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = resolve(MethodSpec(name=name, parameters={"steps": 7} if name == "wudi" else {}))
    numbers = torch.Generator().manual_seed(3)
    inputs = TensorInputs(
        name="w",
        layer=0,
        base=torch.randn(shape, generator=numbers),
        deltas=[0.1 * torch.randn(shape, generator=numbers) for _ in range(experts)],
        weights=[1.0] * experts,
        experts="abcdefgh"[:experts],
        seed=0,
    )
    sides: list[int] = []
    original = spectral.eigh

    def eigh(symmetric: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
        sides.append(len(symmetric))
        return original(symmetric, name=name)

    monkeypatch.setattr(spectral, "eigh", eigh)
    monkeypatch.setattr(interference, "eigh", eigh)
    counted = product_flops(lambda: method.merge_tensor(inputs))
    reckoned = method_work(method, matrix(shape, experts), item=4)
    assert reckoned.flops + reckoned.wide_flops == pytest.approx(counted, rel=0.02)
    assert reckoned.factor_flops == pytest.approx(9 * sum(side**3 for side in sides), rel=0.02)
