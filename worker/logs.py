"""Logs of a worker: Celery's lines and ours look the same."""

import warnings

from celery.platforms import SecurityWarning

from fda_core.processes.logs import set_up_lines

QUIET = ("celery.worker.strategy", "celery.app.trace")
"""Celery tells every message twice at info; our `unit_tried` says it once, with more."""


def set_up_logs(level: str, *, worker: str, as_json: bool) -> None:
    """Configure this process's logging."""
    who = {"process": "worker", "worker": worker}
    set_up_lines(level.upper(), who=who, quiet=QUIET, as_json=as_json)
    # Celery warns of root because of pickled messages; we take none but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
