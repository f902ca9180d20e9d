"""Rules about API keys: who is calling, and making, changing and revoking keys."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from api.auth import repository
from api.auth.secrets import PREFIX, hash_of, new_key, prefix_of
from api.db.session import Database
from api.db.tables import KeyRow
from api.db.types import Clock, now
from api.errors import Conflict, InvalidRequest, NotAllowed, Unauthorized, UnknownResource
from api.ids import new_id
from api.paging import Slice
from fda_core.contract.rest.base import FieldProblem
from fda_core.contract.rest.keys import Key, KeyPatch, KeyRequest, NewKey, Role

RANKS: dict[Role, int] = {"viewer": 0, "submitter": 1, "admin": 2}
TOUCH = timedelta(minutes=1)
"""How exactly the last use is known; each use as a write would queue all requests."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling, by the key."""

    key_id: str
    name: str
    role: Role
    owner: str
    team: str

    @property
    def is_admin(self) -> bool:
        """Say whether everything of every team is theirs to see and change."""
        return self.role == "admin"

    def require(self, role: Role) -> None:
        """Raise `NotAllowed` unless the key's role is this one or above it."""
        if RANKS[self.role] < RANKS[role]:
            raise NotAllowed(
                f"the key {self.name!r} has the role {self.role}; this needs {role}",
                hint="Use another key, or ask an admin for one.",
                role=self.role,
                needed=role,
            )

    def sees(self, team: str) -> bool:
        """Say whether things of a team are theirs to see."""
        return self.is_admin or team == self.team


def authenticate(database: Database, key: str | None, *, clock: Clock = now) -> Caller:
    """Return who sent a key, or raise `Unauthorized` without saying what is wrong with it."""
    if not key:
        raise Unauthorized(
            "this needs an API key", hint="Send it as the header Authorization: Bearer fda_…"
        )
    with database.read() as session:
        row = repository.by_hash(session, hash_of(key)) if key.startswith(PREFIX) else None
    return _caller(database, row, moment=clock())


def authenticate_id(database: Database, key_id: str, *, clock: Clock = now) -> Caller:
    """Return whose key an id names, or raise `Unauthorized` if it is no longer valid."""
    with database.read() as session:
        row = repository.find(session, key_id)
    return _caller(database, row, moment=clock())


def _caller(database: Database, row: KeyRow | None, *, moment: datetime) -> Caller:
    """Return who calls with a key, and note its use."""
    if row is None or row.revoked_at is not None or (row.expires_at and row.expires_at <= moment):
        raise Unauthorized(
            "the API key is not valid",
            hint="It may be mistyped, revoked or past its time; ask an admin for another.",
        )
    if row.last_used_at is None or row.last_used_at < moment - TOUCH:
        with database.write() as session:
            repository.touch(session, row.id, moment=moment, unless_after=moment - TOUCH)
    return Caller(
        key_id=row.id, name=row.name, role=_role(row.role), owner=row.owner, team=row.team
    )


def create_key(database: Database, request: KeyRequest, *, clock: Clock = now) -> NewKey:
    """Make a key; the answer is the only place where it is to be seen."""
    moment = clock()
    _check_expiry(request.expires_at, moment)
    key = new_key()
    row = KeyRow(
        id=new_id(),
        name=request.name,
        hash=hash_of(key),
        prefix=prefix_of(key),
        role=request.role,
        owner=request.owner,
        team=request.team,
        created_at=moment,
        expires_at=request.expires_at,
    )
    with database.write() as session:
        repository.add(session, row)
    return NewKey(**dict(view(row)), key=key)


def bootstrap_key(database: Database, *, team: str = "default") -> str:
    """Make a key of an admin for whoever set the service up, and return it."""
    request = KeyRequest(name="bootstrap", role="admin", owner="admin", team=team)
    return create_key(database, request).key


def list_keys(database: Database, *, after: str | None, limit: int) -> Slice[Key]:
    """Return keys, newest first."""
    with database.read() as session:
        rows = repository.page(session, after=after, count=limit + 1)
        return Slice.of([view(row) for row in rows], limit=limit, place=lambda key: (key.id,))


def get_key(database: Database, key_id: str) -> Key:
    """Return a key, or raise `UnknownResource`."""
    with database.read() as session:
        return view(_found(repository.find(session, key_id), key_id))


def change_key(database: Database, key_id: str, patch: KeyPatch, *, clock: Clock = now) -> Key:
    """Change a key; the last admin's stays one."""
    moment = clock()
    changes = patch.model_dump(exclude_unset=True)
    for name in ("name", "role"):
        if changes.get(name, "") is None:
            raise _invalid(name, "this cannot be null")
    _check_expiry(patch.expires_at, moment)
    with database.write() as session:
        row = _found(repository.find(session, key_id), key_id)
        weaker = changes.get("role", "admin") != "admin" or changes.get("expires_at") is not None
        if row.role == "admin" and weaker:
            _keep_an_admin(repository.other_admins(session, key_id, moment=moment))
        if changes:
            repository.change(session, key_id, **changes)
        session.refresh(row)
        return view(row)


def revoke_key(database: Database, key_id: str, *, clock: Clock = now) -> None:
    """Revoke a key; it is refused from the next request on."""
    moment = clock()
    with database.write() as session:
        row = _found(repository.find(session, key_id), key_id)
        if row.role == "admin":
            _keep_an_admin(repository.other_admins(session, key_id, moment=moment))
        repository.change(session, key_id, revoked_at=moment)


def view(row: KeyRow) -> Key:
    """Return a key as it is shown."""
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        role=_role(row.role),
        owner=row.owner,
        team=row.team,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _role(text: str) -> Role:
    found: dict[str, Role] = {"admin": "admin", "submitter": "submitter"}
    return found.get(text, "viewer")


def _found(row: KeyRow | None, key_id: str) -> KeyRow:
    if row is None:
        raise UnknownResource(f"there is no key {key_id}", hint="GET /v1/keys lists them.")
    return row


def _keep_an_admin(others: int) -> None:
    if not others:
        raise Conflict(
            "this is the last key of an admin", hint="Make another one first: POST /v1/keys."
        )


def _check_expiry(expires_at: datetime | None, moment: datetime) -> None:
    if expires_at is not None and expires_at <= moment:
        raise _invalid("expires_at", "this is in the past")


def _invalid(name: str, message: str) -> InvalidRequest:
    problem = FieldProblem(pointer=f"/{name}", message=message, code="value_error")
    return InvalidRequest(f"{name}: {message}", problems=[problem])
