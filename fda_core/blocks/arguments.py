"""What a layer is given beside its parameters: its input, and for decoders mask and positions.

The library's models make the mask and the rotary angles once per forward pass and hand them
to every layer. Here they are made for anchors: no padding, positions 0 to t − 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Arguments = Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]
"""From the input to a module's positional and keyword arguments."""


def unmasked(x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of an encoder layer: every token sees every other."""
    return (x, None), {}


def alone(x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a module that takes its input and nothing else."""
    return (x,), {}


class Masked:
    """The arguments of a layer that is handed a mask, and rotary angles where it has such."""

    def __init__(
        self, *, mask: Callable[..., Tensor], rotary: Callable[[], Callable[..., Any]] | None
    ) -> None:
        """Take makers of the mask, from tokens and dtype, and of the angles."""
        self._mask = mask
        self._rotary = rotary
        self._made: dict[tuple[int, torch.dtype, torch.device], dict[str, Any]] = {}

    def __call__(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return them for x of shape (n, t, d)."""
        key = (x.shape[1], x.dtype, x.device)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return (x,), self._made[key]

    def _make(self, tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        made: dict[str, Any] = {"attention_mask": self._mask(tokens, dtype=dtype).to(device)}
        if self._rotary is not None:
            cos, sin = rotary_angles(self._rotary, tokens)
            made["position_embeddings"] = (cos.to(device, dtype), sin.to(device, dtype))
        return made


def causal_mask(tokens: int, *, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return (1, 1, t, t) to add to scores: 0 where a query sees a key, else the lowest number.

    A query sees itself and what comes before it, with a window of w no more than w keys.
    """
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    return _mask_of(seen, dtype=dtype)


def mask_both_ways(tokens: int, *, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return (1, 1, t, t) likewise: a query sees all keys, or those at most a window from it."""
    apart = (torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]).abs()
    seen = apart <= (tokens if window is None else window)
    return _mask_of(seen, dtype=dtype)


def _mask_of(seen: Tensor, *, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(seen.shape, dtype=dtype)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def rotary_angles(make: Callable[[], Callable[..., Any]], tokens: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of positions 0 to t − 1, (1, t, head width), float32 on the CPU.

    The module is made anew: some scalings change it with the longest input it has seen.
    """
    with torch.device("cpu"), torch.no_grad():
        cos, sin = make()(torch.zeros(1), torch.arange(tokens)[None])
    return cos, sin
