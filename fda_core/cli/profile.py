"""Which service commands speak to: options, FDA_URL and FDA_KEY, or the one `fda up` runs here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fda_core.errors import NoService
from fda_core.supervise.lock import read_note

if TYPE_CHECKING:
    from fda_core.client import Client


@dataclass(frozen=True, kw_only=True)
class Target:
    """A service and how we come in."""

    url: str
    key: str | None


def data_folder(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where `fda up` keeps its things: as told, FDA_DATA_DIR, or the user's data folder."""
    told = given or (Path(environment["FDA_DATA_DIR"]) if environment.get("FDA_DATA_DIR") else None)
    if told is not None:
        return told.absolute()
    home = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "fda"


def database_url(folder: Path) -> str:
    """Return the address of the database that `fda up` keeps in a folder, whatever its name."""
    return f"sqlite:///{quote(str(folder / 'fda.db'))}"


def target(url: str | None, key: str | None) -> Target:
    """Return the service to speak to. Raises `NoService` if none is known."""
    if url:
        return Target(url=url, key=key)
    folder = data_folder(None)
    told = read_note(folder)
    if not told.get("url"):
        raise NoService(
            f"no service is known: FDA_URL is not set and none was started on {folder}",
            hint="`fda up` starts one here; for another set FDA_URL and FDA_KEY.",
        )
    return Target(url=str(told["url"]), key=key or _key_in(Path(str(told["key_file"]))))


def client(url: str | None, key: str | None) -> "Client":
    """Return a client of that service."""
    from fda_core.client import Client

    found = target(url, key)
    return Client(found.url, found.key)


def _key_in(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
