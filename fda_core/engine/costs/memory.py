"""What a unit will hold in memory, and read, reckoned from shapes: bytes."""

from collections.abc import Iterable, Sequence

from fda_core.anchors.config import ConstructConfig, OptimiserName
from fda_core.contract.plan import PinnedCheckpoint, PlannedTensor
from fda_core.engine.costs.shapes import numel
from fda_core.methods.elementwise import BLOCK

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
ANCHORS_HELD: dict[OptimiserName, tuple[int, int]] = {"adamw": (5, 6), "muon": (4, 9)}
"""Times the anchors that a construction holds at rest and while it steps (`Descent`)."""


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


def anchors_held(config: ConstructConfig) -> int:
    """Return how many times the anchors a unit holds, a search's best trial so far with it."""
    resting, stepping = ANCHORS_HELD[config.optimiser]
    return stepping + (resting if config.sigma == "search" else 0)


def metric_bytes(config: ConstructConfig, *, width: int, item: int) -> int:
    """Return what the root of a metric takes; it is made before anything of a step is held."""
    return item * width**2 if config.metric == "update" else 0


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
