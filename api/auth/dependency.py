"""How a route says who may call it: `caller: Viewer`, `Submitter` or `Admin`."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.auth.service import Caller, authenticate
from api.context import Here
from fda_core.contract.rest.keys import Role

SCHEME = HTTPBearer(
    scheme_name="ApiKey",
    description="An API key, `fda_…`. Admins make them with POST /v1/keys.",
    auto_error=False,
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(SCHEME)]


def requiring(role: Role) -> Callable[..., Caller]:
    """Return the dependency that lets callers in whose role is at least this."""

    def caller(context: Here, credentials: Credentials) -> Caller:
        key = credentials.credentials if credentials else None
        found = authenticate(context.database, key, clock=context.clock)
        found.require(role)
        return found

    return caller


Viewer = Annotated[Caller, Depends(requiring("viewer"))]
Submitter = Annotated[Caller, Depends(requiring("submitter"))]
Admin = Annotated[Caller, Depends(requiring("admin"))]
