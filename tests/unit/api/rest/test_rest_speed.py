"""What must not get slower with the number of jobs: found by index, told by the query's plan."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text

from api.db.tables import Base
from api.jobs import repository
from api.jobs.filters import JobFilter
from tests.support.rest import Rest


def plan_of(rest: Rest, ask: Any) -> str:
    """Return SQLite's plan of the query that `ask` makes."""
    seen: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    event.listen(rest.database.engine, "before_cursor_execute", note)
    with rest.database.read() as session:
        ask(session)
    event.remove(rest.database.engine, "before_cursor_execute", note)
    statement, parameters = seen[-1]
    with rest.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)


def test_the_quota_is_counted_by_state_and_not_over_all_jobs_of_a_team(rest: Rest):
    plan = plan_of(rest, lambda session: repository.unfinished(session, "red"))
    assert "COVERING INDEX ix_jobs_team_state (team=? AND state=?)" in plan


@pytest.mark.parametrize(
    ("team", "index"), [("red", "ix_jobs_team_created"), (None, "ix_jobs_created")]
)
def test_a_page_is_read_in_order_and_nothing_is_sorted(rest: Rest, team: str | None, index: str):
    for wanted in (JobFilter(), JobFilter(labels=("a=b", "c"))):
        plan = plan_of(
            rest, lambda s, w=wanted: repository.page(s, w, team=team, after=None, count=21)
        )
        assert index in plan
        assert "TEMP B-TREE" not in plan


def test_the_migrations_make_the_tables_that_the_code_has(either: Rest):
    with either.database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 0
