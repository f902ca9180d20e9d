"""The one S3 client of each process, its threads, and the way every request is made.

boto3 is imported when the first request is made and configured the way boto3 always is: by
environment, profile and config file. Its own retries are off: they do not cover bodies, and
one policy in one place bounds the whole.
"""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fda_core import __version__
from fda_core.errors import UnsupportedScheme
from fda_core.storage.retry import Patience, RetryPolicy
from fda_core.storage.s3_errors import as_ours, failures, may_pass

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """What a client is told beyond boto3's own settings, which count where a field is None."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 30.0
    """A body or an answer that stands still for so long is asked for again."""
    threads: int = 8
    """Ranges and parts under way at once, for all callers together."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True)
class _Made:
    client: Any
    pool: ThreadPoolExecutor


class Connection:
    """Makes requests. Safe to share by threads and to carry across a fork.

    Sockets and threads do not survive a fork, so each process makes its own, on first use.
    """

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._made: dict[int, _Made] = {}
        self._locks: dict[int, threading.Lock] = {}

    def patience(self, *, stop: threading.Event | None = None) -> Patience:
        """Return the patience for one operation."""
        return Patience(self.settings.retry, stop=stop)

    def client(self, uri: str) -> Any:
        """Return this process's client; what keeps it from being made is told of `uri`."""
        return self._of_this_process(uri).client

    def pool(self, uri: str) -> ThreadPoolExecutor:
        """Return this process's threads. Nothing that runs there may wait for them."""
        return self._of_this_process(uri).pool

    def call(self, operation: str, *, doing: str, uri: str, **request: object) -> dict[str, Any]:
        """Make a request and return its answer, or raise one of our errors."""
        return self.persist(
            lambda: getattr(self.client(uri), operation)(**request), doing=doing, uri=uri
        )

    def persist(
        self,
        attempt: Callable[[], T],
        *,
        doing: str,
        uri: str,
        stop: threading.Event | None = None,
    ) -> T:
        """Try until it succeeds, cannot succeed or patience ends; errors become ours."""
        patience = self.patience(stop=stop)
        while True:
            try:
                return attempt()
            except failures() as problem:
                ours = as_ours(problem, doing=doing, uri=uri)
                if not may_pass(problem):
                    raise ours from problem
                patience.bear(ours, cause=problem)

    def sign_read(self, uri: str, bucket: str, key: str, *, seconds: int) -> str:
        """Return an address that reads an object for so long; the service is not asked."""
        return str(
            self.persist(
                lambda: self.client(uri).generate_presigned_url(
                    "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
                ),
                doing="sign",
                uri=uri,
            )
        )

    def close(self) -> None:
        """End this process's client and threads; a later request makes new ones."""
        made = self._made.pop(os.getpid(), None)
        if made is not None:
            made.pool.shutdown()
            made.client.close()

    def _of_this_process(self, uri: str) -> _Made:
        process = os.getpid()
        made = self._made.get(process)
        if made is None:
            # A lock that was held during a fork stays held in the child: one per process.
            with self._locks.setdefault(process, threading.Lock()):
                made = self._made.get(process)
                if made is None:
                    made = self._made[process] = self._make(uri)
        return made

    def _make(self, uri: str) -> _Made:
        _require_boto3(uri)
        unusable: tuple[type[Exception], ...] = (*failures(), ValueError)
        try:
            client = make_client(self.settings)
        except unusable as problem:
            raise as_ours(problem, doing="use S3", uri=uri) from problem
        return _Made(client, ThreadPoolExecutor(self.settings.threads, "fda-s3"))


def make_client(settings: S3Settings) -> Any:
    """Return a boto3 client: SigV4 always; at an endpoint of its own, path-style addresses."""
    from boto3.session import Session
    from botocore.config import Config

    session = Session(profile_name=settings.profile, region_name=settings.region)
    usual: Mapping[str, Any] = {
        "signature_version": "s3v4",
        "connect_timeout": settings.connect_timeout_seconds,
        "read_timeout": settings.read_timeout_seconds,
        "max_pool_connections": 8 * settings.threads,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "response_checksum_validation": "when_required",
        "tcp_keepalive": True,
        "user_agent_extra": f"fda-merge/{__version__}",
    }
    client = session.client("s3", endpoint_url=settings.endpoint_url, config=Config(**usual))
    amazon = session.client("s3", config=Config(ignore_configured_endpoint_urls=True))
    if client.meta.endpoint_url == amazon.meta.endpoint_url:
        return client
    # Other services lack bucket host names and, often, checksums in trailers. Bodies are
    # covered without: by SHA-256 in the signature over http, by TLS over https.
    other = {"s3": {"addressing_style": "path"}, "request_checksum_calculation": "when_required"}
    return session.client(
        "s3", endpoint_url=client.meta.endpoint_url, config=Config(**usual, **other)
    )


def _require_boto3(uri: str) -> None:
    try:
        import boto3  # noqa: F401 - asked for only to see whether it is there
    except ImportError as problem:
        raise UnsupportedScheme(
            f"{uri}: s3:// addresses need boto3, which is not installed",
            hint="pip install 'fda-merge[s3]'",
            uri=uri,
        ) from problem
