"""What the command says where the system lets it have no more."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import RecipeFile, base_model, expert_of

STORAGE, RESOURCES, NOBODY_READS = 4, 6, 141


def _fda(*arguments: object, **more: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fda_core.cli", *map(str, arguments)]
    more = {"stdout": subprocess.PIPE, **more}
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **more)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_behind_stdout_is_no_bug_of_ours(options: tuple[str, ...]):
    with Path("/dev/full").open("w") as full:
        ended = _fda("methods", *options, stdout=full)
    assert ended.returncode == RESOURCES
    assert "out_of_disk" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("arguments", [("methods",), ("methods", "--json"), ("--version",)])
def test_a_stdout_that_nobody_reads_has_an_exit_code_of_its_own(arguments: tuple[str, ...]):
    ended = _fda(*arguments, stdout=_read_by_nobody())
    assert (ended.returncode, ended.stderr) == (NOBODY_READS, "")


def test_an_error_that_nobody_reads_keeps_its_exit_code():
    command = [sys.executable, "-m", "fda_core.cli", "inspect", "/not/there", "--json"]
    unread = _read_by_nobody()
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=unread, timeout=120)
    assert told.returncode == STORAGE
    assert json.loads(told.stdout)["error"]["code"] == "not_found"


def test_progress_that_nobody_reads_ends_a_merge_that_goes_on_when_run_again(tmp_path: Path):
    recipe = _recipe(tmp_path, "linear")
    command = [sys.executable, "-m", "fda_core.cli", "merge", recipe, "--workers", "1"]
    unread = _read_by_nobody()
    ended = subprocess.run(command, stdout=unread, stderr=unread, timeout=120)
    assert ended.returncode == NOBODY_READS
    assert _fda(*command[3:]).returncode == 0


def _recipe(folder: Path, method: Any) -> Path:
    """Write a base, an expert and a recipe that merges them."""
    base = base_model(num_hidden_layers=1)
    base.save(folder / "base")
    expert_of(base, 0).save(folder / "a")
    return RecipeFile(
        base=folder / "base",
        experts={"a": folder / "a"},
        output=folder / "out",
        method=method,
    ).write(folder / "recipe.yaml")


def _read_by_nobody() -> int:
    """Return where to write to a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_too_few_open_files_are_named(tmp_path: Path):
    construct = {"anchors": 2, "steps": 1}
    recipe = _recipe(tmp_path, {"name": "fda", "construct": construct, "adapt": {"epochs": 1}})

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))

    ended = _fda("merge", recipe, "--workers", 2, "--json", preexec_fn=few_files)
    assert ended.returncode == RESOURCES
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == "resource_error"
    assert "ulimit -n" in error["hint"]
