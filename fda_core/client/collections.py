"""Kinds of resources the service lists, reads, makes and removes, each in one line.

A new kind is a field of `Client`:
`self.schedules = Collection(transport, "/v1/schedules", Schedule)`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from fda_core.client.transport import Request, Transport
from fda_core.contract.rest.base import Page, Resource
from fda_core.errors import ServiceError

Found = TypeVar("Found", bound=BaseModel)
Read = TypeVar("Read", bound=BaseModel)
PAGE = 100


class Record(Resource):
    """A resource of a kind this client has no model of: its fields as they came."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def __getattr__(self, name: str) -> Any:
        """Return a field that came."""
        extra = self.__pydantic_extra__ or {}
        if name in extra:
            return extra[name]
        raise AttributeError(f"the service sent no {name!r}; it sent {sorted(extra)}")


def read(kind: type[Read], body: bytes | str) -> Read:
    """Return a model from an answer; fields it does not know are ignored."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ServiceError(
            f"the answer is no {kind.__name__}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="Use a client of the service's version.",
            code="unreadable_answer",
        ) from problem


def listed(
    transport: Transport,
    path: str,
    kind: type[Found],
    *,
    limit: int | None = None,
    **query: Any,
) -> Iterator[Found]:
    """Yield what a list has, page after page, at most `limit` of it."""
    left, cursor = limit, None
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        request = Request(method="GET", path=path, query={**query, "limit": size, "cursor": cursor})
        page = read(Page[kind], transport.send(request).content)  # type: ignore[valid-type]
        yield from page.data
        left = None if left is None else left - len(page.data)
        cursor = page.next_cursor
        if not page.has_more or cursor is None:
            return


def data_of(model: BaseModel | Mapping[str, Any]) -> Any:
    """Return what is sent of a model or a mapping; of a model only what was set."""
    if isinstance(model, BaseModel):
        return model.model_dump(mode="json", exclude_unset=True)
    return dict(model)


class Collection(Generic[Found]):
    """All resources of one kind."""

    def __init__(self, transport: Transport, path: str, kind: type[Found]) -> None:
        self._transport = transport
        self._path = path
        self._kind = kind

    def list(self, *, limit: int | None = None, **filters: Any) -> Iterator[Found]:
        """Yield them all, or those that match."""
        return listed(self._transport, self._path, self._kind, limit=limit, **filters)

    def get(self, name: str) -> Found:
        """Return one."""
        return self._read("GET", self.path_of(name))

    def create(
        self, model: BaseModel | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Found:
        """Make one. With an idempotency key the request is safe to repeat."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._read(
            "POST",
            self._path,
            body=data_of(model),
            headers=headers,
            repeatable=idempotency_key is not None,
        )

    def update(self, name: str, changes: BaseModel | Mapping[str, Any]) -> Found:
        """Change one."""
        return self._read("PATCH", self.path_of(name), body=data_of(changes))

    def delete(self, name: str) -> None:
        """Remove one."""
        self._transport.send(Request(method="DELETE", path=self.path_of(name)))

    def act(self, name: str, action: str, *, body: Any = None) -> Any:
        """Do `POST …/{name}/{action}` and return the answer's data, or None."""
        answer = self._transport.send(
            Request(method="POST", path=f"{self.path_of(name)}/{action}", body=body)
        )
        return answer.json() if answer.content else None

    def below(self, name: str, part: str, *, limit: int | None = None, **query: Any) -> Any:
        """Yield what a list below one has, such as a webhook's deliveries."""
        path = f"{self.path_of(name)}/{part}"
        return listed(self._transport, path, Record, limit=limit, **query)

    def path_of(self, name: str) -> str:
        """Return the path of one."""
        return f"{self._path}/{quote(name, safe='')}"

    def _read(self, method: str, path: str, **more: Any) -> Found:
        answer = self._transport.send(Request(method=method, path=path, **more))
        return read(self._kind, answer.content)
