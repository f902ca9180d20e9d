"""What workers tell the controller: reports to a Redis stream, which may be away.

Telling never makes a unit fail or wait. Reports go through a bounded buffer; one thread
sends them. Whatever is lost, the controller learns from the journal.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog
from redis import Redis, RedisError

from fda_core.contract.events import BytesMoved, Event, StepReported, UnitRetried
from fda_core.contract.service import names
from fda_core.contract.service.messages import Logged, Report, Reported, TryUnit

MOST_WAITING = 4000
MOST_IN_STREAM = 200_000
"""About; some 60 MB. A controller that was away for longer reads the journal."""
BATCH = 200
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 2.0
TELL_SECONDS = 0.25
PROGRESS = (StepReported, BytesMoved, Logged)
"""What is thrown away first."""

log = structlog.stdlib.get_logger("fda.worker.events")


class Reports:
    """A bounded buffer of reports, and the thread that empties it into the stream."""

    def __init__(
        self,
        redis: Redis,
        *,
        most: int = MOST_WAITING,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._most = most
        self._on_drop = on_drop
        self._waiting: deque[Report] = deque()
        self._changed = threading.Condition()
        self._sending = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def put(self, report: Report) -> None:
        """Keep a report for sending; if too many wait, throw away old progress first."""
        with self._changed:
            self._waiting.append(report)
            if len(self._waiting) > self._most:
                self._drop_one()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, at most so long, and say whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._sending, timeout=seconds
            )

    def close(self, seconds: float) -> bool:
        """Send what is left, at most so long, and end."""
        is_sent = self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return is_sent

    def send_some(self) -> int:
        """Send a batch, all of it or nothing, and return its length; raise what Redis raises."""
        with self._changed:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._sending = len(batch)
        try:
            self._send(batch)
        except RedisError:
            with self._changed:
                self._waiting.extendleft(reversed(batch))
                while len(self._waiting) > self._most:
                    self._drop_one()
            raise
        finally:
            with self._changed:
                self._sending = 0
                self._changed.notify_all()
        return len(batch)

    def _send(self, batch: list[Report]) -> None:
        if not batch:
            return
        with self._redis.pipeline(transaction=True) as pipe:
            for report in batch:
                pipe.xadd(
                    names.EVENTS,
                    {"report": report.model_dump_json()},
                    maxlen=MOST_IN_STREAM,
                    approximate=True,
                )
            pipe.execute()

    def _drop_one(self) -> None:
        """Throw away the oldest report of progress, or the oldest at all."""
        place = next((k for k, r in enumerate(self._waiting) if isinstance(r.event, PROGRESS)), 0)
        del self._waiting[place]
        self._on_drop()

    def _run(self) -> None:
        wait = FIRST_WAIT_SECONDS
        while self._has_work():
            try:
                self.send_some()
                wait = FIRST_WAIT_SECONDS
            except RedisError as problem:
                log.warning("reports_wait", waiting=len(self._waiting), problem=str(problem))
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _has_work(self) -> bool:
        """Wait for reports; False when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            return not self._closed


class HearsBytes(Protocol):
    """Counts bytes that were moved."""

    def moved(self, event: BytesMoved) -> None:
        """Add bytes read and written."""


class UnitReports:
    """Reports of one try at one unit: steps and bytes are told about four times a second.

    Start and end are told by the worker, which knows more of them than the engine.
    """

    def __init__(
        self,
        reports: Reports,
        message: TryUnit,
        *,
        worker: str,
        token: str,
        counters: tuple[HearsBytes, ...] = (),
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reports = reports
        self._message = message
        self._worker = worker
        self._token = token
        self._counters = counters
        self._clock = clock
        self._ticks = ticks
        self._stepped = self._moved_at = -math.inf
        self._read_bytes = self._write_bytes = 0

    def emit(self, event: Event) -> None:
        """Take what the engine tells."""
        if isinstance(event, BytesMoved):
            self._moved(event)
        elif isinstance(event, StepReported):
            now = self._ticks()
            if now - self._stepped >= TELL_SECONDS or event.step == event.steps:
                self._stepped = now
                self._put(event)
        elif isinstance(event, UnitRetried):
            self._put(event)

    def tell(self, event: Reported) -> None:
        """Tell something at once, after the bytes moved so far."""
        self._tell_bytes()
        self._put(event)

    def _moved(self, event: BytesMoved) -> None:
        for counter in self._counters:
            counter.moved(event)
        self._read_bytes += event.read_bytes
        self._write_bytes += event.write_bytes
        if self._ticks() - self._moved_at >= TELL_SECONDS:
            self._tell_bytes()

    def _tell_bytes(self) -> None:
        if not self._read_bytes and not self._write_bytes:
            return
        moved = BytesMoved(
            unit=self._message.unit, read_bytes=self._read_bytes, write_bytes=self._write_bytes
        )
        self._read_bytes = self._write_bytes = 0
        self._moved_at = self._ticks()
        self._put(moved)

    def _put(self, event: Reported) -> None:
        self._reports.put(
            Report(
                job=self._message.job,
                attempt=self._message.attempt,
                worker=self._worker,
                token=self._token,
                at=self._clock(),
                event=event,
            )
        )
