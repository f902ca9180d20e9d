"""The part of `fda plan` that says what stages and other methods take, and for how long."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import flops, out, size
from fda_core.contract.cost import StageCost
from fda_core.contract.plan import Plan
from fda_core.engine.costs.devices import Device, gpus
from fda_core.engine.costs.stages import COMPARED, other_costs, stage_costs
from fda_core.errors import BadParameter

HERE = "here"


def devices_for(names: Sequence[str] | None, plan: Plan) -> list[Device]:
    """Return the devices that are asked for; `here` is measured now and loads torch."""
    known = gpus(plan.recipe.dtype.compute)
    found = []
    for name in dict.fromkeys(names or known):
        if name == HERE:
            from fda_core.engine.costs.calibrate import this_processor

            found.append(this_processor(plan.recipe.dtype.compute))
        elif name in known:
            found.append(known[name])
        else:
            raise BadParameter(
                f"--on {name}: there are no figures for such a device",
                hint=f"Known: {', '.join([*known, HERE])}.",
            )
    return found


def costs_data(plan: Plan, devices: Sequence[Device]) -> dict[str, object]:
    """Return stages, other methods and devices as plain data."""
    return {
        "stages": [row.model_dump(mode="json") for row in stage_costs(plan, devices)],
        "other_methods": [row.model_dump(mode="json") for row in other_costs(plan, devices)],
        "devices": {
            device.name: {"title": device.title, "memory_bytes": device.memory_bytes}
            for device in devices
        },
    }


def show_costs(plan: Plan, devices: Sequence[Device]) -> None:
    """Print a table of stages, then of other methods, with seconds on each device."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("operations", "memory", *(device.name for device in devices)):
        table.add_column(name, justify="right", no_wrap=True)
    *stages, everything = stage_costs(plan, devices)
    for row in stages:
        table.add_row(row.name, *_figures(row, devices))
    table.add_row("[bold]all[/]", *_figures(everything, devices), end_section=True)
    others = other_costs(plan, devices)
    for row in others:
        table.add_row(f"[dim]{row.name}[/]", *_figures(row, devices))
    out.print()
    out.print(table)
    out.print(_words(plan, devices, [everything, *others]), soft_wrap=True)


def _figures(row: StageCost, devices: Sequence[Device]) -> list[str]:
    times = [_time(row, device, ranged=len(devices) == 1) for device in devices]
    return [flops(row.flops) if row.flops else "", size(row.memory_bytes), *times]


def _time(row: StageCost, device: Device, *, ranged: bool) -> str:
    if device.memory_bytes is not None and row.memory_bytes > device.memory_bytes:
        return "too big"
    found = row.seconds[device.name]
    if not ranged:
        return duration(found.likely)
    return f"{duration(found.likely)} ({duration(found.low)} to {duration(found.high)})"


def duration(value: float) -> str:
    """Return a predicted time in two or three digits: more would say more than is known."""
    unit, length = next(
        (each for each in (("h", 3600.0), ("min", 60.0)) if value >= each[1]), ("s", 1.0)
    )
    return f"{value / length:.{1 if value < 10 * length else 0}f} {unit}"


def _words(plan: Plan, devices: Sequence[Device], rows: Sequence[StageCost]) -> str:
    """Say what the figures are of, and how wide of the mark they may be."""
    found = [seconds for row in rows for seconds in row.seconds.values() if seconds.likely > 0]
    spread = max((each.high / each.likely for each in found), default=1.0)
    below = ", ".join(name for name in COMPARED if name != plan.recipe.method.name)
    titles = "; ".join(f"{device.name}: {device.title}" for device in devices)
    return (
        f"[dim]Predicted for one worker, one unit after another, in {plan.recipe.dtype.compute}; "
        f"at worst {spread:.1f} times as long. Below all: {below}, with their defaults on the same "
        f"inputs.\n{escape(titles)}[/]"
    )
