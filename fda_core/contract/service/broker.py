"""How messages lie in Redis: whoever sends and whoever takes must say the same to Celery."""

import ssl
from typing import Any

from fda_core.contract.service.names import PRIORITIES

SEPARATOR = "\x06\x16"
"""Between a queue's name and a priority, in the names of Redis lists."""

VISIBILITY_SECONDS = 24 * 3600
"""After so long an unanswered message is delivered again. Longer than any unit: leases, not
this, notice a dead worker."""


def broker_options() -> dict[str, Any]:
    """Return Celery's `broker_transport_options`: strict priorities, a patient broker."""
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "health_check_interval": 25,
        "socket_keepalive": True,
        "queue_order_strategy": "priority",
        "priority_steps": list(range(PRIORITIES)),
        "sep": SEPARATOR,
    }


def broker_tls(redis_url: str) -> dict[str, Any] | None:
    """Return Celery's `broker_use_ssl`: as every other client of ours, it checks certificates.

    Left to itself it takes any. What the address says (`?ssl_cert_reqs=`, …) counts before this.
    """
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if redis_url.startswith("rediss://") else None


def queue_lists(queue: str) -> tuple[str, ...]:
    """Return the Redis lists of a queue's messages, first taken first."""
    return (queue, *(f"{queue}{SEPARATOR}{step}" for step in range(1, PRIORITIES)))


def queue_key(queue: str, priority: int) -> str:
    """Return the Redis list that holds a queue's messages of one (Celery) priority."""
    return queue_lists(queue)[priority]
