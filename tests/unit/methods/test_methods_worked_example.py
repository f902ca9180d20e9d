"""The worked example of the method notes: float64, o = 6, i = 8, three experts.

Every row was computed with the authors' or mergekit's code, or from the formula.
"""

import pytest
import torch

from fda_core.contract.recipe import MethodSpec
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve

P = torch.arange(48, dtype=torch.float64)
BASE = torch.cos(0.7 * P + 0.3).view(6, 8)
DELTAS = [
    (0.1 * (torch.sin(0.37 * e * P**2 + P) + 0.3 * torch.cos(P + e))).view(6, 8) for e in (1, 2, 3)
]
PLACES = ([0, 2, 5], [0, 3, 7])

CLOSED = (-0.83599164, 0.66282138, -0.10455615, -0.06913081, -0.09073351)
TIES_MERGEKIT = (-1.23981240, 0.60023439, 0.00000000, -0.12531176, -0.06988928)
TIES_WEIGHTED = (-1.01406858, 0.59466495, 0.00000000, 0.11019399, -0.05239599)
MODEL_STOCK = (-0.21895517, 0.13112200, -0.00341335, -0.00746149, -0.02591227)
ISO_CTS = (-1.42490541, 0.91449384, -0.03434729, -0.17373762, -0.08762188)

ROWS = {
    "linear": ("linear", {}, (-0.55540536, 0.33260627, -0.00865837, -0.01892694, -0.06572950)),
    "task arithmetic 0.3": (
        "task_arithmetic",
        {},
        (-0.49986482, 0.29934564, -0.00779253, -0.01703425, -0.05915655),
    ),
    "ties, paper, 20 %, mean": (
        "ties",
        {"density": 0.2},
        (-1.06282305, 0.55889005, 0.00000000, -0.12531176, 0.00000000),
    ),
    "ties, mergekit, 50 %": ("ties", {"density": 0.5, "rules": "mergekit"}, TIES_MERGEKIT),
    "ties, mergekit, 50 %, weighted, not normalised": (
        "ties",
        {"density": 0.5, "rules": "mergekit", "merge": "sum", "weights": (1.0, 0.5, 0.25)},
        TIES_WEIGHTED,
    ),
    "slerp, first two": (
        "slerp",
        {"t": 0.4, "weights": (1.0, 1.0)},
        (-0.68603145, 0.37536422, 0.00645981, 0.05044501, -0.06286387),
    ),
    "nuslerp, first two": (
        "nuslerp",
        {"weights": (0.6, 0.4)},
        (-0.88341646, 0.47668069, 0.00547186, 0.06011294, -0.07984594),
    ),
    "nuslerp, first two, by rows": (
        "nuslerp",
        {"weights": (0.6, 0.4), "flatten": False},
        (-0.84142355, 0.47677027, 0.00542090, 0.06234427, -0.07371457),
    ),
    "karcher": ("karcher", {}, (-0.55209841, 0.33240987, -0.00609511, -0.01857948, -0.06660507)),
    "breadcrumbs, official, rows": (
        "breadcrumbs",
        {"keep": 0.5, "remove_top": 0.13, "scale": 0.4},
        (-0.25481676, 0.28719039, 0.00000000, 0.02741238, -0.07887540),
    ),
    "breadcrumbs, mergekit": (
        "breadcrumbs",
        {"scope": "tensor", "keep": 0.6, "remove_top": 0.1, "scale": 1.0},
        (-0.75350902, 0.86259903, 0.00000000, 0.11019399, -0.19718851),
    ),
    "model_stock": ("model_stock", {}, MODEL_STOCK),
    "model_stock, mergekit": ("model_stock", {"clamp": False}, MODEL_STOCK),
    "sce": ("sce", {}, (-1.01042753, 0.51945007, -0.02178148, -0.08683714, -0.06612040)),
    "sce, half, mergekit": (
        "sce",
        {"select_topk": 0.5},
        (-0.73274000, 0.42366689, 0.00000000, -0.09075214, 0.00000000),
    ),
    "sce, half, FuseChat": (
        "sce",
        {"select_topk": 0.5, "mask_scope": "weights"},
        (-1.00052348, 0.52035686, -0.02258721, -0.09075214, -0.06610340),
    ),
    "tsvm": ("tsvm", {}, (-0.62685181, 0.66942044, -0.04775820, -0.05081105, -0.11520145)),
    "tsvm, published, without tolerance": (
        "tsvm",
        {"rank_tolerance": 0.0},
        (-0.62685181, 0.66942044, -0.04775820, -0.05081105, -0.11520145),
    ),
    "iso_c": ("iso_c", {}, (-1.21177727, 0.91690540, -0.04020740, -0.06639385, -0.19110170)),
    "iso_cts": ("iso_cts", {}, ISO_CTS),
    "iso_cts, published, without tolerance": ("iso_cts", {"rank_tolerance": 0.0}, ISO_CTS),
    "wudi, lr 1e-5": ("wudi", {}, (-1.64666535, 0.98315052, -0.02893414, -0.05970856, -0.19421958)),
    "wudi, lr 1e-3": (
        "wudi",
        {"lr": 1e-3},
        (-0.90782765, 0.62954159, -0.07548813, -0.06780194, -0.09238685),
    ),
    "wudi, closed form": ("wudi", {"solver": "closed"}, CLOSED),
    "iwudi": ("iwudi", {"time": 300.0}, CLOSED),
    "wudi, flow": ("wudi", {"solver": "flow", "time": 300.0}, CLOSED),
    "swudi": (
        "swudi",
        {"time": 300.0, "top_ratio": 0.65},
        (-0.92261907, 0.57211282, -0.05520572, -0.06203873, -0.11191940),
    ),
    "wudi, flow on the top": (
        "wudi",
        {"solver": "flow", "top_ratio": 0.65},
        (-0.92261907, 0.57211282, -0.05520572, -0.06203873, -0.11191940),
    ),
    "aswudi": ("aswudi", {}, CLOSED),
    "optmerge": ("optmerge", {}, (-0.61252511, 0.37582927, -0.00908293, -0.02042713, -0.07871445)),
}


def merged_delta(name: str, weights: tuple[float, ...] = (1.0, 1.0, 1.0), **parameters: object):
    method = resolve(MethodSpec(name=name, parameters=dict(parameters)))
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=BASE.clone(),
        deltas=[delta.clone() for delta, _ in zip(DELTAS, weights, strict=False)],
        weights=weights,
        experts="abc"[: len(weights)],
        seed=0,
    )
    return method.merge_tensor(inputs) - BASE


def interference(merged: torch.Tensor) -> float:
    """Return WUDI's objective, from its definition."""
    return sum(((merged - d) @ d.T).norm() ** 2 / d.norm() ** 2 for d in DELTAS).item()


@pytest.mark.parametrize("row", ROWS)
def test_the_published_numbers_come_out(row):
    name, parameters, (total, norm, *entries) = ROWS[row]
    delta = merged_delta(name, **parameters)
    expected = torch.tensor([total, norm, *entries], dtype=torch.float64)
    found = torch.stack([delta.sum(), delta.norm(), *delta[PLACES]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_paper_ties_keeps_ten_of_48_entries_of_each_expert():
    for e in range(3):
        alone = torch.zeros(3, dtype=torch.float64)
        alone[e] = 1
        delta = merged_delta("ties", weights=tuple(alone.tolist()), merge="sum")
        assert torch.count_nonzero(delta) == 10


def test_wudi_lowers_its_objective_as_far_as_published():
    assert interference(sum(DELTAS)) == pytest.approx(0.19238808, abs=1e-8)
    assert interference(merged_delta("wudi")) == pytest.approx(0.18246151, abs=1e-8)
    minimum = interference(merged_delta("wudi", solver="closed"))
    assert minimum == pytest.approx(0.04130518, abs=1e-8)


def test_the_spectrum_of_the_interference_is_the_published_one():
    c = sum(d.T @ d / d.norm() ** 2 for d in DELTAS)
    values = torch.linalg.eigvalsh(c)
    assert values[0].item() == pytest.approx(0.064415, abs=1e-6)
    assert values[-1].item() == pytest.approx(0.717152, abs=1e-6)
    assert values.sum().item() == pytest.approx(3)


def test_model_stock_by_rows_has_the_published_ratios():
    deltas = torch.stack(DELTAS)
    merged = merged_delta("model_stock", filter_wise=True, clamp=False)
    ratios = merged[:, 0] / deltas.mean(0)[:, 0]
    torch.testing.assert_close(merged, ratios[:, None] * deltas.mean(0))
    assert ratios.min().item() == pytest.approx(-0.4256, abs=5e-5)
    assert ratios.max().item() == pytest.approx(0.6917, abs=5e-5)
    clamped = merged_delta("model_stock", filter_wise=True)
    torch.testing.assert_close(clamped, ratios.clamp(0, 1)[:, None] * deltas.mean(0))
