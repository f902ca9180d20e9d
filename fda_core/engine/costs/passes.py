"""How much each stage of FDA does per forward pass of a layer. Change a stage, change its line.

Products follow from the steps of `anchors/construct.py` and `anchors/adapt.py` and are held to
them by tests that count (`tests/unit/engine/test_counted_work.py`). One construction step goes,
in products with a weight: forward through base and expert 2; back through the base for the
gradient of its weights and of its activations 2; back through that to X, where each of those
two has two derivatives but none with respect to the weights 3, and through the two forward
passes 2. A product of two activations (attention) has a derivative for each side every time:
2 + 2 + 4 + 2 + 2. Weights that read the layer's input itself need no gradient of it in the
first round, which spares two of nine.

Traffic is element-wise work in elements read and written, counted by running layers of every
kind of block; the numbers are the fit, good to 20 % (25 % for adaptation).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["plain", "rotary", "mlp"]
"""A whole layer, one with rotary positions and norms of single operations, or an MLP alone."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Matrix products of one step, in forward passes of one layer over the step's rows."""

    weights: int
    """Of weights that read what the layer has computed."""
    entry: int
    """Of weights that read the layer's input as it comes."""
    attention: int
    """Of scores and of their products with values."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Elements that one step's element-wise operations read and write."""

    per_width: Mapping[Kind, int]
    """For each row and element of the layer's width: norms, residuals, heads put in order."""
    per_output: int
    """For each row and output of a matrix."""
    per_score: int
    """For each attention score."""
    per_parameter: int
    """For each element of the layer's tensors."""
    per_inner: Mapping[str, int]
    """For each row and inner unit, on top: activations that are no single operation."""


@dataclass(frozen=True, kw_only=True)
class Launches:
    """Kernels that one step starts."""

    of_layer: Mapping[Kind, int]
    per_tensor: int


CONSTRUCT = Passes(weights=9, entry=7, attention=12)
"""A construction step on all anchors at once."""
CONSTRUCT_IN_PIECES = Passes(weights=13, entry=10, attention=16)
"""A step in microbatches, which goes forward and back once more to sum the gradient first."""
ADAPT = Passes(weights=3, entry=2, attention=3)
"""One pass over the pooled anchors."""
FORWARD = Passes(weights=1, entry=1, attention=1)
ADAPT_EVALUATIONS = 5
"""Forward passes over the pool around an adaptation: targets, the last loss, three drifts."""

CONSTRUCT_TRAFFIC = Traffic(
    per_width={"plain": 235, "rotary": 340, "mlp": 35},
    per_output=52,
    per_score=62,
    per_parameter=9,
    per_inner={"quick_gelu": 53, "gelu_new": 125},
)
MORE_TRAFFIC_IN_PIECES = 1.25
"""Of activations, by the first round."""
PARAMETER_TRAFFIC_OF_A_PIECE = 3
"""Per parameter: adding to the sum of gradients."""
ADAPT_TRAFFIC = Traffic(
    per_width={"plain": 50, "rotary": 125, "mlp": 10},
    per_output=6,
    per_score=11,
    per_parameter=0,
    per_inner={"quick_gelu": 16, "gelu_new": 40},
)
ELEMENTS_TRAFFIC = 19
"""Per parameter and minibatch where elements are the variables: gradients and Adam."""
COEFFICIENTS_TRAFFIC = 28
"""The same per coefficient, with θ0 + Σ α δ and its derivative."""
FORWARD_TRAFFIC_SHARE = 0.25
"""Of a pass of adaptation's."""

CONSTRUCT_LAUNCHES = Launches(of_layer={"plain": 560, "rotary": 620, "mlp": 170}, per_tensor=0)
MUON_TRAFFIC = 17
"""Per element of the anchors and step, beside products."""
MUON_LAUNCHES = 12
"""Kernels of a step beside products and inner products."""
POLAR_PRODUCTS = 3
"""Of each iteration of the polar factor: two with the anchors as a matrix, one of its side."""
LAUNCHES_OF_A_PIECE = 1.2
"""Of a step's: each piece goes through both rounds."""
DOT_PIECE = 2**17
"""Elements of one inner product of gradients: `anchors.sums.PIECE`, which loads torch."""
ADAPT_LAUNCHES = Launches(of_layer={"plain": 75, "rotary": 130, "mlp": 25}, per_tensor=8)
COEFFICIENT_LAUNCHES = 11
"""Per tensor and task vector instead of `per_tensor`."""
