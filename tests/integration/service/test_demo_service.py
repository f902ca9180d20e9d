"""The demo through a service of its own, with stand-ins for the service's processes."""

import json
import signal
import subprocess
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
STANDINS = (*ME, "tests.support.stand_in_processes")


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_stops_its_service_and_keeps_what_it_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    monkeypatch.setenv("STANDIN_NEVER_DONE", "1")
    process = subprocess.Popen(
        [*STANDINS, "demo", str(folder)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while "queued" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130, said + rest
    assert "run the same command again to go on" in rest
    assert (folder / ".service" / "admin.key").exists()
    assert all(command_line(pid) is None for pid in pids(folder))


def test_local_merges_here(folder: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ending:
        run(["demo", str(folder), "--local"])
    assert ending.value.code == 4, "the models of this test are empty folders"
    assert json.dumps(str(folder / "merged")) in (folder / "recipe.yaml").read_text()
    assert "models/base: there is nothing here" in capsys.readouterr().err
