"""The unit `construct(layer, expert)`: anchors into the cache, their metrics into the journal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from torch import Tensor

from fda_core.anchors.cache import AnchorEntry, cache_key, layer_digest
from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import spectrum
from fda_core.anchors.initialise import initial_anchors
from fda_core.anchors.layer_task import LayerTask
from fda_core.anchors.sigma_search import Found, StartOf, construct_from
from fda_core.blocks.block import Block, build_block
from fda_core.checkpoints.layers import families
from fda_core.contract.artifacts import (
    ArtifactFile,
    ConstructMetrics,
    Curve,
    SigmaTrial,
    UnitRecord,
)
from fda_core.contract.events import StepReported
from fda_core.contract.plan import PlannedTensor, Unit
from fda_core.engine import cache_alias, layout, seeds
from fda_core.engine.context import UnitContext
from fda_core.engine.cut import fitted_tensors, settled_tokens
from fda_core.engine.layer_tensors import Inputs, shapes_of
from fda_core.engine.lowered import microbatch_of
from fda_core.errors import InternalError, NonFinite
from fda_core.methods.fda import Fda


def block_of(context: UnitContext, shapes: dict[str, tuple[int, ...]], *, layer: int) -> Block:
    """Return the function of one layer of the plan's model, or of its MLP."""
    tower = families()[context.plan.family].towers[0]
    return build_block(
        tower,
        context.plan.base.config,
        shapes,
        layer=layer,
        scope=fda_of(context).parameters.scope,
    )


def fda_of(context: UnitContext) -> Fda:
    """Return the plan's method, which must be FDA."""
    if not isinstance(context.method, Fda):
        raise InternalError(f"unit {context.unit.id} needs FDA, the plan has {context.method.name}")
    return context.method


def run_construct(context: UnitContext) -> UnitRecord:
    """Construct the anchors of one (layer, expert), or find them in the cache."""
    unit, method = context.unit, fda_of(context)
    if unit.layer is None or unit.expert is None:
        raise InternalError(f"unit {unit.id} has no layer or expert")
    tensors = fitted_tensors(context.plan, method)[unit.layer]
    inputs = Inputs(context)
    base = inputs.base_layer(tensors)
    expert = inputs.expert_layer(tensors, unit.expert, base)
    digests = layer_digest(base), layer_digest(expert)
    settings = cache_alias.settings(context.plan, method)
    key = cache_key(*digests, unit.layer, settings)
    entry = AnchorEntry(context.storage, layout.anchors(context.plan.workspace, key))
    found = entry.find()
    if found is not None:
        file, metrics = found
        metrics = metrics.model_copy(update={"expert": unit.expert, "layer": unit.layer})
        return _record(context, [file], metrics, source="cache")
    if digests[0] == digests[1]:
        return _record(context, [], _nothing_to_do(unit, method, tensors), source="run")

    task = LayerTask(
        block=block_of(context, shapes_of(base), layer=unit.layer),
        base=base,
        expert=expert,
        width=context.plan.width,
        transposed={tensor.part for tensor in tensors if tensor.transposed},
    )

    def start_of(config: ConstructConfig) -> Tensor:
        purpose = "construct", unit.layer or 0, digests[1]
        return initial_anchors(
            *task.matrices(),
            config=config,
            tokens=settled_tokens(method),
            width=task.width,
            generator=seeds.generator(context.plan.recipe.seed, *purpose),
        )

    reached = _construct(context, method, task, start_of=start_of)
    if reached is None:
        return _record(context, [], _nothing_to_do(unit, method, tensors), source="run")
    metrics = _metrics(unit, method, reached)
    file = entry.write(reached.made.anchors, metrics)
    context.moved(write=file.size_bytes)
    alias = cache_alias.alias(context.plan, method, unit.layer, unit.expert)
    context.storage.put(
        layout.anchor_alias(context.plan.workspace, alias), json.dumps({"key": key}).encode()
    )
    return _record(context, [file], metrics, source="run")


def _construct(
    context: UnitContext, method: Fda, task: LayerTask, *, start_of: StartOf
) -> Found | None:
    """Run stage I, telling its steps, with the microbatch the unit's shapes ask for."""
    config, unit, layer = method.parameters.construction, context.unit, context.unit.layer or 0
    held = microbatch_of(context.plan, unit) or config.anchors
    pieces = held if held < config.anchors else None
    config = config.model_copy(update={"microbatch": pieces})

    def on_step(step: int, loss: float, alignment: float) -> None:
        context.step(
            StepReported(
                unit=unit.id,
                stage="construct",
                layer=layer,
                step=step,
                steps=unit.steps,
                loss=loss,
                alignment=alignment,
            )
        )

    context.flops = unit.flops
    try:
        found = construct_from(task, start_of=start_of, config=config, on_step=on_step)
    except NonFinite as problem:
        raise NonFinite(
            f"layer {layer}, expert {unit.expert!r}: {problem.message}",
            hint="Lower construct.learning_rate, or use dtype.compute: float64.",
            layer=layer,
            expert=unit.expert,
            **problem.context,
        ) from problem
    context.flops = unit.flops * found.steps // unit.steps if found else 0
    return found


def _curve(values: Sequence[float]) -> Curve:
    return Curve(steps=tuple(range(len(values))), values=tuple(values))


def _metrics(unit: Unit, method: Fda, found: Found) -> ConstructMetrics:
    config, made = method.parameters.construction, found.made
    return ConstructMetrics(
        layer=unit.layer or 0,
        expert=unit.expert or "",
        anchors=config.anchors,
        tokens=settled_tokens(method),
        init=config.init,
        optimiser=config.optimiser,
        sigma=found.sigma,
        trials=tuple(SigmaTrial(**asdict(trial)) for trial in found.trials),
        steps_run=len(made.losses),
        settled=made.settled,
        best_step=made.best_step,
        alignment_start=made.alignments[0],
        alignment_best=made.alignments[made.best_step],
        alignment=_curve(made.alignments),
        loss=_curve(made.losses),
        tensor_cosines=dict(made.cosines),
        zero_tensors=made.zero,
        spectrum_start=spectrum(made.start),
        spectrum_end=spectrum(made.anchors),
    )


def _nothing_to_do(unit: Unit, method: Fda, tensors: Sequence[PlannedTensor]) -> ConstructMetrics:
    """Return the metrics of an expert that did not change this layer: no anchors, no part in it."""
    config = method.parameters.construction
    empty = Curve(steps=(), values=())
    return ConstructMetrics(
        layer=unit.layer or 0,
        expert=unit.expert or "",
        anchors=config.anchors,
        tokens=settled_tokens(method),
        init=config.init,
        optimiser=config.optimiser,
        steps_run=0,
        best_step=0,
        alignment_start=None,
        alignment_best=None,
        alignment=empty,
        loss=empty,
        tensor_cosines={},
        zero_tensors=tuple(t.part for t in tensors),
        spectrum_start=(),
        spectrum_end=(),
    )


def _record(
    context: UnitContext,
    files: list[ArtifactFile],
    metrics: ConstructMetrics,
    *,
    source: Literal["run", "cache"],
) -> UnitRecord:
    return UnitRecord(
        unit=context.unit.id,
        kind="construct",
        files=tuple(files),
        cost=context.cost(),
        source=source,
        worker=context.worker,
        device=context.device_name,
        construction=metrics,
    )
