"""What to try after a device ran out of memory: smaller pieces, then a larger device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from api.db.tables import UnitRow
from fda_core.contract.service.names import GPU_LARGE


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a unit is tried again, and why in words."""

    microbatch: int | None
    queue: str | None
    reason: str


def after_out_of_memory(
    unit: UnitRow, *, resolved: Mapping[str, Any] | None, served: Callable[[], set[str]]
) -> Change | None:
    """Return what to change before a unit is tried again, or None if nothing is left.

    Half the anchors at once the first time; then the queue `gpu-large`, if a worker serves
    it; then half as many each time. Only layers that FDA fits know of anchors.
    """
    anchors = unit.microbatch or _anchors_at_once(resolved)
    halved = anchors // 2 if anchors and anchors > 1 and unit.steps else None
    if halved and unit.microbatch is None:
        return _halved(unit, halved)
    if unit.queue != GPU_LARGE and GPU_LARGE in served():
        return Change(
            microbatch=unit.microbatch,
            queue=GPU_LARGE,
            reason=f"out of device memory, tried again on {GPU_LARGE}",
        )
    return _halved(unit, halved) if halved else None


def _halved(unit: UnitRow, anchors: int) -> Change:
    return Change(
        microbatch=anchors,
        queue=unit.queue,
        reason=f"out of device memory, tried again with {anchors} anchors at once",
    )


def _anchors_at_once(resolved: Mapping[str, Any] | None) -> int | None:
    """Return how many anchors the recipe computes at once, None for methods without any."""
    method = (resolved or {}).get("method") or {}
    parameters = method.get("parameters") or method
    construct = parameters.get("construct") or {}
    found = construct.get("microbatch") or construct.get("anchors")
    return found if isinstance(found, int) else None
