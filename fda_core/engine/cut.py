"""Cut a planned merge into units, each with what it will read, write, hold and compute."""

import math
from collections.abc import Mapping, Sequence

from fda_core.checkpoints.layers import families
from fda_core.contract.plan import Plan, PlannedShard, PlannedTensor, TensorRule, Unit
from fda_core.engine import cache_alias, costs
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
    units += [_merge_unit(plan, method, shard, by_layer) for shard in plan.shards]
    units.append(_publish_unit(plan))
    return units


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


def _item(plan: Plan) -> int:
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
    return [
        _construct_unit(plan, method, layer, by_layer[layer], expert, cached=alias in cached)
        for (layer, expert), alias in aliases.items()
    ]


def _construct_unit(
    plan: Plan,
    method: Fda,
    layer: int,
    tensors: Sequence[PlannedTensor],
    expert: str,
    *,
    cached: bool,
) -> Unit:
    config = method.parameters.construction
    tokens = settled_tokens(method)
    per_anchor = anchor_bytes(plan, tensors, tokens)
    pieces = costs.microbatch(config, per_anchor)
    size = sum(costs.numel(t.shape) for t in tensors) * _item(plan)
    anchors = costs.numel(anchor_shape(config.anchors, tokens, plan.width)) * _item(plan)
    unit_flops = costs.layer_flops(
        tensors, rows=config.anchors * max(tokens, 1), tokens=tokens, width=plan.width
    )
    passes = (
        costs.CONSTRUCT_UNITS_PER_STEP
        if pieces is None
        else costs.CONSTRUCT_UNITS_PER_STEP_IN_PIECES
    )
    who = next(e for e in plan.experts if e.name == expert)
    names = [t.name for t in tensors]
    return Unit(
        id=construct_id(layer, expert),
        kind="construct",
        layer=layer,
        expert=expert,
        steps=config.steps_in_all,
        read_bytes=costs.read_bytes(plan.base, names)
        + costs.read_bytes(who.checkpoint, [own for n in names for own in who.own(n)]),
        write_bytes=anchors,
        memory_bytes=costs.LAYER_PROCESS_BYTES
        + 6 * size
        + (11 if config.sigma == "search" else 6) * anchors
        + (pieces or config.anchors) * per_anchor,
        flops=passes * unit_flops * config.steps_in_all,
        cached=cached,
    )


def anchor_bytes(plan: Plan, tensors: Sequence[PlannedTensor], tokens: int) -> int:
    """Return the memory of one anchor in a construction step."""
    tower = families()[plan.family].towers[0]
    heads = costs.attention_heads(tower.settings(plan.base.config))
    return costs.activation_bytes(
        tensors, tokens=tokens, width=plan.width, heads=heads, item=_item(plan)
    )


def _merge_unit(
    plan: Plan, method: Method, shard: PlannedShard, by_layer: Mapping[int, list[PlannedTensor]]
) -> Unit:
    chosen = set(shard.tensors)
    tensors = [t for t in plan.tensors if t.name in chosen]
    reading = costs.read_bytes(plan.base, shard.tensors) + sum(
        costs.read_bytes(
            e.checkpoint, [own for t in tensors if e.name in t.experts for own in e.own(t.name)]
        )
        for e in plan.experts
    )
    begins = method.start if isinstance(method, Fda) else method
    adapts = isinstance(method, Fda) and bool(shard.layers)
    memory = _tensors_bytes(plan, method, tensors)
    memory += costs.LAYER_PROCESS_BYTES if adapts else costs.PROCESS_BYTES
    flops = costs.method_flops(begins, tensors, len(plan.experts)) if begins else 0
    needs: list[str] = []
    steps = 0
    if isinstance(method, Fda) and shard.layers:
        construct, adapt = method.parameters.construction, method.parameters.adaptation
        tokens = settled_tokens(method)
        rows = construct.anchors * max(tokens, 1) * len(plan.experts)
        steps = adapt.epochs * len(shard.layers)
        for layer in shard.layers:
            needs += [construct_id(layer, e.name) for e in plan.experts]
            flops += (
                costs.ADAPT_UNITS_PER_PASS
                * adapt.epochs
                * costs.layer_flops(by_layer[layer], rows=rows, tokens=tokens, width=plan.width)
            )
        layer_size = max(
            sum(costs.numel(t.shape) for t in by_layer[layer]) * _item(plan)
            for layer in shard.layers
        )
        pool = 2 * rows * plan.width * _item(plan)
        batch = min(adapt.batch, construct.anchors * len(plan.experts))
        copies = len(plan.experts) + 7 + math.ceil(begins.workspace_tensors if begins else 0)
        memory += layer_size * copies + pool
        memory += batch * anchor_bytes(plan, by_layer[shard.layers[0]], tokens) // 2
    return Unit(
        id=f"merge-{shard.number:03d}",
        kind="merge",
        needs=tuple(needs),
        shard=shard.number,
        steps=steps,
        read_bytes=reading,
        write_bytes=shard.size_bytes,
        memory_bytes=memory,
        flops=flops,
    )


def _tensors_bytes(plan: Plan, method: Method, tensors: Sequence[PlannedTensor]) -> int:
    """Return what merging tensors one by one holds at most, beside the process itself."""
    methods: dict[int | None, Method] = {None: method}
    for number in range(len(plan.settings)):
        methods[number] = method_of_setting(plan, number)
    windows = costs.windows_bytes(len(plan.experts) + 1)
    return windows + max((_tensor_bytes(plan, methods[t.setting], t) for t in tensors), default=0)


def _tensor_bytes(plan: Plan, method: Method, tensor: PlannedTensor) -> int:
    """Return what merging one tensor holds, in blocks or as a whole."""
    experts = [e for e in plan.experts if e.name in tensor.experts]
    stored = [plan.base.tensors[tensor.tied_to or tensor.name].size_bytes] + [
        e.checkpoint.tensors[own].size_bytes for e in experts for own in e.own(tensor.name)
    ]
    whole = costs.numel(tensor.shape) * _item(plan)
    if not merges_blocks(tensor, method):
        begins = method.start if isinstance(method, Fda) else method
        working = math.ceil(begins.workspace_tensors) if begins else 0
        return whole * (len(experts) + 3 + working) + costs.staging_bytes(stored)
    held = 0 if method.single_pass else sum(stored)
    updated = [e for e in experts if e.adapter and tensor.name in e.adapter.updates]
    if updated:
        held += whole * (len(updated) + 2) + costs.staging_bytes(stored)
    if tensor.transposed:
        held += sum(stored) + 3 * whole
    return held + costs.block_bytes(tensor.matrix_shape, len(experts), _item(plan))


def _publish_unit(plan: Plan) -> Unit:
    size = sum(shard.size_bytes for shard in plan.shards)
    heads = 0
    if plan.recipe.heads == "keep":
        heads = sum(
            costs.read_bytes(e.checkpoint, [own for h in e.heads for own in e.own(h) or (h,)])
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
        memory_bytes=costs.PROCESS_BYTES + costs.PUBLISH_BYTES,
        flops=0,
    )


def total(units: Sequence[Unit], field: str) -> int:
    """Return the sum of one figure over units that the cache does not spare."""
    return sum(int(getattr(unit, field)) for unit in units if not unit.cached)
