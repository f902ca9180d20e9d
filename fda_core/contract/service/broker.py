"""How Celery speaks to Redis: the api that sends and the workers that take must agree."""

from typing import Any

from fda_core.contract.service.names import PRIORITIES

VISIBILITY_SECONDS = 86_400
"""After so long the broker itself delivers a message again: a backstop, longer than any unit.
Our leases notice a lost worker within seconds."""

PRIORITY_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and a priority other than 0 in the list's key."""


def broker_options() -> dict[str, Any]:
    """Return Celery's `broker_transport_options`; one list per queue and priority."""
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "health_check_interval": 25,
        "socket_keepalive": True,
        "queue_order_strategy": "priority",
        "priority_steps": list(range(PRIORITIES)),
        "sep": PRIORITY_SEPARATOR,
    }


def queue_key(queue: str, priority: int) -> str:
    """Return the Redis list that holds a queue's messages of one (Celery) priority."""
    return f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue
