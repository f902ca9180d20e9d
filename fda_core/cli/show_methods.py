"""`fda methods`: what there is, and what each takes."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import out, print_json
from fda_core.methods.registry import METHODS, describe

COSTS = {
    "A": "element-wise, limited by disk",
    "B": "a few factorisations per matrix",
    "C": "iterative per matrix",
    "E": "gradients through each layer",
}


def show_methods(*, as_json: bool) -> None:
    """Print all methods."""
    found = [describe(name) for name in METHODS]
    if as_json:
        print_json(found)
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("method", "what it does", "cost", "paper"):
        table.add_column(name)
    for method in found:
        table.add_row(
            method["name"], escape(method["summary"]), COSTS[method["cost"]], method["paper"]
        )
    out.print(table)


def show_method(name: str, *, as_json: bool) -> None:
    """Print one method with its parameters, ranges and defaults."""
    method = describe(name)
    if as_json:
        print_json(method)
        return
    out.print(f"[bold]{method['name']}[/]: {escape(method['summary'])}")
    out.print(f"{method['title']}, {method['paper']}; {COSTS[method['cost']]}")
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("parameter", "type and range", "default", "what it is"):
        table.add_column(column)
    for row in _rows(method["parameters"], method["parameters"], ""):
        table.add_row(*map(escape, row))
    out.print(table)
    if method["expert_parameters"]:
        names = ", ".join(method["expert_parameters"])
        out.print(f"An expert may have its own (experts[].parameters): {names}", markup=False)


def _rows(schema: dict[str, Any], root: dict[str, Any], path: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, field in schema.get("properties", {}).items():
        inner = _inner(field, root)
        if path + name in ("construct", "adapt"):
            rows += _rows(inner, root, f"{path}{name}.")
        else:
            default = field.get("default", "required")
            rows.append((path + name, _kind(field), _shown(default), field.get("description", "")))
    return rows


def _inner(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = field.get("$ref") or next(
        (part["$ref"] for part in field.get("allOf", []) if "$ref" in part), None
    )
    found: dict[str, Any] = root["$defs"][reference.rpartition("/")[2]] if reference else field
    return found


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if "anyOf" in field:
        return " or ".join(_kind(part) for part in field["anyOf"])
    signs = (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    )
    limits = [f"{sign} {field[key]:g}" for key, sign in signs if key in field]
    return " ".join([field.get("type", "name or {name, parameters}"), ", ".join(limits)]).strip()


def _shown(default: Any) -> str:
    if isinstance(default, dict) and "name" in default:
        return str(default["name"])
    return "unset" if default is None else str(default)
