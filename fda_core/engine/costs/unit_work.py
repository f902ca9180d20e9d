"""Work of a plan's units, from what the plan has settled."""

from collections.abc import Iterable
from math import ceil

from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.engine.costs.layers import (
    LayerSize,
    Rows,
    adapt_epoch,
    construct_step,
    evaluation,
    metric_step,
    muon_step,
)
from fda_core.engine.costs.methods import method_work
from fda_core.engine.costs.passes import ADAPT_EVALUATIONS
from fda_core.engine.costs.work import Work
from fda_core.methods.base import Method
from fda_core.methods.fda import Fda
from fda_core.methods.task_arithmetic import TaskArithmetic


def construct_work(
    layer: LayerSize, method: Fda, *, tokens: int, item: int, microbatch: int | None
) -> Work:
    """Return all steps of one (layer, expert), the trials of a search for σ among them."""
    config = method.parameters.construction
    rows = Rows(anchors=config.anchors, tokens=tokens, item=item)
    pieces = 1 if microbatch is None else ceil(config.anchors / microbatch)
    step = construct_step(layer, rows, pieces=pieces)
    if config.optimiser == "muon":
        step += muon_step(rows, layer.width)
    if config.metric == "update":
        step += metric_step(rows, layer.width)
    return step * config.steps_in_all


def adapt_work(layer: LayerSize, method: Fda, *, tokens: int, item: int, experts: int) -> Work:
    """Return all epochs of one layer, and the evaluations around them."""
    config = method.parameters.adaptation
    pool = Rows(anchors=method.parameters.construction.anchors * experts, tokens=tokens, item=item)
    if method.start is None:
        deltas = 0
    else:
        deltas = experts if isinstance(method.start, TaskArithmetic) else 1
    epoch = adapt_epoch(layer, pool, batch=config.batch, deltas=deltas)
    return epoch * config.epochs + evaluation(layer, pool, batch=config.batch) * ADAPT_EVALUATIONS


def tensors_work(method: Method, tensors: Iterable[PlannedTensor], *, item: int) -> Work:
    """Return merging these tensors by a method, or by FDA's start; without reading and writing."""
    begins = method.start if isinstance(method, Fda) else method
    total = Work()
    for tensor in tensors:
        if tensor.rule in (TensorRule.MERGE, TensorRule.AVERAGE):
            merged = begins if tensor.rule is TensorRule.MERGE else None
            total += method_work(merged, tensor, item=item)
    return total
