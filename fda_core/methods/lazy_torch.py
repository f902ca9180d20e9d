"""torch, loaded on first use.

Method files declare parameters, which plans, the CLI's help and the front end need, beside
the algebra, which needs torch. Loading torch takes seconds and the front end's image has
none, so method files take it from here. This is the one place allowed to reach torch from
what planning imports; a test holds planning to it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
else:

    class _LazyTorch:
        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = _LazyTorch()

__all__ = ["torch"]
