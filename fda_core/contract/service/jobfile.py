"""What a job leaves in its workspace so that the database can be made again from it."""

from typing import Any, Literal

from pydantic import Field

from fda_core.contract.plan import PlainData
from fda_core.contract.service.messages import ErrorReport


class JobFile(PlainData):
    """A job as it was submitted; written before its first unit runs and at every retry."""

    format: Literal[1] = 1
    id: str
    owner: str
    team: str
    created: str
    """RFC 3339, UTC."""
    attempt: int
    priority: int
    labels: dict[str, str]
    recipe: dict[str, Any] | str
    """As sent."""
    batch: str | None = None
    schedule: str | None = None
    plan_digest: str
    device: str
    """Queue of its layers."""


class Outcome(PlainData):
    """How a job ended."""

    format: Literal[1] = 1
    state: Literal["succeeded", "failed", "cancelled", "expired"]
    finished: str
    attempt: int
    error: ErrorReport | None = None
    timestamps: dict[str, str] = Field(default_factory=dict)
