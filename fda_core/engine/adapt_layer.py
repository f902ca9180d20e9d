"""Stage II for one layer of a plan: anchors from the cache, targets, fit, drift."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from fda_core.anchors.adapt import Coefficients, Elements, Variables, adapt
from fda_core.anchors.cache import read_anchors
from fda_core.anchors.distances import relative_drift
from fda_core.blocks.block import Block, evaluate
from fda_core.contract.artifacts import CACHE_METRICS_FILE, AdaptMetrics, Curve, Drift
from fda_core.contract.events import StepReported
from fda_core.contract.uris import join, parent
from fda_core.engine import seeds
from fda_core.engine.construct_unit import block_of, fda_of
from fda_core.engine.context import UnitContext
from fda_core.engine.cut import anchor_shape, construct_id, fitted_tensors
from fda_core.engine.layer_tensors import shapes_of
from fda_core.errors import CheckpointError, NonFinite

Layer = Mapping[str, Tensor]


def adapt_layer(
    context: UnitContext,
    layer: int,
    *,
    base: Layer,
    experts: Mapping[str, Layer],
    start: Layer,
) -> tuple[dict[str, Tensor], AdaptMetrics | None]:
    """Return the layer fitted to the experts' anchors, and how it went.

    Experts that did not change the layer take no part; if none did, the start is returned.
    """
    began = time.monotonic()
    method = fda_of(context)
    anchors = _anchors(context, layer)
    if not anchors:
        return dict(start), None
    block = block_of(context, shapes_of(base), layer=layer)
    config = method.parameters.adaptation
    targets = {e: evaluate(block, experts[e], x, batch=config.batch) for e, x in anchors.items()}
    variables: Variables
    if method.start is None:
        variables = Elements(base)
    else:
        weights = {e.name: e.weight for e in context.plan.experts}
        variables = Coefficients(
            base,
            method.coefficient_deltas(
                base,
                list(experts.values()),
                start,
                weights=[weights[e] for e in experts],
                names={t.part: t.name for t in fitted_tensors(context.plan, method)[layer]},
            ),
        )

    def on_epoch(epoch: int, loss: float) -> None:
        context.step(
            StepReported(
                unit=context.unit.id,
                stage="adapt",
                layer=layer,
                step=epoch,
                steps=config.epochs,
                loss=loss,
            )
        )

    try:
        made = adapt(
            block,
            variables,
            torch.cat(list(anchors.values())),
            torch.cat(list(targets.values())),
            config=config,
            generator=seeds.generator(context.plan.recipe.seed, "adapt", layer),
            on_epoch=on_epoch,
        )
    except NonFinite as problem:
        raise NonFinite(
            f"layer {layer}: {problem.message}",
            hint="Lower adapt.learning_rate, or use dtype.compute: float64.",
            layer=layer,
            **problem.context,
        ) from problem
    drift = _drifts(block, base, start, made.tensors, anchors, targets, batch=config.batch)
    return made.tensors, AdaptMetrics(
        layer=layer,
        epochs=config.epochs,
        variables=variables.kind,
        loss=Curve(steps=tuple(range(len(made.losses))), values=made.losses),
        drift=drift,
        seconds=round(time.monotonic() - began, 3),
    )


def _anchors(context: UnitContext, layer: int) -> dict[str, Tensor]:
    """Return the anchors of every expert that has some in this layer."""
    found = {}
    units = {construct_id(layer, expert.name): expert for expert in context.plan.experts}
    for unit_id, record in context.journal.read_many(units).items():
        metrics = record.construction
        if metrics is None or not record.files:
            continue
        shape = anchor_shape(metrics.anchors, metrics.tokens, context.plan.width)
        tensor = read_anchors(context.storage, record.files[0], shape=shape, dtype=context.dtype)
        if tensor is None:
            context.journal.forget(unit_id)
            context.storage.delete(join(parent(record.files[0].path), CACHE_METRICS_FILE))
            raise CheckpointError(
                f"{record.files[0].path}: the anchors are not those that were written",
                hint="The unit's record was removed; start the merge again and it is constructed "
                "anew.",
                unit=unit_id,
            )
        context.moved(read=record.files[0].size_bytes)
        found[units[unit_id].name] = tensor.to(context.device)
    return found


def _drifts(
    block: Block,
    base: Layer,
    start: Layer,
    result: Layer,
    anchors: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    batch: int,
) -> dict[str, Drift]:
    """Return how far start and result are from each expert, on its anchors; the base is at 1."""
    drifts = {}
    for expert, x in anchors.items():
        from_base = evaluate(block, base, x, batch=batch)
        drifts[expert] = Drift(
            start=relative_drift(
                evaluate(block, start, x, batch=batch), targets[expert], from_base
            ),
            result=relative_drift(
                evaluate(block, result, x, batch=batch), targets[expert], from_base
            ),
        )
    return drifts
