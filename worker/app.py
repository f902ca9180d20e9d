"""The Celery application: how messages are taken, and that they may come late or twice.

Messages only say "look at unit X". A worker answers one when it is done with the unit, takes
no second one meanwhile, and needs no results, events or remote control of Celery's.
"""

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from fda_core.contract.service import broker, names


def make_app(redis_url: str, *, queues: Sequence[str] = names.QUEUES) -> Celery:
    """Return an application without tasks; `tasks.register` adds ours."""
    app = Celery("fda", broker=redis_url, set_as_current=False)
    app.conf.update(_settings(), broker_use_ssl=broker.broker_tls(redis_url))
    # Queues without an exchange need no bindings in Redis, which a FLUSHALL would take.
    app.conf.task_queues = [Queue(name, Exchange(""), routing_key=name) for name in queues]
    return app


def _settings() -> dict[str, Any]:
    return {
        "broker_transport_options": broker.broker_options(),
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 2,
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_track_started": False,
        "task_create_missing_queues": False,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }
