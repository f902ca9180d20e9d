"""Cursors: opaque to callers, a place in an order that new rows do not shift."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Query

from api.errors import InvalidRequest
from fda_core.contract.rest.base import FieldProblem, Page

T = TypeVar("T")
R = TypeVar("R")

MOST = 100

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=512, description="`next_cursor` of the page before; nothing for the first."),
]


@dataclass(frozen=True)
class Slice(Generic[T]):
    """A piece of a list and, if more follows, the place of its last item."""

    items: Sequence[T]
    last: tuple[str, ...] | None

    @classmethod
    def of(
        cls, found: Sequence[T], *, limit: int, place: Callable[[T], tuple[str, ...]]
    ) -> "Slice[T]":
        """Return at most `limit` of what was found, which is asked for with one more."""
        items = found[:limit]
        return cls(items, place(items[-1]) if len(found) > limit else None)

    def page(self, show: Callable[[T], R]) -> Page[R]:
        """Return the page that callers get."""
        last = self.last
        return Page(
            data=[show(item) for item in self.items],
            next_cursor=None if last is None else write_cursor(*last),
            has_more=last is not None,
        )


def write_cursor(*place: str) -> str:
    """Return a place as a cursor."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *, parts: int = 1) -> tuple[str, ...] | None:
    """Return the place a cursor names, or raise `InvalidRequest` if we never wrote it."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, UnicodeError, RecursionError):
        raise bad_cursor() from None
    texts = isinstance(place, list) and all(isinstance(p, str) and "\0" not in p for p in place)
    if not texts or len(place) != parts or any(not _storable(p) for p in place):
        raise bad_cursor()
    return tuple(place)


def _storable(text: str) -> bool:
    return text.isprintable() and len(text) <= 256


def read_text(cursor: str | None) -> str | None:
    """Return the text a cursor names, None for none."""
    place = read_cursor(cursor)
    return None if place is None else place[0]


def read_number(cursor: str | None) -> int:
    """Return the number a cursor names, 0 for none."""
    place = read_cursor(cursor)
    if place is None:
        return 0
    if not place[0].isascii() or not place[0].isdigit() or len(place[0]) > 9:
        raise bad_cursor()
    return int(place[0])


def read_moment(text: str) -> datetime:
    """Return the moment that a part of a cursor names."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
        moment.astimezone()
    except (ValueError, OverflowError):
        raise bad_cursor() from None
    return moment


def bad_cursor() -> InvalidRequest:
    """Return what is said of a cursor that none of our pages had."""
    message = "this is no cursor of ours"
    return InvalidRequest(
        f"cursor: {message}",
        hint="Take next_cursor of the page before, unchanged.",
        problems=[FieldProblem(pointer="cursor", message=message, code="bad_cursor")],
    )
