"""Structured logs on standard error: one event name and fields; JSON unless people look."""

import logging
import os
import sys
import threading
import warnings
from types import TracebackType

import structlog
from celery.platforms import SecurityWarning
from structlog.typing import EventDict, Processor

from fda_core.contract.hush import hushed

QUIET = (
    *("celery.worker.strategy", "celery.app.trace", "amqp", "boto3", "botocore", "kombu", "redis"),
    *("opentelemetry.sdk", "s3transfer", "urllib3"),
)
"""Libraries whose chatter is not ours to keep; at debug some of them would tell secrets."""


def set_up_logs(level: str, *, worker: str, as_json: bool) -> None:
    """Configure this process's logging; Celery's and our lines look the same."""

    def say_who(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "process": "worker", "pid": os.getpid(), "worker": worker}

    shared: list[Processor] = [
        say_who,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
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
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # Celery warns of root because of pickled messages; we take none but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery tells every message twice at info; our `unit_tried` says it once, with more.
    for name in QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    log_what_nobody_caught()


def without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Take secrets out of every text of a line, whoever wrote it."""
    return {key: hushed(value) if isinstance(value, str) else value for key, value in event.items()}


def log_what_nobody_caught() -> None:
    """Make the last words of a thread or the process a line like all others."""
    log = structlog.stdlib.get_logger("uncaught")

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
