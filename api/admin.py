"""`python -m api.admin`: what whoever runs the service needs before there is a key."""

from typing import Annotated, get_args

import typer

from api.auth.service import create_key
from api.control.rebuild import rebuild
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.logs import set_up_logging
from api.settings import Settings
from fda_core.contract.rest.keys import KeyRequest, Role
from fda_core.errors import BadParameter
from fda_core.storage.resolve import storages

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Look after the service's database (FDA_DATABASE_URL)."""


@app.command("create-key")
def make_key(
    name: Annotated[str, typer.Option(help="What it is for.")] = "bootstrap",
    role: Annotated[str, typer.Option(help="viewer, submitter or admin.")] = "admin",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "admin",
    team: Annotated[str, typer.Option(help="Whose jobs it is about.")] = "default",
) -> None:
    """Make an API key and print it; it is kept nowhere."""
    known = {kind: kind for kind in get_args(Role)}
    if role not in known:
        raise typer.BadParameter(f"{role!r} is none of {', '.join(known)}")
    database = Database(open_engine(Settings().database_url))
    try:
        migrate(database.engine)
        request = KeyRequest(name=name, role=known[role], owner=owner, team=team)
        typer.echo(create_key(database, request).key)
    except BadParameter as problem:
        raise typer.BadParameter(problem.message) from problem
    finally:
        database.close()


@app.command("migrate")
def make_tables() -> None:
    """Bring the database to the tables of this version; api and controller do so by themselves."""
    database = Database(open_engine(Settings().database_url))
    try:
        migrate(database.engine)
    finally:
        database.close()


@app.command("rebuild")
def make_again() -> None:
    """Make a row for every job of the workspace (FDA_WORKSPACE) that the database has lost.

    Can be broken off and started again. Exits with 1 if some jobs could not be read.
    """
    settings = Settings()
    set_up_logging(settings.log_level, process="admin")
    database = Database(open_engine(settings.database_url))
    try:
        migrate(database.engine)
        found = rebuild(database, storages(settings.allowed), settings.workspace)
    finally:
        database.close()
    typer.echo(
        f"{len(found.made)} jobs made again, {len(found.known)} known, "
        f"{len(found.unreadable)} unreadable"
    )
    raise typer.Exit(1 if found.unreadable else 0)


if __name__ == "__main__":
    app()
