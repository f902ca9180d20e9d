"""The demo through a service of its own, with stand-ins for the service's processes."""

import json
import sys
from pathlib import Path

import pytest

from fda_core.cli import demo
from fda_core.cli.embedded import Programs
from fda_core.cli.main import run
from fda_core.errors import ProcessFailed
from fda_core.supervise.leftovers import command_line
from fda_core.supervise.supervisor import Restarts
from tests.support.fake_service import KEY

ME = (sys.executable, "-m")
STANDINS = (*ME, "tests.support.standins")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo folder whose models are there already."""
    monkeypatch.setenv("STANDIN_DIARY", str(tmp_path / "diary"))
    found = tmp_path / "demo-output"
    for name in demo.MODELS:
        (found / "models" / name).mkdir(parents=True)
    return found


def programs(api: str) -> Programs:
    return Programs(
        api=(*ME, api) if "." in api else (*STANDINS, api),
        controller=(*STANDINS, "controller"),
        worker=(*STANDINS, "worker"),
        admin=(sys.executable, "-c", f"print({KEY!r})"),
    )


def pids(folder: Path) -> list[int]:
    lines = (folder.parent / "diary").read_text().splitlines()
    return [int(line.split()[2]) for line in lines if " started " in line]


def test_the_demo_submits_fetches_and_leaves_nothing_running(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    demo.run_demo(folder, programs=programs("tests.support.fake_service"))
    printed = capsys.readouterr()
    assert "0.875" in printed.out, "the table of layers"
    assert f"report  {folder}/merged/merge_report.html" in printed.out
    assert "service http://127.0.0.1:" in printed.err
    assert (folder / "merged" / "config.json").read_bytes() == b"{}"
    assert sorted(path.name for path in folder.iterdir()) == ["merged", "models", "recipe.yaml"]
    assert pids(folder)
    assert all(command_line(pid) is None for pid in pids(folder))
    demo.run_demo(folder, programs=programs("nothing"))
    assert "remove it to merge again" in capsys.readouterr().err


def test_a_service_that_cannot_start_ends_the_demo_with_its_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STANDIN_DIES", "api")
    with pytest.raises(ProcessFailed, match="api has no luck"):
        demo.run_demo(
            folder, programs=programs("api"), restarts=Restarts(first_wait_seconds=0.05, deaths=2)
        )
    assert all(command_line(pid) is None for pid in pids(folder))


def test_local_merges_here(folder: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ending:
        run(["demo", str(folder), "--local"])
    assert ending.value.code == 4, "the models of this test are empty folders"
    assert json.dumps(str(folder / "merged")) in (folder / "recipe.yaml").read_text()
    assert "models/base: there is nothing here" in capsys.readouterr().err
