"""/v1/keys: for admins."""

from typing import Annotated

from fastapi import Path, Response

from api import openapi
from api.auth import service
from api.auth.dependency import Admin
from api.context import Here
from api.openapi import problems
from api.paging import Cursor, Limit, read_text
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.keys import Key, KeyPatch, KeyRequest, NewKey

router = openapi.router(prefix="/v1/keys", tag="keys")

KeyId = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$")]


@router.post("", status_code=201, responses=problems(413))
def create_key(body: KeyRequest, context: Here, caller: Admin, response: Response) -> NewKey:  # noqa: ARG001
    """Make a key. It is shown this once."""
    made = service.create_key(context.database, body, clock=context.clock)
    response.headers["Location"] = f"{context.base_url}/v1/keys/{made.id}"
    response.headers["Cache-Control"] = "no-store"
    return made


@router.get("")
def list_keys(
    context: Here,
    caller: Admin,  # noqa: ARG001
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Page[Key]:
    """List keys, newest first; revoked ones are gone."""
    found = service.list_keys(context.database, after=read_text(cursor), limit=limit)
    return found.page(lambda key: key)


@router.get("/{key_id}", responses=problems(404))
def get_key(key_id: KeyId, context: Here, caller: Admin) -> Key:  # noqa: ARG001
    """Show a key, without the key."""
    return service.get_key(context.database, key_id)


@router.patch("/{key_id}", responses=problems(404, 409, 413))
def update_key(key_id: KeyId, body: KeyPatch, context: Here, caller: Admin) -> Key:  # noqa: ARG001
    """Change a key's name, role or expiry."""
    return service.change_key(context.database, key_id, body, clock=context.clock)


@router.delete("/{key_id}", status_code=204, responses=problems(404, 409))
def revoke_key(key_id: KeyId, context: Here, caller: Admin) -> None:  # noqa: ARG001
    """Revoke a key; it is refused from now on."""
    service.revoke_key(context.database, key_id, clock=context.clock)
