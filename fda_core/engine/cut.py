"""Cut a planned merge into units, each with what it will read, write, hold and compute."""

import math
from collections.abc import Mapping, Sequence

from fda_core.checkpoints.layers import families
from fda_core.contract.plan import Plan, PlannedShard, PlannedTensor, TensorRule, Unit
from fda_core.engine import cache_alias
from fda_core.engine.costs import memory, shapes
from fda_core.engine.costs.layers import LayerSize, layer_size
from fda_core.engine.costs.unit_work import adapt_work, construct_work, tensors_work
from fda_core.engine.costs.work import Work
from fda_core.engine.vary import method_of_setting
from fda_core.errors import InternalError
from fda_core.methods.base import Method
from fda_core.methods.fda import Fda
from fda_core.storage.base import Storage


def cut_into_units(plan: Plan, method: Method, storage: Storage) -> list[Unit]:
    """Return every unit of a plan, in an order in which they can run one by one."""
    units: list[Unit] = []
    by_layer = layer_tensors(plan)
    if isinstance(method, Fda):
        by_layer = fitted_tensors(plan, method)
        units += _construct_units(plan, method, by_layer, storage)
    units += merge_units(plan, method, by_layer)
    units.append(_publish_unit(plan))
    return units


def merge_units(
    plan: Plan, method: Method, by_layer: Mapping[int, list[PlannedTensor]]
) -> list[Unit]:
    """Return the units that merge a plan's shards by a method."""
    return [_merge_unit(plan, method, shard, by_layer) for shard in plan.shards]


def layer_tensors(plan: Plan) -> dict[int, list[PlannedTensor]]:
    """Return the tensors of every layer, layers ascending."""
    found: dict[int, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        if tensor.layer is not None:
            found.setdefault(tensor.layer, []).append(tensor)
    return dict(sorted(found.items()))


def fitted_tensors(plan: Plan, method: Fda) -> dict[int, list[PlannedTensor]]:
    """Return the tensors of every layer that FDA fits: all of them, or its MLP's."""
    tower, scope = families()[plan.family].towers[0], method.parameters.scope
    return {
        layer: [t for t in tensors if tower.holds(t.part, scope)]
        for layer, tensors in layer_tensors(plan).items()
    }


def merges_blocks(tensor: PlannedTensor, method: Method) -> bool:
    """Say whether a tensor is merged from blocks: the element-wise methods' on the CPU are."""
    if tensor.rule is TensorRule.MERGE:
        return method.merges_blocks(layer=tensor.layer, shape=tensor.matrix_shape)
    return tensor.rule is TensorRule.AVERAGE


def construct_id(layer: int, expert: str) -> str:
    """Return the id of the unit that constructs one (layer, expert)."""
    return f"construct-{layer:03d}-{expert}"


def settled_tokens(method: Fda) -> int:
    """Return the tokens per anchor that planning settled on; 0 where anchors are rows (n, d)."""
    if method.parameters.scope == "mlp":
        return 0
    tokens = method.parameters.construction.tokens
    if tokens is None:
        raise InternalError("the plan did not settle construct.tokens")
    return tokens


def anchor_shape(count: int, tokens: int, width: int) -> tuple[int, ...]:
    """Return the shape of some anchors: (n, t, d), or (n, d) without a token axis."""
    return (count, tokens, width) if tokens else (count, width)


def fitted_size(plan: Plan, method: Fda, tensors: Sequence[PlannedTensor]) -> LayerSize:
    """Return the size of what FDA fits of a layer."""
    return layer_size(
        tensors,
        tower=families()[plan.family].towers[0],
        config=plan.base.config,
        scope=method.parameters.scope,
        width=plan.width,
    )


def item_bytes(plan: Plan) -> int:
    """Return the bytes of an element as it is computed with."""
    return 8 if plan.recipe.dtype.compute == "float64" else 4


def _construct_units(
    plan: Plan, method: Fda, by_layer: Mapping[int, list[PlannedTensor]], storage: Storage
) -> list[Unit]:
    aliases = {
        (layer, expert.name): cache_alias.alias(plan, method, layer, expert.name)
        for layer in by_layer
        for expert in plan.experts
    }
    cached = cache_alias.cached_among(plan, aliases.values(), storage)
    flops = {
        layer: layer_construction(plan, method, by_layer[layer]).all_flops for layer in by_layer
    }
    return [
        _construct_unit(
            plan,
            method,
            layer,
            by_layer[layer],
            expert,
            flops=flops[layer],
            cached=alias in cached,
        )
        for (layer, expert), alias in aliases.items()
    ]


def layer_construction(plan: Plan, method: Fda, tensors: Sequence[PlannedTensor]) -> Work:
    """Return the work of constructing a layer's anchors for one expert."""
    tokens = settled_tokens(method)
    pieces = memory.microbatch(method.parameters.construction, anchor_bytes(plan, tensors, tokens))
    return construct_work(
        fitted_size(plan, method, tensors),
        method,
        tokens=tokens,
        item=item_bytes(plan),
        microbatch=pieces,
    )


def layer_adaptation(plan: Plan, method: Fda, tensors: Sequence[PlannedTensor]) -> Work:
    """Return the work of fitting a layer to all experts' anchors."""
    return adapt_work(
        fitted_size(plan, method, tensors),
        method,
        tokens=settled_tokens(method),
        item=item_bytes(plan),
        experts=len(plan.experts),
    )


def _construct_unit(
    plan: Plan,
    method: Fda,
    layer: int,
    tensors: Sequence[PlannedTensor],
    expert: str,
    *,
    flops: int,
    cached: bool,
) -> Unit:
    config = method.parameters.construction
    tokens = settled_tokens(method)
    per_anchor = anchor_bytes(plan, tensors, tokens)
    pieces = memory.microbatch(config, per_anchor)
    size = sum(shapes.numel(t.shape) for t in tensors) * item_bytes(plan)
    anchors = shapes.numel(anchor_shape(config.anchors, tokens, plan.width)) * item_bytes(plan)
    who = next(e for e in plan.experts if e.name == expert)
    names = [t.name for t in tensors]
    return Unit(
        id=construct_id(layer, expert),
        kind="construct",
        layer=layer,
        expert=expert,
        steps=config.steps_in_all,
        read_bytes=memory.read_bytes(plan.base, names)
        + memory.read_bytes(who.checkpoint, [own for n in names for own in who.own(n)]),
        write_bytes=anchors,
        memory_bytes=memory.LAYER_PROCESS_BYTES
        + 6 * size
        + memory.anchors_held(config) * anchors
        + memory.metric_bytes(config, width=plan.width, item=item_bytes(plan))
        + (pieces or config.anchors) * per_anchor,
        flops=flops,
        cached=cached,
    )


def anchor_bytes(plan: Plan, tensors: Sequence[PlannedTensor], tokens: int) -> int:
    """Return the memory of one anchor in a construction step."""
    tower = families()[plan.family].towers[0]
    heads = shapes.attention_heads(tower.settings(plan.base.config))
    return memory.activation_bytes(
        tensors, tokens=tokens, width=plan.width, heads=heads, item=item_bytes(plan)
    )


def _merge_unit(
    plan: Plan, method: Method, shard: PlannedShard, by_layer: Mapping[int, list[PlannedTensor]]
) -> Unit:
    chosen = set(shard.tensors)
    tensors = [t for t in plan.tensors if t.name in chosen]
    reading = memory.read_bytes(plan.base, shard.tensors) + sum(
        memory.read_bytes(
            e.checkpoint, [own for t in tensors if e.name in t.experts for own in e.own(t.name)]
        )
        for e in plan.experts
    )
    begins = method.start if isinstance(method, Fda) else method
    adapts = isinstance(method, Fda) and bool(shard.layers)
    held = _tensors_bytes(plan, method, tensors)
    held += memory.LAYER_PROCESS_BYTES if adapts else memory.PROCESS_BYTES
    flops = tensors_work(method, tensors, item=item_bytes(plan)).all_flops
    needs: list[str] = []
    steps = 0
    if isinstance(method, Fda) and shard.layers:
        construct, adapt = method.parameters.construction, method.parameters.adaptation
        tokens = settled_tokens(method)
        rows = construct.anchors * max(tokens, 1) * len(plan.experts)
        steps = adapt.epochs * len(shard.layers)
        for layer in shard.layers:
            needs += [construct_id(layer, e.name) for e in plan.experts]
            flops += layer_adaptation(plan, method, by_layer[layer]).all_flops
        largest = max(
            sum(shapes.numel(t.shape) for t in by_layer[layer]) * item_bytes(plan)
            for layer in shard.layers
        )
        pool = 2 * rows * plan.width * item_bytes(plan)
        batch = min(adapt.batch, construct.anchors * len(plan.experts))
        copies = len(plan.experts) + 7 + math.ceil(begins.workspace_tensors if begins else 0)
        held += largest * copies + pool
        held += batch * anchor_bytes(plan, by_layer[shard.layers[0]], tokens) // 2
    return Unit(
        id=f"merge-{shard.number:03d}",
        kind="merge",
        needs=tuple(needs),
        shard=shard.number,
        steps=steps,
        read_bytes=reading,
        write_bytes=shard.size_bytes,
        memory_bytes=held,
        flops=flops,
    )


def _tensors_bytes(plan: Plan, method: Method, tensors: Sequence[PlannedTensor]) -> int:
    """Return what merging tensors one by one holds at most, beside the process itself."""
    methods: dict[int | None, Method] = {None: method}
    for number in range(len(plan.settings)):
        methods[number] = method_of_setting(plan, number)
    windows = memory.windows_bytes(len(plan.experts) + 1)
    return windows + max((_tensor_bytes(plan, methods[t.setting], t) for t in tensors), default=0)


def _tensor_bytes(plan: Plan, method: Method, tensor: PlannedTensor) -> int:
    """Return what merging one tensor holds, in blocks or as a whole."""
    experts = [e for e in plan.experts if e.name in tensor.experts]
    stored = [plan.base.tensors[tensor.tied_to or tensor.name].size_bytes] + [
        e.checkpoint.tensors[own].size_bytes for e in experts for own in e.own(tensor.name)
    ]
    whole = shapes.numel(tensor.shape) * item_bytes(plan)
    if not merges_blocks(tensor, method):
        begins = method.start if isinstance(method, Fda) else method
        working = math.ceil(begins.workspace_tensors) if begins else 0
        return whole * (len(experts) + 3 + working) + memory.staging_bytes(stored)
    held = 0 if method.single_pass else sum(stored)
    updated = [e for e in experts if e.adapter and tensor.name in e.adapter.updates]
    if updated:
        held += whole * (len(updated) + 2) + memory.staging_bytes(stored)
    if tensor.transposed:
        held += sum(stored) + 3 * whole
    return held + memory.block_bytes(tensor.matrix_shape, len(experts), item_bytes(plan))


def _publish_unit(plan: Plan) -> Unit:
    size = sum(shard.size_bytes for shard in plan.shards)
    heads = 0
    if plan.recipe.heads == "keep":
        heads = sum(
            memory.read_bytes(e.checkpoint, [own for h in e.heads for own in e.own(h) or (h,)])
            for e in plan.experts
        )
    inputs = sum(
        pin.size_bytes
        for checkpoint in [plan.base, *(e.checkpoint for e in plan.experts)]
        for pin in checkpoint.files.values()
    )
    return Unit(
        id="publish",
        kind="publish",
        needs=tuple(f"merge-{shard.number:03d}" for shard in plan.shards),
        read_bytes=inputs + size + heads,
        write_bytes=heads + (size if plan.single_file else 0),
        memory_bytes=memory.PROCESS_BYTES + memory.PUBLISH_BYTES,
        flops=0,
    )


def total(units: Sequence[Unit], field: str) -> int:
    """Return the sum of one figure over units that the cache does not spare."""
    return sum(int(getattr(unit, field)) for unit in units if not unit.cached)
