"""Jobs: submit, look, wait, follow, stop, fetch."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fda_core.client.collections import data_of, listed, read
from fda_core.client.fetch import Fetched, fetch
from fda_core.client.retries import Trying
from fda_core.client.stream import PATIENCE_SECONDS, follow
from fda_core.client.transport import Request, Transport
from fda_core.contract.rest.jobs import (
    Artifact,
    AttemptView,
    EventView,
    Job,
    JobPatch,
    JobRequest,
    JobWebhook,
    LogLine,
    Recipe,
    UnitView,
)
from fda_core.contract.service.states import TERMINAL
from fda_core.errors import ServiceError

PATH = "/v1/jobs"
LONG_POLL_SECONDS = 30
BREATH_SECONDS = 0.5
"""Between answers that told nothing new, should the service not wait as it was asked to."""


class Jobs:
    """The jobs of one service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        recipe: Recipe | JobRequest,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 4,
        deadline: datetime | None = None,
        webhook: JobWebhook | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a recipe and return its job.

        Every call has an idempotency key, so that sending it again after a lost answer makes
        no second job. Give one of your own to have that over restarts of your program too.
        """
        asked = (
            recipe
            if isinstance(recipe, JobRequest)
            else JobRequest(
                recipe=recipe,
                labels=dict(labels or {}),
                priority=priority,
                deadline=deadline,
                webhook=webhook,
            )
        )
        request = Request(
            method="POST",
            path=PATH,
            body=asked.model_dump(mode="json"),
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            repeatable=True,
        )
        return self._job(request)

    def get(self, job: str) -> Job:
        """Return a job as it is now."""
        return self._job(Request(method="GET", path=path_of(job)))

    def list(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        method: str | None = None,
        limit: int | None = None,
        **filters: Any,
    ) -> Iterator[Job]:
        """Yield jobs, newest first. `label` is key=value; other filters go as they are."""
        query = {"state": state, "label": label, "method": method, **filters}
        return listed(self._transport, PATH, Job, limit=limit, **query)

    def wait(
        self,
        job: str,
        *,
        timeout_seconds: float | None = None,
        on_change: Callable[[Job], None] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Job:
        """Return the job once it is over, however it ended; long polling, over restarts.

        Raises `ServiceError` with code wait_timeout when the time is over and the job is not.
        """
        started, tag = time.monotonic(), None
        while True:
            left = _left(started, timeout_seconds)
            wait = LONG_POLL_SECONDS if left is None else min(LONG_POLL_SECONDS, int(left))
            asked = time.monotonic()
            request = Request(
                method="GET",
                path=path_of(job),
                query={"wait": wait} if tag and wait else {},
                headers={"If-None-Match": tag} if tag else {},
                timeout_seconds=LONG_POLL_SECONDS + 15.0,
            )
            answer = self._transport.send(request, patience_seconds=patience_seconds)
            if answer.status_code != 304:
                tag = answer.headers.get("etag")
                found = read(Job, answer.content)
                if on_change is not None:
                    on_change(found)
                if found.state in TERMINAL:
                    return found
            left = _left(started, timeout_seconds)
            if left == 0:
                raise ServiceError(
                    f"job {job} is not over after {timeout_seconds:g} s",
                    hint="It goes on; wait longer, or cancel it.",
                    code="wait_timeout",
                    job=job,
                )
            spent = time.monotonic() - asked
            if spent < BREATH_SECONDS and (answer.status_code == 304 or tag is None):
                pause = BREATH_SECONDS - spent
                self._transport.retries.sleep(pause if left is None else min(pause, left))

    def cancel(self, job: str) -> Job:
        """Ask a job to stop. What is finished is kept; it may still win and succeed."""
        return self._job(Request(method="POST", path=f"{path_of(job)}/cancel", repeatable=True))

    def retry(self, job: str) -> Job:
        """Run a job again that failed, was cancelled or expired; finished units stay."""
        return self._job(Request(method="POST", path=f"{path_of(job)}/retry"))

    def patch(
        self,
        job: str,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        version: int | None = None,
    ) -> Job:
        """Change labels or priority; given a version, only if the job still is at it."""
        given: dict[str, Any] = {
            "labels": dict(labels) if labels is not None else None,
            "priority": priority,
        }
        given = {key: value for key, value in given.items() if value is not None}
        changes = JobPatch.model_validate(given)
        headers = {} if version is None else {"If-Match": f'W/"{version}"'}
        return self._job(
            Request(
                method="PATCH",
                path=path_of(job),
                body=data_of(changes),
                headers=headers,
                repeatable=version is None,
            )
        )

    def delete(self, job: str, *, output: bool = False) -> None:
        """Forget a job that is over; with `output`, remove what it published too."""
        self._transport.send(
            Request(
                method="DELETE", path=path_of(job), query={"output": "true" if output else None}
            )
        )

    def units(self, job: str, *, limit: int | None = None) -> Iterator[UnitView]:
        """Yield a job's units."""
        return listed(self._transport, f"{path_of(job)}/units", UnitView, limit=limit)

    def attempts(self, job: str, *, limit: int | None = None) -> Iterator[AttemptView]:
        """Yield every try at every unit."""
        return listed(self._transport, f"{path_of(job)}/attempts", AttemptView, limit=limit)

    def metrics(self, job: str, *, points: int | None = None) -> dict[str, Any]:
        """Return curves by layer and expert, each thinned to at most `points`."""
        answer = self._transport.send(
            Request(method="GET", path=f"{path_of(job)}/metrics", query={"points": points})
        )
        found: dict[str, Any] = answer.json()
        return found

    def logs(
        self, job: str, *, after: int = 0, limit: int | None = None, **filters: Any
    ) -> Iterator[LogLine]:
        """Yield a job's log from the line after `after`."""
        query = {"after": after or None, **filters}
        lines = listed(self._transport, f"{path_of(job)}/logs", LogLine, limit=limit, **query)
        return (line for line in lines if line.id > after)

    def follow_logs(
        self, job: str, *, after: int = 0, patience_seconds: float = PATIENCE_SECONDS
    ) -> Iterator[LogLine]:
        """Yield a job's log as it grows, to the end of the job; over restarts."""
        trying = Trying(self._transport.retries, patience_seconds=patience_seconds)
        while True:
            try:
                over = self.get(job).state in TERMINAL
                for line in self.logs(job, after=after):
                    after = line.id
                    yield line
            except ServiceError as problem:
                if not problem.retryable or not trying.again():
                    raise
                continue
            trying.progressed()
            if over:
                return
            self._transport.retries.sleep(2 * BREATH_SECONDS)

    def artifacts(self, job: str) -> Iterator[Artifact]:
        """Yield the files a job left, with addresses that work for a while."""
        return listed(self._transport, f"{path_of(job)}/artifacts", Artifact)

    def events(
        self,
        job: str,
        *,
        after: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
        on_trouble: Callable[[Exception], None] = lambda _problem: None,
    ) -> Iterator[EventView]:
        """Yield events as they happen, from the one after `after` to the end of the job.

        Broken connections are made again, for as long as the service is away at most
        `patience_seconds`; nothing is lost or comes twice. `on_trouble` hears of each break.
        """
        return follow(
            self._transport,
            path_of(job),
            after=after,
            patience_seconds=patience_seconds,
            on_trouble=on_trouble,
        )

    def fetch(
        self,
        job: str,
        folder: Path | str,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Fetched:
        """Download what a job left to a new folder: whole or not at all.

        Interrupted and called again it goes on where it stopped; every file's length and
        SHA-256 are checked before the folder appears. `progress` hears bytes done of all.
        """
        return fetch(
            self._transport,
            job,
            lambda: list(self.artifacts(job)),
            Path(folder),
            progress=progress or (lambda _done, _total: None),
        )

    def _job(self, request: Request) -> Job:
        return read(Job, self._transport.send(request).content)


def path_of(job: str) -> str:
    """Return the path of a job."""
    return f"{PATH}/{quote(job, safe='')}"


def _left(started: float, timeout_seconds: float | None) -> float | None:
    if timeout_seconds is None:
        return None
    return max(0.0, timeout_seconds - (time.monotonic() - started))
