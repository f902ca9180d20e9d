"""The OpenAPI document: every status declared, with examples; errors have one shape."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from api.problems import MEDIA_TYPE, explanation
from fda_core import __version__
from fda_core.contract.rest.base import Problem

DESCRIPTION = (
    "Merges fine-tuned checkpoints of one base. Every request but health, metrics and these "
    "pages carries an API key; every error is `application/problem+json` (RFC 9457) with a "
    "stable `code`. Lists are pages: follow `next_cursor` while `has_more`."
)
Responses = dict[int | str, dict[str, Any]]

EXAMPLES: dict[int, tuple[str, str, str]] = {
    400: ("http_error", "The request cannot be answered.", "Look at what was sent."),
    401: ("unauthorized", "this needs an API key", "Send Authorization: Bearer fda_…"),
    403: (
        "not_allowed",
        "the key 'dashboards' has the role viewer; this needs submitter",
        "Use another key, or ask an admin for one.",
    ),
    404: ("unknown_job", "there is no job 01930a5e", "GET /v1/jobs lists your team's jobs."),
    409: (
        "already_finished",
        "job 01930a5e is succeeded already",
        "There is nothing left to cancel.",
    ),
    412: (
        "precondition_failed",
        'job 01930a5e is at version 7, not W/"5"',
        "Get it again and decide anew.",
    ),
    413: ("body_too_large", "the body is too large", "Send a smaller recipe."),
    416: ("bad_range", "the file has 512 bytes", "Ask for bytes that it has."),
    422: ("bad_parameter", "method.density: input should be less than 1", "See fda methods."),
    429: ("quota_exceeded", "the team has 1000 unfinished jobs", "Wait for some to end."),
    500: ("internal_error", "Something broke on our side.", "Tell us the request's id."),
    502: ("storage_error", "s3://models/a: cannot read", "Look at the storage."),
    503: ("not_ready", "the broker does not answer", "Try again in a few seconds."),
    507: ("out_of_disk", "the workspace's disk is full", "Make room."),
}


def problems(*statuses: int) -> Responses:
    """Return the declarations of a route's errors."""
    return {status: _problem(status) for status in sorted(statuses)}


def _problem(status: int) -> dict[str, Any]:
    code, detail, hint = EXAMPLES[status]
    title = HTTPStatus(status).phrase
    example = {
        "type": explanation(code),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/v1/jobs",
        "code": code,
        "hint": hint,
        "context": {},
        "errors": [],
        "request_id": "b9f3d2c1-5a6e-4c0f-8a51-6d1f0f8e2a11",
    }
    if status == 422:
        example["errors"] = [{"pointer": "/recipe/method/density", "message": detail, "code": code}]
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }


USUAL = (401, 403, 422, 500, 503)
"""What every route with a key can answer."""


def router(*, prefix: str = "", tag: str, statuses: tuple[int, ...] = USUAL) -> APIRouter:
    """Return a router whose routes' names are their operation ids."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        responses=problems(*statuses),
        generate_unique_id_function=_operation_id,
    )


def _operation_id(route: APIRoute) -> str:
    return route.name


def install(app: FastAPI) -> None:
    """Let an application answer with this document; it is made once, when first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title="fda-merge",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _, problem = models_json_schema(
        [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(problem["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return made
