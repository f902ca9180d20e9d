"""Say by the exit code whether this host's worker is well: health checks of containers.

python -m worker.check  a worker process of this host told its status in time
"""

import socket
import sys
import time
from pathlib import Path

from pydantic import ValidationError
from redis import Redis, RedisError

from fda_core.contract.service import names
from fda_core.contract.service.messages import WorkerStatus
from fda_core.errors import FdaError
from worker.settings import Settings

ANSWER_SECONDS = 2.0


def fresh_workers(redis: Redis, *, host: str, moment: float) -> list[WorkerStatus]:
    """Return what workers of a host said lately; one of another version counts as silent."""
    keys = list(redis.scan_iter(match=f"{names.worker(host)}:*", count=1000))
    texts = redis.mget(keys) if keys else []
    found = [status for text in texts if (status := _status(text)) is not None]
    return [
        status
        for status in found
        if status.host == host and moment - status.at < names.STATUS_SECONDS
    ]


def lives(process: int) -> bool:
    """Say whether a process of this host is there; where nobody can tell, it is."""
    return not Path("/proc/self").exists() or Path(f"/proc/{process}").exists()


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 well, 1 not, 2 called wrongly."""
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        address = Settings().redis_url.get_secret_value()
    except (ValidationError, FdaError) as problem:
        print(problem, file=sys.stderr)
        return 2
    redis = Redis.from_url(
        address,
        decode_responses=True,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
    )
    host = socket.gethostname()
    try:
        found = fresh_workers(redis, host=host, moment=time.time())
    except RedisError as problem:
        print(f"Redis: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    finally:
        redis.close()
    if any(lives(status.process) for status in found):
        return 0
    print(f"no worker of {host} told its status lately", file=sys.stderr)
    return 1


def _status(text: str | bytes | None) -> WorkerStatus | None:
    try:
        return WorkerStatus.model_validate_json(text) if text else None
    except ValidationError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
