"""/v1/anchors."""

from typing import Annotated

from fastapi import Path

from api import openapi
from api.anchors import service
from api.auth.dependency import Admin, Viewer
from api.context import Here
from api.openapi import problems
from api.paging import Cursor, Limit, read_text
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.workers import CachedAnchors

router = openapi.router(prefix="/v1/anchors", tag="anchors")

AnchorKey = Annotated[str, Path(pattern=r"^[0-9a-f]{8,64}$")]


@router.get("", responses=problems(502))
def list_anchors(
    context: Here, caller: Viewer, limit: Limit = 50, cursor: Cursor = None
) -> Page[CachedAnchors]:
    """List the anchor cache by key, with who used it."""
    found = service.list_anchors(context, caller, after=read_text(cursor), limit=limit)
    return found.page(lambda entry: entry)


@router.delete("/{key}", status_code=204, responses=problems(404, 502))
def delete_anchors(key: AnchorKey, context: Here, caller: Admin) -> None:  # noqa: ARG001
    """Remove an entry of the anchor cache; whoever needs it constructs it again."""
    service.delete_anchors(context, key)
