"""Alembic's entry: runs on the connection `api.db.migrate` gives it, or opens the url's."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON, Connection, text

from api.db.session import open_engine
from api.db.tables import Base
from api.db.types import UtcTime

LOCK = 0x0FDA


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Spell our own column types as the migrations' imports have them."""
    if kind == "type" and isinstance(item, UtcTime):
        return "types.UtcTime()"
    if kind == "type" and isinstance(item, JSON):
        return "types.Json"
    return False


def run(connection: Connection) -> None:
    """Run the migrations; on Postgres one process at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = open_engine(context.config.get_main_option("sqlalchemy.url") or "")
    with engine.begin() as opened:
        run(opened)
