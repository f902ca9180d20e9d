"""S3's and boto3's errors as ours: the one table of what a code means here.

boto3's own words are passed on only where they cannot hold a secret: what concerns
credentials, signatures and endpoints is said in ours.
"""

from typing import Any
from urllib.parse import urlsplit

from fda_core.errors import (
    ChangedInput,
    FdaError,
    Forbidden,
    NotFound,
    OutOfDisk,
    Unavailable,
)

_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for an account that may "
    "use this bucket."
)
_RIGHTS = (
    "Check the credentials and what they may do there. Without the right to list the bucket, S3 "
    "says this of objects that are not there, too."
)
_REGION = "Set AWS_DEFAULT_REGION to the bucket's region, and check AWS_ENDPOINT_URL."
_CHANGED = "Plan again, and leave inputs alone while a job runs."
_LATER = "Check the network and the S3 service; then try again."

Row = tuple[type[FdaError], str, str]

_CODES: dict[str, Row] = {
    "NoSuchKey": (NotFound, "there is no such object", "Check the address."),
    "NoSuchUpload": (NotFound, "its upload was aborted", "Start again."),
    "AccessDenied": (Forbidden, "access denied", _RIGHTS),
    "InvalidAccessKeyId": (Forbidden, "the access key is not known there", _CREDENTIALS),
    "SignatureDoesNotMatch": (Forbidden, "the secret key is wrong", _CREDENTIALS),
    "ExpiredToken": (Forbidden, "the credentials have expired", "Log in again."),
    "InvalidToken": (Forbidden, "the session token is not valid", "Log in again."),
    "RequestTimeTooSkewed": (Forbidden, "the clocks differ", "Set this machine's clock."),
    "KeyTooLongError": (
        Forbidden,
        "S3 takes no keys of more than 1024 bytes",
        "Use a shorter one.",
    ),
    "AuthorizationHeaderMalformed": (Forbidden, "the bucket is in another region", _REGION),
    "PermanentRedirect": (Forbidden, "the bucket is in another region", _REGION),
    "InvalidObjectState": (Forbidden, "the object is archived", "Restore it first."),
    "PreconditionFailed": (ChangedInput, "no longer the object that was planned with", _CHANGED),
    "QuotaExceeded": (OutOfDisk, "the quota is used up", "Free some space there."),
    "XMinioStorageFull": (OutOfDisk, "the storage is full", "Free some space there."),
}
_STATUSES: dict[int, str] = {
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    507: "XMinioStorageFull",
}
_PASSING_CODES = {
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}

_EXCEPTIONS: dict[str, Row] = {
    "NoCredentialsError": (Forbidden, "there are no credentials", _CREDENTIALS),
    "PartialCredentialsError": (Forbidden, "the credentials are incomplete", _CREDENTIALS),
    "ProfileNotFound": (Forbidden, "there is no such profile", "Check AWS_PROFILE."),
    "CredentialRetrievalError": (Forbidden, "credentials could not be had", _CREDENTIALS),
    "MetadataRetrievalError": (Forbidden, "credentials could not be had", _CREDENTIALS),
    "TokenRetrievalError": (Forbidden, "the login has expired", "Log in again."),
    "SSOError": (Forbidden, "the login has expired", "Log in again."),
    "ParamValidationError": (NotFound, "S3 knows no such bucket names", "Check the address."),
    "InvalidRegionError": (Forbidden, "there is no such region", "Check AWS_DEFAULT_REGION."),
    "ValueError": (Forbidden, "the endpoint is not a URL", "Check AWS_ENDPOINT_URL."),
    "SSLError": (Unavailable, "no secure connection", "Check the endpoint and AWS_CA_BUNDLE."),
    "ReadTimeoutError": (Unavailable, "no more bytes came", _LATER),
    "ConnectTimeoutError": (Unavailable, "no connection in time", _LATER),
    "EndpointConnectionError": (Unavailable, "no connection", _LATER),
    "ProxyConnectionError": (Unavailable, "no connection to the proxy", _LATER),
    "ConnectionClosedError": (Unavailable, "the connection was closed", _LATER),
    "ResponseStreamingError": (Unavailable, "the connection was cut", _LATER),
    "IncompleteReadError": (Unavailable, "the connection was cut", _LATER),
    "HTTPClientError": (Unavailable, "the connection failed", _LATER),
    "HTTPError": (Unavailable, "the connection failed", _LATER),
    "ResponseParserError": (Unavailable, "the answer is not S3's", "Check AWS_ENDPOINT_URL."),
}
_NEVER_PASSING = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOError",
    "ParamValidationError",
    "InvalidRegionError",
    "ValueError",
}


def failures() -> tuple[type[Exception], ...]:
    """Return everything a client may raise. For `except` clauses: boto3 is loaded by then."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)


def as_ours(problem: Exception, *, doing: str, uri: str) -> FdaError:
    """Return the error of ours that a client's exception amounts to.

    What is in no table is `Unavailable` with S3's code.
    """
    answer = _answer(problem)
    if answer is None:
        kind, says, hint = _row_of(problem)
        return kind(f"{uri}: cannot {doing}: {says}", hint=hint, uri=uri)
    code, status = code_of(problem), _status(answer)
    facts = {"uri": uri, "s3_code": code, "http_status": status, "request_id": _request(answer)}
    if code == "NoSuchBucket":
        return no_bucket(uri)
    known = code if code in _CODES else _STATUSES.get(status or 0, "")
    if known:
        kind, says, hint = _CODES[known]
        return kind(f"{uri}: cannot {doing}: {says} ({code})", hint=hint, **facts)
    said = " ".join(str(answer["Error"].get("Message", "")).split())[:200]
    said = f"S3 answered {status} {code}" + (f": {said}" if said else "")
    return Unavailable(f"{uri}: cannot {doing}: {said}", hint=_LATER, **facts)


def may_pass(problem: Exception) -> bool:
    """Say whether the same request may succeed a little later."""
    answer = _answer(problem)
    if answer is not None:
        status = _status(answer)
        return code_of(problem) in _PASSING_CODES or status in _PASSING_STATUSES
    names = {kind.__name__ for kind in type(problem).__mro__}
    return not names & _NEVER_PASSING and "CERTIFICATE_VERIFY_FAILED" not in str(problem)


def code_of(problem: Exception) -> str:
    """Return S3's code of a refused request; the bare status where there is no more."""
    answer = _answer(problem) or {"Error": {}}
    return str(answer["Error"].get("Code", ""))


def no_bucket(uri: str) -> NotFound:
    """Return the error for an address whose bucket is missing."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    return NotFound(
        f"{uri}: there is no bucket {bucket!r}",
        hint="Check the address, AWS_ENDPOINT_URL and AWS_PROFILE.",
        uri=uri,
        bucket=bucket,
    )


def changed(uri: str) -> ChangedInput:
    """Return the error for an object that is not the one that was pinned."""
    _, says, hint = _CODES["PreconditionFailed"]
    return ChangedInput(f"{uri}: {says}", hint=hint, uri=uri)


def cut_off(uri: str, *, size_bytes: int | None, stop: int) -> ChangedInput:
    """Return the error for an object shorter than the range that is asked for."""
    ends = "ends earlier" if size_bytes is None else f"ends at byte {size_bytes}"
    return ChangedInput(
        f"{uri}: {ends}, but bytes up to {stop} were asked for",
        hint="The object was cut off or replaced; fetch it again and plan again.",
        uri=uri,
    )


def _row_of(problem: Exception) -> Row:
    for kind in type(problem).__mro__:
        if kind.__name__ in _EXCEPTIONS:
            class_, says, hint = _EXCEPTIONS[kind.__name__]
            return class_, says + _host_of(problem), hint
    if isinstance(problem, OSError):
        return Unavailable, str(problem), _LATER
    return Unavailable, f"the S3 client failed ({type(problem).__name__})", _LATER


def _host_of(problem: Exception) -> str:
    """Return where no connection could be had: host and port, never user or password."""
    url = getattr(problem, "kwargs", {}).get("endpoint_url")
    try:
        parts = urlsplit(str(url or ""))
        return f" ({parts.hostname}:{parts.port})" if parts.hostname and parts.port else ""
    except ValueError:
        return ""


def _answer(problem: Exception) -> dict[str, Any] | None:
    answer = getattr(problem, "response", None)
    return answer if isinstance(answer, dict) and isinstance(answer.get("Error"), dict) else None


def _status(answer: dict[str, Any]) -> int | None:
    found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None


def _request(answer: dict[str, Any]) -> str | None:
    found = answer.get("ResponseMetadata", {}).get("RequestId")
    return str(found) if found else None
