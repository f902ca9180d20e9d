"""A job's units as the table that people know: layers by experts, and where each is merged."""

from collections.abc import Sequence
from dataclasses import dataclass

from fda_core.contract.rest.jobs import UnitView


@dataclass(frozen=True, kw_only=True)
class Row:
    """A layer: the unit of every expert, None where there is none, and the units that merge it."""

    layer: int
    units: list[UnitView | None]
    merges: list[UnitView]


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """All of a job's units; those of no layer are in `pieces`."""

    experts: list[str]
    rows: list[Row]
    pieces: list[UnitView]
    """The units that write the output and publish it, in order."""


def layer_table(units: Sequence[UnitView]) -> LayerTable:
    """Return the table of a job's units, which are in the plan's order."""
    constructs = {
        (unit.layer, unit.expert): unit
        for unit in units
        if unit.kind == "construct" and unit.layer is not None and unit.expert is not None
    }
    experts = list(dict.fromkeys(expert for _, expert in constructs if expert))
    merges: dict[int, list[UnitView]] = {}
    by_id = {unit.id: unit for unit in constructs.values()}
    for unit in units:
        if unit.kind != "merge":
            continue
        for layer in sorted({by_id[need].layer or 0 for need in unit.needs if need in by_id}):
            merges.setdefault(layer, []).append(unit)
    layers = sorted({layer for layer, _ in constructs if layer is not None})
    return LayerTable(
        experts=experts,
        rows=[
            Row(
                layer=layer,
                units=[constructs.get((layer, expert)) for expert in experts],
                merges=merges.get(layer, []),
            )
            for layer in layers
        ],
        pieces=[unit for unit in units if unit.kind != "construct"],
    )
