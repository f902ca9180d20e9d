"""The unit `merge(shard)`: every tensor of one output file, layers adapted if the method is FDA."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fda_core.checkpoints.reader import torch_dtype
from fda_core.checkpoints.writer import ShardWriter, TensorSpec, aligned_order
from fda_core.contract.artifacts import AdaptMetrics, ArtifactFile, UnitRecord
from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.contract.recipe import MethodSpec
from fda_core.engine import layout
from fda_core.engine.adapt_layer import adapt_layer
from fda_core.engine.context import UnitContext
from fda_core.engine.cut import fitted_tensors
from fda_core.engine.guards import require_finite
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.task_vector_stats import TaskVectorStats
from fda_core.errors import InternalError
from fda_core.methods.base import Method, TensorInputs
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve


def run_merge(context: UnitContext) -> UnitRecord:
    """Merge the tensors of one shard and write it, whole or not at all."""
    shard = next(s for s in context.plan.shards if s.number == context.unit.shard)
    work = _ShardWork(context)
    planned = {t.name: t for t in context.plan.tensors}
    specs = aligned_order(
        TensorSpec(name, planned[name].dtype, planned[name].shape) for name in shard.tensors
    )
    target = layout.shard(context.plan, shard)
    with ShardWriter(context.storage, target, specs) as writer:
        for name, tensor in work.tensors([spec.name for spec in specs]):
            writer.add(name, tensor)
            context.moved(write=tensor.numel() * tensor.element_size())
        written = writer.commit()
    file = ArtifactFile(path=target, size_bytes=written.size_bytes, sha256=written.sha256)
    context.flops = context.unit.flops
    return UnitRecord(
        unit=context.unit.id,
        kind="merge",
        files=(file,),
        cost=context.cost(),
        worker=context.worker,
        device=context.device_name,
        adaptation=tuple(work.adaptation),
        task_vectors=tuple(stats.result() for stats in work.stats.values()),
    )


class _ShardWork:
    """Makes a shard's tensors one by one; a layer that is adapted is held while it is written."""

    def __init__(self, context: UnitContext) -> None:
        self._context = context
        self._inputs = Inputs(context)
        self._planned = {t.name: t for t in context.plan.tensors}
        method = context.method
        self._layers = fitted_tensors(context.plan, method) if isinstance(method, Fda) else {}
        self._fitted = {t.name for tensors in self._layers.values() for t in tensors}
        self._adapted: dict[str, Tensor] = {}
        self._varied: dict[int, Method] = {}
        self.adaptation: list[AdaptMetrics] = []
        self.stats: dict[int | None, TaskVectorStats] = {}

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor in its output dtype, checked to be finite."""
        for name in names:
            tensor = self._planned[name]
            result = self._make(tensor)
            require_finite(result, name=name, whose="result")
            yield name, result

    def _make(self, tensor: PlannedTensor) -> Tensor:
        if tensor.rule is TensorRule.TIED and tensor.tied_to is not None:
            source = self._planned[tensor.tied_to]
            return self._make_from(source, counted=False).to(torch_dtype(tensor.dtype))
        return self._make_from(tensor, counted=True)

    def _make_from(self, tensor: PlannedTensor, *, counted: bool) -> Tensor:
        if tensor.rule is TensorRule.BASE:
            return self._inputs.raw_base(tensor.name).to(torch_dtype(tensor.dtype))
        if tensor.name in self._fitted:
            return self._adapted_tensor(tensor)
        base = self._inputs.base(tensor.name)
        deltas = [self._delta(tensor.name, e, base) for e in tensor.experts]
        return self._merged(tensor, base, deltas, counted=counted)

    def _delta(self, name: str, expert: str, base: Tensor) -> Tensor:
        """Return a task vector; of a tensor that an adapter inherits, zero without reading."""
        if not self._inputs.changes(name, expert):
            return torch.zeros_like(base)
        return _delta_on_common_rows(self._inputs.expert(name, expert, base), base)

    def _merged(
        self, tensor: PlannedTensor, base: Tensor, deltas: list[Tensor], *, counted: bool
    ) -> Tensor:
        stats = self._stats(tensor.layer)
        if counted:
            stats.add(base, deltas, tensor.experts)
        kept = base.clone()
        merged = self._turned_rule(tensor, base, deltas)
        written = merged.to(torch_dtype(tensor.dtype))
        if counted:
            stats.add_result(kept, merged, written)
        return written

    def _turned_rule(self, tensor: PlannedTensor, base: Tensor, deltas: list[Tensor]) -> Tensor:
        """Return `_rule` of a tensor turned the way methods see matrices, turned back."""
        if not tensor.transposed:
            return self._rule(tensor, base, deltas)
        for k, delta in enumerate(deltas):
            deltas[k] = delta.T.contiguous()
        return self._rule(tensor, base.T.contiguous(), deltas).T.contiguous()

    def _rule(self, tensor: PlannedTensor, base: Tensor, deltas: list[Tensor]) -> Tensor:
        """Return what the recipe makes of one tensor; may overwrite base and deltas."""
        if tensor.rule is TensorRule.AVERAGE:
            for delta in deltas:
                base.add_(delta, alpha=1 / len(deltas))
            return base
        method, weights = self._method_and_weights(tensor.setting)
        return method.merge_tensor(
            TensorInputs(
                name=tensor.name,
                layer=tensor.layer,
                base=base,
                deltas=deltas,
                weights=[weights[e] for e in tensor.experts],
                experts=tensor.experts,
                seed=self._context.plan.recipe.seed,
            )
        )

    def _method_and_weights(self, setting: int | None) -> tuple[Method, Mapping[str, float]]:
        """Return the plan's method and weights, or those that `vary` gives a tensor."""
        plan = self._context.plan
        if setting is None:
            return self._context.method, {e.name: e.weight for e in plan.experts}
        if setting not in self._varied:
            spec = MethodSpec(
                name=plan.recipe.method.name, parameters=plan.settings[setting].parameters
            )
            self._varied[setting] = resolve(spec)
        return self._varied[setting], plan.settings[setting].weights

    def _adapted_tensor(self, tensor: PlannedTensor) -> Tensor:
        if tensor.name not in self._adapted:
            self._adapt(tensor.layer)
        return self._adapted.pop(tensor.name)

    def _adapt(self, layer: int | None) -> None:
        """Adapt one layer and keep its tensors, in their output dtypes."""
        if layer is None:
            raise InternalError("only layers are adapted")
        tensors = self._layers[layer]
        base = self._inputs.base_layer(tensors)
        experts = {
            e.name: self._inputs.expert_layer(tensors, e.name, base)
            for e in self._context.plan.experts
        }
        stats = self._stats(layer)
        start: dict[str, Tensor] = {}
        for tensor in tensors:
            deltas = [experts[e][tensor.part] - base[tensor.part] for e in tensor.experts]
            stats.add(base[tensor.part], deltas, tensor.experts)
            start[tensor.part] = self._turned_rule(tensor, base[tensor.part].clone(), deltas)
        fitted, metrics = adapt_layer(self._context, layer, base=base, experts=experts, start=start)
        if metrics is not None:
            self.adaptation.append(metrics)
        for tensor in tensors:
            written = fitted[tensor.part].to(torch_dtype(tensor.dtype))
            before = base[tensor.part]
            stats.add_result(before, fitted[tensor.part], written)
            self._adapted[tensor.name] = written

    def _stats(self, layer: int | None) -> TaskVectorStats:
        if layer not in self.stats:
            names = [e.name for e in self._context.plan.experts]
            self.stats[layer] = TaskVectorStats(layer, names)
        return self.stats[layer]


def _delta_on_common_rows(expert: Tensor, base: Tensor) -> Tensor:
    """Return the task vector, in the expert's memory if the shapes agree.

    They differ where the recipe lets vocabularies differ: zero on rows the expert lacks.
    """
    if expert.shape == base.shape:
        return expert.sub_(base)
    rows = min(len(expert), len(base))
    delta = torch.zeros_like(base)
    delta[:rows] = expert[:rows] - base[:rows]
    return delta
