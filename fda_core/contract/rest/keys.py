"""API keys."""

from typing import Annotated, Literal

from pydantic import Field

from fda_core.contract.rest.base import Request, Resource, Time

Role = Literal["viewer", "submitter", "admin"]

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class KeyRequest(Request):
    """A key to make."""

    name: Name = Field(description="What it is for, such as `nightly pipeline`.")
    role: Role = Field(
        description="viewer sees its team's jobs; submitter submits and cancels them too; admin "
        "may do everything, for every team."
    )
    owner: Name = Field(description="Who answers for it.")
    team: Name = Field(description="Whose jobs it is about.")
    expires_at: Time | None = Field(default=None, description="It is refused from then on.")


class KeyPatch(Request):
    """What can be changed of a key."""

    name: Name | None = None
    role: Role | None = None
    expires_at: Time | None = None


class Key(Resource):
    """An API key, without the key."""

    id: str
    name: str
    prefix: str = Field(description="How it begins, to tell keys apart.")
    role: Role
    owner: str
    team: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None = Field(description="To the minute.")


class NewKey(Key):
    """A key just made: the only time the key itself is shown."""

    key: str = Field(description="Send it as `Authorization: Bearer …`. It is kept nowhere.")
