"""What a list of jobs can be narrowed to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query

from api.errors import InvalidRequest
from fda_core.contract.rest.base import FieldProblem, Time
from fda_core.contract.service.states import JobState

Text = Annotated[str, Query(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Every condition must hold; of several states any will do."""

    states: tuple[JobState, ...] = ()
    labels: tuple[str, ...] = ()
    base: str | None = None
    method: str | None = None
    owner: str | None = None
    team: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    schedule: str | None = None
    batch: str | None = None
    text: str | None = None


def read_filter(
    state: Annotated[list[JobState] | None, Query(description="Any of these.")] = None,
    label: Annotated[
        list[Text] | None,
        Query(max_length=16, description="`name` or `name=value`; all of them must be there."),
    ] = None,
    base: Annotated[Text | None, Query(description="The base's address.")] = None,
    method: Annotated[Text | None, Query(description="The method's name.")] = None,
    owner: Annotated[Text | None, Query(description="Who submitted it.")] = None,
    team: Annotated[Text | None, Query(description="For admins, who see every team.")] = None,
    created_after: Annotated[Time | None, Query(description="At this time or later.")] = None,
    created_before: Annotated[Time | None, Query(description="Before this time.")] = None,
    schedule: Annotated[Text | None, Query(description="Id of a schedule.")] = None,
    batch: Annotated[Text | None, Query(description="Id of a batch.")] = None,
    text: Annotated[
        Text | None,
        Query(description="In the id, base, output, method, owner or a label's value."),
    ] = None,
) -> JobFilter:
    """Return the filter that a request's parameters say."""
    return JobFilter(
        states=tuple(state or ()),
        labels=tuple(label or ()),
        base=base,
        method=method,
        owner=owner,
        team=team,
        created_after=_comparable("created_after", created_after),
        created_before=_comparable("created_before", created_before),
        schedule=schedule,
        batch=batch,
        text=text,
    )


def as_query(wanted: JobFilter) -> list[tuple[str, str]]:
    """Return the parameters that `read_filter` reads such a filter from."""
    one = ("base", "method", "owner", "team", "schedule", "batch", "text")
    times = ("created_after", "created_before")
    return [
        *(("state", state.value) for state in wanted.states),
        *(("label", label) for label in wanted.labels),
        *((name, value) for name in one if (value := getattr(wanted, name)) is not None),
        *((name, at.isoformat()) for name in times if (at := getattr(wanted, name)) is not None),
    ]


def _comparable(name: str, moment: datetime | None) -> datetime | None:
    """Refuse times that no database can compare."""
    if moment is not None and not 1970 <= moment.year < 9000:
        message = f"{moment.year} is not between 1970 and 9000"
        raise InvalidRequest(
            f"{name}: {message}", problems=[FieldProblem(pointer=name, message=message)]
        )
    return moment


Filtered = Annotated[JobFilter, Depends(read_filter)]
