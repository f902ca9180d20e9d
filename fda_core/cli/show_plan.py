"""`fda plan`: the plan as a table or as JSON."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import flops, out, print_json, size
from fda_core.cli.show_costs import costs_data, show_costs
from fda_core.contract.plan import Plan, Unit
from fda_core.engine.costs.devices import Device
from fda_core.engine.cut import total
from fda_core.engine.recipes import recipe_yaml


def show_plan(plan: Plan, devices: Sequence[Device], *, as_json: bool) -> None:
    """Print a plan, with predictions for these devices."""
    if as_json:
        print_json({**_summary(plan), "costs": costs_data(plan, devices)})
        return
    out.print(f"[bold]{plan.recipe.method.name}[/] → {escape(plan.output)}", soft_wrap=True)
    layers = f"{plan.layers} layers of width {plan.width}" if plan.layers else "no layers"
    out.print(
        f"{plan.family}, {layers}; base and "
        f"{len(plan.experts)} experts: {', '.join(e.name for e in plan.experts)}"
    )
    for note in plan.notes:
        out.print(f"  {escape(note)}", soft_wrap=True)
    for warning in plan.warnings:
        out.print(f"  [yellow]warning[/] {escape(warning)}", soft_wrap=True)
    out.print(_table(plan))
    show_costs(plan, devices)
    out.print(f"\n[bold]recipe as resolved[/]\n{escape(recipe_yaml(plan.recipe))}", soft_wrap=True)


def _table(plan: Plan) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("units")
    for name in ("count", "cached", "read", "write", "memory of one", "operations"):
        table.add_column(name, justify="right")
    for kind in ("construct", "merge", "publish"):
        units = [unit for unit in plan.units if unit.kind == kind]
        if units:
            table.add_row(kind, *_figures(units))
    table.add_row("[bold]all[/]", *_figures(list(plan.units)))
    return table


def _figures(units: list[Unit]) -> list[str]:
    return [
        str(len(units)),
        str(sum(unit.cached for unit in units)),
        size(sum(unit.read_bytes for unit in units)),
        size(total(units, "write_bytes")),
        size(max(unit.memory_bytes for unit in units)),
        flops(total(units, "flops")),
    ]


def _summary(plan: Plan) -> dict[str, object]:
    """Return the plan with its totals, without the tensors' byte positions."""
    data = plan.model_dump(mode="json", by_alias=True, exclude={"base": {"tensors"}})
    for expert in data["experts"]:
        expert["checkpoint"].pop("tensors")
    data["totals"] = {
        "units": len(plan.units),
        "cached_units": sum(unit.cached for unit in plan.units),
        "read_bytes": sum(unit.read_bytes for unit in plan.units),
        "write_bytes": total(plan.units, "write_bytes"),
        "peak_memory_bytes": max(unit.memory_bytes for unit in plan.units),
        "flops": total(plan.units, "flops"),
    }
    return data
