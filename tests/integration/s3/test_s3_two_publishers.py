"""Two processes that publish one job on an object store, which has no lock: one whole output."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fda_core.contract.artifacts import Publication
from fda_core.contract.plan import Plan
from fda_core.contract.uris import join, parent
from fda_core.engine.plan import is_published, make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.base import CLAIM
from fda_core.storage.s3 import S3Storage
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.fault_proxy import FaultProxy

BASE = base_model(vocab_size=17_000)
SHARDS = {"shard_size": 10**6}
STAGED, OUTPUT = ".partial/", "/merged/out/"

MOMENTS = {
    "after it said what happened": ("lose", "PUT", ".publication.json", SHARDS),
    "before its last document": ("refuse", "PUT", f"{STAGED}merge_manifest.json", {}),
    "before its claim": ("refuse", "PUT", CLAIM, SHARDS),
    "after its claim": ("lose", "PUT", CLAIM, {}),
    "before it copies weights": ("refuse", "PUT", f"{OUTPUT}model", SHARDS),
    "before it copies the manifest": ("refuse", "PUT", f"{OUTPUT}merge_manifest.json", {}),
    "before it removes the staging": ("refuse", "POST", "?delete", {}),
}


@pytest.fixture
def document(storage: S3Storage, root: str, tmp_path: Path) -> dict[str, Any]:
    """A recipe over models on S3."""
    BASE.save(tmp_path / "base")
    for seed, name in enumerate("ab", start=1):
        expert_of(BASE, seed).save(tmp_path / name)
    for path in tmp_path.rglob("*.*"):
        storage.put(join(root, str(path.relative_to(tmp_path))), path.read_bytes())
    experts = {name: f"{root}/{name}" for name in "ab"}
    output = f"{root}/merged/out"
    return RecipeFile(base=f"{root}/base", experts=experts, output=output).document()


def planned(document: dict[str, Any], storage: S3Storage) -> Plan:
    return make_plan(recipe_of(document), storage, cwd="/")


def run(plan: Plan, storage: S3Storage) -> bool:
    return run_plan(
        plan,
        storage,
        options=RunOptions(workers=1, device="cpu"),
        sink=lambda _: None,
        is_cancelled=lambda: False,
    )


def check_whole(output: str, storage: S3Storage) -> None:
    """Check every file against the manifest, and that nothing was left beside."""
    manifest = json.loads(storage.read(f"{output}/merge_manifest.json"))
    there = {info.uri[len(output) + 1 :] for info in storage.list(output)}
    assert there == {*manifest["outputs"], "merge_manifest.json"}
    for name, file in manifest["outputs"].items():
        assert hashlib.sha256(storage.read(f"{output}/{name}")).hexdigest() == file["sha256"], name
    beside = {info.uri[len(parent(output)) + 1 :] for info in storage.list(parent(output))}
    assert {name.partition("/")[0] for name in beside} == {"out", ".fda-workspace"}
    assert not [name for name in beside if "/parts/" in name]


@pytest.mark.parametrize(("kind", "method", "target", "more"), MOMENTS.values(), ids=MOMENTS.keys())
def test_another_publishes_everything_at_a_bad_moment(
    document: dict[str, Any],
    storage: S3Storage,
    proxy: FaultProxy,
    connect: Callable[..., S3Storage],
    kind: Any,
    method: str,
    target: str,
    more: dict[str, Any],
) -> None:
    plan = planned({**document, **more}, storage)
    assert plan.single_file == (not more)
    others: list[bool] = []
    fault = proxy.add(
        kind, method=method, target=target, then=lambda: others.append(run(plan, storage))
    )
    assert run(plan, connect()), "it was its own work that was done"
    assert (fault.times, len(others)) == (0, 1)
    assert is_published(plan, storage)
    check_whole(plan.output, storage)


def test_what_another_wrote_down_counts_unless_it_cannot_be_read(
    document: dict[str, Any], storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed had settled the documents; the next one keeps to that."""
    plan = planned(document, storage)
    killed = "killed on purpose"

    def never(*_: object) -> None:
        raise RuntimeError(killed)

    with monkeypatch.context() as patched:
        patched.setattr(S3Storage, "move_into_place", never)
        with pytest.raises(RuntimeError, match=killed):
            run(plan, storage)
    (address,) = [i.uri for i in storage.list(parent(plan.output)) if "publication" in i.uri]
    first = Publication.model_validate_json(storage.read(address))
    told = first.model_copy(update={"manifest": first.manifest.model_copy(update={"seed": 77})})
    storage.put(address, told.model_dump_json().encode())
    run(plan, storage)
    assert json.loads(storage.read(f"{plan.output}/merge_manifest.json"))["seed"] == 77
    check_whole(plan.output, storage)

    storage.delete_below(plan.output)
    storage.put(address, b"{}")
    run(plan, storage)
    assert json.loads(storage.read(f"{plan.output}/merge_manifest.json"))["seed"] == 0
    check_whole(plan.output, storage)


def test_two_processes_at_once_make_one_whole_output(
    document: dict[str, Any], storage: S3Storage, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**document, "method": "ties"}))
    command = [sys.executable, "-m", "fda_core.cli", "merge", str(path), "--workers", "1"]
    both = [
        subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    check_whole(str(document["output"]), storage)
