"""`python -m api.admin`: what whoever runs the service needs before there is a key."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import structlog
import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api.auth.service import create_key
from api.control.rebuild import rebuild
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.logs import set_up_logging
from api.settings import Settings
from fda_core.contract.recipe import checked
from fda_core.contract.rest.keys import KeyRequest
from fda_core.errors import FdaError, RecipeError
from fda_core.storage.resolve import storages

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Look after the service's database (FDA_DATABASE_URL)."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Yield the database with this version's tables. What it refuses is told in one line."""
    try:
        with closing(Database(open_engine(settings.database_url))) as database:
            migrate(database.engine)
            yield database
    except SQLAlchemyError as problem:
        said = str(problem.orig if isinstance(problem, DBAPIError) else problem)
        typer.echo(f"FDA_DATABASE_URL cannot be used: {' '.join(said.split())}", err=True)
        raise typer.Exit(1) from problem


@app.command("create-key")
def make_key(
    name: Annotated[str, typer.Option(help="What it is for.")] = "bootstrap",
    role: Annotated[str, typer.Option(help="viewer, submitter or admin.")] = "admin",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "admin",
    team: Annotated[str, typer.Option(help="Whose jobs it is about.")] = "default",
) -> None:
    """Make an API key and print it; it is kept nowhere."""
    asked = {"name": name, "role": role, "owner": owner, "team": team}
    try:
        request = checked(KeyRequest, asked)
    except RecipeError as problem:
        raise typer.BadParameter(problem.message) from problem
    with opened(Settings()) as database:
        typer.echo(create_key(database, request).key)


@app.command("migrate")
def bring_up_to_date() -> None:
    """Make the tables, or bring them up to this version."""
    with opened(Settings()):
        typer.echo("the database is up to date")


@app.command("rebuild")
def make_again() -> None:
    """Make lost jobs again from the workspace (FDA_WORKSPACE); the service may run meanwhile.

    An SQLite database is removed with its -wal and -shm files. Keys are lost: make new ones.
    """
    settings = Settings()
    set_up_logging(settings.log_level, process="admin")
    with opened(settings) as database:
        try:
            # Whoever may write the database may read what jobs left beside their outputs.
            found = rebuild(database, storages(), settings.workspace)
        except FdaError as problem:
            typer.echo(f"{problem.code}: {problem.message}", err=True)
            raise typer.Exit(1) from problem
    typer.echo(f"{len(found.made)} jobs made again, {len(found.known)} known before")
    for job in found.unreadable:
        typer.echo(f"job {job} cannot be read: see its job.json", err=True)
    if found.unreadable:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
