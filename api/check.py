"""Say by the exit code whether a process of ours is well: health checks of containers.

python -m api.check URL           answers 200 there
python -m api.check --controller  somebody leads every loop
"""

import sys
import urllib.request

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.db.session import Database, open_engine
from api.db.tables import LeaderRow
from api.db.types import now
from api.settings import Settings

ANSWER_SECONDS = 4


def answers(url: str) -> bool:
    """Say whether an address answers 200 in time."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_led(database: Database) -> bool:
    """Say whether there are loops and none is without a leader."""
    with database.read() as session:
        ends = list(session.scalars(select(LeaderRow.until)))
    return bool(ends) and min(ends) > now()


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 well, 1 not, 2 called wrongly."""
    if arguments == ["--controller"]:
        database = Database(open_engine(Settings().database_url, pool_size=1))
        try:
            return 0 if is_led(database) else 1
        except SQLAlchemyError as problem:
            print(f"database: {type(problem).__name__}", file=sys.stderr)
            return 1
        finally:
            database.close()
    if len(arguments) == 1 and arguments[0].startswith(("http://", "https://")):
        return 0 if answers(arguments[0]) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
