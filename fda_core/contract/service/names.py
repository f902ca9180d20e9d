"""Names that processes agree on: Celery's task and queues, Redis keys, workspace files.

Everything in Redis may vanish at any moment: it saves time and double work, never the truth.
"""

from fda_core.contract.plan import Unit
from fda_core.contract.uris import join

TRY_UNIT = "fda.try_unit"
"""Celery's only task: see `messages.TryUnit`, whose fields are its keyword arguments."""

CPU = "cpu"
GPU = "gpu"
GPU_LARGE = "gpu-large"
QUEUES = (CPU, GPU, GPU_LARGE)

PRIORITIES = 10
"""Job priorities are 0 (whenever) to 9 (first); Celery on Redis counts the other way round."""


def celery_priority(priority: int) -> int:
    """Return the message priority of a job's: 0 goes first on Redis."""
    return PRIORITIES - 1 - priority


EVENTS = "fda:events"
"""Stream of `messages.Report`s, field `report`, JSON. Workers append; the controller folds."""

WAKE = "fda:wake"
"""List: pushed to when the controller has something new in the database; popped blocking."""

EPOCH = "fda:epoch"
"""Set by the controller if it is not there: another value means that Redis was emptied."""

STOP_SECONDS = 7 * 86_400
"""How long the order to stop outlives a job that failed or was cancelled: its messages may
still wait in a queue. A retry removes it."""


def lease(job: str, unit: str) -> str:
    """Return the key that holds the token of the worker that runs a unit; it expires."""
    return f"fda:lease:{job}:{unit}"


def taken(job: str) -> str:
    """Return the hash of unit to token: units whose lease was taken and not given up.

    A unit here without a lease was lost with its worker.
    """
    return f"fda:taken:{job}"


def sent(job: str) -> str:
    """Return the hash of unit to the time its last message was sent, Unix seconds."""
    return f"fda:sent:{job}"


def done(job: str) -> str:
    """Return the set of units known to be done, a hint for what became ready."""
    return f"fda:done:{job}"


def stop(job: str) -> str:
    """Return the key that is there while a job's units must stop."""
    return f"fda:stop:{job}"


def job_keys(job: str) -> tuple[str, ...]:
    """Return what to delete when a job is over, leases aside, which expire."""
    return (taken(job), sent(job), done(job), stop(job))


def worker(worker_id: str) -> str:
    """Return the key of a worker's last `messages.WorkerStatus`; it expires."""
    return f"fda:worker:{worker_id}"


WORKERS = "fda:worker:"
"""What the keys of all workers start with."""


def drain(worker_id: str) -> str:
    """Return the key that tells one worker to take no more units and end."""
    return f"fda:drain:{worker_id}"


DRAIN_QUEUE = "fda:drain-queue:"
"""Followed by a queue's name: its workers take no units from it while the key is there."""

LEASE_SECONDS = 6.0
BEAT_SECONDS = 1.5
"""How often a worker renews its lease, looks whether it must stop, and tells its status."""
STATUS_SECONDS = 15.0
"""A worker that has not told its status for so long is gone."""


def job_file(workspace: str, job: str) -> str:
    """Return where the job as submitted is kept (`jobfile.JobFile`)."""
    return join(workspace, "jobs", job, "job.json")


def plan_file(workspace: str, job: str) -> str:
    """Return where a job's plan is kept (`contract.plan.Plan`)."""
    return join(workspace, "jobs", job, "plan.json")


def outcome_file(workspace: str, job: str) -> str:
    """Return where the end of a job is kept (`jobfile.Outcome`)."""
    return join(workspace, "jobs", job, "outcome.json")


def queue_of(unit: Unit, *, device: str) -> str:
    """Return the queue of a unit: layers are fitted where the job's device is.

    `device` is what the controller chose for the whole job, a queue's name, so that all its
    layers are computed on one kind of device. Publishing moves bytes and needs no device.
    """
    return CPU if unit.kind == "publish" else device
