"""What every route works with: made once by the factory, handed to routes by a dependency."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

import anyio
from fastapi import Depends, Request
from redis import Redis

from api.broker import Hints
from api.db.session import Database
from api.db.types import Clock
from api.events.hub import Hub
from api.prometheus import HttpCounts
from api.settings import Settings
from fda_core.storage.base import Storage

PLANNING_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Context:
    """The service's parts. Nothing here connects before it is used."""

    settings: Settings
    database: Database
    redis: Redis
    storage: Storage
    hub: Hub
    counts: HttpCounts
    clock: Clock
    secret: bytes
    """Signs addresses of files."""
    planning: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(PLANNING_THREADS)
    )
    """Plans read headers for seconds: few at a time, so that other requests keep threads."""

    @cached_property
    def hints(self) -> Hints:
        """Return what tells the controller and the workers."""
        return Hints(self.redis)

    @cached_property
    def base_url(self) -> str:
        """Return what addresses in answers start with; empty for paths on this server."""
        return self.settings.public_url.rstrip("/")


def context_of(request: Request) -> Context:
    """Return the context of the application that answers a request."""
    return cast(Context, request.app.state.context)


Here = Annotated[Context, Depends(context_of)]
