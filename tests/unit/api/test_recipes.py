"""Recipes as callers send them: what is refused before anything is read."""

from typing import Any

import pytest

from api.recipes import read_recipe
from fda_core.errors import Forbidden, RecipeError


def _recipe(**more: Any) -> dict[str, Any]:
    experts = [{"name": "a", "model": "/m/a"}]
    return {"base": "/m/base", "experts": experts, "method": "linear", "output": "/m/out", **more}


def _read(sent: dict[str, Any], *, workspace: str = "/m/work") -> object:
    return read_recipe(sent, roots=["/m"], workspace=workspace)


@pytest.mark.parametrize(
    ("key", "recipe"),
    [
        ("base", _recipe(base="/m/work/base")),
        ("experts.0.model", _recipe(experts=[{"name": "a", "model": "/m/x/../work/a"}])),
        ("output", _recipe(output="file:///m/work")),
    ],
)
def test_the_workspace_is_nobodys(key: str, recipe: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match=f"{key}: .*/m/work.* the service's own workspace"):
        _read(recipe)
    _read(recipe, workspace="/m/workshop")


def test_a_nul_is_refused_and_what_stands_for_one_is_text() -> None:
    with pytest.raises(RecipeError, match="NUL"):
        _read(_recipe(notes=["a \0"]))
    for text in (r"literal \u0000", "\\\\u0000"):
        _read(_recipe(notes=[text]))
    with pytest.raises(RecipeError, match="NUL"):
        _read(_recipe(notes=["\\\0"]))
