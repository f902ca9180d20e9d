"""Lines of the command's two streams: broken at a terminal's width, whole in pipes and logs."""

import io

import pytest
from rich.table import Table

from fda_core.cli.console import Stream

LONG = "a/folder/" * 20


def printed(**settings: object) -> str:
    file = io.StringIO()
    table = Table(box=None)
    table.add_column("output", overflow="fold")
    table.add_row(LONG)
    Stream(file=file, highlight=False, **settings).print(table)  # type: ignore[arg-type]
    return file.getvalue()


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were broken after 80 columns, whatever read them."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert LONG in printed()


def test_columns_and_terminals_say_how_long_lines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LONG not in printed(width=60)
    monkeypatch.setenv("COLUMNS", "60")
    assert LONG not in printed()
    monkeypatch.delenv("COLUMNS")
    assert LONG not in printed(force_terminal=True)
