"""/v1/methods."""

from typing import Annotated

from fastapi import Path

from api import openapi
from api.auth.dependency import Viewer
from api.errors import UnknownResource
from api.openapi import problems
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.workers import MethodView
from fda_core.methods.registry import METHODS, describe

router = openapi.router(prefix="/v1/methods", tag="methods")


@router.get("")
def list_methods(caller: Viewer) -> Page[MethodView]:  # noqa: ARG001
    """List every merge method with the JSON schema of its parameters."""
    return Page(data=[MethodView.model_validate(describe(name)) for name in METHODS])


@router.get("/{name}", responses=problems(404))
def get_method(name: Annotated[str, Path(max_length=64)], caller: Viewer) -> MethodView:  # noqa: ARG001
    """Show a merge method."""
    if name not in METHODS:
        raise UnknownResource(
            f"there is no method {name!r}", hint=f"Known: {', '.join(METHODS)}.", method=name
        )
    return MethodView.model_validate(describe(name))
