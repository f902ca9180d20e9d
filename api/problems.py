"""Turn whatever goes wrong into application/problem+json, RFC 9457: one shape everywhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.errors import (
    BodyTooLarge,
    HttpError,
    InvalidRequest,
    MethodNotAllowed,
    Unauthorized,
    UnknownRoute,
    status_of,
)
from fda_core.contract.rest.base import FieldProblem, Problem
from fda_core.errors import BatchInvalid, FdaError, InternalError, RecipeError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = {429: 30, 503: 5, 409: 1}
log = structlog.get_logger("api")


def explanation(code: str) -> str:
    """Return where a code is explained."""
    return f"/docs/errors#{code}"


def problem_of(error: FdaError, *, path: str, request_id: str) -> Problem:
    """Return an error as a problem; of our own bugs nothing but the request's id is told."""
    status = status_of(type(error))
    told = error.as_dict()
    if isinstance(error, InternalError):
        told |= {
            "message": f"Something broke on our side; it is logged as request {request_id}.",
            "hint": "Try again; if it happens again, tell us the request's id.",
            "context": {},
        }
    return Problem(
        type=explanation(error.code),
        title=HTTPStatus(status).phrase,
        status=status,
        detail=str(told["message"]),
        instance=path,
        code=error.code,
        hint=error.hint if told["hint"] is None else str(told["hint"]),
        context=_mapping(told["context"]),
        errors=list(_fields(error)),
        request_id=request_id,
    )


def _mapping(context: object) -> dict[str, Any]:
    return dict(context) if isinstance(context, Mapping) else {}


def _fields(error: FdaError) -> Iterator[FieldProblem]:
    """Yield what is wrong, each with a pointer: a request's fields, or a recipe's keys."""
    if isinstance(error, InvalidRequest):
        yield from error.problems
    elif isinstance(error, BatchInvalid):
        for entry in cast("Sequence[Mapping[str, Any]]", error.context.get("errors", ())):
            yield FieldProblem(
                pointer=str(entry.get("pointer", "")),
                message=str(entry.get("message", "")),
                code=entry.get("code"),
            )
    elif isinstance(error, RecipeError):
        for complaint in error.complaints or (error,):
            key = complaint.context.get("key")
            below = f"/{_pointer(str(key).split('.'))}" if key else ""
            yield FieldProblem(
                pointer=f"/recipe{below}", message=complaint.message, code=complaint.code
            )


def _pointer(parts: Sequence[object]) -> str:
    return "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def problem_response(error: FdaError, *, path: str, request_id: str) -> Response:
    """Return an error as a response, with the headers its status asks for."""
    problem = problem_of(error, path=path, request_id=request_id)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="fda-merge"'
    wait = error.context.get("retry_after_seconds", RETRY_AFTER_SECONDS.get(problem.status))
    if wait is not None and (error.retryable or problem.status in (429, 503)):
        headers["Retry-After"] = str(wait)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(map(str, _list(error.context.get("allowed"))))
    size = error.context.get("size_bytes")
    if problem.status == 416 and size is not None:
        headers["Content-Range"] = f"bytes */{size}"
    body = problem.model_dump(mode="json", by_alias=True)
    return Response(json.dumps(body, allow_nan=False).encode(), problem.status, headers, MEDIA_TYPE)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def install(app: FastAPI) -> None:
    """Let an application answer all its errors as problems."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, FdaError)
        if isinstance(error, InternalError):
            log.error("request_broke", code=error.code, detail=error.message, exc_info=error)
        elif status_of(type(error)) >= 500:
            log.warning("request_failed", code=error.code, detail=error.message)
        return _answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _answer(request, invalid_request(error))

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _answer(request, _of_framework(app, request, error))

    app.add_exception_handler(FdaError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)


def _answer(request: Request, error: FdaError) -> Response:
    return problem_response(
        error, path=request.url.path, request_id=getattr(request.state, "request_id", "")
    )


def invalid_request(error: RequestValidationError) -> InvalidRequest:
    """Return FastAPI's complaints as one error of ours; what was sent is not repeated."""
    if isinstance(error.body, bytes):  # it reads nothing else as JSON
        message = "the body is not said to be JSON"
        return InvalidRequest(
            message,
            hint="Send it with the header Content-Type: application/json.",
            problems=[FieldProblem(pointer="", message=message, code="content_type")],
        )
    found = []
    for item in error.errors():
        where, *path = item["loc"]
        if item["type"] == "json_invalid":
            path = []
        pointer = f"/{_pointer(path)}" if where == "body" and path else _pointer(path)
        message = str(item["msg"]).removeprefix("Value error, ")
        found.append(FieldProblem(pointer=pointer, message=message, code=str(item["type"])))
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    where = f"{first.pointer}: " if first.pointer else ""
    return InvalidRequest(
        f"{where}{first.message}{more}",
        hint="See /docs for what this route takes.",
        problems=found,
    )


def _of_framework(app: FastAPI, request: Request, error: HTTPException) -> FdaError:
    """Return an exception of FastAPI's own as one of ours."""
    path = request.url.path
    if error.status_code == 404:
        return UnknownRoute(f"there is nothing at {path}", hint="/docs lists every route.")
    if error.status_code == 405:
        allowed = methods_at(app, path)
        return MethodNotAllowed(
            f"{path} does not take {request.method}",
            hint=f"It takes {', '.join(allowed)}.",
            allowed=allowed,
        )
    if error.status_code == 413:
        return BodyTooLarge(
            "the body is too large: at most 2 MiB are read", hint="Send a smaller recipe."
        )
    if error.status_code == 400:
        return InvalidRequest(
            "the body cannot be read",
            hint="Send JSON in UTF-8.",
            problems=[FieldProblem(pointer="", message=str(error.detail), code="body_unreadable")],
        )
    if error.status_code >= 500:
        return InternalError(str(error.detail))
    return HttpError(str(error.detail))


def methods_at(app: FastAPI, path: str) -> list[str]:
    """Return every method that some route takes at a path."""
    found: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.path and route.methods and compile_path(route.path)[0].match(path):
            found |= route.methods
    return sorted(found)
