"""Who looks at a page, and what a form said."""

from collections.abc import Callable, Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from api.auth.service import Caller
from api.auth.sessions import COOKIE, caller_of, check_origin
from api.context import Here
from api.errors import InvalidRequest, Unauthorized
from api.web.pages import SignInNeeded
from fda_core.contract.rest.keys import Role

MOST_FIELDS = 32


def visiting(role: Role) -> Callable[..., Caller]:
    """Return the dependency that lets those in who are signed in with at least this role."""

    def visitor(request: Request, context: Here) -> Caller:
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            raise SignInNeeded
        try:
            found = caller_of(context, cookie)
        except Unauthorized:
            raise SignInNeeded from None
        request.state.caller = found
        found.require(role)
        return found

    return visitor


async def read_form(request: Request, context: Here) -> Mapping[str, str]:
    """Return a form's fields, if it was sent from a page of ours."""
    check_origin(request.method, request.headers, public_url=context.settings.public_url)
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest("the form cannot be read", hint="Send it from its page.") from None
    return dict(pairs)


Visitor = Annotated[Caller, Depends(visiting("viewer"))]
SubmittingVisitor = Annotated[Caller, Depends(visiting("submitter"))]
AdminVisitor = Annotated[Caller, Depends(visiting("admin"))]
Form = Annotated[Mapping[str, str], Depends(read_form)]
