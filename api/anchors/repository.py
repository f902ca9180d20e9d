"""The anchor cache as it lies in the workspace; read without the engine, which needs torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fda_core.contract.artifacts import CACHE_METRICS_FILE
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.storage.base import Storage

ALIASES = "aliases"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry: its key and the bytes it takes."""

    key: str
    size_bytes: int


def entries(storage: Storage, workspace: str) -> Iterator[Entry]:
    """Yield the entries by key."""
    sizes: dict[str, int] = {}
    folder = join(workspace, "anchors")
    for info in storage.list(folder):
        parts = info.uri.removeprefix(f"{folder}/").split("/")
        if len(parts) == 3 and parts[0] != ALIASES:
            sizes[parts[1]] = sizes.get(parts[1], 0) + info.size_bytes
    for key in sorted(sizes):
        yield Entry(key=key, size_bytes=sizes[key])


def what(storage: Storage, workspace: str, key: str) -> tuple[int | None, str | None]:
    """Return the layer and expert an entry was first made for, as far as it can be read."""
    try:
        said: Any = json.loads(
            storage.read(join(layout.anchors(workspace, key), CACHE_METRICS_FILE))
        )
        return int(said["metrics"]["layer"]), str(said["metrics"]["expert"])
    except (NotFound, ValueError, KeyError, TypeError):
        return None, None


def exists(storage: Storage, workspace: str, key: str) -> bool:
    """Say whether there is anything under a key."""
    return storage.exists(layout.anchors(workspace, key))


def delete(storage: Storage, workspace: str, key: str) -> None:
    """Remove an entry, what makes it valid first, so that no half of it is ever used."""
    folder = layout.anchors(workspace, key)
    storage.delete(join(folder, CACHE_METRICS_FILE))
    storage.delete_below(folder)
