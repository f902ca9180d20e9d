"""Whatever dies, and whenever: start again, and the bytes are those of an undisturbed run."""

import copy
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.models import save_model

KILLS = 10
RECIPE = {
    "method": {
        "name": "fda",
        "start": {"name": "tsvm"},
        "construct": {"anchors": 16, "steps": 120, "init": "spectral"},
        "adapt": {"epochs": 20, "batch": 8},
    },
    "seed": 7,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A tiny BERT and two fine-tunes of it."""
    folder = tmp_path_factory.mktemp("models")
    base = save_model("bert", folder / "base")
    for number, name in enumerate(("left", "right"), 1):
        expert = copy.deepcopy(base)
        numbers = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=numbers))
        expert.save_pretrained(folder / name)
    return folder


def _recipe(models: Path, folder: Path) -> Path:
    folder.mkdir()
    document = {
        **RECIPE,
        "base": str(models / "base"),
        "experts": [{"name": name, "model": str(models / name)} for name in ("left", "right")],
        "output": str(folder / "merged"),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _start(recipe: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fda_core.cli", "merge", str(recipe), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _digests(folder: Path) -> dict[str, str]:
    merged = folder / "merged"
    return {
        str(path.relative_to(merged)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(merged.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def undisturbed(models, tmp_path_factory) -> dict[str, str]:
    """The digests of a run in one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "job"
    done = _start(_recipe(models, folder), "--workers", "1", "--quiet")
    _, said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    return _digests(folder)


def _records(folder: Path) -> int:
    return len(list((folder / ".fda-workspace").glob("jobs/*/records/*.json")))


def _appears_whole_or_not_at_all(folder: Path) -> None:
    merged = folder / "merged"
    if merged.exists():
        assert (merged / "merge_manifest.json").exists()
        assert (merged / "model.safetensors").exists()


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_merge_ends_with_the_same_bytes(
    models, undisturbed, tmp_path
):
    folder = tmp_path / "job"
    recipe = _recipe(models, folder)
    moments = random.Random(5)
    kept = []
    for kill in range(KILLS):
        # A process takes some three seconds to load torch and the layer's code; most moments
        # are later, so that kills meet constructions, merges and publishing.
        merge = _start(recipe, "--workers", str(1 + kill % 2), "--quiet")
        try:
            merge.wait(timeout=moments.uniform(0.5, 7.0))
        except subprocess.TimeoutExpired:
            merge.send_signal(signal.SIGKILL)
        merge.communicate()
        _appears_whole_or_not_at_all(folder)
        kept.append(_records(folder))
    last = _start(recipe, "--workers", "2", "--quiet")
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert _digests(folder) == undisturbed
    assert kept == sorted(kept)
    leftovers = [path.name for path in folder.iterdir() if path.name.endswith(".partial")]
    assert leftovers == []


def _children(process: int) -> list[int]:
    listing = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def _workers(process: int) -> list[int]:
    """Return spawned worker processes, without multiprocessing's resource tracker."""
    found = []
    for child in _children(process):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in command:
            found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_process_is_replaced_and_its_unit_runs_again(models, undisturbed, tmp_path):
    folder = tmp_path / "job"
    merge = _start(_recipe(models, folder), "--workers", "2")
    deadline = time.monotonic() + 60
    while _records(folder) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = _workers(merge.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, said = merge.communicate(timeout=120)
    assert merge.returncode == 0, said
    assert "signal 9" in said
    assert _digests(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_do_not_outlive_a_killed_parent(models, tmp_path):
    folder = tmp_path / "job"
    merge = _start(_recipe(models, folder), "--workers", "2", "--quiet")
    deadline = time.monotonic() + 60
    while _records(folder) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = _workers(merge.pid)
    assert workers
    merge.kill()
    merge.communicate()
    deadline = time.monotonic() + 10
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_keeps_the_journal_says_how_to_go_on_and_exits_130(
    models, undisturbed, tmp_path, workers
):
    folder = tmp_path / "job"
    recipe = _recipe(models, folder)
    merge = _start(recipe, "--workers", workers)
    deadline = time.monotonic() + 60
    while _records(folder) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    merge.send_signal(signal.SIGINT)
    _, said = merge.communicate(timeout=30)
    assert merge.returncode == 130, said
    assert "Run the same command again" in said
    assert "Traceback" not in said
    assert not (folder / "merged").exists()
    before = _records(folder)
    assert before >= 1
    again = _start(recipe, "--workers", workers, "--json")
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f'"units_from_journal": {before}' in out
    assert _digests(folder) == undisturbed


@pytest.mark.slow
def test_two_processes_on_one_recipe_make_one_output_and_both_succeed(
    models, undisturbed, tmp_path
):
    folder = tmp_path / "job"
    recipe = _recipe(models, folder)
    both = [_start(recipe, "--workers", "1", "--json") for _ in range(2)]
    ends = [(merge.communicate(timeout=120), merge.returncode) for merge in both]
    assert [code for _, code in ends] == [0, 0], ends
    finished_by = sorted('"already_done": true' in out for (out, _), _ in ends)
    assert finished_by == [False, True]
    assert _digests(folder) == undisturbed
    verify = [sys.executable, "-m", "fda_core.cli", "verify", str(folder / "merged")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
