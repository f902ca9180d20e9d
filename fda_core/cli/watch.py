"""A job of a service as it runs: bars on a terminal, lines elsewhere, and how it ended."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fda_core.cli.console import err, seconds, size
from fda_core.contract.rest.jobs import EventView, Job, JobProgress
from fda_core.contract.service.states import TERMINAL, JobState
from fda_core.errors import Cancelled, JobUnsuccessful, ServiceError

if TYPE_CHECKING:
    from fda_core.client import Client

LINE_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""How often the job itself is read at most, where events do not say how far it is."""


class View(Protocol):
    """Shows a job."""

    def show(self, state: JobState, progress: JobProgress) -> None:
        """Show where it is."""
        ...

    def remark(self, text: str) -> None:
        """Print a line whatever else is shown."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def watch(
    client: "Client", job: str, *, quiet: bool, check: Callable[[], None] = lambda: None
) -> Job:
    """Show a job until it is over and return it. Raises `Cancelled` after Ctrl-C.

    `check` is asked whenever the connection breaks; what it raises ends the watching.
    """
    try:
        with view_for(quiet=quiet) as view:
            return _Watching(client, client.jobs.get(job), view, check).to_the_end()
    except KeyboardInterrupt:
        raise Cancelled(
            f"you stopped watching; job {job} goes on. See it again with `fda watch {job}`, "
            f"stop it with `fda cancel {job}`."
        ) from None


class _Watching:
    """What is known of a job while its events come in."""

    def __init__(self, client: "Client", job: Job, view: View, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check
        self._view = view
        self._job = job
        self._looked = time.monotonic()
        self._broken = False

    def to_the_end(self) -> Job:
        """Follow the events; what they do not say is read from the job."""
        self._view.show(self._job.state, self._job.progress)
        if self._job.state in TERMINAL:
            return self._job
        for event in self._client.jobs.events(self._job.id, on_trouble=self._trouble):
            if self._broken:
                self._broken = False
                self._view.remark("the service is back")
            self._take(event)
        self._look()
        return self._job

    def _take(self, event: EventView) -> None:
        if event.type == "warning":
            self._view.remark(f"warning {event.data.get('message', event.data)}")
        try:
            told = JobProgress.model_validate(event.data) if event.type == "progress" else None
        except ValidationError:
            told = None
        if told is not None:
            self._view.show(self._job.state, told)
        elif event.type == "job.state" or time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()

    def _look(self) -> None:
        self._job = self._client.jobs.get(self._job.id)
        self._looked = time.monotonic()
        self._view.show(self._job.state, self._job.progress)

    def _trouble(self, problem: Exception) -> None:
        self._check()
        if not self._broken:
            self._broken = True
            self._view.remark(f"connection lost ({problem}); trying again, the job goes on")


def problem_of(job: Job) -> ServiceError | None:
    """Return how a job that is over went wrong, or None if it succeeded."""
    if job.state is JobState.SUCCEEDED:
        return None
    if job.error is not None:
        return ServiceError(
            job.error.message,
            hint=job.error.hint,
            code=job.error.code,
            job=job.id,
            unit=job.error.unit,
            state=str(job.state),
        )
    return JobUnsuccessful(
        f"job {job.id} ended as {job.state}",
        hint=f"`fda retry {job.id}` runs it again; finished units are kept.",
        job=job.id,
        state=str(job.state),
    )


def doing(progress: JobProgress) -> str:
    """Return in a few words what is being computed."""
    parts = []
    if progress.layer is not None:
        parts.append(f"layer {progress.layer}")
    if progress.expert is not None:
        parts.append(progress.expert)
    if progress.step is not None and progress.steps:
        parts.append(f"step {progress.step} of {progress.steps}")
    if progress.alignment is not None:
        parts.append(f"alignment {progress.alignment:.3f}")
    elif progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    return " · ".join(parts)


class Bars:
    """Two bars with the state, what is done and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<6}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[done]:>19}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}"),
            console=console,
            transient=True,
        )
        self._units = self._bar("units")
        self._bytes = self._bar("bytes")

    def _bar(self, name: str) -> TaskID:
        return self._progress.add_task(name, total=1, done="", doing="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, state: JobState, progress: JobProgress) -> None:
        """Move the bars."""
        left = f" · {seconds(progress.seconds_left)} left" if progress.seconds_left else ""
        self._progress.update(
            self._units,
            total=max(progress.units_total, 1),
            completed=progress.units_done,
            done=f"{progress.units_done} of {progress.units_total}",
            doing=f"{state}{left}",
        )
        self._progress.update(
            self._bytes,
            total=max(progress.bytes_total, 1),
            completed=progress.bytes_done,
            done=f"{size(progress.bytes_done)} of {size(progress.bytes_total)}",
            doing=escape(doing(progress)),
        )

    def remark(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(escape(text), soft_wrap=True)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def show(self, state: JobState, progress: JobProgress) -> None:
        """Do nothing."""

    def remark(self, text: str) -> None:
        """Do nothing."""


class Lines(Silence):
    """A line at every change of state and now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state: JobState | None = None
        self._last = 0.0

    def show(self, state: JobState, progress: JobProgress) -> None:
        """Print a line if the state is new or the last one is some seconds old."""
        now = time.monotonic()
        if state is self._state and now - self._last < LINE_SECONDS:
            return
        self._state, self._last = state, now
        parts = [str(state), f"units {progress.units_done}/{progress.units_total}"]
        parts.append(f"{size(progress.bytes_done)} of {size(progress.bytes_total)}")
        if state not in TERMINAL:
            if progress.seconds_left:
                parts.append(f"{seconds(progress.seconds_left)} left")
            parts.append(doing(progress))
        self._console.print(escape("  ".join(filter(None, parts))), soft_wrap=True)

    def remark(self, text: str) -> None:
        """Print a line."""
        self._console.print(escape(text), soft_wrap=True)


def view_for(*, quiet: bool) -> View:
    """Return bars on a terminal, lines elsewhere, silence when asked."""
    if quiet:
        return Silence()
    return Bars(err) if err.is_terminal else Lines(err)
