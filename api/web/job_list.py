"""The list of jobs: chips by state, a search, every filter in the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.context import Here
from api.jobs import service, views
from api.jobs.filters import JobFilter, as_query
from api.paging import read_cursor, read_moment, write_cursor
from api.web.pages import Pages
from api.web.visitors import Visitor
from fda_core.contract.service.states import JobState

AT_ONCE = 25
MOST_NEWS = 100
"""Jobs that are asked for anew, so that those which came since are counted."""
WORDS = frozenset({"method", "base", "owner", "team", "batch", "schedule"})
"""What can stand before a colon in the search, beside `state` and `tag`."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a list is narrowed to, as its address says it."""

    states: tuple[JobState, ...] = ()
    text: str = ""
    batch: str = ""
    schedule: str = ""

    def path(self, **changes: object) -> str:
        """Return the address of the list with this search, changed."""
        wanted = replace(self, **changes)  # type: ignore[arg-type]
        pairs = [("state", state.value) for state in wanted.states]
        pairs += [
            (name, value)
            for name in ("text", "batch", "schedule")
            if (value := str(getattr(wanted, name)))
        ]
        return f"/jobs?{urlencode(pairs)}" if pairs else "/jobs"

    def toggled(self, state: JobState) -> str:
        """Return the address with a state added, or taken away if it is there."""
        without = tuple(one for one in self.states if one is not state)
        return self.path(states=without if state in self.states else (*self.states, state))

    def filter(self) -> JobFilter:
        """Return what the service is asked for."""
        said = read_words(self.text)
        plain: dict[str, str | None] = {
            "batch": self.batch or None,
            "schedule": self.schedule or None,
        }
        plain |= said.values
        return JobFilter(
            states=self.states + said.states,
            labels=said.labels,
            text=said.text or None,
            **plain,  # type: ignore[arg-type]
        )

    @property
    def is_narrow(self) -> bool:
        """Say whether anything is asked for at all."""
        return bool(self.states or self.text or self.batch or self.schedule)


@dataclass(frozen=True, kw_only=True)
class Said:
    """A search's words, told apart."""

    text: str = ""
    states: tuple[JobState, ...] = ()
    labels: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


def read_words(text: str) -> Said:
    """Return what a search says: `state:failed method:fda tag:run=7`, the rest is plain text."""
    plain: list[str] = []
    states: list[JobState] = []
    labels: list[str] = []
    values: dict[str, str] = {}
    for word in text.split():
        name, colon, value = word.partition(":")
        if not colon or not value:
            plain.append(word)
        elif name == "state" and value in set(JobState):
            states.append(JobState(value))
        elif name in ("tag", "label"):
            labels.append(value)
        elif name in WORDS:
            values[name] = value
        else:
            plain.append(word)
    return Said(text=" ".join(plain), states=tuple(states), labels=tuple(labels), values=values)


def routes(pages: Pages) -> APIRouter:
    """Return the route of the list."""
    router = pages.router()

    @router.get("/jobs")
    def show_jobs(
        request: Request,
        context: Here,
        caller: Visitor,
        state: Annotated[list[JobState] | None, Query()] = None,
        text: Annotated[str, Query(max_length=256)] = "",
        batch: Annotated[str, Query(max_length=64)] = "",
        schedule: Annotated[str, Query(max_length=64)] = "",
        cursor: Annotated[str, Query(max_length=512)] = "",
    ) -> Response:
        search = Search(
            states=tuple(dict.fromkeys(state or ())),
            text=_clean(text),
            batch=_clean(batch),
            schedule=_clean(schedule),
        )
        place = read_cursor(cursor, parts=2) if cursor else None
        after = None if place is None else (read_moment(place[0]), place[1])
        found = service.find_many(context, caller, search.filter(), after=after, limit=AT_ONCE)
        return pages.page(
            request,
            "jobs.html",
            caller=caller,
            search=search,
            states=list(JobState),
            jobs=[views.job(row, base_url="") for row in found.items],
            is_first=place is None,
            older=_older(search, found.last),
            address=_address(search, cursor),
        )

    return router


def _clean(text: str) -> str:
    """Return a search without what no database takes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _address(search: Search, cursor: str) -> str:
    """Return where a page of the list is asked for anew."""
    pairs = [*as_query(search.filter()), ("limit", str(MOST_NEWS))]
    return f"/v1/jobs?{urlencode([*pairs, ('cursor', cursor)] if cursor else pairs)}"


def _older(search: Search, last: Sequence[str] | None) -> str | None:
    if last is None:
        return None
    path = search.path()
    return f"{path}{'&' if '?' in path else '?'}{urlencode({'cursor': write_cursor(*last)})}"
