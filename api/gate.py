"""What routes are given: who calls, and whether the request was answered before.

Every member is a FastAPI dependency. The application makes one and passes it to each part's
`router(gate)`, so that parts know nothing of keys.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path, Query

from api.jobs.submitting import Caller, Once
from fda_core.contract.rest.base import Problem

Id = Annotated[str, Path(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
Cursor = Annotated[
    str | None,
    Query(pattern=r"^[0-9A-Za-z_-]{1,64}$", description="next_cursor of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100)]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The dependencies that all routes share."""

    viewer: Callable[..., Caller]
    """Any valid key."""
    submitter: Callable[..., Caller]
    """A key that may change things: submitter or admin."""
    once: Callable[..., Once | Awaitable[Once | None] | None]
    """The request's Idempotency-Key, if it has one."""


_MEANINGS = {
    401: "No valid key",
    403: "The key's role is too low",
    404: "There is no such thing, or it is another team's",
    409: "Not in its present state",
    412: "Changed since it was read",
    422: "What was sent does not make sense",
    429: "Too much at once",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI declaration of the problems a route answers with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "description": _MEANINGS[status], "content": content}
        for status in (401, 403, *statuses)
    }
