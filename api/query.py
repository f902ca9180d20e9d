"""A query parameter that a route does not have is refused, as unknown keys of bodies are.

A filter with a typo in its name would otherwise be no filter: everything would be listed.
"""

import difflib
from typing import Any

from fastapi import Request

from api.errors import InvalidRequest
from api.requests import route_path
from fda_core.contract.rest.base import FieldProblem

REST = "/v1/"
PAGING = frozenset({"limit", "cursor"})
"""Any list may be asked for in pages, so that one reader serves all; some are always whole."""


async def only_known_parameters(request: Request) -> None:
    """Raise `InvalidRequest` for the first parameter that the document does not have."""
    if not request.query_params or not request.url.path.startswith(REST):
        return
    known = _parameters(request)
    unknown = [name for name in request.query_params if name not in known and name not in PAGING]
    if unknown:
        raise InvalidRequest(
            f"{unknown[0]}: there is no such parameter",
            hint=_meant(unknown[0], known),
            problems=[
                FieldProblem(pointer=name, message="there is no such parameter", code="unknown_key")
                for name in unknown
            ],
        )


def _parameters(request: Request) -> list[str]:
    """Return the query parameters of the route that answers, as the document has them."""
    operations: dict[str, Any] = request.app.openapi()["paths"].get(route_path(request.scope), {})
    operation = operations.get(request.method.lower(), {})
    return sorted(one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return f"{meant}Known here: {', '.join(known)}." if known else "This route takes none."
