"""`python -m api.admin`: what whoever runs the service needs before there is a key."""

from typing import Annotated, get_args

import typer

from api.auth.service import create_key
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.settings import Settings
from fda_core.contract.rest.keys import KeyRequest, Role
from fda_core.errors import BadParameter

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


if __name__ == "__main__":
    app()
