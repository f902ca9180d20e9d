"""States of jobs and units, and the only ways from one to another."""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; icons and colours hang on this."""

    QUEUED = "queued"
    """Accepted; waits to be planned."""
    VALIDATING = "validating"
    """Being planned from the checkpoints' headers."""
    RUNNING = "running"
    """Units run on workers."""
    PUBLISHING = "publishing"
    """All tensors are merged; the output is being put into place."""
    SUCCEEDED = "succeeded"
    """The output is whole, in its place and checked."""
    FAILED = "failed"
    """It cannot go on; the error says why. Finished units are kept."""
    CANCELLING = "cancelling"
    """Somebody asked to stop; running units are being told."""
    CANCELLED = "cancelled"
    """Stopped as asked. Finished units are kept."""
    EXPIRED = "expired"
    """The deadline passed before it was begun."""


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
ACTIVE = frozenset(
    {JobState.VALIDATING, JobState.RUNNING, JobState.PUBLISHING, JobState.CANCELLING}
)
RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
CANCELLABLE = frozenset(
    {JobState.QUEUED, JobState.VALIDATING, JobState.RUNNING, JobState.PUBLISHING}
)

NEXT: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.VALIDATING, JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED}
    ),
    JobState.VALIDATING: frozenset(
        {JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.RUNNING: frozenset(
        {JobState.PUBLISHING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.PUBLISHING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
    JobState.EXPIRED: frozenset({JobState.QUEUED}),
}
"""Every legal transition. A cancel that loses against publishing ends in `succeeded`; from a
terminal state only a retry leads on, with a new attempt number."""


class UnitState(StrEnum):
    """Where one unit of a job is."""

    PENDING = "pending"
    """Waits for the units it needs."""
    READY = "ready"
    """A message for it is on its way to the workers."""
    RUNNING = "running"
    """A worker holds its lease."""
    DONE = "done"
    """Its record is in the workspace."""
    FAILED = "failed"
    """It failed in a way that trying again does not help."""
