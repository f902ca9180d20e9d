"""Rules about jobs: submitting, showing, changing, cancelling and retrying them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api import idempotency
from api.auth.service import Caller
from api.context import Context
from api.db.tables import EventRow, JobRow
from api.errors import InvalidRequest, PreconditionFailed, QuotaExceeded
from api.etags import matches, tag_of
from api.ids import new_id
from api.jobs import repository, views
from api.jobs.filters import JobFilter
from api.jobs.submitting import Caller as AnyCaller
from api.jobs.submitting import team_seen
from api.jobs.transitions import STATE_EVENT, ask_to_stop, move
from api.paging import Slice
from api.recipes import read_recipe
from api.settings import Settings
from api.webhooks.addresses import check_url
from fda_core.contract.recipe import Recipe
from fda_core.contract.rest.base import FieldProblem, utc
from fda_core.contract.rest.jobs import Job, JobPatch, JobRequest, JobWebhook
from fda_core.contract.service.states import RETRYABLE, TERMINAL, JobState
from fda_core.errors import AlreadyFinished, IllegalTransition, UnknownJob

POLL_AFTER_SECONDS = 2
QUOTA_WAIT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a job comes from beside its request."""

    owner: str
    team: str
    batch_id: str | None = None
    schedule_id: str | None = None
    request_id: str | None = None
    trace: Mapping[str, str] | None = None


def submit(
    context: Context,
    caller: Caller,
    request: JobRequest,
    *,
    key: str | None,
    request_id: str,
    trace: Mapping[str, str],
) -> idempotency.Answer | Job:
    """Queue a job, or return what the first request with this Idempotency-Key was answered."""
    moment = context.clock()
    recipe = read_recipe(
        request.recipe, roots=context.settings.roots, workspace=context.settings.workspace
    )
    check_deadline(request.deadline, moment)
    check_webhook(request.webhook, context.settings)
    origin = Origin(owner=caller.owner, team=caller.team, request_id=request_id, trace=trace)
    scope = f"{caller.team}:POST /v1/jobs"
    with context.database.write() as session:
        if key is not None:
            answered = idempotency.begin(
                session,
                scope,
                key,
                body_hash=idempotency.digest(request.model_dump(mode="json")),
                moment=moment,
                keep=timedelta(hours=context.settings.idempotency_hours),
            )
            if answered is not None:
                return answered
        check_quota(session, caller.team, most=context.settings.max_active_jobs_per_team)
        row = insert(session, request, recipe, origin=origin, moment=moment)
        made = views.job(row, base_url=context.base_url)
        if key is not None:
            answer = idempotency.Answer(
                status=202, headers=headers_of(made), body=made.model_dump(mode="json")
            )
            idempotency.finish(session, scope, key, answer)
    return made


def headers_of(job: Job) -> dict[str, str]:
    """Return the headers of an answer that says a job was accepted."""
    return {
        "Location": job.urls.self,
        "Retry-After": str(POLL_AFTER_SECONDS),
        "ETag": tag_of(job.version),
    }


def insert(
    session: Session, request: JobRequest, recipe: Recipe, *, origin: Origin, moment: datetime
) -> JobRow:
    """Insert a job with its labels and first event. `recipe` is the request's, checked."""
    row = JobRow(
        id=new_id(),
        state=JobState.QUEUED.value,
        attempt=1,
        priority=request.priority,
        owner=origin.owner,
        team=origin.team,
        labels=dict(request.labels),
        recipe=request.recipe,
        method=recipe.method.name,
        base=recipe.base,
        output=recipe.output,
        experts=[expert.name for expert in recipe.experts],
        webhook=None if request.webhook is None else request.webhook.model_dump(mode="json"),
        batch_id=origin.batch_id,
        schedule_id=origin.schedule_id,
        deadline=request.deadline,
        created_at=moment,
        updated_at=moment,
        timestamps={JobState.QUEUED.value: utc(moment)},
        units_total=0,
        units_done=0,
        bytes_total=0,
        bytes_done=0,
        progress={},
        last_seq=1,
        last_log=0,
        version=1,
        trace=dict(origin.trace or {}),
        request_id=origin.request_id,
    )
    repository.add(session, row)
    session.add(
        EventRow(
            job_id=row.id,
            seq=1,
            at=moment,
            kind=STATE_EVENT,
            data={"state": JobState.QUEUED.value, "attempt": 1},
        )
    )
    return row


def check_quota(session: Session, team: str, *, most: int, more: int = 1) -> None:
    """Raise `QuotaExceeded` if so many more jobs would be too many for a team."""
    count = repository.unfinished(session, team)
    if count + more > most:
        raise QuotaExceeded(
            f"team {team!r} has {count} unfinished jobs of at most {most}; {more} more do not fit",
            hint="Wait for some to end, or cancel some.",
            unfinished=count,
            most=most,
            retry_after_seconds=QUOTA_WAIT_SECONDS,
        )


def check_deadline(deadline: datetime | None, moment: datetime) -> None:
    """Raise `InvalidRequest` for a deadline that has passed, or that no calendar has."""
    if deadline is not None and not moment < deadline < moment + timedelta(days=3660):
        message = f"{deadline.isoformat()} is not within the next ten years"
        raise InvalidRequest(
            f"deadline: {message}",
            problems=[FieldProblem(pointer="/deadline", message=message, code="deadline")],
        )


def check_webhook(webhook: JobWebhook | None, settings: Settings) -> None:
    """Raise `UnsafeAddress` if a job's own webhook is no address that messages may go to."""
    if webhook is not None:
        check_url(webhook.url, allow_private=settings.webhook_allow_private)


def visible(session: Session, caller: AnyCaller, job_id: str) -> JobRow:
    """Return a job that a caller may see, or raise `UnknownJob`: nothing tells which it is."""
    row = repository.find(session, job_id)
    if row is None or team_seen(caller) not in (None, row.team):
        raise UnknownJob(
            f"there is no job {job_id}", hint="GET /v1/jobs lists your team's jobs.", job=job_id
        )
    return row


def get(context: Context, caller: Caller, job_id: str) -> Job:
    """Return a job."""
    with context.database.read() as session:
        return views.job(visible(session, caller, job_id), base_url=context.base_url)


def find_many(
    context: Context,
    caller: Caller,
    wanted: JobFilter,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
) -> Slice[JobRow]:
    """Return the jobs a caller may see, newest first."""
    team = None if caller.is_admin else caller.team
    with context.database.read() as session:
        rows = repository.page(session, wanted, team=team, after=after, count=limit + 1)
        return Slice.of(rows, limit=limit, place=lambda row: (row.created_at.isoformat(), row.id))


def change(
    context: Context, caller: Caller, job_id: str, patch: JobPatch, *, if_match: str | None
) -> Job:
    """Change labels and priority, if the job still is at the version the caller knows."""
    with context.database.write() as session:
        row = visible(session, caller, job_id)
        if if_match is not None and not matches(if_match, row.version):
            raise _changed(row, if_match)
        if patch.labels is not None or patch.priority is not None:
            done = repository.change(
                session,
                job_id,
                version=row.version,
                labels=patch.labels,
                priority=patch.priority,
            )
            if not done:
                raise _changed(row, if_match or tag_of(row.version))
            session.expire_all()
        return views.job(visible(session, caller, job_id), base_url=context.base_url)


def _changed(row: JobRow, wanted: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"job {row.id} is at {tag_of(row.version)}, not {wanted}",
        hint="Get it again and decide anew.",
        version=row.version,
    )


def cancel(context: Context, caller: Caller, job_id: str) -> Job:
    """Stop a job: at once if nothing runs, else as soon as its workers have heard."""
    with context.database.write() as session:
        row = visible(session, caller, job_id)
        state = JobState(row.state)
        if state in TERMINAL:
            raise AlreadyFinished(
                f"job {job_id} is {state} already",
                hint="There is nothing left to cancel.",
                job=job_id,
                state=state,
            )
        moved = ask_to_stop(session, job_id, {"by": caller.owner})
        session.expire_all()
        found = views.job(visible(session, caller, job_id), base_url=context.base_url)
    if found.state is JobState.CANCELLING:
        context.hints.stop(job_id)
    if moved:
        context.hints.wake(job_id)
    return found


def retry(context: Context, caller: Caller, job_id: str) -> Job:
    """Queue a job again that failed, was cancelled or expired; finished units stay."""
    with context.database.write() as session:
        row = visible(session, caller, job_id)
        state = JobState(row.state)
        if state not in RETRYABLE:
            raise IllegalTransition(
                f"job {job_id} is {state}; only {_words(RETRYABLE)} jobs are tried again",
                hint="Cancel it first." if state not in TERMINAL else "Submit it as a new job.",
                job=job_id,
                state=state,
            )
        check_quota(session, row.team, most=context.settings.max_active_jobs_per_team)
        passed = row.deadline is not None and row.deadline <= context.clock()
        move(
            session,
            job_id,
            JobState.QUEUED,
            only_from={state},
            data={"by": caller.owner},
            attempt=JobRow.attempt + 1,
            error=None,
            stage=None,
            progress={},
            **({"deadline": None} if passed else {}),
        )
        session.expire_all()
        found = views.job(visible(session, caller, job_id), base_url=context.base_url)
    context.hints.go_on(job_id)
    context.hints.wake(job_id)
    return found


def _words(states: frozenset[JobState]) -> str:
    return ", ".join(sorted(states))
