"""Answers that are errors, as exceptions."""

from typing import Any

from pydantic import ValidationError

from fda_core.contract.rest.base import Problem
from fda_core.errors import Blame, ServiceError

RETRYABLE = frozenset({429, 502, 503, 504})
HINTS = {
    401: "Check the key: FDA_KEY, --key, or the key file that `fda up` names.",
    403: "The key's role does not allow this; ask for another role.",
    404: "Check the id and the address of the service.",
    413: "The document is too large for the service.",
    429: "Wait a little, or ask for a higher quota.",
}


def problem_of(status: int, body: bytes, *, request: str, request_id: str | None) -> ServiceError:
    """Return the exception of an answer: its problem document, or what little is known."""
    blame: Blame = "user" if 400 <= status < 500 else "system"
    retryable = status in RETRYABLE
    try:
        said = Problem.model_validate_json(body)
    except ValidationError:
        text = body[:200].decode(errors="replace").strip()
        return ServiceError(
            f"{request} was answered with {status}" + (f": {text}" if text else ""),
            hint=HINTS.get(status, "Something between here and the service may have answered."),
            code=f"http_{status}",
            blame=blame,
            retryable=retryable,
            status=status,
            request_id=request_id,
        )
    errors: list[Any] = [error.model_dump(mode="json") for error in said.errors]
    named = [f"{error.pointer}: {error.message}" for error in said.errors]
    fresh = [line for line in named if line.partition(": ")[2] not in said.detail]
    return ServiceError(
        "; ".join([said.detail, *fresh]),
        hint=said.hint or HINTS.get(status),
        code=said.code,
        blame=blame,
        retryable=retryable,
        **{
            **{key: value for key, value in said.context.items() if key not in _TAKEN},
            "status": said.status,
            "request_id": said.request_id,
            **({"errors": errors} if errors else {}),
        },
    )


_TAKEN = frozenset({"message", "hint", "code", "blame", "retryable", "self"})
