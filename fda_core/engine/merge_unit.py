"""The unit `merge(shard)`: every tensor of one output file, layers adapted if the method is FDA."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor

from fda_core.checkpoints.reader import torch_dtype
from fda_core.checkpoints.writer import ShardWriter, TensorSpec, aligned_order
from fda_core.contract.artifacts import AdaptMetrics, ArtifactFile, UnitRecord
from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.engine import layout
from fda_core.engine.adapt_layer import adapt_layer
from fda_core.engine.context import UnitContext
from fda_core.engine.cut import fitted_tensors, merges_blocks
from fda_core.engine.guards import is_finite, require_finite, require_variances
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.stored_blocks import StoredBlocks
from fda_core.engine.task_vector_stats import TaskVectorStats
from fda_core.engine.tied_copies import check_tied_copy
from fda_core.engine.vary import method_of_setting
from fda_core.errors import InternalError
from fda_core.methods.base import Method, TensorInputs
from fda_core.methods.fda import Fda
from fda_core.methods.tensor_blocks import Scratch

CPU: Final = torch.device("cpu")


def run_merge(context: UnitContext) -> UnitRecord:
    """Merge the tensors of one shard and write it, whole or not at all."""
    shard = next(s for s in context.plan.shards if s.number == context.unit.shard)
    work = _ShardWork(context)
    planned = {t.name: t for t in context.plan.tensors}
    specs = aligned_order(
        TensorSpec(name, planned[name].dtype, planned[name].shape) for name in shard.tensors
    )
    target = layout.shard(context.plan, shard)
    with ShardWriter(context.storage, target, specs) as writer, work:
        for spec, pieces in work.tensors(specs):
            writer.add_pieces(spec.name, pieces)
            context.moved(write=spec.size_bytes)
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
        self._blocks = StoredBlocks(context, self._inputs)
        self._outputs: dict[torch.dtype, Scratch] = {}
        self._planned = {t.name: t for t in context.plan.tensors}
        method = context.method
        self._layers = fitted_tensors(context.plan, method) if isinstance(method, Fda) else {}
        self._fitted = {t.name for tensors in self._layers.values() for t in tensors}
        self._adapted: dict[str, Tensor] = {}
        self._varied: dict[int, Method] = {}
        self.adaptation: list[AdaptMetrics] = []
        self.stats: dict[int | None, TaskVectorStats] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._blocks.__exit__(kind, problem, trace)

    def tensors(self, specs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, Iterator[Tensor]]]:
        """Yield every tensor's elements in its output dtype, in pieces, checked to be finite.

        A piece's memory is used again for the next.
        """
        planned = [self._planned[spec.name] for spec in specs]
        for spec, tensor, then in zip(specs, planned, [*planned[1:], None], strict=True):
            yield spec, self._make(tensor, then)

    def _make(self, tensor: PlannedTensor, then: PlannedTensor | None) -> Iterator[Tensor]:
        source = tensor
        if tensor.rule is TensorRule.TIED and tensor.tied_to is not None:
            source = self._planned[tensor.tied_to]
        dtype = torch_dtype(tensor.dtype)
        counted = source is tensor
        if self._in_blocks(source):
            pieces: Iterator[Tensor] = (
                piece.to(dtype) for piece in self._in_pieces(source, then=then, counted=counted)
            )
        else:
            made = self._make_whole(source, counted=counted).to(dtype)
            require_finite(made, name=tensor.name, whose="result")
            pieces = iter((made,))
        pieces = _with_variances(pieces, tensor)
        return pieces if counted else self._of_one_tensor(tensor, pieces)

    def _of_one_tensor(self, tensor: PlannedTensor, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the pieces of a tied copy, then see that it was one in base and experts."""
        yield from pieces
        for expert in (None, *self._context.plan.experts):
            check_tied_copy(self._inputs, tensor, expert)

    def _in_blocks(self, tensor: PlannedTensor) -> bool:
        """Say whether a tensor is merged from blocks of what is stored; elsewhere, as a whole."""
        if self._context.device.type != "cpu" or tensor.name in self._fitted:
            return False
        return merges_blocks(tensor, self._method_and_weights(tensor.setting)[0])

    def _in_pieces(
        self, tensor: PlannedTensor, *, then: PlannedTensor | None, counted: bool
    ) -> Iterator[Tensor]:
        method, weights = self._method_and_weights(tensor.setting)
        stats = self._stats(tensor.layer) if counted else self._uncounted()
        hold = tensor.rule is TensorRule.MERGE and not method.single_pass
        ahead = then if then is not None and self._in_blocks(then) else None
        opened = self._blocks.open(tensor, weights=weights, stats=stats, then=ahead, hold=hold)
        if tensor.rule is TensorRule.AVERAGE:
            merged = opened.average()
        else:
            merged = method.merge_blocks(opened.blocks)
        pieces = self._written(tensor, merged, stats)
        if tensor.transposed:
            whole = _joined(tensor.matrix_shape, pieces, torch_dtype(tensor.dtype)).T.contiguous()
            require_finite(whole, name=tensor.name, whose="result")
            pieces = iter((whole,))
        else:
            pieces = _finite(pieces, tensor)
        yield from pieces
        opened.finish()

    def _written(
        self, tensor: PlannedTensor, merged: Iterator[Tensor], stats: TaskVectorStats
    ) -> Iterator[Tensor]:
        """Yield merged blocks in the output dtype, counted."""
        dtype = torch_dtype(tensor.dtype)
        scratch = self._outputs.setdefault(dtype, Scratch(1, dtype=dtype, device=CPU))
        at = 0
        for block in merged:
            flat = block.reshape(-1)
            written = flat
            if dtype != flat.dtype:
                (written,) = scratch.rows(len(flat))
                written.copy_(flat)
            stats.add_result(self._blocks.base_again(at, at + len(flat)), flat, written)
            at += len(flat)
            yield written

    def _make_whole(self, tensor: PlannedTensor, *, counted: bool) -> Tensor:
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
            self._varied[setting] = method_of_setting(plan, setting)
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

    def _uncounted(self) -> TaskVectorStats:
        """Return figures that nobody reads: a tied tensor's are those of what it is tied to."""
        return TaskVectorStats(None, [e.name for e in self._context.plan.experts])

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


def _with_variances(pieces: Iterator[Tensor], tensor: PlannedTensor) -> Iterator[Tensor]:
    """Yield pieces, or raise `NonFinite` for variances below zero."""
    for piece in pieces:
        require_variances(piece, name=tensor.name)
        yield piece


def _finite(pieces: Iterator[Tensor], tensor: PlannedTensor) -> Iterator[Tensor]:
    """Yield pieces that are finite, or raise `NonFinite` with the first bad position."""
    at = 0
    for piece in pieces:
        if not is_finite(piece):
            rest = [piece.clone(), *(later.clone() for later in pieces)]
            whole = torch.cat([torch.zeros(at, dtype=piece.dtype), *rest])
            require_finite(whole.view(tensor.shape), name=tensor.name, whose="result")
        at += piece.numel()
        yield piece


def _joined(shape: Sequence[int], pieces: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
    whole = torch.empty(tuple(shape), dtype=dtype)
    flat, at = whole.view(-1), 0
    for piece in pieces:
        flat[at : at + len(piece)] = piece
        at += len(piece)
    return whole
