"""What each stage of a plan takes, and what other methods would take on the same inputs."""

from collections.abc import Iterable, Mapping, Sequence

from fda_core.contract.cost import Seconds, StageCost
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.recipe import MethodSpec
from fda_core.engine.costs.devices import Device
from fda_core.engine.costs.unit_work import tensors_work
from fda_core.engine.costs.work import Work
from fda_core.engine.cut import (
    fitted_tensors,
    item_bytes,
    layer_adaptation,
    layer_construction,
    layer_tensors,
    merge_units,
)
from fda_core.methods.base import Method
from fda_core.methods.fda import Fda
from fda_core.methods.registry import method_of, resolve

COMPARED = ("task_arithmetic", "tsvm", "wudi")
"""The methods that FDA starts from, and is compared with, in its paper."""

Staged = Mapping[str, tuple[Work, Sequence[Unit]]]


def stage_costs(plan: Plan, devices: Iterable[Device]) -> list[StageCost]:
    """Return each stage of a plan, in order, and all of it.

    What the anchor cache spares is left out. FDA's adaptation is a stage of its own, though it
    runs within units of merging; its memory is theirs.
    """
    devices = list(devices)
    staged = _stages(plan, method_of(plan.recipe))
    rows = [_cost(name, work, units, devices) for name, (work, units) in staged.items()]
    return [*rows, _all("all", rows)]


def other_costs(plan: Plan, devices: Iterable[Device]) -> list[StageCost]:
    """Return what the other methods of `COMPARED` would take with their defaults."""
    devices = list(devices)
    rows = []
    for name in COMPARED:
        if name != plan.recipe.method.name:
            staged = _stages(*_with_method(plan, name))
            parts = [_cost(stage, work, units, devices) for stage, (work, units) in staged.items()]
            rows.append(_all(name, parts))
    return rows


def _stages(plan: Plan, method: Method) -> Staged:
    publish = [unit for unit in plan.units if unit.kind == "publish"]
    merges = [unit for unit in plan.units if unit.kind == "merge"]
    merge = tensors_work(method, plan.tensors, item=item_bytes(plan)) + _moved(merges)
    staged: dict[str, tuple[Work, Sequence[Unit]]] = {}
    if isinstance(method, Fda):
        constructs = [u for u in plan.units if u.kind == "construct" and not u.cached]
        fitted = fitted_tensors(plan, method)
        construct = _moved(constructs)
        for layer, tensors in fitted.items():
            count = sum(unit.layer == layer for unit in constructs)
            construct += layer_construction(plan, method, tensors) * count
        adapt = sum((layer_adaptation(plan, method, t) for t in fitted.values()), Work())
        staged = {"construct": (construct, constructs), "adapt": (adapt, merges)}
    return {**staged, "merge": (merge, merges), "publish": (_moved(publish), publish)}


def _with_method(plan: Plan, name: str) -> tuple[Plan, Method]:
    """Return the plan as another method with its defaults would have it, and that method."""
    method = resolve(MethodSpec(name=name))
    recipe = plan.recipe.model_copy(update={"method": MethodSpec(name=name), "vary": ()})
    tensors = tuple(t.model_copy(update={"setting": None}) for t in plan.tensors)
    changed = plan.model_copy(update={"recipe": recipe, "tensors": tensors, "settings": ()})
    units = merge_units(changed, method, layer_tensors(changed))
    units += [unit for unit in plan.units if unit.kind == "publish"]
    return changed.model_copy(update={"units": tuple(units)}), method


def _moved(units: Iterable[Unit]) -> Work:
    units = list(units)
    return Work(
        read_bytes=sum(unit.read_bytes for unit in units),
        write_bytes=sum(unit.write_bytes for unit in units),
    )


def _cost(name: str, work: Work, units: Sequence[Unit], devices: Sequence[Device]) -> StageCost:
    return StageCost(
        name=name,
        flops=work.all_flops,
        moved_bytes=work.moved_bytes,
        launches=work.launches,
        read_bytes=work.read_bytes,
        write_bytes=work.write_bytes,
        memory_bytes=max((unit.memory_bytes for unit in units), default=0),
        seconds={device.name: device.seconds(work) for device in devices},
    )


def _all(name: str, rows: Sequence[StageCost]) -> StageCost:
    """Return the stages together."""
    names = list(rows[0].seconds) if rows else []
    return StageCost(
        name=name,
        flops=sum(row.flops for row in rows),
        moved_bytes=sum(row.moved_bytes for row in rows),
        launches=sum(row.launches for row in rows),
        read_bytes=sum(row.read_bytes for row in rows),
        write_bytes=sum(row.write_bytes for row in rows),
        memory_bytes=max((row.memory_bytes for row in rows), default=0),
        seconds={
            device: Seconds(
                low=sum(row.seconds[device].low for row in rows),
                likely=sum(row.seconds[device].likely for row in rows),
                high=sum(row.seconds[device].high for row in rows),
            )
            for device in names
        },
    )
