"""Tells waiting requests what changed: one look at the database for all of them.

A task per process asks every quarter of a second how far the watched jobs are, and reads what
is new once, whoever many wait for it. A request that is behind what the hub remembers reads
from the database itself, so nothing is lost or told twice: numbers of events have no gaps.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.db.session import Database
from api.events import repository
from api.events.repository import Standing
from fda_core.contract.rest.jobs import EventView

REMEMBERED = 500
"""Events kept per watched job; who is further behind reads for itself."""
LAST_LOOK_SECONDS = 5.0
log = structlog.get_logger("api")


@dataclass
class Topic:
    """A watched job: how far it is, its newest events, and a bell for those who wait."""

    standing: Standing | None
    """None once the job is deleted."""
    recent: deque[EventView] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: int = 0

    def ring(self) -> None:
        """Wake everybody who waits now."""
        self.bell.set()
        self.bell = asyncio.Event()

    def advance(self, standing: Standing | None, events: Sequence[EventView]) -> None:
        """Take in what is new. What is remembered has no gaps."""
        if events and self.recent and events[0].id != self.recent[-1].id + 1:
            self.recent.clear()
        self.recent.extend(events)
        self.standing = standing
        self.ring()

    def after(self, seq: int) -> Sequence[EventView] | None:
        """Return what is remembered behind a number; None if some of it is forgotten."""
        last = self.standing.last_seq if self.standing else self._last_remembered
        if last <= seq:
            return []
        if not self.recent or self.recent[0].id > seq + 1:
            return None
        return [event for event in self.recent if event.id > seq]

    @property
    def _last_remembered(self) -> int:
        """Return the newest event there is of a deleted job: the rows are gone."""
        return self.recent[-1].id if self.recent else 0


class Hub:
    """Watches jobs for the requests of one process and one event loop."""

    def __init__(self, database: Database, *, poll_seconds: float = 0.25) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._topics: dict[str, Topic] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Topic]:
        """Yield a job's topic, kept up to date for as long as somebody watches."""
        self._loop = asyncio.get_running_loop()
        topic = self._topics.get(job_id)
        if topic is None:
            standing = await anyio.to_thread.run_sync(self._standing, job_id)
            topic = self._topics.setdefault(job_id, Topic(standing))
        topic.watchers += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._poll(), name="fda-hub")
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers and self._topics.get(job_id) is topic:
                del self._topics[job_id]

    @property
    def is_closed(self) -> bool:
        """Say whether the process is going down: streams end, clients come back elsewhere."""
        return self._closed

    async def changed(self, topic: Topic, *, seconds: float) -> bool:
        """Wait until something about a topic changes; say whether it did."""
        bell = topic.bell
        try:
            await asyncio.wait_for(bell.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def newer(self, job_id: str, *, version: int, seconds: float) -> None:
        """Return once a job is beyond a version, is gone, or the time is over."""
        until = time.monotonic() + seconds
        async with self.watch(job_id) as topic:
            while topic.standing is not None and topic.standing.version <= version:
                left = until - time.monotonic()
                if self._closed or left <= 0 or not await self.changed(topic, seconds=left):
                    return

    def last_look(self, job_id: str) -> None:
        """Take in what is new of a job before it is deleted: its streams end with its end.

        Called from other threads than the event loop's.
        """
        if self._loop is None or job_id not in self._topics or self._closed:
            return
        look = asyncio.run_coroutine_threadsafe(self._catch_up([job_id]), self._loop)
        with suppress(SQLAlchemyError, TimeoutError, CancelledError):
            look.result(LAST_LOOK_SECONDS)

    def let_go(self) -> None:
        """End all waiting: the process is going down."""
        self._closed = True
        for topic in self._topics.values():
            topic.ring()

    async def close(self) -> None:
        """Let everybody go and stop looking."""
        self.let_go()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _poll(self) -> None:
        while self._topics:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._catch_up(list(self._topics))
            except SQLAlchemyError as problem:
                log.warning("hub_cannot_read", error=type(problem).__name__)

    async def _catch_up(self, job_ids: Sequence[str]) -> None:
        """Bring the topics of some jobs up to date."""
        known = {
            job_id: topic.standing
            for job_id in job_ids
            if (topic := self._topics.get(job_id)) is not None
        }
        news = await anyio.to_thread.run_sync(self._look, known)
        for job_id, (standing, events) in news.items():
            topic = self._topics.get(job_id)
            if topic is not None and topic.standing == known[job_id]:
                topic.advance(standing, events)

    def _standing(self, job_id: str) -> Standing | None:
        with self._database.read() as session:
            return repository.standings(session, [job_id]).get(job_id)

    def _look(
        self, known: Mapping[str, Standing | None]
    ) -> dict[str, tuple[Standing | None, Sequence[EventView]]]:
        """Return the jobs that changed, with their new events."""
        news: dict[str, tuple[Standing | None, Sequence[EventView]]] = {}
        with self._database.read() as session:
            now = repository.standings(session, list(known))
            for job_id, before in known.items():
                standing = now.get(job_id)
                if standing == before:
                    continue
                behind = before.last_seq if before else 0
                news[job_id] = (standing, self._new(session, job_id, behind, standing))
        return news

    @staticmethod
    def _new(
        session: Session, job_id: str, behind: int, standing: Standing | None
    ) -> Sequence[EventView]:
        if standing is None or standing.last_seq <= behind:
            return []
        first = max(behind, standing.last_seq - REMEMBERED)
        return repository.between(session, job_id, after=first, upto=standing.last_seq)
