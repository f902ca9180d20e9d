"""The controller's SQL. Every transaction that changes a job's units locks the job first."""

from api.control.repository.attempt_rows import (
    attempts,
    close_tries,
    count_attempts,
    first_try_at,
    rebuilt_token,
)
from api.control.repository.job_rows import (
    JobFacts,
    active_jobs,
    add_events,
    add_job,
    due_jobs,
    job_row,
    jobs_in,
    known_jobs,
    lock_job,
    lock_jobs,
    outputs_claimed,
)
from api.control.repository.leader_rows import (
    end_lead,
    holders,
    take_lead,
)
from api.control.repository.note_rows import (
    delete_note,
    ended_jobs,
    locked_note,
    note,
    set_note,
)
from api.control.repository.old_rows import (
    sweep_idempotency,
    sweep_orphans,
)
from api.control.repository.unit_rows import (
    finish_units,
    mark_ready,
    replace_units,
    rest_units,
    tally_lines,
    unit,
    unit_lines,
    units,
    waiting_retries,
)

__all__ = [
    "JobFacts",
    "active_jobs",
    "add_events",
    "add_job",
    "attempts",
    "close_tries",
    "count_attempts",
    "delete_note",
    "due_jobs",
    "end_lead",
    "ended_jobs",
    "finish_units",
    "first_try_at",
    "holders",
    "job_row",
    "jobs_in",
    "known_jobs",
    "lock_job",
    "lock_jobs",
    "locked_note",
    "mark_ready",
    "note",
    "outputs_claimed",
    "rebuilt_token",
    "replace_units",
    "rest_units",
    "set_note",
    "sweep_idempotency",
    "sweep_orphans",
    "take_lead",
    "tally_lines",
    "unit",
    "unit_lines",
    "units",
    "waiting_retries",
]
