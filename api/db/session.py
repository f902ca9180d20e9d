"""Engines and sessions. One request, or one step of the controller, is one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session, sessionmaker

BUSY_SECONDS = 30


def open_engine(url: str, *, pool_size: int = 20) -> Engine:
    """Return the engine of a database address; SQLite in WAL mode with foreign keys."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
        return create_engine(address, pool_size=pool_size, max_overflow=20, pool_pre_ping=True)
    engine = create_engine(
        address,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=pool_size,
        max_overflow=20,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    if address.database not in (None, "", ":memory:"):
        _follow_the_file(engine, Path(str(address.database)))
    return engine


def _follow_the_file(engine: Engine, path: Path) -> None:
    """Leave connections to a file that was removed: what is written there nobody sees again."""

    def note(_connection: Any, record: Any) -> None:
        record.info["file"] = _identity(path)

    def check(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _identity(path):
            raise DisconnectionError(f"{path} is another file now")

    event.listen(engine, "connect", note)
    event.listen(engine, "checkout", check)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Set WAL and foreign keys, and take BEGIN out of the driver's hands."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    """Begin as a writer if told to: a reader that turns writer cannot wait and fails."""
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if options.get("read_only") else "BEGIN IMMEDIATE")


class Database:
    """Transactions on one database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = Lock() if engine.dialect.name == "sqlite" else None
        self._writing = sessionmaker(engine, expire_on_commit=False)
        self._reading = sessionmaker(
            engine.execution_options(read_only=True), expire_on_commit=False
        )

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session whose changes are committed at the end, all or none."""
        with self._one_writer(), self._writing.begin() as session:
            yield session

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        """Queue this process's writers: SQLite lets one write, and the others sleep and ask."""
        mine = self._turn is not None and self._turn.acquire(timeout=BUSY_SECONDS)
        try:
            yield
        finally:
            if mine and self._turn is not None:
                self._turn.release()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session for looking only; on SQLite it waits for no writer."""
        with self._reading() as session:
            yield session  # closing rolls back, and leaves what was read readable

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
