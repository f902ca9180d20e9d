"""One worker process from start to end: put the parts together, run, leave tidily."""

import gc
import importlib
import signal
import time
from collections.abc import Callable
from typing import Any

import structlog
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from fda_core import __version__
from fda_core.errors import BadParameter
from fda_core.processes.figures import serve_figures
from fda_core.storage.resolve import storages
from worker import tasks
from worker.app import make_app
from worker.consumer import Consumer
from worker.devices import find_devices, host_memory, queues_for
from worker.drain import Drain
from worker.events import Reports
from worker.execute import Executor
from worker.hearing import Hearing
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.plans import Plans
from worker.ready import Sender
from worker.settings import ENGINE, Settings
from worker.status import Status
from worker.tracing import make_tracing

LEAVE_SECONDS = 3.0
EXIT_DEAF = 75
"""Temporary failure: start it again."""

log = structlog.stdlib.get_logger("fda.worker")


def serve(settings: Settings, *, worker: str) -> int:
    """Run a worker until it is told to end, and return its exit code."""
    began = time.time()
    devices = find_devices(settings.torch_device, threads=settings.threads)
    queues = (
        queues_for(devices, settings.queues)
        if settings.runner == ENGINE or not settings.queues
        else settings.queues
    )
    runner = load_runner(settings.runner)
    metrics = Metrics()
    port = settings.metrics_port
    if port is not None:
        metrics.watch_memory(lambda: {"host": host_memory(), "device": devices.memory()})
        port = serve_figures(metrics.registry, host=settings.metrics_host, port=port)
    address = settings.redis_url.get_secret_value()
    redis = connect(address)
    app = make_app(address)
    consumer = Consumer(app, worker=worker, queues=queues, log_level=settings.log_level)
    drain = Drain(settings.grace_seconds, stop_taking=consumer.stop)
    status = Status(
        worker,
        devices=devices,
        queues=queues,
        threads=settings.threads,
        started=began,
        metrics_port=port,
    )
    hearing = Hearing()
    heartbeat = Heartbeat(
        redis, status=status, drain=drain, queues=queues, consumer=consumer, hearing=hearing
    )
    reports = Reports(redis, on_drop=metrics.reports_dropped.inc)
    tracing = make_tracing(settings.otlp_endpoint, worker=worker)
    storage = storages(settings.allowed)
    executor = Executor(
        redis=redis,
        storage=storage,
        plans=Plans(storage),
        reports=reports,
        heartbeat=heartbeat,
        sender=Sender(app, redis, on_send=lambda queue: metrics.sent.labels(queue).inc()),
        drain=drain,
        devices=devices,
        runner=runner,
        status=status,
        metrics=metrics,
        tracing=tracing,
    )
    tasks.register(app, executor, hearing=hearing)
    # What was loaded so far stays: the collector need not look at it after every unit.
    gc.collect()
    gc.freeze()

    def on_ready() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, drain.on_signal)
        reports.start()
        heartbeat.start()
        log.info(
            "taking_units",
            version=__version__,
            queues=queues,
            device=devices.name,
            threads=settings.threads,
            metrics_port=port,
            startup_seconds=round(time.time() - began, 2),
        )

    try:
        code = consumer.run(on_ready)
    finally:
        if not reports.close(LEAVE_SECONDS):
            log.warning("reports_left", hint="The controller reads the journal.")
        heartbeat.close()
        tracing.close()
        log.info("ended", why=drain.why)
    return drain.exit_code or (EXIT_DEAF if drain.why == "deaf" else code)


def connect(address: str) -> "Redis":
    """Return a client that waits seconds at most: a heartbeat must not hang longer than leases."""
    return Redis.from_url(
        address,
        decode_responses=True,
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        health_check_interval=25,
        retry=Retry(ExponentialBackoff(cap=0.3, base=0.05), 2),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


def load_runner(name: str) -> Callable[..., Any]:
    """Return the class `module:Class`. Loading the engine's loads torch."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as problem:
        raise BadParameter(
            f"runner {name!r}: {problem}", hint="Give module:Class, importable here."
        ) from problem
