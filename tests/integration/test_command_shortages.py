"""What the command says where the system lets it have no more."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import RecipeFile, base_model, expert_of

RESOURCES = 6


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


def test_too_few_open_files_are_named(tmp_path: Path):
    base = base_model(num_hidden_layers=1)
    base.save(tmp_path / "base")
    expert_of(base, 0).save(tmp_path / "a")
    recipe = RecipeFile(
        base=tmp_path / "base",
        experts={"a": tmp_path / "a"},
        output=tmp_path / "out",
        method={"name": "fda", "construct": {"anchors": 2, "steps": 1}, "adapt": {"epochs": 1}},
    ).write(tmp_path / "recipe.yaml")

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))

    ended = _fda("merge", recipe, "--workers", 2, "--json", preexec_fn=few_files)
    assert ended.returncode == RESOURCES
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == "resource_error"
    assert "ulimit -n" in error["hint"]
