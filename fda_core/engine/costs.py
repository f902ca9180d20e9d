"""What a unit will take, reckoned from shapes: bytes, memory and multiply-adds.

FLOPs count two per multiply-add of matrix products; element-wise work is left out. U is one
forward pass of a layer over its rows (`fda.md` §5).
"""

from collections.abc import Iterable, Mapping, Sequence

from fda_core.anchors.config import ConstructConfig
from fda_core.contract.plan import PinnedCheckpoint, PlannedTensor
from fda_core.methods.base import Method
from fda_core.methods.elementwise import BLOCK

CONSTRUCT_UNITS_PER_STEP = 9
CONSTRUCT_UNITS_PER_STEP_IN_PIECES = 13
ADAPT_UNITS_PER_PASS = 3
PROCESS_BYTES = 256 * 2**20
"""What a worker needs beside tensors: torch's own buffers and staging."""
LAYER_PROCESS_BYTES = 400 * 2**20
"""The same for a worker that has loaded the transformers library: measured 330 to 390 MB."""
PUBLISH_BYTES = 64 * 2**20
"""What publishing needs beside that: files read to be digested, four at a time, and one copied."""
PART_BYTES = 8 * 2**20
"""Stored tensors that are not held are read in parts of this length, one ahead of the other."""
THREAD_BYTES = 8 * 2**20
"""A thread's stack, as the kernel counts it."""
WRITE_BEHIND_BYTES = 4 * 2**20
STAGING_BYTES = 64 * 2**20
"""What a reader keeps to convert whole tensors."""
BLOCK_TENSORS = 12
"""Temporaries of a block: ten where rows are ranked, the base again, and what is written."""
ACTIVATION_BUDGET_BYTES = 4 * 2**30
MATRIX_FACTORISATION = 20
"""FLOP per o·i·min(o, i) of a thin SVD."""


def numel(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    count = 1
    for axis in shape:
        count *= axis
    return count


def layer_flops(tensors: Iterable[PlannedTensor], *, rows: int, tokens: int, width: int) -> int:
    """Return U: one forward pass of a layer on `rows` token rows, attention included.

    An MLP alone has 0 tokens and no attention.
    """
    matrices = sum(numel(t.shape) for t in tensors if len(t.shape) == 2)
    return 2 * matrices * rows + 4 * rows * tokens * width


def activation_bytes(
    tensors: Iterable[PlannedTensor], *, tokens: int, width: int, heads: int, item: int
) -> int:
    """Return what one anchor holds while a construction step differentiates twice.

    About 40 values per element of the layer's width and of every matrix's output, and 16 per
    attention score: measured on BERT and ViT layers, rounded up.
    """
    outputs = sum(t.matrix_shape[0] for t in tensors if len(t.shape) == 2)
    return item * max(tokens, 1) * (40 * width + 24 * outputs + 16 * heads * tokens)


def microbatch(config: ConstructConfig, per_anchor_bytes: int) -> int | None:
    """Return anchors per pass: as asked, else as many as fit the budget; None means all.

    A function of shapes alone and never of free memory, so that the order of sums, and with
    it every byte, is the same wherever the plan runs.
    """
    if config.microbatch is not None:
        return config.microbatch if config.microbatch < config.anchors else None
    fitting = max(1, ACTIVATION_BUDGET_BYTES // per_anchor_bytes)
    return fitting if fitting < config.anchors else None


def read_bytes(checkpoint: PinnedCheckpoint, names: Iterable[str]) -> int:
    """Return the length of these tensors on disk."""
    return sum(checkpoint.tensors[name].size_bytes for name in names)


def windows_bytes(checkpoints: int) -> int:
    """Return what reading checkpoints side by side in parts, and writing behind, holds."""
    return (2 * PART_BYTES + THREAD_BYTES) * checkpoints + THREAD_BYTES + WRITE_BEHIND_BYTES


def staging_bytes(stored_bytes: Iterable[int]) -> int:
    """Return what readers keep that convert whole tensors of these lengths on disk."""
    return sum(min(STAGING_BYTES, size) for size in stored_bytes)


def block_bytes(shape: Sequence[int], experts: int, item: int) -> int:
    """Return what a block takes: `BLOCK` elements, or a row of either side if that is longer."""
    row = max(shape[-1], numel(shape[1:])) if shape else 1
    return max(BLOCK, row) * (experts + 1 + BLOCK_TENSORS) * item


def method_flops(method: Method, tensors: Iterable[PlannedTensor], experts: int) -> int:
    """Return a method's multiply-adds by its cost class, within a factor of a few."""
    total = 0
    steps = int(getattr(method.parameters, "steps", 300))
    for tensor in tensors:
        size = numel(tensor.shape)
        total += 2 * size * experts
        if len(tensor.shape) == 2 and tensor.layer is not None:
            short = min(tensor.shape)
            if method.cost == "B":
                total += MATRIX_FACTORISATION * size * short * (experts + 2)
            elif method.cost == "C":
                total += 2 * size * tensor.matrix_shape[1] * (steps + 2 * experts)
    return total


def attention_heads(settings: Mapping[str, object]) -> int:
    """Return the number of attention heads a tower's settings name, 1 if none."""
    for key in ("num_attention_heads", "n_heads", "n_head"):
        value = settings.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 1
