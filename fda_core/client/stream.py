"""A job's events as they happen, over as many connections as it takes.

Every event has a number; after a broken connection the stream goes on after the last one
that was seen, so nothing is lost and nothing comes twice.
"""

from collections.abc import Callable, Iterator

import httpx2

from fda_core.client.collections import read
from fda_core.client.retries import Retries, Trying
from fda_core.client.transport import Request, Transport
from fda_core.contract.rest.jobs import EventView, Job
from fda_core.contract.service.states import TERMINAL
from fda_core.errors import ServiceError, ServiceUnreachable

SILENCE_SECONDS = 45.0
"""The service sends something every 15 s; a connection silent for so long is dead."""
NOTHING_MORE = 204
"""Answered instead of a stream when the job is over and nothing is new."""
PATIENCE_SECONDS = 300.0
"""How long a service may be away before a stream gives up."""


def follow(
    transport: Transport,
    path: str,
    *,
    after: int = 0,
    patience_seconds: float = PATIENCE_SECONDS,
    silence_seconds: float = SILENCE_SECONDS,
    on_trouble: Callable[[Exception], None] = lambda _problem: None,
) -> Iterator[EventView]:
    """Yield the events of the job at `path` from the one after `after` to the end of the job."""
    stream = _Stream(transport, path, after=after, silence_seconds=silence_seconds)
    retries: Retries = transport.retries
    trying = Trying(retries, patience_seconds=patience_seconds)
    while True:
        before = stream.last
        problem: Exception | None = None
        try:
            yield from stream.connection()
        except httpx2.TransportError as broken:
            problem = broken
        except ServiceError as refused:
            if not refused.retryable:
                raise
            problem = refused
        if stream.last > before:
            trying.progressed()
        if problem is None and stream.is_over(fresh=stream.last == before):
            return
        if problem is not None:
            on_trouble(problem)
        if not trying.again():
            if isinstance(problem, ServiceError):
                raise problem
            raise transport.unreachable(
                problem or ConnectionError("the stream ended early"), tries=trying.failures
            ) from problem


class _Stream:
    """One reading of a job's events, with the number of the last one seen."""

    def __init__(
        self, transport: Transport, path: str, *, after: int, silence_seconds: float
    ) -> None:
        self._transport = transport
        self._path = path
        self._silence = silence_seconds
        self._ended = False
        self.last = after

    def connection(self) -> Iterator[EventView]:
        """Yield what one connection brings that was not seen before."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self.last:
            headers["Last-Event-ID"] = str(self.last)
        request = Request(
            method="GET",
            path=f"{self._path}/events",
            headers=headers,
            timeout_seconds=self._silence,
        )
        with self._transport.stream(request) as answer:
            if answer.status_code == NOTHING_MORE:
                return
            for message in httpx2.EventSource(answer):
                if not message.data or not message.id.isdigit():
                    continue
                event = read(EventView, message.data)
                if event.id <= self.last:
                    continue
                self.last = event.id
                if event.type == "job.state":
                    self._ended = event.data.get("state") in TERMINAL
                yield event

    def is_over(self, *, fresh: bool) -> bool:
        """Say whether a stream that ended in good order was the whole of it.

        It was if its last word was the job's end, or if it brought nothing new, and the job
        is over still: an end that was told again may be that of an earlier attempt.
        """
        if not self._ended and not fresh:
            return False
        try:
            answer = self._transport.send(Request(method="GET", path=self._path))
        except ServiceUnreachable:
            return self._ended
        return read(Job, answer.content).state in TERMINAL
