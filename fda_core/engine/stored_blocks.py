"""Blocks of the tensors of a plan, made from stored bytes while these are in the cache.

For each block the base and the experts are widened to the compute dtype, the task vectors
formed, looked at for NaN and infinity and counted, all in memory that is used again for the
next block: no tensor is held in the compute dtype.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from fda_core.contract.plan import PlannedTensor
from fda_core.engine.context import UnitContext
from fda_core.engine.costs.memory import PART_BYTES
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.task_vector_stats import TaskVectorStats
from fda_core.engine.window import Stored, Window
from fda_core.errors import InternalError
from fda_core.methods.tensor_blocks import Block, Scratch, TensorBlocks

BASE = None
"""The base's place among the experts' names."""


class StoredBlocks:
    """Opens one planned tensor after another as `TensorBlocks`. A context: it has threads."""

    def __init__(self, context: UnitContext, inputs: Inputs) -> None:
        self._context = context
        self._inputs = inputs
        names = [e.name for e in context.plan.experts]
        self._threads = ThreadPoolExecutor(max_workers=len(names) + 1)
        self._windows = {name: Window(self._threads) for name in (BASE, *names)}
        self._scratch = Scratch(len(names) + 1, dtype=context.dtype, device=torch.device("cpu"))
        self._kept = Scratch(1, dtype=context.dtype, device=torch.device("cpu"))
        self._expected: dict[tuple[str, str | None], Stored] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for window in self._windows.values():
            window.close()
        self._threads.shutdown()

    def open(
        self,
        tensor: PlannedTensor,
        *,
        weights: Mapping[str, float],
        stats: TaskVectorStats,
        then: PlannedTensor | None,
        hold: bool,
    ) -> "OpenTensor":
        """Return a planned tensor's blocks. Turned, if methods are to see it turned.

        `stats` counts each block once, the first time it is cut. `then` is likely to be opened
        next; with `hold` the tensor's bytes stay in memory.
        """
        whole = self._base_to_update(tensor)
        stored: dict[str | None, Stored | None] = {}
        following: dict[tuple[str, str | None], Stored] = {}
        for who in (BASE, *tensor.experts):
            found = stored[who] = self._stored(tensor, who, base=whole)
            after = None
            if then is not None and _takes_part(then, who):
                after = self._ahead(then, who, hold=hold)
            if after is not None and then is not None:
                following[then.name, who] = after
            if found is not None:
                in_memory = self._is_made(tensor, who) or (who is BASE and whole is not None)
                self._windows[who].open(found, then=after, hold=hold and not in_memory)
        self._expected = following
        return OpenTensor(
            tensor,
            self._cutter(tensor, stored),
            stats=stats,
            seed=self._context.plan.recipe.seed,
            weights=[weights[e] for e in tensor.experts],
            name_bad=lambda: self._name_bad(tensor),
        )

    def _cutter(
        self, tensor: PlannedTensor, stored: Mapping[str | None, Stored | None]
    ) -> Callable[[int, int], Block]:
        windows = self._windows

        def cut(start: int, stop: int) -> Block:
            base, *deltas = self._scratch.rows(stop - start)[: 1 + len(tensor.experts)]
            base.copy_(windows[BASE].cut(start, stop))
            for delta, expert in zip(deltas, tensor.experts, strict=True):
                found = stored[expert]
                end = start if found is None else max(start, min(stop, found.numel))
                if end > start:
                    common = delta[: end - start]
                    common.copy_(windows[expert].cut(start, end)).sub_(base[: end - start])
                delta[end - start :].zero_()
            return base, deltas

        return cut

    def base_again(self, start: int, stop: int) -> Tensor:
        """Return the base of the block that was cut last, or of some of it."""
        (base,) = self._kept.rows(stop - start)
        return base.copy_(self._windows[BASE].cut(start, stop))

    def _base_to_update(self, tensor: PlannedTensor) -> Tensor | None:
        """Return the base's tensor, in the compute dtype, if an adapter updates it."""
        return self._inputs.base(tensor.name) if self._is_updated(tensor) else None

    def _is_updated(self, tensor: PlannedTensor) -> bool:
        return any(
            self._inputs.changes(tensor.name, e) and not self._inputs.is_stored(tensor.name, e)
            for e in tensor.experts
        )

    def _stored(
        self, tensor: PlannedTensor, who: str | None, *, base: Tensor | None
    ) -> Stored | None:
        """Return where a tensor lies, or None for an expert that has it from the base."""
        if who is BASE and base is not None:
            return _in_memory(_turned(base, tensor))
        expected = self._expected.get((tensor.name, who))
        if expected is not None:
            self._inputs.count(tensor.name, who)
            return expected
        if who is not None and not self._inputs.changes(tensor.name, who):
            return None
        if self._is_made(tensor, who):
            return _in_memory(_turned(self._made(tensor, who, base=base), tensor))
        self._inputs.count(tensor.name, who)
        stored = self._inputs.stored(tensor.name, who)
        if who is not None and stored.numel > self._inputs.stored(tensor.name, BASE).numel:
            self._inputs.whole(tensor.name, who)  # rows that the base lacks have to be finite too
        return stored

    def _ahead(self, tensor: PlannedTensor, who: str | None, *, hold: bool) -> Stored | None:
        """Return where a tensor lies if its beginning can be read ahead as it is."""
        if self._is_made(tensor, who) or (who is BASE and self._is_updated(tensor)):
            return None
        if who is not None and not self._inputs.changes(tensor.name, who):
            return None
        stored = self._inputs.stored(tensor.name, who)
        if stored.numel != self._inputs.stored(tensor.name, BASE).numel:
            return None
        return None if hold and stored.numel * stored.dtype.itemsize > PART_BYTES else stored

    def _is_made(self, tensor: PlannedTensor, who: str | None) -> bool:
        """Say whether a tensor is not read as it is: turned, or an adapter's."""
        if who is not None and not self._inputs.changes(tensor.name, who):
            return False
        return tensor.transposed or not self._inputs.is_stored(tensor.name, who)

    def _made(self, tensor: PlannedTensor, who: str | None, *, base: Tensor | None) -> Tensor:
        """Return a tensor that is turned, or is the base's with an adapter's update."""
        if who is None or base is None or self._inputs.is_stored(tensor.name, who):
            return self._inputs.raw(tensor.name, who)
        return self._inputs.expert(tensor.name, who, base)

    def _name_bad(self, tensor: PlannedTensor) -> None:
        """Raise `NonFinite` for the first tensor that has a NaN or infinity, if any has."""
        for who in (BASE, *tensor.experts):
            if who is None or self._inputs.changes(tensor.name, who):
                self._inputs.whole(tensor.name, who)


class OpenTensor:
    """The blocks of one tensor for a method, counted the first time they are cut."""

    def __init__(
        self,
        tensor: PlannedTensor,
        cut: Callable[[int, int], Block],
        *,
        stats: TaskVectorStats,
        seed: int,
        weights: list[float],
        name_bad: Callable[[], None],
    ) -> None:
        self._cut = cut
        self._stats = stats
        self._experts = tensor.experts
        self._name_bad = name_bad
        self._counted = 0
        self.blocks = TensorBlocks(
            name=tensor.name,
            layer=tensor.layer,
            shape=tensor.matrix_shape,
            weights=weights,
            experts=tensor.experts,
            seed=seed,
            cut=self._cut_and_count,
        )

    def average(self) -> Iterator[Tensor]:
        """Yield the mean of the experts, block by block in the base's memory."""
        for base, deltas in self.blocks.blocks():
            for delta in deltas:
                base.add_(delta, alpha=1 / len(deltas))
            yield base

    def _cut_and_count(self, start: int, stop: int) -> Block:
        base, deltas = self._cut(start, stop)
        if start <= self._counted < stop:
            new = slice(self._counted - start, None)
            counts = self._stats.add_block(base[new], [d[new] for d in deltas], self._experts)
            if not counts:
                self._name_bad()
            self._counted = stop
        return base, deltas

    def finish(self) -> None:
        """Refuse a method that did not look at everything."""
        if self._counted < self.blocks.numel:
            raise InternalError(f"{self.blocks.name}: {self._counted} elements were merged")


def _takes_part(tensor: PlannedTensor, who: str | None) -> bool:
    return who is BASE or who in tensor.experts


def _turned(made: Tensor, tensor: PlannedTensor) -> Tensor:
    """Return a tensor as methods see it."""
    return made.T.contiguous() if tensor.transposed else made


def _in_memory(tensor: Tensor) -> Stored:
    flat = tensor.reshape(-1)

    def read(first: int, out: Tensor) -> None:
        out.copy_(flat[first : first + out.numel()])

    return Stored(flat.dtype, flat.numel(), read)
