"""Sessions of browsers: a signed cookie that names a key, and where requests may come from.

The cookie holds the key's id, an end and a signature, never the key. The key is looked up at
every request, so revoking it ends its sessions at once.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from api.auth.service import Caller, authenticate, authenticate_id
from api.context import Context
from api.errors import CrossSite, Unauthorized

COOKIE = "fda_session"
LASTS = timedelta(hours=12)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PURPOSE = "fda_session"
"""Part of what is signed: the same secret signs addresses of files."""


def open_session(context: Context, key: str) -> str:
    """Return the cookie's value for a key, or raise `Unauthorized`."""
    caller = authenticate(context.database, key, clock=context.clock)
    until = int((context.clock() + LASTS).timestamp())
    return f"{caller.key_id}.{until}.{_sign(context.secret, caller.key_id, until)}"


def caller_of(context: Context, cookie: str) -> Caller:
    """Return whose session a cookie is, or raise `Unauthorized` if it is over or no longer so."""
    key_id, until = _read(context.secret, cookie, moment=context.clock())
    if key_id is None or until is None:
        raise Unauthorized("the session is over", hint="Sign in again with an API key.")
    return authenticate_id(context.database, key_id, clock=context.clock)


def _read(secret: bytes, cookie: str, *, moment: datetime) -> tuple[str | None, int | None]:
    """Return the key's id and the end of a session that goes on, else nothing."""
    parts = cookie.split(".")
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 12):
        return None, None
    key_id, until, signature = parts[0], int(parts[1]), parts[2]
    good = hmac.compare_digest(_sign(secret, key_id, until).encode(), signature.encode())
    if not good or until <= moment.timestamp():
        return None, None
    return key_id, until


def _sign(secret: bytes, key_id: str, until: int) -> str:
    said = "\n".join((PURPOSE, key_id, str(until))).encode()
    return hmac.new(secret, said, hashlib.sha256).hexdigest()


def check_origin(method: str, headers: Mapping[str, str], *, public_url: str) -> None:
    """Raise `CrossSite` for a request that changes something and comes from no page of ours.

    The cookie is SameSite=Strict already; this holds where a browser sends it nevertheless, as
    from another port of this host.
    """
    if method in SAFE:
        return
    origin = headers.get("origin", "")
    host = urlsplit(origin).netloc.lower()
    ours = {headers.get("host", "").lower(), urlsplit(public_url).netloc.lower()} - {""}
    if host not in ours:
        raise CrossSite(
            f"a page of {origin or 'no known place'} may not change anything here",
            hint="Open the dashboard at its own address and do it there.",
        )
