"""Errors of HTTP's own, and the one table from the error tree to HTTP statuses."""

from collections.abc import Sequence
from typing import ClassVar

from fda_core import errors
from fda_core.contract.rest.base import FieldProblem
from fda_core.errors import Blame, FdaError


class HttpError(FdaError):
    """A request that cannot be answered as asked, for reasons of HTTP's own."""

    code = "http_error"
    blame: ClassVar[Blame] = "user"


class Unauthorized(HttpError):
    """No API key, or one that is unknown, revoked or past its time."""

    code = "unauthorized"


class NotAllowed(HttpError):
    """The key's role does not allow it."""

    code = "not_allowed"


class CrossSite(HttpError):
    """A browser sent it with a session, but from a page of another site."""

    code = "cross_site"


class BadLink(HttpError):
    """The address of a file was changed, or its time is over."""

    code = "bad_link"


class UnknownRoute(HttpError):
    """There is nothing at this path."""

    code = "unknown_route"


class UnknownResource(HttpError):
    """There is no such thing, or none that the caller may see."""

    code = "unknown_resource"


class MethodNotAllowed(HttpError):
    """The path is there, but not for this method; `Allow` lists those it has."""

    code = "method_not_allowed"


class Conflict(HttpError):
    """It cannot be done while things are as they are."""

    code = "conflict"


class IdempotencyInFlight(HttpError):
    """The first request with this Idempotency-Key is still under way."""

    code = "idempotency_in_flight"
    retryable = True


class IdempotencyConflict(HttpError):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class PreconditionFailed(HttpError):
    """The resource is no longer the one that `If-Match` names."""

    code = "precondition_failed"


class BodyTooLarge(HttpError):
    """The body has more bytes than are read."""

    code = "body_too_large"


class BadRange(HttpError):
    """No byte of the file lies in the range asked for."""

    code = "bad_range"


class InvalidRequest(HttpError):
    """A parameter, a header or the body is not what the route takes; `errors` says which."""

    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        problems: Sequence[FieldProblem] = (),
        **context: object,
    ) -> None:
        super().__init__(message, hint=hint, **context)
        self.problems = tuple(problems)


class QuotaExceeded(HttpError):
    """The team has as many unfinished jobs as it may have."""

    code = "quota_exceeded"
    retryable = True


class NotReady(HttpError):
    """Something this service needs does not answer."""

    code = "not_ready"
    blame: ClassVar[Blame] = "system"
    retryable = True


STATUSES: dict[type[FdaError], int] = {
    errors.RecipeError: 422,
    errors.OutputExists: 409,
    errors.CheckpointError: 422,
    errors.StorageError: 502,
    errors.NotFound: 422,
    errors.Forbidden: 403,
    errors.Unavailable: 503,
    errors.UnsupportedScheme: 422,
    errors.NumericsError: 422,
    errors.ResourceError: 503,
    errors.OutOfDisk: 507,
    errors.NoDevice: 422,
    errors.JobError: 409,
    errors.UnknownJob: 404,
    errors.BatchError: 422,
    errors.UnknownBatch: 404,
    errors.BatchNotOver: 409,
    errors.BatchOver: 409,
    errors.ScheduleError: 422,
    errors.UnknownSchedule: 404,
    errors.StaleSchedule: 412,
    errors.WebhookError: 422,
    errors.UnknownWebhook: 404,
    errors.UnknownDelivery: 404,
    errors.WebhookDisabled: 409,
    errors.ServiceError: 502,
    errors.InternalError: 500,
    HttpError: 400,
    Unauthorized: 401,
    NotAllowed: 403,
    CrossSite: 403,
    BadLink: 403,
    UnknownRoute: 404,
    UnknownResource: 404,
    MethodNotAllowed: 405,
    Conflict: 409,
    IdempotencyInFlight: 409,
    IdempotencyConflict: 422,
    PreconditionFailed: 412,
    BodyTooLarge: 413,
    BadRange: 416,
    InvalidRequest: 422,
    QuotaExceeded: 429,
    NotReady: 503,
}
"""An error's status is that of the nearest class above it."""


def status_of(kind: type[FdaError]) -> int:
    """Return the HTTP status of an error class; 500 for one that no branch has."""
    for ancestor in kind.__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    return 500
