"""The running Celery worker, as our other threads may touch it."""

from typing import Any

from celery import Celery, signals
from celery.worker import state


class Consumer:
    """Starts Celery's worker in this thread; its queues are changed from others."""

    def __init__(
        self, app: Celery, *, worker: str, queues: tuple[str, ...], log_level: str
    ) -> None:
        # Someone who only produces declares every queue; a worker takes from its own.
        self._worker = app.Worker(
            hostname=f"fda@{worker}",
            pool="solo",
            concurrency=1,
            queues=list(queues),
            loglevel=log_level.upper(),
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._consumer: Any = None

    def run(self, on_ready: Any) -> int:
        """Take messages until told to stop; return the exit code. Calls `on_ready` once."""

        def ready(sender: Any, **_: Any) -> None:
            self._consumer = sender
            on_ready()

        signals.worker_ready.connect(ready, weak=False)
        signals.setup_logging.connect(_keep_logging, weak=False)
        try:
            self._worker.start()
        finally:
            signals.worker_ready.disconnect(ready)
            signals.setup_logging.disconnect(_keep_logging)
        return int(self._worker.exitcode or 0)

    def stop(self) -> None:
        """Take no more messages; `run` returns after the running one. Safe in signal handlers."""
        state.should_stop = 0

    def hold(self, queue: str) -> None:
        """Take no more from a queue, from the next turn of the loop."""
        self._soon("cancel_task_queue", queue)

    def resume(self, queue: str) -> None:
        """Take from a queue again."""
        self._soon("add_task_queue", queue)

    def _soon(self, method: str, queue: str) -> None:
        # Celery makes its consumer anew after a lost connection; it takes then what is selected.
        self._consumer.call_soon(lambda: getattr(self._consumer, method)(queue))


def _keep_logging(**_: Any) -> None:
    """Tell Celery that logs are set up."""
