"""What S3's codes and boto3's exceptions become, without a server."""

import ssl
from typing import Any

import pytest

from fda_core.errors import (
    ChangedInput,
    FdaError,
    Forbidden,
    NotFound,
    OutOfDisk,
    Unavailable,
)
from fda_core.storage.s3_errors import as_ours, failures, may_pass

exceptions = pytest.importorskip("botocore.exceptions", reason="pip install boto3")
parsers = pytest.importorskip("botocore.parsers")
urllib3 = pytest.importorskip("urllib3")

URI = "s3://bucket/some/key"


def refused(code: str, status: int | None, message: str = "words of S3's") -> Exception:
    answer: dict[str, Any] = {"Error": {"Code": code, "Message": message}}
    if status is not None:
        answer["ResponseMetadata"] = {"HTTPStatusCode": status, "RequestId": "R1"}
    return exceptions.ClientError(answer, "GetObject")


def ours(problem: Exception) -> FdaError:
    return as_ours(problem, doing="read", uri=URI)


@pytest.mark.parametrize(
    ("code", "status", "kind", "passing"),
    [
        ("NoSuchKey", 404, NotFound, False),
        ("404", 404, NotFound, False),
        ("NoSuchBucket", 404, NotFound, False),
        ("NoSuchUpload", 404, NotFound, False),
        ("403", 403, Forbidden, False),
        ("AccessDenied", 403, Forbidden, False),
        ("AccountProblem", 403, Forbidden, False),
        ("InvalidAccessKeyId", 403, Forbidden, False),
        ("SignatureDoesNotMatch", 403, Forbidden, False),
        ("ExpiredToken", 400, Forbidden, False),
        ("InvalidObjectState", 403, Forbidden, False),
        ("RequestTimeTooSkewed", 403, Forbidden, False),
        ("Unauthorized", 401, Forbidden, False),
        ("KeyTooLongError", 400, Forbidden, False),
        ("AuthorizationHeaderMalformed", 400, Forbidden, False),
        ("PermanentRedirect", 301, Forbidden, False),
        ("PreconditionFailed", 412, ChangedInput, False),
        ("412", 412, ChangedInput, False),
        ("QuotaExceeded", 403, OutOfDisk, False),
        ("XMinioStorageFull", 507, OutOfDisk, False),
        ("InvalidRequest", 400, Unavailable, False),
        ("NotImplemented", 501, Unavailable, False),
        ("SlowDown", 503, Unavailable, True),
        ("SlowDown", None, Unavailable, True),
        ("InternalError", 200, Unavailable, True),
        ("500", 500, Unavailable, True),
        ("502", 502, Unavailable, True),
        ("GatewayTimeout", 504, Unavailable, True),
        ("RequestTimeout", 400, Unavailable, True),
        ("TooManyRequests", 429, Unavailable, True),
        ("ConditionalRequestConflict", 409, Unavailable, True),
        ("OperationAborted", 409, Unavailable, True),
    ],
)
def test_codes(code: str, status: int | None, kind: type[FdaError], passing: bool) -> None:
    problem = refused(code, status)
    assert type(ours(problem)) is kind
    assert may_pass(problem) is passing
    assert isinstance(problem, failures())
    assert URI in ours(problem).message
    assert ours(problem).hint


@pytest.mark.parametrize(
    ("problem", "kind", "passing"),
    [
        (exceptions.NoCredentialsError(), Forbidden, False),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), Forbidden, False),
        (exceptions.ProfileNotFound(profile="p"), Forbidden, False),
        (exceptions.CredentialRetrievalError(provider="p", error_msg="e"), Forbidden, True),
        (exceptions.UnauthorizedSSOTokenError(), Forbidden, False),
        (exceptions.ParamValidationError(report="Invalid bucket name"), NotFound, False),
        (exceptions.InvalidRegionError(region_name="!"), Forbidden, False),
        (ValueError("Invalid endpoint: x"), Forbidden, False),
        (exceptions.EndpointConnectionError(endpoint_url="http://h:1/b/k"), Unavailable, True),
        (exceptions.ConnectTimeoutError(endpoint_url="http://h:1"), Unavailable, True),
        (exceptions.ReadTimeoutError(endpoint_url=None, error="e"), Unavailable, True),
        (exceptions.ConnectionClosedError(endpoint_url="http://h:1"), Unavailable, True),
        (exceptions.ResponseStreamingError(error="e"), Unavailable, True),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unavailable, True),
        (exceptions.HTTPClientError(error="e"), Unavailable, True),
        (exceptions.SSLError(endpoint_url="https://h", error="EOF"), Unavailable, True),
        (
            exceptions.SSLError(endpoint_url="https://h", error="CERTIFICATE_VERIFY_FAILED"),
            Unavailable,
            False,
        ),
        (parsers.ResponseParserError("no XML"), Unavailable, True),
        (urllib3.exceptions.ProtocolError("broken"), Unavailable, True),
        (ConnectionResetError(104, "Connection reset by peer"), Unavailable, True),
        (ssl.SSLError("bad record"), Unavailable, True),
        (exceptions.BotoCoreError(), Unavailable, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exceptions(problem: Exception, kind: type[FdaError], passing: bool) -> None:
    assert type(ours(problem)) is kind
    assert may_pass(problem) is passing
    assert URI in ours(problem).message
    assert ours(problem).hint


def test_a_missing_bucket_is_named() -> None:
    assert "there is no bucket 'bucket'" in ours(refused("NoSuchBucket", 404)).message


def test_unknown_refusals_keep_code_words_and_request() -> None:
    found = ours(refused("InvalidRequest", 400, "no  such\nthing"))
    assert "S3 answered 400 InvalidRequest: no such thing" in found.message
    assert found.context["request_id"] == "R1"
    assert found.context["s3_code"] == "InvalidRequest"


def test_words_of_a_server_are_cut_short() -> None:
    assert len(ours(refused("Odd", 400, "x" * 10_000)).message) < 400


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"])
def test_words_about_credentials_are_ours(code: str) -> None:
    assert "s3cr3t" not in str(ours(refused(code, 403, "s3cr3t is not the key")).as_dict())


def test_users_and_passwords_in_endpoints_are_not_told() -> None:
    url = "http://user:s3cr3t@host:9000/bucket/key"
    found = ours(exceptions.EndpointConnectionError(endpoint_url=url))
    assert "host:9000" in found.message
    assert "s3cr3t" not in str(found.as_dict())
    assert "s3cr3t" not in str(ours(ValueError(f"Invalid endpoint: {url}")).as_dict())
