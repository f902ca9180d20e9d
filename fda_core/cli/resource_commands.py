"""Groups of commands for what a service keeps beside jobs."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from fda_core.cli.options import AsJson, Debug, Key, Url, read_text

Name = Annotated[str, typer.Argument(help="Its id.")]
Document = Annotated[str, typer.Argument(help="What to send, YAML or JSON; - reads stdin.")]


def register(app: typer.Typer) -> None:
    """Add the groups to the `fda` command."""
    groups: tuple[tuple[str, str, dict[str, Callable[..., None]]], ...] = (
        (
            "schedules",
            "Merges at set times: list, create, pause, resume, trigger, delete.",
            {
                "list": list_schedules,
                "create": create_schedule,
                "pause": pause_schedule,
                "resume": resume_schedule,
                "trigger": trigger_schedule,
                "delete": delete_schedule,
            },
        ),
        (
            "batches",
            "Jobs submitted together: list, create, show, cancel.",
            {
                "list": list_batches,
                "create": create_batch,
                "show": show_batch,
                "cancel": cancel_batch,
            },
        ),
        (
            "keys",
            "API keys, for admins: list, create, revoke.",
            {"list": list_keys, "create": create_key, "revoke": revoke_key},
        ),
    )
    for name, text, commands in groups:
        group = typer.Typer(help=text, no_args_is_help=True)
        for word, command in commands.items():
            group.command(word)(command)
        app.add_typer(group, name=name)
    workers = typer.Typer(help="Workers; drain ID lets one end after its unit.")
    workers.callback(invoke_without_command=True)(list_workers)
    workers.command("drain")(drain_worker)
    app.add_typer(workers, name="workers")


def _sent(document: str) -> dict[str, Any]:
    from fda_core.engine.recipes import parse_document
    from fda_core.errors import RecipeError

    found = parse_document(read_text(document))
    if not isinstance(found, dict):
        raise RecipeError(f"{document} is no mapping", hint="See the API's documentation, /docs.")
    return found


def _show(kind: str, columns: str, *, url: str | None, key: str | None, as_json: bool) -> None:
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        found = getattr(client, kind).list()
        remote.show_records(found, columns.split(), empty=f"no {kind}", as_json=as_json)


def _create(
    kind: str, body: dict[str, Any], *, url: str | None, key: str | None, as_json: bool
) -> None:
    import uuid

    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        made = getattr(client, kind).create(body, idempotency_key=str(uuid.uuid4()))
        said = f"{kind[:-2] if kind == 'batches' else kind[:-1]} {remote.plain(made).get('id')}"
        remote.show_record(made, said=f"{said} is made", as_json=as_json)


def _act(
    kind: str, name: str, action: str, said: str, *, url: str | None, key: str | None, as_json: bool
) -> None:
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        answer = getattr(client, kind).act(name, action)
        remote.show_record(answer, said=f"{name} {said}", as_json=as_json)


def _delete(
    kind: str, name: str, said: str, *, url: str | None, key: str | None, as_json: bool
) -> None:
    from fda_core.cli import profile, remote

    with profile.client(url, key) as client:
        getattr(client, kind).delete(name)
        remote.show_record(None, said=f"{name} {said}", as_json=as_json)


def list_schedules(
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List schedules."""
    _show("schedules", "id name cron zone paused last_fire_at", url=url, key=key, as_json=as_json)


def create_schedule(
    document: Document,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Make a schedule from a document: name, cron, zone, overlap, batch."""
    _create("schedules", _sent(document), url=url, key=key, as_json=as_json)


def pause_schedule(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Let a schedule make no more batches for now."""
    _act("schedules", name, "pause", "is paused", url=url, key=key, as_json=as_json)


def resume_schedule(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Let a paused schedule go on."""
    _act("schedules", name, "resume", "goes on", url=url, key=key, as_json=as_json)


def trigger_schedule(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Make a schedule's batch now."""
    _act("schedules", name, "trigger", "was triggered", url=url, key=key, as_json=as_json)


def delete_schedule(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Remove a schedule; its jobs stay."""
    _delete("schedules", name, "is removed", url=url, key=key, as_json=as_json)


def list_batches(
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List batches."""
    _show("batches", "id name jobs counts over created_at", url=url, key=key, as_json=as_json)


def create_batch(
    document: Document,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Submit a batch from a document: recipes, or a recipe with a sweep."""
    _create("batches", _sent(document), url=url, key=key, as_json=as_json)


def show_batch(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Show a batch's table."""
    from fda_core.cli import profile, remote
    from fda_core.client.collections import Record

    columns = ["index", "id", "state", "values", "ratio", "alignment", "drift", "seconds", "output"]
    with profile.client(url, key) as client:
        batch = client.batches.get(name)
        if as_json:
            remote.show_record(batch, said="", as_json=True)
            return
        rows = [Record.model_validate(row) for row in remote.plain(batch).get("table") or []]
        remote.show_records(rows, columns, empty="no jobs", as_json=False)


def cancel_batch(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Ask all jobs of a batch to stop."""
    _act("batches", name, "cancel", "is being cancelled", url=url, key=key, as_json=as_json)


def list_keys(
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List keys, without the keys themselves."""
    columns = "id name prefix role owner team expires_at last_used_at"
    _show("keys", columns, url=url, key=key, as_json=as_json)


def create_key(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str, typer.Option(help="viewer, submitter or admin.")] = "submitter",
    owner: Annotated[str | None, typer.Option(help="Who answers for it; default: NAME.")] = None,
    team: Annotated[str, typer.Option(help="Whose jobs it sees.")] = "default",
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, or a time with a zone.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Make a key and print it: the only time it is shown."""
    from fda_core.cli import profile, remote

    until = remote.deadline_of(expires, option="--expires")
    body = {"name": name, "role": role, "owner": owner or name, "team": team}
    with profile.client(url, key) as client:
        made = client.keys.create({**body, **({"expires_at": until.isoformat()} if until else {})})
        remote.show_record(made, said=str(remote.plain(made).get("key")), as_json=as_json)


def revoke_key(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Refuse a key from now on."""
    _delete("keys", name, "is revoked", url=url, key=key, as_json=as_json)


def list_workers(
    context: typer.Context,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List workers."""
    if context.invoked_subcommand is None:
        columns = "id state device queues job unit unit_seconds units_done heartbeat_age_seconds"
        _show("workers", columns, url=url, key=key, as_json=as_json)


def drain_worker(
    name: Name,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Let a worker take no more units and end."""
    _act("workers", name, "drain", "is draining", url=url, key=key, as_json=as_json)
