"""Redis as the api uses it: hints to the controller and workers, and what workers say.

Everything there may be lost, so no hint can make a request fail, and none is tried twice: the
controller looks into the database again and again anyway.
"""

import time
from collections.abc import Callable

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fda_core.contract.service import names

WAKE_MOST = 1000
"""With no controller there the list must not grow."""
REST_SECONDS = 1.0
"""After a failed hint none is tried for so long: each may wait for a silent server."""
log = structlog.get_logger("api")


def open_redis(url: str) -> Redis:
    """Return a client that connects when first used and gives up quickly."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=1.0,
        socket_timeout=2.0,
        retry=Retry(NoBackoff(), 0),
    )


class Hints:
    """What is told to the controller and the workers, if they can be reached."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._again = 0.0

    def wake(self, job_id: str) -> None:
        """Tell the controller that there is something new about a job."""

        def push() -> None:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.lpush(names.WAKE, job_id)
                pipe.ltrim(names.WAKE, 0, WAKE_MOST - 1)
                pipe.execute()

        if time.monotonic() >= self._again:
            self._try("wake", push)

    def stop(self, job_id: str) -> None:
        """Tell the workers of a job to stop; the controller repeats it."""
        self._try("stop", lambda: self._redis.set(names.stop(job_id), "1", ex=names.STOP_SECONDS))

    def go_on(self, job_id: str) -> None:
        """Let the workers of a job go on: it is tried again."""
        self._try("go_on", lambda: self._redis.delete(names.stop(job_id)))

    def _try(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except RedisError as problem:
            self._again = time.monotonic() + REST_SECONDS
            log.warning("broker_away", what=what, error=type(problem).__name__)
