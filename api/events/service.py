"""Rules about events: who may read them, and how a stream goes on and ends."""

from collections.abc import AsyncIterator, Sequence

import anyio

from api.auth.service import Caller
from api.context import Context
from api.events.repository import Standing
from api.jobs import repository as jobs
from api.jobs import views
from api.jobs.service import visible
from api.paging import Slice
from fda_core.contract.rest.jobs import EventView
from fda_core.contract.service.states import JobState

AT_ONCE = 500


def page(
    context: Context, caller: Caller, job_id: str, *, after: int, limit: int
) -> Slice[EventView]:
    """Return a piece of a job's events, oldest first."""
    with context.database.read() as session:
        visible(session, caller, job_id)
        rows = jobs.events(session, job_id, after=after, count=limit + 1)
        found = [views.event(row) for row in rows]
    return Slice.of(found, limit=limit, place=lambda event: (str(event.id),))


def standing(context: Context, caller: Caller, job_id: str) -> Standing:
    """Return how far a job is that a caller may see."""
    with context.database.read() as session:
        row = visible(session, caller, job_id)
        return Standing(version=row.version, last_seq=row.last_seq, state=JobState(row.state))


def event_number(last_event_id: str | None) -> int:
    """Return the number of a Last-Event-ID; 0 for none, and for what is not one of ours."""
    text = (last_event_id or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def follow(
    context: Context, job_id: str, *, after: int, ping_seconds: float
) -> AsyncIterator[Sequence[EventView]]:
    """Yield a job's events behind a number as they come; nothing whenever it is quiet.

    Ends when the job is over and all is told, when it is deleted, or the process goes down.
    """
    hub = context.hub
    async with hub.watch(job_id) as topic:
        while not hub.is_closed:
            events = topic.after(after)
            if events is None and topic.standing is None:
                return
            if events is None and topic.standing is not None:
                last = topic.standing.last_seq
                events = await anyio.to_thread.run_sync(_read, context, job_id, after)
                after = after if events else last  # none: they are older than what is kept
            if events:
                after = events[-1].id
                yield events
            elif topic.standing is None or (
                topic.standing.is_over and after >= topic.standing.last_seq
            ):
                return
            elif not await hub.changed(topic, seconds=ping_seconds):
                yield ()


def _read(context: Context, job_id: str, after: int) -> Sequence[EventView]:
    with context.database.read() as session:
        rows = jobs.events(session, job_id, after=after, count=AT_ONCE)
        return [views.event(row) for row in rows]
