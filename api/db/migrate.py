"""Bring a database to the tables this version has. Alembic, from files inside the package."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, func, select

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x666461
"""Advisory lock of whoever migrates; any number of our own."""


def configuration(url: str = "") -> Config:
    """Return Alembic's configuration without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(engine: Engine) -> None:
    """Run what is missing, in one transaction. Processes that start together take turns."""
    config = configuration()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
