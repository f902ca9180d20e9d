"""The heartbeat: renew the lease, look for stop and drain keys, tell the status.

A busy worker answers nothing else: its main thread is inside a unit. One pass takes two
round trips to Redis. If Redis is away the unit goes on; nobody can know better.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import structlog
from redis import Redis, RedisError

from fda_core.contract.service import names
from fda_core.contract.service.broker import queue_lists
from worker.drain import Drain
from worker.hearing import Hearing
from worker.leases import Lease, Renewal
from worker.status import Status

Reason = Literal["cancelled", "drained", "lease_lost"]

log = structlog.stdlib.get_logger("fda.worker.heartbeat")


class Watch:
    """Whether a running unit must stop, and why. The first reason stays."""

    def __init__(self, lease: Lease, *, job: str, drain: Drain) -> None:
        self.lease = lease
        self.job = job
        self._drain = drain
        self._reason: Reason | None = None

    def stop(self, reason: Reason) -> None:
        """Let the unit end at its next step or tensor."""
        self._reason = self._reason or reason

    @property
    def reason(self) -> Reason | None:
        """Return why the unit must stop, or None to go on."""
        if self._reason is None and self._drain.is_over:
            self._reason = "drained"
        return self._reason

    def must_stop(self) -> bool:
        """Say whether the unit must stop; asked at every step."""
        return self.reason is not None


class TakesQueues(Protocol):
    """Takes units from some queues."""

    def hold(self, queue: str) -> None:
        """Take no more from a queue."""

    def resume(self, queue: str) -> None:
        """Take from a queue again."""


class Heartbeat:
    """One thread that beats every `BEAT_SECONDS` for as long as the process lives."""

    def __init__(
        self,
        redis: Redis,
        *,
        status: Status,
        drain: Drain,
        queues: Sequence[str],
        consumer: TakesQueues,
        hearing: Hearing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._status = status
        self._drain = drain
        self._queues = tuple(queues)
        self._held: frozenset[str] = frozenset()
        self._consumer = consumer
        self._hearing = hearing
        self._clock = clock
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self._is_away = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start beating."""
        self._thread.start()

    def close(self) -> None:
        """Stop beating, and take the status away so that nobody counts on this worker."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(names.LEASE_SECONDS)
        try:
            self._redis.delete(names.worker(self._status.worker), names.drain(self._status.worker))
        except RedisError as problem:
            log.warning("status_left", problem=str(problem))

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Keep a unit's lease and look out for its stop key until the block ends."""
        self._watch = watch
        try:
            yield
        finally:
            with self._lock:
                self._watch = None

    def beat(self) -> None:
        """Do one pass."""
        try:
            self._look()
            self._renew()
        except RedisError as problem:
            self._hearing.forget()
            if not self._is_away:
                log.warning("redis_away", problem=str(problem))
            self._is_away = True
            return
        if self._is_away:
            log.info("redis_back")
        self._is_away = False

    def _look(self) -> None:
        """Tell the status and act on the keys there are."""
        watch = self._watch
        status = self._status.tell(at=self._clock(), draining=self._drain.begun)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.exists(names.stop(watch.job) if watch else names.DRAIN_QUEUE)
            pipe.exists(names.drain(self._status.worker))
            for queue in self._queues:
                pipe.exists(names.DRAIN_QUEUE + queue)
            lists = [key for queue in self._queues for key in queue_lists(queue)]
            for key in lists:
                pipe.llen(key)
            # Last: a full Redis refuses it, and the rest must still be heard.
            pipe.set(
                names.worker(self._status.worker),
                status.model_dump_json(),
                px=int(names.STATUS_SECONDS * 1000),
            )
            *answers, is_told = pipe.execute(raise_on_error=False)
        if isinstance(is_told, Exception):
            log.warning("status_refused", problem=str(is_told))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        if watch and answers[0]:
            watch.stop("cancelled")
        if answers[1] and not self._drain.begun:
            log.info("draining", why="asked to")
            self._drain.begin("asked to")
        held = {q for q, is_held in zip(self._queues, answers[2:], strict=False) if is_held}
        self._hold(frozenset(held))
        waiting = self._waiting(answers[2 + len(self._queues) :])
        self._listen(waiting)

    def _waiting(self, lengths: Sequence[int]) -> int:
        """Return how many messages wait in the queues that are taken from."""
        each = len(lengths) // max(len(self._queues), 1)
        return sum(
            sum(lengths[k * each : (k + 1) * each])
            for k, queue in enumerate(self._queues)
            if queue not in self._held
        )

    def _listen(self, waiting: int) -> None:
        if self._hearing.is_deaf(waiting) and not self._drain.begun:
            log.error("deaf", waiting=waiting, hint="Ending, to be started again.")
            self._drain.begin("deaf")

    def _hold(self, held: frozenset[str]) -> None:
        for queue in held - self._held:
            log.info("queue_held", queue=queue)
            self._consumer.hold(queue)
        for queue in self._held - held:
            log.info("queue_resumed", queue=queue)
            self._consumer.resume(queue)
        self._held = held

    def _renew(self) -> None:
        """Renew under the lock: a lease that was given up must not be taken again."""
        with self._lock:
            watch = self._watch
            if watch is None:
                return
            renewal = watch.lease.renew()
        if renewal is Renewal.LOST:
            watch.stop("lease_lost")
        elif renewal is Renewal.TAKEN_AGAIN:
            log.warning("lease_taken_again", job=watch.job)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.beat()
            except Exception:
                # A dead heartbeat would cost every lease from here on.
                log.exception("beat_failed")
            self._ended.wait(names.BEAT_SECONDS)
