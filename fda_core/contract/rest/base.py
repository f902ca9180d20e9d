"""What all resources share: the base models, pages and problems."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

Item = TypeVar("Item")

NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
"""Text on one line, that every database keeps and no terminal obeys."""


def _within_the_calendar(moment: datetime) -> datetime:
    """Refuse a time that UTC has no year for: no database keeps it."""
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this is beyond the years 1 to 9999") from None
    return moment


Time = Annotated[
    AwareDatetime, AfterValidator(_within_the_calendar), Field(description="RFC 3339, UTC.")
]

Labels = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")],
        Annotated[str, Field(max_length=256, pattern=NO_CONTROLS)],
    ],
    Field(max_length=32, description="Up to 32 words of your own, to find things by."),
]


class Request(BaseModel):
    """Base of what callers send: unknown keys are refused, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Resource(BaseModel):
    """Base of what we answer. Clients must ignore fields they do not know."""

    model_config = ConfigDict(frozen=True)


class Page(Resource, Generic[Item]):
    """A piece of a list; `next_cursor` leads to what follows it."""

    data: list[Item]
    next_cursor: str | None = None
    has_more: bool = False


class FieldProblem(Resource):
    """One thing that is wrong with what was sent."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name.")
    message: str
    code: str | None = None


class Problem(Resource):
    """An error, RFC 9457, media type application/problem+json: one shape everywhere."""

    type: str = Field(description="Address of the code's explanation.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Stable word for programs.")
    hint: str | None = Field(default=None, description="What to do.")
    context: dict[str, Any] = Field(default_factory=dict)
    errors: list[FieldProblem] = Field(default_factory=list)
    request_id: str


def utc(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC with a Z."""
    return moment.isoformat().replace("+00:00", "Z")
