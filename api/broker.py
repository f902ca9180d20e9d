"""Redis as the api uses it: hints to the controller and workers, and what workers say.

Everything there may be lost, so no write here can make a request fail: the controller looks
into the database again and again anyway.
"""

from collections.abc import Callable

import structlog
from redis import Redis
from redis.exceptions import RedisError

from fda_core.contract.service import names

WAKE_MOST = 1000
"""With no controller there the list must not grow."""
STOP_SECONDS = 7 * 24 * 3600
log = structlog.get_logger("api")


def open_redis(url: str) -> Redis:
    """Return a client that connects when first used and gives up quickly."""
    return Redis.from_url(
        url, decode_responses=True, socket_connect_timeout=1.0, socket_timeout=2.0
    )


def wake(redis: Redis, job_id: str) -> None:
    """Tell the controller that there is something new about a job."""

    def push() -> None:
        with redis.pipeline(transaction=False) as pipe:
            pipe.lpush(names.WAKE, job_id)
            pipe.ltrim(names.WAKE, 0, WAKE_MOST - 1)
            pipe.execute()

    _try("wake", push)


def tell_stop(redis: Redis, job_id: str) -> None:
    """Tell the workers of a job to stop; the controller repeats it."""
    _try("stop", lambda: redis.set(names.stop(job_id), "1", ex=STOP_SECONDS))


def take_back_stop(redis: Redis, job_id: str) -> None:
    """Let the workers of a job go on: it is tried again."""
    _try("go_on", lambda: redis.delete(names.stop(job_id)))


def _try(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except RedisError as problem:
        log.warning("broker_away", what=what, error=type(problem).__name__)
