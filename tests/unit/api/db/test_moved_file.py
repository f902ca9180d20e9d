"""An SQLite file is removed while it is in use, and made again."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api.db.migrate import migrate
from api.db.session import Database
from api.db.tables import NoteRow


def _remove(folder: Path) -> None:
    for file in folder.glob("fda.db*"):
        file.unlink()


def _notes(database: Database) -> list[str]:
    with database.read() as session:
        return [name for (name,) in session.execute(text("SELECT name FROM notes"))]


def test_nothing_is_written_to_a_file_that_nobody_can_open_any_more(
    database: Database, tmp_path: Path
):
    with database.write() as session:
        session.add(NoteRow(name="before", value={}))
    _remove(tmp_path)
    with pytest.raises(OperationalError, match="no such table"), database.write() as session:
        session.add(NoteRow(name="lost", value={}))
    migrate(database.engine)
    with database.write() as session:
        session.add(NoteRow(name="after", value={}))
    assert _notes(database) == ["after"]
    assert (tmp_path / "fda.db").stat().st_size > 0


def test_every_connection_follows_to_the_new_file(database: Database, tmp_path: Path):
    with database.read() as one, database.read() as two:
        for session in (one, two):
            session.execute(text("SELECT 1"))
    _remove(tmp_path)
    migrate(database.engine)
    with database.read() as one, database.read() as two:
        for session in (one, two):
            assert session.execute(text("SELECT count(*) FROM notes")).scalar_one() == 0
