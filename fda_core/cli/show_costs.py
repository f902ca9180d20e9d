"""The part of `fda plan` that says what stages and other methods take, and for how long."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import flops, out, seconds, size
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
    table.add_column("stage")
    for name in ("operations", "moved", "memory", *(device.name for device in devices)):
        table.add_column(name, justify="right")
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
    ranged = len(devices) == 1
    return [
        flops(row.flops) if row.flops else "",
        size(row.moved_bytes) if row.moved_bytes else "",
        size(row.memory_bytes),
        *(_time(row, device, ranged=ranged) for device in devices),
    ]


def _time(row: StageCost, device: Device, *, ranged: bool) -> str:
    if device.memory_bytes is not None and row.memory_bytes > device.memory_bytes:
        return "too big"
    found = row.seconds[device.name]
    likely = seconds(found.likely)
    return f"{likely} ({seconds(found.low)} to {seconds(found.high)})" if ranged else likely


def _words(plan: Plan, devices: Sequence[Device], rows: Sequence[StageCost]) -> str:
    """Say what the figures are of, and how wide of the mark they may be."""
    found = [seconds for row in rows for seconds in row.seconds.values() if seconds.likely > 0]
    spread = max((each.high / each.likely for each in found), default=1.0)
    below = ", ".join(name for name in COMPARED if name != plan.recipe.method.name)
    titles = "; ".join(f"{device.name}: {device.title}" for device in devices)
    return (
        f"[dim]Predicted for one worker, one unit after another, in {plan.recipe.dtype.compute}; "
        f"at worst {spread:.1f} times as long. Below: {below} with their defaults on the same "
        f"inputs.\n{escape(titles)}[/]"
    )
