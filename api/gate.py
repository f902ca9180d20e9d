"""What routes are given: who calls, and whether the request was answered before.

Every member is a FastAPI dependency. The application makes one and passes it to each part's
`router(gate)`, so that parts know nothing of keys.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query

from api.jobs.submitting import Caller, Once
from api.openapi import USUAL, Responses, problems

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


def refusals(*statuses: int) -> Responses:
    """Return the OpenAPI declaration of the problems a route answers with."""
    return problems(*USUAL, *statuses)
