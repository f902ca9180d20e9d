"""Structured logs on standard error: one event name plus fields, as JSON or for people."""

import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType

import structlog
from structlog.typing import EventDict, Processor

from fda_core.contract.hush import hushed

QUIET = (
    *("amqp", "boto3", "botocore", "kombu", "opentelemetry.sdk", "redis", "s3transfer", "urllib3"),
)
"""Libraries whose chatter is not ours to keep; at debug some of them would tell secrets."""


def set_up_lines(
    level: int | str, *, who: Mapping[str, str], quiet: Iterable[str], as_json: bool
) -> None:
    """Send everything to stderr, every line with `who` and the process id.

    What the libraries in `QUIET` and `quiet` say below a warning is dropped. Called by entry
    points only. Raises `ValueError` for a level that is none.
    """

    def say_who(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "pid": os.getpid(), **who}

    shared: list[Processor] = [
        say_who,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Text of tracebacks alone: with the values of variables they would tell secrets.
    last: list[Processor] = (
        [structlog.processors.format_exc_info, without_secrets, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in (*QUIET, *quiet):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)
    log_what_nobody_caught()


def without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Take secrets out of every text of a line, whoever wrote it."""
    return {key: hushed(value) if isinstance(value, str) else value for key, value in event.items()}


def log_what_nobody_caught() -> None:
    """Make the last words of a thread or the process a line like all others."""
    log = structlog.get_logger("uncaught")

    def of_process(
        kind: type[BaseException], problem: BaseException, trace: TracebackType | None
    ) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("uncaught", exc_info=(kind, problem, trace))

    def of_thread(hook: threading.ExceptHookArgs) -> None:
        if hook.exc_value is not None:
            log.critical(
                "uncaught_in_thread",
                thread=hook.thread.name if hook.thread else None,
                exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback),
            )

    sys.excepthook = of_process
    threading.excepthook = of_thread
