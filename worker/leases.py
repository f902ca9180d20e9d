"""Leases: at most one worker runs a unit, and a dead one is noticed within seconds.

A lease is a key that expires, with a token nobody else knows. It saves double work and never
guards the truth: two workers on one unit are harmless.
"""

import secrets
from enum import StrEnum
from typing import Any

from redis import Redis

from fda_core.contract.service import names

LEASE_MS = int(names.LEASE_SECONDS * 1000)
HINT_SECONDS = 2 * 24 * 3600
"""What a late message leaves behind a finished job goes away by itself."""

_TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3]) then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
  return 1
end
return 0
"""
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 'kept'
elseif not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
  return 'taken again'
end
return 'lost'
"""
_RELEASE = """
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[2]) end
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Renewal(StrEnum):
    """What became of a lease."""

    KEPT = "kept"
    TAKEN_AGAIN = "taken again"
    """It was gone, as after a restart of Redis, and nobody else had taken it."""
    LOST = "lost"
    """Somebody else holds it."""


def new_token() -> str:
    """Return what names one try at one unit."""
    return secrets.token_hex(12)


class Lease:
    """One worker's lease of one unit, held or not."""

    def __init__(self, redis: Redis, *, job: str, unit: str, token: str) -> None:
        self._keys = [names.lease(job, unit), names.taken(job)]
        self._arguments: list[str | int] = [token, unit, LEASE_MS]
        self._take, self._renew, self._release = (
            redis.register_script(script) for script in (_TAKE, _RENEW, _RELEASE)
        )
        self._redis = redis
        self._done = names.done(job)
        self._unit = unit
        self.token = token

    def take(self) -> bool:
        """Hold the lease unless another worker does, and say whether it is held."""
        return bool(self._take(keys=self._keys, args=self._arguments))

    def renew(self) -> Renewal:
        """Hold it for another `LEASE_SECONDS`, or learn that another worker has it."""
        return Renewal(_text(self._renew(keys=self._keys, args=self._arguments)))

    def release(self, *, done: bool) -> bool:
        """Give it up if it is ours. Return whether the unit is newly known to be done."""
        with self._redis.pipeline(transaction=True) as pipe:
            self._release(keys=self._keys, args=self._arguments, client=pipe)
            if done:
                pipe.sadd(self._done, self._unit)
                pipe.expire(self._done, HINT_SECONDS)
            answers = pipe.execute()
        return done and bool(answers[1])


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
