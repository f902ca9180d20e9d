"""Structured logs on standard error: one event name and fields; JSON unless people look."""

import logging
import sys
import warnings

import structlog
from celery.platforms import SecurityWarning
from structlog.typing import EventDict, Processor


def set_up_logs(level: str, *, worker: str, as_json: bool) -> None:
    """Configure this process's logging; Celery's and our lines look the same."""

    def say_who(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["worker"] = worker
        return event

    shared: list[Processor] = [
        say_who,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer()]
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
    for name in ("celery.worker.strategy", "celery.app.trace", "amqp", "urllib3", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
