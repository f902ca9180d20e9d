"""One supervisor to a folder, and a note in it about who that is."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fda_core.errors import AlreadyRunning, Forbidden

NOTE = "running.json"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder. The kernel frees it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = (folder / "lock").open("a")
    except OSError as problem:
        raise Forbidden(
            f"{folder} cannot be written: {problem.strerror}",
            hint="Give another --data-dir.",
            uri=str(folder),
        ) from problem
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(folder) from None
        yield


def note(folder: Path, data: dict[str, Any]) -> None:
    """Write who runs here, whole."""
    write_private(folder / NOTE, json.dumps(data, indent=2))


def read_note(folder: Path) -> dict[str, Any]:
    """Return who runs, or ran, here; empty if nobody said."""
    try:
        found = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _taken(folder: Path) -> AlreadyRunning:
    told = read_note(folder)
    url, process = told.get("url"), told.get("process")
    where = f" at {url}" if url else ""
    return AlreadyRunning(
        f"a service runs on {folder} already{where}, process {process}",
        hint="Use that one, end it with Ctrl-C or SIGTERM, or give another --data-dir.",
        url=url,
        process=process,
    )
