"""What commands do with a service's jobs: send, list, watch, stop, fetch, read logs."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import err, out, print_json, seconds, size
from fda_core.cli.exit_codes import exit_code
from fda_core.cli.watch import problem_of, watch
from fda_core.contract.recipe import Recipe
from fda_core.contract.rest.jobs import Job, JobRequest, LogLine
from fda_core.contract.service.states import JobState
from fda_core.contract.uris import normalise
from fda_core.engine.recipes import read_recipe, recipe_yaml
from fda_core.errors import BadParameter

if TYPE_CHECKING:
    from fda_core.client import Client

COLOURS = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
    JobState.EXPIRED: "yellow",
    JobState.CANCELLING: "yellow",
}
_SPAN = re.compile(r"^(\d+)([smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def sendable(text: str, *, settings: Sequence[str], output: str | None, cwd: str) -> str:
    """Return a recipe as the service needs it: local addresses whole, settings laid over.

    The text goes as it is written where nothing of it needs to change.
    """
    recipe = read_recipe(text, settings=settings, output=output)
    whole = _whole(recipe, cwd)
    return text if whole == recipe and not settings and output is None else recipe_yaml(whole)


def _whole(recipe: Recipe, cwd: str) -> Recipe:
    experts = tuple(
        expert.model_copy(update={"model": normalise(expert.model, cwd=cwd)})
        for expert in recipe.experts
    )
    changes: dict[str, Any] = {"base": normalise(recipe.base, cwd=cwd), "experts": experts}
    if recipe.output is not None:
        changes["output"] = normalise(recipe.output, cwd=cwd)
    return recipe.model_copy(update=changes)


def labels_of(pairs: Iterable[str]) -> dict[str, str]:
    """Return labels given as key=value."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise BadParameter(f"--label {pair!r} is not key=value", hint="Such as --label run=7.")
        found[key] = value
    return found


def deadline_of(
    text: str | None, *, option: str = "--deadline", now: datetime | None = None
) -> datetime | None:
    """Return a time given as RFC 3339, or as a span from now: 30m, 2h, 1d."""
    if text is None:
        return None
    span = _SPAN.match(text)
    try:
        if span:
            return (now or datetime.now(UTC)) + timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):  # the calendar ends with the year 9999
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadParameter(
            f"{option} {text!r} is no time with a zone, and no span",
            hint="Such as 2h, 30m, 1d or 2026-12-01T08:00:00Z.",
        )
    return moment


def submit(client: "Client", request: JobRequest, *, wait: bool, as_json: bool) -> None:
    """Submit a job; wait for its end if asked to."""
    job = client.jobs.submit(request)
    if wait:
        if not as_json:
            err.print(f"job {job.id} is {job.state}", soft_wrap=True)
        conclude(watch(client, job.id, quiet=as_json), as_json=as_json)
        return
    if as_json:
        print_json(plain(job))
        return
    out.print(f"job {job.id} is {job.state}", soft_wrap=True)
    err.print(f"[dim]fda watch {job.id}[/]", soft_wrap=True)


def conclude(job: Job, *, as_json: bool) -> None:
    """Print how a job ended; the exit code is its error's."""
    problem = problem_of(job)
    if as_json:
        print_json(plain(job))
        if problem is not None:
            raise typer.Exit(exit_code(problem))
        return
    if problem is not None:
        raise problem
    done = (job.timestamps.get("succeeded", job.updated_at) - job.created_at).total_seconds()
    out.print(f"[bold green]succeeded[/] in {seconds(done)}")
    if job.output:
        out.print(f"output  {escape(job.output)}", soft_wrap=True)
    err.print(f"[dim]fda fetch {job.id} FOLDER[/]", soft_wrap=True)


def told(job: Job, *, as_json: bool) -> None:
    """Print a job after something was asked of it."""
    if as_json:
        print_json(plain(job))
    else:
        out.print(f"job {job.id} is {_coloured(job.state)}, attempt {job.attempt}")


def show_jobs(jobs: Iterable[Job], *, as_json: bool) -> None:
    """Print jobs as a table."""
    found = list(jobs)
    if as_json:
        print_json([plain(job) for job in found])
        return
    if not found:
        err.print("no jobs; `fda submit recipe.yaml` makes one")
        return
    table = _table("job", "state", "done", "method", "created", "labels", "output")
    for job in found:
        table.add_row(
            job.id,
            _coloured(job.state),
            f"{100 * job.progress.ratio:.0f} %",
            escape(job.method),
            f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
            escape(" ".join(f"{key}={value}" for key, value in job.labels.items())),
            escape(job.output or ""),
        )
    out.print(table)


def fetch(client: "Client", job: str, folder: Path, *, as_json: bool) -> None:
    """Download what a job left."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        BarColumn(bar_width=28),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=as_json or not err.is_terminal,
    ) as bars:
        bar = bars.add_task("fetch", total=None)
        found = client.jobs.fetch(
            job,
            folder,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    if as_json:
        print_json(
            {
                "status": "fetched",
                "job_id": job,
                "folder": str(found.folder),
                "files": found.files,
                "bytes": found.size_bytes,
                "bytes_resumed": found.resumed_bytes,
            }
        )
        return
    out.print(
        f"[bold green]fetched[/] {found.files} files, {size(found.size_bytes)}, every digest "
        f"checked: {escape(str(found.folder))}",
        soft_wrap=True,
    )


def show_logs(client: "Client", job: str, *, follow: bool, as_json: bool) -> None:
    """Print a job's log; JSON is one document, or a line each when following."""
    if as_json and not follow:
        print_json([plain(line) for line in client.jobs.logs(job)])
        return
    lines = client.jobs.follow_logs(job) if follow else client.jobs.logs(job)
    for line in lines:
        if as_json:
            print(line.model_dump_json(), flush=True)
        else:
            out.print(_log_text(line), soft_wrap=True)


def _log_text(line: LogLine) -> str:
    colour = {"warning": "yellow", "error": "red"}.get(line.level, "dim")
    where = f" {line.unit}" if line.unit else ""
    extra = "".join(f" {key}={value}" for key, value in line.fields.items())
    return (
        f"[dim]{line.at.astimezone():%H:%M:%S}[/] [{colour}]{line.level:<7}[/]"
        f"{escape(where)} {escape(line.text)}[dim]{escape(extra)}[/]"
    )


def show_records(
    records: Iterable[BaseModel], columns: Sequence[str], *, empty: str, as_json: bool
) -> None:
    """Print resources of any kind: all as JSON, or some of their fields as a table."""
    found = [plain(record) for record in records]
    if as_json:
        print_json(found)
        return
    if not found:
        err.print(empty)
        return
    table = _table(*(column.replace("_", " ") for column in columns))
    for record in found:
        table.add_row(*(escape(_cell(column, record.get(column))) for column in columns))
    out.print(table)


def show_record(record: BaseModel | dict[str, Any] | None, *, said: str, as_json: bool) -> None:
    """Print what became of one resource."""
    if as_json:
        print_json(plain(record) if isinstance(record, BaseModel) else record or {"status": said})
    else:
        out.print(escape(said), soft_wrap=True)


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a model as JSON has it."""
    return model.model_dump(mode="json")


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{key} {part}" for key, part in value.items())
    if column.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if column.endswith("seconds") and isinstance(value, (int, float)):
        return seconds(value)
    return str(value)


def _coloured(state: JobState) -> str:
    return f"[{COLOURS.get(state, 'cyan')}]{state}[/]"


NARROW = frozenset({"job", "id", "state", "done", "method", "role"})
"""Columns whose words are not cut; the others make room."""


def _table(*columns: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in columns:
        # Ids are copied: never broken over lines.
        table.add_column(name, overflow="fold", no_wrap=name in NARROW)
    return table
