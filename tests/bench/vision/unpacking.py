"""Unpack wheels, tarballs and Debian packages: plain files only, all inside one folder."""

import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from fda_core.errors import CheckpointError, Unavailable


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's files under `folder`, by its suffix: .whl, .zip, .tgz, .tar.gz, .deb.

    Symbolic links and devices are left out: no data here is behind one, and aliases of an
    image would only be duplicates.
    """
    folder.mkdir(parents=True)
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if not name.endswith("/"):
                    _write(members.open(name), name, folder)
    elif archive.suffix == ".deb":
        _unpack_deb(archive, folder)
    else:
        with tarfile.open(archive) as members:
            _unpack_tar(members, folder)


def _unpack_deb(archive: Path, folder: Path) -> None:
    """Read the file tree of a Debian package; its maintainer scripts are not even unpacked."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as members:
            _unpack_tar(members, folder)
        if process.wait() != 0:
            raise Unavailable(f"dpkg-deb could not read {archive.name}", hint="Fetch it again.")


def _unpack_tar(members: tarfile.TarFile, folder: Path) -> None:
    for member in members:
        if member.isfile():
            source = members.extractfile(member)
            assert source is not None
            _write(source, member.name, folder)
        elif member.islnk():
            first, target = _inside(member.linkname, folder), _inside(member.name, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(first)


def _write(source: IO[bytes], name: str, folder: Path) -> None:
    target = _inside(name, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file)


def _inside(name: str, folder: Path) -> Path:
    """Return where a member goes; no link is ever written, so the text of the path decides."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise CheckpointError(
            f"the archive has a file outside its folder: {name!r}",
            hint="Nothing of it is used; tell whoever published it.",
        )
    return target
