"""Downloads: whole or not at all, resumed, checked, and only into the folder."""

import random
from pathlib import Path

import pytest

from fda_core.client import Client
from fda_core.contract.rest.jobs import JobRequest
from fda_core.errors import (
    AlreadyRunning,
    Forbidden,
    NotFound,
    OutputCorrupt,
    OutputExists,
)
from tests.support.command import tree
from tests.support.fake_service import KEY, FakeService, World
from tests.support.fault_proxy import FaultProxy
from tests.unit.client.conftest import QUICK

BIG = random.Random(7).randbytes(3_000_000)
FILES = {"model.safetensors": BIG, "config.json": b"{}", "heads/a.safetensors": b"head", "e": b""}


@pytest.fixture
def job(world: World) -> str:
    name = world.add(JobRequest(recipe={})).id
    world.finish(name, dict(FILES))
    return name


def files_of(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(folder).items() if data is not None}


def test_all_files_are_there(client: Client, job: str, tmp_path: Path):
    told: list[tuple[int, int]] = []
    found = client.jobs.fetch(job, tmp_path / "new" / "out", progress=lambda *p: told.append(p))
    assert files_of(tmp_path / "new" / "out") == FILES
    assert (found.files, found.size_bytes, found.resumed_bytes) == (4, 3_000_006, 0)
    assert told[-1] == (3_000_006, 3_000_006)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"], "nothing else is left"


def test_broken_downloads_go_on_where_they_were(service: FakeService, job: str, tmp_path: Path):
    with FaultProxy("127.0.0.1", service.port) as proxy:
        proxy.add("cut", target="model.safetensors", after=500_000)
        proxy.add("reset", target="model.safetensors", after=0)
        proxy.add("cut", target="model.safetensors", after=1_000_000)
        proxy.add("answer", target="model.safetensors", status=503)
        with Client(proxy.url, KEY, retries=QUICK) as client:
            client.jobs.fetch(job, tmp_path / "out")
        ranges = [r.get("range") for r in proxy.requests if "model.safetensors" in r.target]
    assert files_of(tmp_path / "out") == FILES
    assert ranges[0] is None
    assert ranges[1:] == ["bytes=500000-"] * 2 + ["bytes=1500000-"] * 2


def test_a_second_run_takes_over_what_the_first_left(client: Client, job: str, tmp_path: Path):
    class StopError(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done > 1_000_000:
            raise StopError

    with pytest.raises(StopError):
        client.jobs.fetch(job, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists(), "not at all"
    found = client.jobs.fetch(job, tmp_path / "out")
    assert found.resumed_bytes > 1_000_000
    assert files_of(tmp_path / "out") == FILES


def test_what_was_left_of_other_files_is_not_used(
    client: Client, world: World, job: str, tmp_path: Path
):
    world.lies["config.json"] = {"sha256": "0" * 64}
    with pytest.raises(OutputCorrupt, match=r"config.json came with SHA-256"):
        client.jobs.fetch(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    world.lies.clear()
    world.files[job] = {"model.safetensors": BIG[::-1]}
    assert client.jobs.fetch(job, tmp_path / "out").resumed_bytes == 0
    assert files_of(tmp_path / "out") == {"model.safetensors": BIG[::-1]}


def test_a_damaged_piece_is_fetched_anew_the_next_time(client: Client, job: str, tmp_path: Path):
    part = tmp_path / ".out.fda-part" / "files"

    class StopError(Exception):
        pass

    def spoil(done: int, _total: int) -> None:
        if done > 1_000_000:
            raise StopError

    with pytest.raises(StopError):
        client.jobs.fetch(job, tmp_path / "out", progress=spoil)
    with (part / "model.safetensors").open("r+b") as file:
        file.write(b"spoilt")
    with pytest.raises(OutputCorrupt):
        client.jobs.fetch(job, tmp_path / "out")
    client.jobs.fetch(job, tmp_path / "out")
    assert files_of(tmp_path / "out") == FILES


@pytest.mark.parametrize("size", [2_999_999, 3_000_001])
def test_a_file_of_another_length_is_refused(
    client: Client, world: World, job: str, tmp_path: Path, size: int
):
    world.lies["model.safetensors"] = {"size_bytes": size}
    with pytest.raises(OutputCorrupt):
        client.jobs.fetch(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "a/../../x", "a//b", "./x", "", "a\\..\\x", "c:x", "a\0b", "config.json/x"],
)
def test_paths_that_leave_the_folder_are_refused(
    client: Client, world: World, job: str, tmp_path: Path, path: str
):
    world.lies["e"] = {"path": path}
    with pytest.raises(Forbidden):
        client.jobs.fetch(job, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_has_expired_is_asked_for_again(
    client: Client, world: World, job: str, tmp_path: Path
):
    def expire(_done: int, _total: int) -> None:
        world.link_version = 2

    client.jobs.fetch(job, tmp_path / "out", progress=expire)
    assert files_of(tmp_path / "out") == FILES


def test_nothing_is_overwritten(client: Client, job: str, tmp_path: Path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(OutputExists):
        client.jobs.fetch(job, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        client.jobs.fetch(job, tmp_path / "link")
    (tmp_path / "empty").mkdir()
    client.jobs.fetch(job, tmp_path / "empty")
    assert files_of(tmp_path / "empty") == FILES


def test_two_downloads_to_one_folder_do_not_mix(client: Client, job: str, tmp_path: Path):
    problems: list[Exception] = []

    def again(_done: int, _total: int) -> None:
        if not problems:
            with pytest.raises(AlreadyRunning) as caught:
                client.jobs.fetch(job, tmp_path / "out")
            problems.append(caught.value)

    client.jobs.fetch(job, tmp_path / "out", progress=again)
    assert len(problems) == 1
    assert files_of(tmp_path / "out") == FILES


def test_a_job_without_files_is_named(client: Client, world: World, tmp_path: Path):
    name = world.add(JobRequest(recipe={})).id
    with pytest.raises(NotFound, match=f"job {name} left no files"):
        client.jobs.fetch(name, tmp_path / "out")
