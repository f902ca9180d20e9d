"""How a route says who may call it: `caller: Viewer`, `Submitter` or `Admin`."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.auth.service import Caller, authenticate
from api.auth.sessions import COOKIE, caller_of, check_origin
from api.context import Here
from fda_core.contract.rest.keys import Role

SCHEME = HTTPBearer(
    scheme_name="ApiKey",
    description="An API key, `fda_…`. Admins make them with POST /v1/keys.",
    auto_error=False,
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(SCHEME)]


def requiring(role: Role) -> Callable[..., Caller]:
    """Return the dependency that lets callers in whose role is at least this.

    Pages of ours call without a key, with the session of whoever is signed in.
    """

    def caller(context: Here, request: Request, credentials: Credentials) -> Caller:
        cookie = request.cookies.get(COOKIE)
        if credentials is None and cookie:
            found = caller_of(context, cookie)
            check_origin(request.method, request.headers, public_url=context.settings.public_url)
        else:
            key = credentials.credentials if credentials else None
            found = authenticate(context.database, key, clock=context.clock)
        found.require(role)
        return found

    return caller


Viewer = Annotated[Caller, Depends(requiring("viewer"))]
Submitter = Annotated[Caller, Depends(requiring("submitter"))]
Admin = Annotated[Caller, Depends(requiring("admin"))]
