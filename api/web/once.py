"""Forms that are done once, however often their button is pressed."""

import json
import uuid
from collections.abc import Mapping

from api.auth.service import Caller
from api.context import Context
from api.kept_answers import KeptAnswer


def new_once() -> str:
    """Return what tells one showing of a form from all others."""
    return uuid.uuid4().hex


def once_of(
    context: Context, caller: Caller, *, path: str, form: Mapping[str, str]
) -> KeptAnswer | None:
    """Return the key that a form brought with it, None if it has none."""
    key = form.get("once", "")
    if not (key.isascii() and key.isalnum()):
        return None
    body = json.dumps(dict(form)).encode()
    return KeptAnswer.of(context, caller, route=f"POST {path}", key=key[:255], body=body)
