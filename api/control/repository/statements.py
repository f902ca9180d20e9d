"""Statements that write, and what they met."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from api.db.tables import Base


def changed(session: Session, statement: Any) -> int:
    """Run a statement that writes and return how many rows it met."""
    options = {"synchronize_session": False, "preserve_rowcount": True}
    result = session.execute(statement.execution_options(**options))
    assert isinstance(result, CursorResult)
    return result.rowcount


def insert_new(session: Session, table: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; say whether it was inserted."""
    dialect = session.get_bind().dialect.name
    kind = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return changed(session, kind(table).values(**values).on_conflict_do_nothing()) == 1
