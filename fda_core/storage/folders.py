"""Whole folders on a local file system: list, sync, move, remove."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from fda_core.storage.aside import is_temporary, sync_folder, temporary_name

_TRIES = 3


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return a folder's entries in the order in which whole addresses sort.

    A folder sorts by its name and a slash: `a-b` comes before `a/x`, as on object stores.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=_address_order)


def _address_order(entry: os.DirEntry[str]) -> str:
    return entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name


def sync_all(folder: Path) -> None:
    """Make every file and name below a folder durable."""
    for root, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            _sync_file(Path(root, name))
        sync_folder(Path(root))


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writers left below a folder."""
    for root, _, names in os.walk(folder, onerror=_raise):
        for name in filter(is_temporary, names):
            Path(root, name).unlink(missing_ok=True)


def empty(folder: Path) -> None:
    """Remove everything in a folder, without following links; no folder is no error.

    Others may remove or add files meanwhile: what vanished is fine, what was added to a
    folder just then is removed by another try.
    """
    for attempt in range(_TRIES):
        try:
            return _empty_once(folder)
        except OSError as problem:
            if problem.errno != errno.ENOTEMPTY or attempt == _TRIES - 1:
                raise
    return None


def _empty_once(folder: Path) -> None:
    for root, folders, names in os.walk(folder, topdown=False, onerror=_raise_unless_gone):
        for name in names:
            Path(root, name).unlink(missing_ok=True)
        for name in folders:
            path = Path(root, name)
            with suppress(FileNotFoundError):
                path.unlink() if path.is_symlink() else path.rmdir()


def rename(source: Path, goal: Path) -> None:
    """Rename a folder in one step; from another disk, copy it beside the goal first.

    Fails with the system's error if anything but an empty folder is at the goal.
    """
    try:
        source.rename(goal)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        _copy_and_rename(source, goal)
    with suppress(FileNotFoundError):
        sync_folder(source.parent)


def _copy_and_rename(source: Path, goal: Path) -> None:
    aside = goal.with_name(temporary_name())
    try:
        shutil.copytree(source, aside)
        sync_all(aside)
        aside.rename(goal)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(source)


def _raise(problem: OSError) -> None:
    raise problem


def _raise_unless_gone(problem: OSError) -> None:
    if not isinstance(problem, (FileNotFoundError, NotADirectoryError)):
        raise problem
