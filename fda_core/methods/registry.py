"""Names to methods. A new method is one line here."""

import difflib
import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from fda_core.contract.recipe import MethodSpec, Recipe, checked
from fda_core.errors import UnknownMethod
from fda_core.methods.base import Method, OwnParameters

METHODS: Mapping[str, str] = {
    "fda": "fda_core.methods.fda:Fda",
    "linear": "fda_core.methods.linear:Linear",
    "task_arithmetic": "fda_core.methods.task_arithmetic:TaskArithmetic",
    "slerp": "fda_core.methods.slerp:Slerp",
    "nuslerp": "fda_core.methods.slerp:Nuslerp",
    "karcher": "fda_core.methods.karcher:Karcher",
    "ties": "fda_core.methods.ties:Ties",
    "dare_linear": "fda_core.methods.dare:DareLinear",
    "dare_ties": "fda_core.methods.dare:DareTies",
    "breadcrumbs": "fda_core.methods.breadcrumbs:Breadcrumbs",
    "breadcrumbs_ties": "fda_core.methods.breadcrumbs:BreadcrumbsTies",
    "della": "fda_core.methods.della:Della",
    "della_linear": "fda_core.methods.della:DellaLinear",
    "model_stock": "fda_core.methods.model_stock:ModelStock",
    "sce": "fda_core.methods.sce:Sce",
    "tsvm": "fda_core.methods.tsvm:Tsvm",
    "iso_c": "fda_core.methods.iso:IsoC",
    "iso_cts": "fda_core.methods.iso:IsoCts",
    "ace": "fda_core.methods.ace:Ace",
    "wudi": "fda_core.methods.wudi:Wudi",
    "iwudi": "fda_core.methods.wudi:Iwudi",
    "swudi": "fda_core.methods.wudi:Swudi",
    "aswudi": "fda_core.methods.wudi:Aswudi",
    "optmerge": "fda_core.methods.optmerge:Optmerge",
}


@cache
def method_class(name: str) -> type[Method]:
    """Return the class of a method, or raise `UnknownMethod` naming the nearest."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise UnknownMethod(
            f"there is no method {name!r}",
            hint=f"{meant}Known: {', '.join(METHODS)}.",
            method=name,
        )
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found


def resolve(
    spec: MethodSpec,
    *,
    where: str = "method",
    own: Mapping[str, OwnParameters] | None = None,
) -> Method:
    """Return the method a recipe asks for, its parameters checked and defaults filled in.

    `own` are the parameters of single experts, by name.
    """
    kind = method_class(spec.name)
    return kind(checked(kind.Parameters, spec.parameters, where=where), own)


def method_of(recipe: Recipe) -> Method:
    """Return the method of a recipe, with what its experts have of their own."""
    own = {
        expert.name: OwnParameters(expert.parameters, f"experts.{place}.parameters")
        for place, expert in enumerate(recipe.experts)
        if expert.parameters
    }
    return resolve(recipe.method, own=own)


def describe(name: str) -> dict[str, Any]:
    """Return everything about a method as plain data: text, cost and parameter schema."""
    kind = method_class(name)
    return {
        "name": kind.name,
        "title": kind.title,
        "summary": kind.summary,
        "paper": kind.paper,
        "cost": kind.cost,
        "min_experts": kind.min_experts,
        "max_experts": kind.max_experts,
        "uses_weights": kind.uses_weights,
        "expert_parameters": list(kind.expert_parameters),
        "parameters": kind.Parameters.model_json_schema(by_alias=True),
    }
