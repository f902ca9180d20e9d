"""The first page: what failed, what runs, who works, what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response

from api.auth.service import Caller
from api.context import Context, Here
from api.jobs import service as jobs
from api.jobs import views
from api.jobs.filters import JobFilter
from api.jobs.submitting import team_seen
from api.schedules.service import ScheduleService
from api.web import repository
from api.web.fleet import look_at_fleet
from api.web.pages import Pages
from api.web.visitors import Visitor
from api.web.words import fire_words
from fda_core.contract.rest.jobs import Job
from fda_core.contract.rest.schedules import FireTime, Schedule
from fda_core.contract.service.states import ACTIVE, TERMINAL, JobState

LATELY = timedelta(hours=24)
MOST_RUNNING = 20
MOST_FAILED = 5
MOST_FIRES = 5
MOST_SCHEDULES = 100


@dataclass(frozen=True, kw_only=True)
class Upcoming:
    """A fire time of a schedule."""

    schedule: Schedule
    fire: FireTime
    words: str


def routes(pages: Pages, schedules: ScheduleService) -> APIRouter:
    """Return the route of the overview."""
    router = pages.router()

    @router.get("/")
    def show_overview(request: Request, context: Here, caller: Visitor) -> Response:
        moment = context.clock()
        with context.database.read() as session:
            counts = repository.counts(session, team=team_seen(caller), since=moment - LATELY)
        return pages.page(
            request,
            "overview.html",
            caller=caller,
            counts=counts,
            now_states=[state for state in JobState if state not in TERMINAL],
            over_states=[state for state in JobState if state in TERMINAL],
            failed=_newest(context, caller, {JobState.FAILED}, MOST_FAILED, since=moment - LATELY),
            running=_newest(context, caller, ACTIVE, MOST_RUNNING),
            has_jobs=bool(counts) or bool(_newest(context, caller, set(), 1)),
            fleet=look_at_fleet(context),
            upcoming=_upcoming(schedules, caller, moment),
        )

    return router


def _newest(
    context: Context,
    caller: Caller,
    states: frozenset[JobState] | set[JobState],
    count: int,
    *,
    since: datetime | None = None,
) -> list[Job]:
    wanted = JobFilter(states=tuple(states))
    found = jobs.find_many(context, caller, wanted, after=None, limit=count)
    return [
        views.job(row, base_url="")
        for row in found.items
        if since is None or row.updated_at >= since
    ]


def _upcoming(schedules: ScheduleService, caller: Caller, moment: datetime) -> Sequence[Upcoming]:
    found = schedules.page(caller, cursor=None, limit=MOST_SCHEDULES).data
    fires = sorted(
        ((fire, schedule) for schedule in found for fire in schedule.next_fires),
        key=lambda pair: pair[0].utc,
    )
    return [
        Upcoming(schedule=schedule, fire=fire, words=fire_words(fire.local, moment, schedule.zone))
        for fire, schedule in fires[:MOST_FIRES]
    ]
