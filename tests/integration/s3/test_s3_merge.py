"""Checkpoints and whole merges on S3: the bytes that the same merge makes on disk."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import safetensors.torch
import torch

from fda_core.checkpoints.index import open_checkpoint
from fda_core.checkpoints.reader import TensorReader
from fda_core.checkpoints.writer import ShardWriter, TensorSpec
from fda_core.contract.uris import join, parent
from fda_core.storage.base import CLAIM
from fda_core.storage.local import LocalStorage
from fda_core.storage.s3 import S3Storage
from tests.support.checkpoints import RecipeFile, base_model, expert_of, read_tensors
from tests.support.command import Outcome, fda, succeed
from tests.support.fault_proxy import Fault, FaultProxy, Head
from tests.support.seaweed import BUCKET

BASE = base_model(vocab_size=17_000)
SHARDS = {"shard_size": 10**6}
"""The least there may be; the embeddings alone are longer."""

STORAGE, RECIPE = 4, 2
FDA = {
    "name": "fda",
    "construct": {"anchors": 2, "tokens": 2, "steps": 2},
    "adapt": {"epochs": 1},
}
MODELS = ("base", "a", "b")
MAKES_LOADABLE = {"config.json", "model.safetensors.index.json", "merge_manifest.json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    BASE.save(folder / "base", shards=2)
    for seed, name in enumerate(MODELS[1:], start=1):
        expert_of(BASE, seed).save(folder / name)
    return folder


@pytest.fixture
def uploaded(models: Path, storage: S3Storage, root: str) -> str:
    """The models on S3; their address."""
    for path in sorted(models.rglob("*.*")):
        storage.put(join(root, str(path.relative_to(models))), path.read_bytes())
    return root


def recipe(path: Path, at: str | Path, output: str | Path, method: Any, **more: Any) -> Path:
    models = {name: f"{at}/{name}" for name in MODELS}
    base = models.pop("base")
    return RecipeFile(base=base, experts=models, output=output, method=method, more=more).write(
        path
    )


def merge(path: Path, *more: object) -> Outcome:
    return fda("merge", path, "--json", "--device", "cpu", *more)


def listing(storage: S3Storage, uri: str) -> set[str]:
    return {info.uri[len(uri) + 1 :] for info in storage.list(uri)}


def weights(storage: S3Storage, uri: str) -> dict[str, bytes]:
    return {
        name: storage.read(join(uri, name))
        for name in listing(storage, uri)
        if name.endswith((".safetensors", ".index.json"))
    }


def weights_on_disk(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.name.endswith((".safetensors", ".index.json"))
    }


def test_a_checkpoint_reads_as_it_does_on_disk(
    models: Path, uploaded: str, storage: S3Storage
) -> None:
    for name in MODELS:
        here, there = (
            open_checkpoint(LocalStorage(), str(models / name)),
            open_checkpoint(storage, join(uploaded, name)),
        )
        assert (there.config, there.tensors) == (here.config, here.tensors)
        assert {f: p.size_bytes for f, p in there.files.items()} == {
            f: p.size_bytes for f, p in here.files.items()
        }
        read = TensorReader(storage, there).read_many(there.tensors)
        wanted = read_tensors(models / name)
        assert set(read) == set(wanted)
        assert all(torch.equal(read[key], wanted[key]) for key in wanted)


def test_a_large_file_is_one_that_safetensors_reads(storage: S3Storage, root: str) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.randn(9_000_000)}
    specs = [TensorSpec(name, "F32", tuple(tensor.shape)) for name, tensor in tensors.items()]
    with ShardWriter(storage, f"{root}/a.safetensors", specs) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        written = writer.commit()
    info = storage.stat(f"{root}/a.safetensors")
    assert (written.size_bytes, written.etag) == (info.size_bytes, info.etag)
    buffer = bytearray(info.size_bytes)
    storage.read_into(info.uri, memoryview(buffer), start=0, etag=info.etag)
    read = safetensors.torch.load(bytes(buffer))
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("method", "more", "workers"),
    [("linear", {}, 1), ("linear", SHARDS, 2), (FDA, SHARDS, 1)],
    ids=["one file", "shards, two processes", "FDA"],
)
def test_a_merge_gives_the_bytes_it_gives_on_disk(
    models: Path,
    uploaded: str,
    storage: S3Storage,
    tmp_path: Path,
    method: Any,
    more: dict[str, Any],
    workers: int,
) -> None:
    succeed(
        *("merge", recipe(tmp_path / "here.yaml", models, tmp_path / "out", method, **more)),
        *("--workers", 1, "--device", "cpu"),
    )
    output = f"{uploaded}/merged/out"
    path = recipe(tmp_path / "there.yaml", uploaded, output, method, **more)
    assert succeed("merge", path, "--workers", workers, "--device", "cpu")["output"] == output

    assert weights(storage, output) == weights_on_disk(tmp_path / "out")
    there = listing(storage, output)
    assert {"merge_manifest.json", "config.json", "merge_report.html", "README.md"} <= there
    assert "heads/a.safetensors" in there
    assert CLAIM not in there
    assert ("model.safetensors.index.json" in there) == bool(more)
    assert {name.partition("/")[0] for name in listing(storage, parent(output))} == {
        "out",
        ".fda-workspace",
    }

    assert succeed("verify", output)["status"] == "intact"
    assert succeed("merge", path, "--workers", 1)["already_done"]
    assert succeed("inspect", output)


def test_a_plan_is_the_plan_on_disk_and_knows_what_is_cached(
    models: Path, uploaded: str, tmp_path: Path
) -> None:
    plans = []
    for at, output in ((models, tmp_path / "out"), (uploaded, f"{uploaded}/merged/out")):
        first = recipe(tmp_path / "first.yaml", at, output, FDA)
        succeed("merge", first, "--workers", 1, "--device", "cpu")
        again = recipe(tmp_path / "again.yaml", at, f"{output}-2", {**FDA, "start": "linear"})
        plans.append(succeed("plan", again))
    here, there = (plan["units"] for plan in plans)
    assert here == there
    assert sum(unit["cached"] for unit in there) == 4


def test_what_was_killed_while_publishing_goes_on(
    uploaded: str,
    storage: S3Storage,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = f"{uploaded}/merged/out"
    path = recipe(tmp_path / "recipe.yaml", uploaded, output, "linear", **SHARDS)
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.add("answer", method="PUT", target="merged/out/config.json", status=403, code="No")
        broken = merge(path, "--workers", 1)
    assert (broken.code, broken.error["code"]) == (STORAGE, "forbidden")
    there = listing(storage, output)
    assert CLAIM in there
    assert not there & MAKES_LOADABLE
    assert fda("inspect", output).code != 0

    other = recipe(tmp_path / "other.yaml", uploaded, output, "linear", seed=1, **SHARDS)
    refused = merge(other, "--workers", 1)
    assert (refused.code, refused.error["code"]) == (RECIPE, "output_exists")

    done = merge(path, "--workers", 1).data
    assert done["units_from_journal"] == done["units"] - 1
    assert listing(storage, output) >= MAKES_LOADABLE
    assert CLAIM not in listing(storage, output)
    assert succeed("verify", output)["status"] == "intact"


def test_what_was_killed_after_publishing_is_tidied(
    uploaded: str, storage: S3Storage, tmp_path: Path
) -> None:
    output = f"{uploaded}/merged/out"
    path = recipe(tmp_path / "recipe.yaml", uploaded, output, "linear")
    job = succeed("merge", path, "--workers", 1)["job_id"]
    staging = f"{uploaded}/merged/.out.{job}.partial"
    storage.put(f"{staging}/left", b"x")
    storage.put(f"{output}/{CLAIM}", staging.encode())
    assert succeed("merge", path, "--workers", 1)["already_done"]
    assert CLAIM not in listing(storage, output)
    assert not storage.exists(staging)


def test_nothing_is_loadable_before_everything_is_there(
    uploaded: str,
    storage: S3Storage,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = f"{uploaded}/merged/out"
    key = output.removeprefix("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    path = recipe(tmp_path / "recipe.yaml", uploaded, output, "linear", **SHARDS)
    assert merge(path, "--workers", 1).code == 0
    written = [r.target.partition("?")[0] for r in proxy.requests if r.method == "PUT"]
    names = [path.removeprefix(f"/{key}/") for path in written if path.startswith(f"/{key}/")]
    assert names[0] == CLAIM
    assert names[-3:] == ["config.json", "model.safetensors.index.json", "merge_manifest.json"]
    assert len(names) == 1 + len(listing(storage, output))


def test_refusals_name_what_is_missing(uploaded: str, tmp_path: Path) -> None:
    missing = recipe(tmp_path / "a.yaml", "s3://no-such-bucket-here", f"{uploaded}/o", "linear")
    outcome = merge(missing)
    assert (outcome.code, outcome.error["code"]) == (STORAGE, "not_found")
    assert "no bucket 'no-such-bucket-here'" in outcome.error["message"]

    nothing = recipe(tmp_path / "b.yaml", f"{uploaded}/nothing", f"{uploaded}/o", "linear")
    assert (merge(nothing).code, merge(nothing).error["code"]) == (STORAGE, "not_found")


def test_a_key_that_just_fits_merges_and_a_longer_one_is_refused_when_planned(
    models: Path, tmp_path: Path, root: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes keys of 1024 bytes. The server here has a limit of its own for each part of one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    beyond = Fault(kind="answer", status=400, code="KeyTooLongError")

    def as_s3_does(request: Head) -> Fault | None:
        key = unquote(request.target.partition("?")[0].removeprefix(f"/{BUCKET}/"))
        return beyond if len(key.encode()) > 1024 else None

    def output(length: int) -> str:
        folder = "/".join([root, "é" * 90, *["d" * 180] * 3, ""])
        return folder + "x" * (length - len(folder.removeprefix(f"s3://{BUCKET}/").encode()))

    proxy.weather = as_s3_does
    path = recipe(tmp_path / "r.yaml", models, output(1000), "linear")
    refused = merge(path, "--workers", 1)
    assert (refused.code, refused.error["code"]) == (RECIPE, "recipe_invalid")
    found = re.search(r"has 1000 bytes, (\d+) too many", refused.error["message"])
    assert found is not None
    most = 1000 - int(found[1])
    again = merge(recipe(path, models, output(most + 1), "linear"), "--workers", 1)
    assert (again.code, again.error["code"]) == (RECIPE, "recipe_invalid")
    succeed("merge", recipe(path, models, output(most), "linear"), "--workers", 1)


def test_a_whole_bucket_is_no_output(uploaded: str, tmp_path: Path) -> None:
    outcome = merge(recipe(tmp_path / "a.yaml", uploaded, "s3://another-bucket", "linear"))
    assert (outcome.code, outcome.error["code"]) == (RECIPE, "recipe_invalid")
    assert "s3://another-bucket" in outcome.error["message"]


def test_credentials_refused_are_said_before_anything_else(
    uploaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cr3t")
    outcome = merge(recipe(tmp_path / "a.yaml", uploaded, f"{uploaded}/o", "linear"))
    assert (outcome.code, outcome.error["code"]) == (STORAGE, "forbidden")
    assert "wr0ng" not in outcome.out + outcome.err


def test_a_replaced_expert_is_named(
    uploaded: str,
    storage: S3Storage,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Replaced after planning, before its tensors are read: the pinned tag does not fit."""
    file = f"{uploaded}/a/model.safetensors"
    other = expert_of(BASE, 9).save(tmp_path / "other") / "model.safetensors"
    output = f"{uploaded}/merged/out"
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.add(
        "refuse",
        method="PUT",
        target="plan.json",
        then=lambda: storage.put(file, other.read_bytes()),
    )
    outcome = merge(recipe(tmp_path / "r.yaml", uploaded, output, "linear"), "--workers", 1)
    assert (outcome.code, outcome.error["code"]) == (3, "changed_input")
    assert file in outcome.error["message"]
    assert not storage.exists(output)
    assert json.loads(storage.read(f"{uploaded}/base/config.json"))
