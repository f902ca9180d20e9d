"""Work of the two stages of FDA on one layer, from its tensors' shapes (`fda.md` §5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from fda_core.anchors.config import POLAR_ITERATIONS
from fda_core.checkpoints.layers import Scope, Tower
from fda_core.contract.plan import PlannedTensor
from fda_core.engine.costs import passes
from fda_core.engine.costs.passes import Kind, Passes, Traffic
from fda_core.engine.costs.shapes import attention_heads, attention_width, numel
from fda_core.engine.costs.work import Work

ACTIVATIONS = ("hidden_act", "activation", "activation_function", "hidden_activation")
ACTIVATION_OF_BLOCK = {"clip_vision": "quick_gelu", "gpt2": "gelu_new"}
"""Where a config may leave it out and it is more than one operation."""
ROTARY = frozenset(
    {
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite"),
        *("smollm3", "olmo2", "starcoder2", "gpt_neox", "phi3", "modernbert"),
    }
)
"""Blocks with rotary positions, and norms that are several operations."""


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """One layer, or its MLP alone, in the numbers that its work hangs on."""

    matrices: tuple[tuple[int, int], ...]
    """(outputs, inputs) of each."""
    entry_weights: int
    """Elements of the matrices that read the layer's input as it comes."""
    parameters: int
    tensors: int
    width: int
    heads: int
    attention_width: int
    activation: str
    kind: Kind

    @property
    def weights(self) -> int:
        """Return the elements of all matrices."""
        return sum(o * i for o, i in self.matrices)

    @property
    def outputs(self) -> int:
        """Return the outputs of all matrices together."""
        return sum(o for o, _ in self.matrices)

    @property
    def inner(self) -> int:
        """Return the inputs of the widest matrix: the MLP's inner units."""
        return max((i for _, i in self.matrices), default=0)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How many rows go through a layer at once: anchors of some tokens; 0 tokens for an MLP."""

    anchors: int
    tokens: int
    item: int
    """Bytes of an element."""

    @property
    def count(self) -> int:
        """Return the rows."""
        return self.anchors * max(self.tokens, 1)


def layer_size(
    tensors: Sequence[PlannedTensor],
    *,
    tower: Tower,
    config: Mapping[str, object],
    scope: Scope,
    width: int,
) -> LayerSize:
    """Return the size of a layer whose fitted tensors these are."""
    settings = tower.settings(config)
    matrices = [t for t in tensors if len(t.shape) == 2]

    def reads_input(tensor: PlannedTensor) -> bool:
        """Of an MLP, all matrices do but the one that leads back to the layer's width."""
        if scope == "mlp":
            return tensor.matrix_shape[0] != width
        return tower.reads_input(tensor.part)

    named = next((settings[key] for key in ACTIVATIONS if isinstance(settings.get(key), str)), None)
    return LayerSize(
        matrices=tuple((t.matrix_shape[0], t.matrix_shape[1]) for t in matrices),
        entry_weights=sum(numel(t.shape) for t in matrices if reads_input(t)),
        parameters=sum(numel(t.shape) for t in tensors),
        tensors=len(tensors),
        width=width,
        heads=attention_heads(settings),
        attention_width=attention_width(settings, width=width),
        activation=str(named or ACTIVATION_OF_BLOCK.get(tower.block or "", "")),
        kind="mlp" if scope == "mlp" else "rotary" if tower.block in ROTARY else "plain",
    )


def products(layer: LayerSize, rows: Rows, many: Passes) -> Work:
    """Return the matrix products of a step of so many passes; exact."""
    inside = layer.weights - layer.entry_weights
    weights = 2 * (many.weights * inside + many.entry * layer.entry_weights) * rows.count
    attention = 4 * rows.count * rows.tokens * layer.attention_width
    operands = sum(rows.count * (o + i) + o * i for o, i in layer.matrices)
    scores = rows.count * (4 * layer.attention_width + 2 * layer.heads * rows.tokens)
    if not rows.tokens:
        scores = 0
    return Work(
        flops=weights + many.attention * attention,
        product_bytes=rows.item * (many.weights * operands + many.attention * scores),
    )


def construct_step(layer: LayerSize, rows: Rows, *, pieces: int = 1) -> Work:
    """Return one optimiser step of construction, all anchors in so many pieces."""
    many = passes.CONSTRUCT if pieces == 1 else passes.CONSTRUCT_IN_PIECES
    activations = _activations(layer, rows, passes.CONSTRUCT_TRAFFIC)
    parameters = passes.CONSTRUCT_TRAFFIC.per_parameter
    if pieces > 1:
        activations = int(activations * passes.MORE_TRAFFIC_IN_PIECES)
        parameters += passes.PARAMETER_TRAFFIC_OF_A_PIECE * pieces
    parameters *= layer.parameters
    started = passes.CONSTRUCT_LAUNCHES
    dots = 2 * ceil(layer.parameters / passes.DOT_PIECE)
    kernels = started.of_layer[layer.kind]
    if pieces > 1:
        kernels = int(kernels * passes.LAUNCHES_OF_A_PIECE * pieces)
    made = products(layer, rows, many)
    again = (pieces - 1) * many.weights * layer.weights * rows.item
    return made + Work(
        product_bytes=again,
        traffic_bytes=rows.item * (activations + parameters),
        launches=kernels + started.per_tensor * layer.tensors + dots,
    )


def metric_step(rows: Rows, width: int) -> Work:
    """Return what a metric adds to Muon's step: two products with its root (d, d); exact."""
    operands = 2 * rows.count * width + width**2
    return Work(
        flops=4 * rows.count * width**2,
        product_bytes=rows.item * 2 * operands,
        launches=2,
    )


def muon_step(rows: Rows, width: int) -> Work:
    """Return what Muon does in a step: products of the anchors as a matrix (n·t, d); exact."""
    short, long = sorted((rows.count, width))
    size = short * long
    operands = 2 * (2 * size + short**2) + size + 4 * short**2
    return Work(
        flops=POLAR_ITERATIONS * (4 * long * short**2 + 2 * short**3),
        product_bytes=rows.item * POLAR_ITERATIONS * operands,
        traffic_bytes=rows.item * passes.MUON_TRAFFIC * size,
        launches=POLAR_ITERATIONS * passes.POLAR_PRODUCTS
        + passes.MUON_LAUNCHES
        + 2 * ceil(size / passes.DOT_PIECE),
    )


def adapt_epoch(layer: LayerSize, pool: Rows, *, batch: int, deltas: int) -> Work:
    """Return one pass over the pooled anchors of all experts in minibatches.

    `deltas` is how many task vectors have coefficients; 0 where elements are the variables.
    """
    batches = ceil(pool.anchors / batch)
    per_parameter = passes.COEFFICIENTS_TRAFFIC * deltas or passes.ELEMENTS_TRAFFIC
    started = passes.ADAPT_LAUNCHES
    kernels = started.of_layer[layer.kind]
    of_tensor = passes.COEFFICIENT_LAUNCHES * deltas or started.per_tensor
    made = products(layer, pool, passes.ADAPT)
    again = (batches - 1) * passes.ADAPT.weights * layer.weights * pool.item
    activations = _activations(layer, pool, passes.ADAPT_TRAFFIC)
    return made + Work(
        product_bytes=again,
        traffic_bytes=pool.item * (activations + batches * per_parameter * layer.parameters),
        launches=batches * (kernels + of_tensor * layer.tensors),
    )


def evaluation(layer: LayerSize, pool: Rows, *, batch: int) -> Work:
    """Return one forward pass over the pooled anchors."""
    kernels = passes.ADAPT_LAUNCHES.of_layer[layer.kind]
    activations = _activations(layer, pool, passes.ADAPT_TRAFFIC)
    return products(layer, pool, passes.FORWARD) + Work(
        traffic_bytes=int(pool.item * activations * passes.FORWARD_TRAFFIC_SHARE),
        launches=ceil(pool.anchors / batch) * kernels // 2,
    )


def _activations(layer: LayerSize, rows: Rows, traffic: Traffic) -> int:
    """Return the elements that go through memory for the rows' activations in one step."""
    of_row = traffic.per_width[layer.kind] * layer.width + traffic.per_output * layer.outputs
    of_row += traffic.per_inner.get(layer.activation, 0) * layer.inner
    of_row += traffic.per_score * layer.heads * rows.tokens
    return rows.count * of_row
