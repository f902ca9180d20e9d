"""Requests to the service: the key, retries, problems as exceptions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from fda_core import __version__
from fda_core.client.problems import RETRYABLE, problem_of
from fda_core.client.retries import Retries, Trying, retry_after_seconds
from fda_core.errors import MissingExtra, NoService, ServiceError, ServiceUnreachable

try:
    import httpx2
except ImportError as missing:
    raise MissingExtra(
        "the client needs httpx2, which is not installed", hint="pip install 'fda-merge[client]'"
    ) from missing

IN_FLIGHT = "idempotency_in_flight"
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request; `repeatable` if doing it twice does no more than doing it once."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = None
    timeout_seconds: float | None = None

    @property
    def may_repeat(self) -> bool:
        """Say whether the request may be sent again after its answer was lost."""
        return self.method in IDEMPOTENT if self.repeatable is None else self.repeatable


class Transport:
    """A connection pool to one service. Safe to use from several threads."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        retries: Retries,
        timeout_seconds: float,
        http: httpx2.Client | None = None,
    ) -> None:
        self.url = _checked_address(url)
        self.retries = retries
        self._timeout = timeout_seconds
        self._key = _checked_key(key)
        self.http = http or httpx2.Client(follow_redirects=False)

    def send(self, request: Request, *, patience_seconds: float | None = None) -> httpx2.Response:
        """Return the answer, 2xx or 304. Everything else is an exception.

        Sent again after growing waits: answers 429 and 503 that say when to come back; what
        a first try with this idempotency key still has in hand; and, if the request may be
        repeated, lost connections, 502 and 504.
        """
        trying = Trying(self.retries, patience_seconds=patience_seconds)
        while True:
            try:
                answer = self._once(request)
            except httpx2.TransportError as problem:
                never_sent = isinstance(problem, (httpx2.ConnectError, httpx2.ConnectTimeout))
                if (never_sent or request.may_repeat) and trying.again():
                    continue
                raise self.unreachable(problem, tries=trying.failures) from problem
            if answer.is_success or answer.status_code == 304:
                return answer
            asked = retry_after_seconds(answer.headers.get("retry-after"))
            refused = self.refused(request, answer)
            if _try_again(request, refused, asked) and trying.again(asked_seconds=asked):
                continue
            raise refused

    @contextmanager
    def stream(self, request: Request) -> Iterator[httpx2.Response]:
        """Yield an answer whose body is read bit by bit. Never sent again from here."""
        with self.http.stream(
            request.method,
            self.address(request.path),
            params=_query(request.query),
            headers=self._headers(request),
            timeout=request.timeout_seconds or self._timeout,
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise self.refused(request, answer)
            yield answer

    def address(self, path: str) -> str:
        """Return the whole address of a path of the service."""
        return self.url + path

    def refused(self, request: Request, answer: httpx2.Response) -> ServiceError:
        """Return the exception of an answer."""
        return problem_of(
            answer.status_code,
            answer.content,
            request=f"{request.method} {self.address(request.path)}",
            request_id=answer.headers.get("x-request-id"),
        )

    def unreachable(self, problem: Exception, *, tries: int = 1) -> ServiceUnreachable:
        """Return the exception of a connection that failed."""
        said = str(problem) or type(problem).__name__
        tried = f" after {tries} tries" if tries > 1 else ""
        return ServiceUnreachable(
            f"{self.url} does not answer{tried}: {said}",
            hint="Check the address and that the service runs (`fda up` starts one here).",
            url=self.url,
        )

    def _once(self, request: Request) -> httpx2.Response:
        return self.http.request(
            request.method,
            self.address(request.path),
            params=_query(request.query),
            json=request.body,
            headers=self._headers(request),
            timeout=request.timeout_seconds or self._timeout,
        )

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {
            "User-Agent": f"fda-merge/{__version__}",
            "Accept": "application/json",
            **request.headers,
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def close(self) -> None:
        """Close all connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checked_address(url: str) -> str:
    """Return an address without its last slash. Raises `NoService` if it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        usable = None
    if not usable:
        raise NoService(
            f"{url!r} is not the address of a service",
            hint="Give http://host:port or https://host.",
        )
    return url.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """Return a key without the line end that files have. Raises `NoService` if it is none."""
    key = (key or "").strip()
    if any(not "!" <= letter <= "~" for letter in key):
        raise NoService(
            "the API key has characters in it that no key has",
            hint="Copy it again; a key is fda_ and letters, digits, - and _.",
        )
    return key or None


def _try_again(request: Request, problem: ServiceError, asked_seconds: float | None) -> bool:
    status = problem.context["status"]
    if status in (429, 503):
        return asked_seconds is not None or request.may_repeat
    if status == 409:
        return problem.code == IN_FLIGHT
    return status in RETRYABLE and request.may_repeat


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}
