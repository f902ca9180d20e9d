"""What batches and schedules ask of jobs: to queue one, and to stop one.

The service of jobs provides both; they are passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from api.idempotency import Answer
from fda_core.contract.rest.jobs import JobRequest


class Submitter(Protocol):
    """In whose name something is submitted."""

    @property
    def owner(self) -> str:
        """Return who it is."""
        ...

    @property
    def team(self) -> str:
        """Return the team that may see it."""
        ...


class Caller(Submitter, Protocol):
    """Who sent a request, by its key."""

    @property
    def role(self) -> str:
        """Return viewer, submitter or admin."""
        ...


def team_seen(caller: Caller) -> str | None:
    """Return the team whose things a caller may see and change; None: all teams'."""
    return None if caller.role == "admin" else caller.team


@dataclass(frozen=True, kw_only=True)
class Name:
    """In whose name the service itself submits something later."""

    owner: str
    team: str


class Once(Protocol):
    """The Idempotency-Key of one request, looked at within the request's transaction."""

    def replay(self, session: Session, /) -> Answer | None:
        """Return the answer given before, or None if this request is the first.

        Raises the `FdaError` for a key that came with another body or is under way.
        """
        ...

    def keep(self, session: Session, answer: Answer, /) -> None:
        """Keep the answer for the next time."""
        ...


class Submit(Protocol):
    """Queues one job within the caller's transaction: row, labels and first event."""

    def __call__(
        self,
        session: Session,
        request: JobRequest,
        submitter: Submitter,
        batch_id: str | None,
        schedule_id: str | None,
        /,
    ) -> str:
        """Return the job's id, or raise the `FdaError` that says why it is refused."""
        ...


Cancel = Callable[[Session, str], bool]
"""Asks a job to stop within the caller's transaction; says whether it was not over yet."""

Wake = Callable[[Sequence[str]], None]
"""Tells the controller, after the commit, which jobs have something new. A hint: may do nothing."""
