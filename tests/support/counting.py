"""Count what torch does: matrix products by torch's own formulas, and bytes of everything else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

MAKES_NOTHING = {
    "aten::detach",
    "aten::empty",
    "aten::empty_like",
    "aten::_local_scalar_dense",
    "aten::lift_fresh",
}


class _NoModules:
    """In place of the tracker of modules, whose hooks stand in the way of double backward."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "_NoModules":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _in_place_product(_total: object, a: tuple[int, int], b: tuple[int, int], **_: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def product_flops(work: Callable[[], object]) -> int:
    """Return the FLOPs of the matrix products of some work, as `FlopCounterMode` counts them."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.addmm_: _in_place_product}
    )
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        work()
    return counter.get_total_flops()


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations other than products read and write, and all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = operation(*args, **(kwargs or {}))
        if operation.is_view or operation._schema.name in MAKES_NOTHING:
            return out
        self.operations += 1
        if operation._overloadpacket not in flop_registry:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors if not _repeats(x))
        return out


def _repeats(tensor: Tensor) -> bool:
    """Say whether a tensor is one that was expanded, and reads little."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def traffic(work: Callable[[], object]) -> Traffic:
    """Return what some work moves."""
    with torch.enable_grad(), Traffic() as counted:
        work()
    return counted
