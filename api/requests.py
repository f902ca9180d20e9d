"""What every request gets: an id, a trace, a line in the log, a count, and an answer to bugs."""

import re
import secrets
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from opentelemetry.trace import Span, SpanKind
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import NotReady
from api.problems import problem_response
from api.prometheus import HttpCounts
from api.tracing import Tracing, traceparent_of
from fda_core.errors import FdaError, InternalError
from fda_core.processes.tracing import note_error

REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
TRACEPARENT = re.compile(r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
SIGNED = re.compile(r"^(/v1/files/[^/]+/[^/]+/)[^/]+")
"""`/v1/files/{job}/{until}/{signature}/{path}`, whose signature is as good as a key."""
MOST_BODY_BYTES = 2 * 2**20
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
log = structlog.get_logger("api")


def continued_trace(header: str | None) -> str:
    """Return a traceparent with a new span in the caller's trace, or in a new one."""
    match = TRACEPARENT.match(header or "")
    usable = match and match[1] != "ff" and set(match[2]) != {"0"} and set(match[3]) != {"0"}
    trace, flags = (match[2], match[4]) if match and usable else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"


class RequestMiddleware:
    """The outermost layer: nothing gets past it without an id and a problem's shape."""

    def __init__(self, app: ASGIApp, *, counts: HttpCounts, tracing: Tracing) -> None:
        self._app = app
        self._counts = counts
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with self._span(scope, headers) as span:
            await self._answer(scope, receive, send, headers=headers, span=span)

    def _span(self, scope: Scope, headers: Headers) -> AbstractContextManager[Span | None]:
        """Return the span of a request; questions about our health are not worth one."""
        if scope["path"] in QUIET:
            return nullcontext()
        context = {k: v for k in ("traceparent", "tracestate") if (v := headers.get(k))}
        attributes = {"http.request.method": scope["method"], "url.path": shown_path(scope["path"])}
        return self._tracing.span(str(scope["method"]), context, attributes, kind=SpanKind.SERVER)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, *, headers: Headers, span: Span | None
    ) -> None:
        sent = headers.get("x-request-id", "")
        request_id = sent if REQUEST_ID.match(sent) else str(uuid.uuid4())
        trace = (
            continued_trace(headers.get("traceparent")) if span is None else traceparent_of(span)
        )
        scope.setdefault("state", {}).update(request_id=request_id, traceparent=trace)
        status: int | None = None
        began = time.perf_counter()

        async def mark(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-Id"] = request_id
                answer["traceparent"] = trace
                answer.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, _limited(receive, headers), mark)
            except Exception as problem:
                log.error("request_broke", path=shown_path(scope["path"]), exc_info=problem)
                if status is not None:
                    raise
                broken = _stands_for(problem)
                response = problem_response(broken, path=scope["path"], request_id=request_id)
                await response(scope, receive, mark)
            finally:
                self._tell(scope, status or 499, time.perf_counter() - began)
                if span is not None:
                    _describe(span, scope, status=status or 499, request_id=request_id)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_path(scope)
        self._counts.count(scope["method"], route, status, seconds)
        if scope["path"] not in QUIET:
            job = scope.get("path_params", {}).get("job_id")
            log.info(
                "request",
                **({} if job is None else {"job": job}),
                method=scope["method"],
                route=route,
                path=shown_path(scope["path"]),
                status=status,
                milliseconds=round(1000 * seconds, 1),
            )


def _stands_for(problem: Exception) -> FdaError:
    """Return an error of ours for one nobody expected: a database that is away is no bug."""
    if not isinstance(problem, OperationalError | InterfaceError):
        return InternalError(type(problem).__name__)
    if "full" in str(problem.orig).lower():
        return NotReady("the database's disk is full", hint="Make room; then send it again.")
    return NotReady(
        "the database does not answer", hint="Jobs go on where they are; send it again later."
    )


def _describe(span: Span, scope: Scope, *, status: int, request_id: str) -> None:
    """Say in a span what is known of a request only at its end."""
    route = route_path(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes(
        {"http.route": route, "http.response.status_code": status, "fda.request_id": request_id}
    )
    if status >= 500:
        note_error(span, str(status))


def _limited(receive: Receive, headers: Headers) -> Receive:
    """Return a `receive` that ends a body which is too large, as soon as it is known to be.

    The framework has a limit of its own, but its answer is no problem document.
    """
    declared = headers.get("content-length", "")
    length = int(declared) if declared.isascii() and declared.isdigit() else 0
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        if length > MOST_BODY_BYTES:
            raise HTTPException(413)
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BODY_BYTES:
            raise HTTPException(413)
        return message

    return limited


def shown_path(path: str) -> str:
    """Return a path as logs and spans may have it: without the signature of a signed one."""
    return SIGNED.sub(r"\1***", path)


def route_path(scope: Scope) -> str:
    """Return the path template of the route that answered; what no route has is one word."""
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", None) or "none")
