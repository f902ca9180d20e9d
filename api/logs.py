"""Logs of the api's processes."""

import logging
import sys
from typing import Literal

from fda_core.processes.logs import set_up_lines

QUIET = ("alembic", "asyncio", "celery", "httpx2", "httpcore2", "sqlalchemy", "uvicorn.access")


def set_up_logging(
    level: str, *, process: Literal["api", "controller", "admin"], as_json: bool | None = None
) -> None:
    """Send everything to stderr: JSON unless a person watches. Called by entry points only."""
    set_up_lines(
        logging.getLevelNamesMapping().get(level.upper(), logging.INFO),
        who={"process": process},
        quiet=QUIET,
        as_json=not sys.stderr.isatty() if as_json is None else as_json,
    )
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
