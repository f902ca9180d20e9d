"""`python -m api.control`: the process that leads jobs. Any number may run."""

import random
import signal
import sys
import time
from types import FrameType

import structlog
from pydantic import ValidationError
from redis import Redis

from api.broker import Hints
from api.control.controller import Controller, Loop
from api.control.metrics import ControlMetrics
from api.control.queue import UnitQueue, sending_app
from api.control.redis_state import RedisState
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.types import now
from api.jobs.transitions import ask_to_stop
from api.logs import set_up_logging
from api.parts import batch_service, waking
from api.schedules.firing import Firing
from api.settings import Settings
from api.tracing import Tracing, make_tracing
from api.webhooks.courier import Courier
from fda_core.errors import FdaError
from fda_core.processes.figures import serve_figures
from fda_core.storage.resolve import storages

COURIER_SECONDS = 0.5
SOCKET_SECONDS = 15.0
"""Longer than any wait of ours that blocks on Redis."""

_log = structlog.get_logger("fda.control")


def make_controller(
    settings: Settings, database: Database, *, metrics: ControlMetrics, tracing: Tracing
) -> Controller:
    """Return the controller that settings describe."""
    url = settings.redis_url.get_secret_value()
    client = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=5.0,
        health_check_interval=30,
    )
    redis, hints = RedisState(client), Hints(client)
    storage = storages(settings.allowed)
    batches = batch_service(settings, database, hints, storage, clock=now)
    firing = Firing(
        database,
        batches,
        cancel=ask_to_stop,
        wake=waking(hints),
        clock=now,
        on_outcome=lambda outcome: metrics.fires.labels(outcome).inc(),
    )
    courier = Courier(
        database,
        allow_private=settings.webhook_allow_private,
        clock=now,
        patience_seconds=COURIER_SECONDS,
        on_outcome=lambda outcome: metrics.deliveries.labels(outcome).inc(),
    )
    queue = UnitQueue(
        sending_app(url), redis, now, on_send=lambda queue: metrics.sent.labels(queue).inc()
    )
    return Controller(
        database=database,
        redis=redis,
        hooks=[lambda _moment: firing.step()],
        more=[
            Loop(
                name="courier",
                step=courier.step,
                wait=lambda: time.sleep(COURIER_SECONDS),
                end=courier.close,
            )
        ],
        queue=queue,
        storage=storage,
        workspace=settings.workspace,
        settings=settings,
        clock=now,
        chance=random.Random(),
        metrics=metrics,
        tracing=tracing,
    )


def main() -> None:
    """Migrate, lead until told to stop, and let go."""
    try:
        settings = Settings()
        set_up_logging(settings.log_level, process="controller")
        tracing = make_tracing(settings.otlp_endpoint, service="fda-controller")
        metrics = ControlMetrics()
        port = settings.metrics_port
        if port is not None:
            port = serve_figures(metrics.registry, host=settings.metrics_host, port=port)
    except (ValidationError, FdaError) as problem:
        sys.exit(f"settings: {problem}")
    database = Database(open_engine(settings.database_url))
    migrate(database.engine)
    controller = make_controller(settings, database, metrics=metrics, tracing=tracing)
    if port is not None:
        _log.info("metrics_served", metrics_port=port)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        controller.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    controller.run()
    database.close()
    tracing.close()


if __name__ == "__main__":
    main()
