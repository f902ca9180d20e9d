"""Typed access to the Redis keys of `contract.service.names`, many at a time.

Nothing here is the truth: every caller must be right when all of it is gone.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from api.workers import repository as workers
from fda_core.contract.service import names

FIRST = "0-0"
"""Before every entry of a stream."""

_GIVE_UP = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
"""

_PIECE = 500


@dataclass(frozen=True, kw_only=True)
class Look:
    """What Redis says of one job: tokens of the units that were taken, and whether to stop."""

    taken: Mapping[str, str]
    stopping: bool


class RedisState:
    """The service's state in Redis, through a client that decodes responses."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client

    def wait_for_wake(self, seconds: float) -> bool:
        """Wait until somebody has something new, and take what all of them said."""
        if self._client.brpop([names.WAKE], timeout=seconds) is None:
            return False
        self._client.delete(names.WAKE)
        return True

    def epoch(self) -> str:
        """Return a word that changes when Redis was emptied."""
        self._client.set(names.EPOCH, secrets.token_hex(8), nx=True)
        return str(self._client.get(names.EPOCH))

    def read_reports(
        self, after: str, *, count: int, block_seconds: float
    ) -> list[tuple[str, str]]:
        """Return ids and texts of the reports after an id, waiting for the first if told to."""
        block = int(block_seconds * 1000) or None
        found = self._client.xread({names.EVENTS: after}, count=count, block=block) or {}
        streams = found.items() if isinstance(found, Mapping) else found
        reports: list[tuple[str, str]] = []
        for _name, entries in streams:
            pages = entries if not entries or isinstance(entries[0], tuple) else entries[0]
            reports += [(str(entry), str(fields.get("report", ""))) for entry, fields in pages]
        return reports

    def newest_report(self) -> str:
        """Return the id of the newest report ever added, `FIRST` if there is no stream."""
        if not self._client.exists(names.EVENTS):
            return FIRST
        return str(self._client.xinfo_stream(names.EVENTS)["last-generated-id"])

    def seconds_behind(self, after: str) -> float:
        """Return the age of the oldest report after an id, 0 if there is none."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.xrange(names.EVENTS, min=f"({after}", count=1)
            pipe.time()
            entries, (seconds, microseconds) = pipe.execute()
        if not entries:
            return 0.0
        added = int(str(entries[0][0]).partition("-")[0]) / 1000
        return max(0.0, seconds + microseconds / 1e6 - added)

    def forget_reports(self, before: str) -> None:
        """Drop reports that are folded, roughly."""
        self._client.xtrim(names.EVENTS, minid=before, approximate=True)

    def look(self, jobs: Sequence[str]) -> dict[str, Look]:
        """Return what is taken and what must stop, for many jobs in one round trip."""
        found: dict[str, Look] = {}
        for start in range(0, len(jobs), _PIECE):
            some = jobs[start : start + _PIECE]
            with self._client.pipeline(transaction=False) as pipe:
                for job in some:
                    pipe.hgetall(names.taken(job))
                    pipe.exists(names.stop(job))
                answers = pipe.execute()
            for place, job in enumerate(some):
                taken, stopping = answers[2 * place : 2 * place + 2]
                found[job] = Look(taken=dict(taken), stopping=bool(stopping))
        return found

    def leases(self, units: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the tokens of those (job, unit) pairs whose lease is held."""
        held: dict[tuple[str, str], str] = {}
        for start in range(0, len(units), _PIECE):
            some = units[start : start + _PIECE]
            tokens = self._client.mget([names.lease(job, unit) for job, unit in some])
            held |= {pair: token for pair, token in zip(some, tokens, strict=True) if token}
        return held

    def is_lost(self, job: str, unit: str, token: str | None) -> bool:
        """Say, in one look, whether a unit is still taken under a token and not leased."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hget(names.taken(job), unit)
            pipe.get(names.lease(job, unit))
            taken, lease = pipe.execute()
        return taken == token and lease is None

    def give_up(self, job: str, unit: str, token: str) -> None:
        """Take a unit from the taken ones, if it is there under this token."""
        self._client.eval(_GIVE_UP, 1, names.taken(job), unit, token)

    def sent(self, job: str) -> dict[str, float]:
        """Return when each unit's message was last sent."""
        return {unit: float(at) for unit, at in self._client.hgetall(names.sent(job)).items()}

    def mark_sent(self, job: str, units: Iterable[str], *, at: float) -> None:
        """Note that messages are being sent."""
        self._client.hset(names.sent(job), mapping=dict.fromkeys(units, repr(at)))

    def mark_done(self, job: str, units: Sequence[str]) -> None:
        """Tell workers which units are done, for what becomes ready."""
        if units:
            self._client.sadd(names.done(job), *units)

    def mark_undone(self, job: str, units: Sequence[str]) -> None:
        """Tell workers that units have to be done again."""
        self._client.srem(names.done(job), *units)

    def stop(self, job: str) -> None:
        """Tell a job's units to stop, and its messages to be dropped."""
        self._client.set(names.stop(job), "1", ex=names.STOP_SECONDS)

    def allow(self, job: str) -> None:
        """Take back the order to stop."""
        self._client.delete(names.stop(job))

    def forget(self, job: str, *, stopped: bool) -> None:
        """Delete a job's keys; one that ended early goes on telling late messages to stop."""
        if stopped:
            self.stop(job)
        keys = [key for key in names.job_keys(job) if not stopped or key != names.stop(job)]
        self._client.delete(*keys)

    def lengths(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the lengths of lists."""
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.llen(key)
            return dict(zip(keys, pipe.execute(), strict=True))

    def device_of(self, worker: str) -> str | None:
        """Return a worker's device as people know it, while its status is there."""
        found = workers.status(self._client, worker)
        return found.device if found else None

    def served_queues(self) -> set[str]:
        """Return the queues that living workers take from."""
        return {queue for status in workers.statuses(self._client) for queue in status.queues}

    def count_workers(self) -> int:
        """Return how many workers told their status lately."""
        return len(workers.statuses(self._client))
