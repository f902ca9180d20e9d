"""Commands that speak to a service, and `fda up`, which runs one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from fda_core.cli.options import (
    AsJson,
    Debug,
    JobId,
    Key,
    Label,
    Output,
    RecipePath,
    Set,
    Url,
    here,
    read_text,
)

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="FDA_DATA_DIR", help="Default: fda in your data folder."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the `fda` command."""
    for command in (up, submit, jobs, watch, cancel, retry, fetch, logs, queues):
        app.command()(command)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(admin)


def up(
    data_dir: DataDir = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    workers: Annotated[
        int | None, typer.Option(help="Default: one per GPU, else by cores and memory.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, or cpu to leave GPUs alone.")] = "auto",
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="ROOT", help="Folder or s3://bucket/prefix recipes may name."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds running units have at the end.")
    ] = 30.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line with url and key when ready.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show all logs here too.")] = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Run the whole service here: API, dashboard, controller, workers, Redis. Ctrl-C ends it."""
    from fda_core.cli.profile import data_folder
    from fda_core.cli.up import UpSettings
    from fda_core.cli.up import up as run_up

    run_up(
        UpSettings(
            data_dir=data_folder(data_dir),
            host=host,
            port=port,
            workers=workers,
            device=device,
            allow=tuple(allow or ()),
            grace_seconds=grace,
            as_json=as_json,
            verbose=verbose,
        )
    )


def submit(
    recipe: RecipePath,
    settings: Set = None,
    output: Output = None,
    label: Label = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 goes first.")] = 4,
    deadline: Annotated[
        str | None, typer.Option(help="Give up if not begun by then: 2h, or a time with a zone.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show it until it is over.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Send a recipe to the service. Relative folders are taken from where you are."""
    from fda_core.cli import profile, remote
    from fda_core.contract.recipe import checked
    from fda_core.contract.rest.jobs import JobRequest

    request = {
        "recipe": remote.sendable(
            read_text(recipe), settings=settings or [], output=output, cwd=here()
        ),
        "labels": remote.labels_of(label or []),
        "priority": priority,
        "deadline": remote.deadline_of(deadline),
    }
    with profile.client(url, key) as client:
        remote.submit(client, checked(JobRequest, request), wait=wait, as_json=as_json)


def jobs(
    state: Annotated[str | None, typer.Option(help="Such as running or failed.")] = None,
    label: Annotated[str | None, typer.Option(metavar="KEY=VALUE")] = None,
    method: Annotated[str | None, typer.Option(help="Such as fda or ties.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 20,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List jobs, newest first."""
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        found = client.jobs.list(state=state, label=label, method=method, limit=limit)
        remote.show_jobs(found, as_json=as_json)


def watch(
    job: JobId,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Show a job until it is over; the exit code is its outcome's. Ctrl-C leaves it running."""
    from fda_core.cli import profile, remote
    from fda_core.cli.watch import watch as run_watch

    with profile.client(url, key) as client:
        remote.conclude(run_watch(client, job, quiet=as_json), as_json=as_json)


def cancel(
    job: JobId,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Ask a job to stop; finished units are kept."""
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        remote.told(client.jobs.cancel(job), as_json=as_json)


def retry(
    job: JobId,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Run a job again that failed, was cancelled or expired; finished units stay."""
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        remote.told(client.jobs.retry(job), as_json=as_json)


def fetch(
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Download what a job left: whole or not at all. Interrupted, it goes on when run again."""
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        remote.fetch(client, job, folder, as_json=as_json)


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job is over.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One document; with --follow a line each.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Print what workers said about a job."""
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        remote.show_logs(client, job, follow=follow, as_json=as_json)


def queues(
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List the queues of units and who serves them."""
    from fda_core.cli import profile, remote

    columns = ("name", "depth", "oldest_wait_seconds", "workers", "running", "draining")
    with profile.client(url, key) as client:
        found = client.queues.list()
        remote.show_records(found, columns, empty="no queues", as_json=as_json)


def admin(context: typer.Context) -> None:
    """Look after the service's database: create-key, migrate, rebuild; --help says more.

    Runs `python -m api.admin` on FDA_DATABASE_URL, or on what `fda up` keeps here.
    """
    from fda_core.cli.profile import data_folder, database_url

    folder = data_folder(None)
    kept = {
        "FDA_DATABASE_URL": database_url(folder),
        "FDA_WORKSPACE": str(folder / "workspace"),
    }
    command = [sys.executable, "-m", "api.admin", *(context.args or ["--help"])]
    done = subprocess.run(command, env={**kept, **os.environ}, check=False)
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
