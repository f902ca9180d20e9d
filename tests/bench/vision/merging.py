"""Merge as a user does, with `fda merge` in a process of its own, and write down what it took.

One worker, one thread, one workspace for all merges, so that anchors are constructed once for
each (expert, settings, seed). CPU-seconds and the largest resident memory are the kernel's, of
the command and all below it, import of torch included. FDA's first stage is a merge of its own
(from the base, no epochs of adaptation), so that both stages are measured alike and apart.
Units that an earlier command had finished, and anchors that it left in the cache, count with the
CPU seconds recorded then; of records without, with their seconds.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fda_core.contract.artifacts import METRICS_FILE, Metrics, UnitCost, UnitRecord
from tests.bench.vision.appearing import write_text
from tests.bench.vision.command import Taken, run
from tests.bench.vision.content_keys import key_of
from tests.bench.vision.model_folder import digest_of
from tests.bench.vision.settled import is_other, settled

RECIPE = "recipe.yaml"
RESULT = "result.json"
OUTPUT = "merged"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is merged: folders, and the digests of their weights."""

    base: Path
    experts: Mapping[str, Path]
    digests: Mapping[str, str]

    @classmethod
    def of(cls, base: Path, experts: Mapping[str, Path]) -> "Models":
        """Read the digests of folders."""
        digests = {name: digest_of(folder) for name, folder in experts.items()}
        return cls(base=base, experts=experts, digests={"": digest_of(base), **digests})


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage took."""

    cpu_seconds: float
    wall_seconds: float
    peak_memory_bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A finished merge: where, the digest of its weights, and what it took."""

    folder: Path
    weights: str
    seed: int
    cost: Cost
    """Of everything but constructing anchors."""
    construction: Cost | None
    """Of FDA's first stage; None for other methods."""
    alignment: float | None
    """Mean cosine of induced and true updates over layers and experts; FDA's only."""


def merge(
    method: Mapping[str, Any], models: Models, *, seed: int, cache: Path, again: bool = False
) -> Merged:
    """Return a merge by a recipe's method, run unless the cache has its result.

    With `again` weights that were dropped are made once more; the result stays as it is. Raises
    `RuntimeError` if they are others than before.
    """
    is_fda = method["name"] == "fda"
    construction = _construct(method, models, seed=seed, cache=cache) if is_fda else None
    found = _merge(method, models, seed=seed, cache=cache, constructs=False)
    if again and not (found.folder / OUTPUT).exists():
        _make_again(found, cache / "workspace")
    return Merged(
        folder=found.folder / OUTPUT,
        weights=found.weights,
        seed=seed,
        cost=found.cost,
        construction=construction.cost if construction else None,
        alignment=construction.alignment if construction else None,
    )


def is_merged(method: Mapping[str, Any], models: Models, *, seed: int, cache: Path) -> bool:
    """Say whether the cache has the result already, made under today's defaults."""
    return _result(method, models, _folder(method, models, seed=seed, cache=cache)) is not None


def drop_weights(merged: Merged) -> None:
    """Remove the merged model; its result stays."""
    shutil.rmtree(merged.folder, ignore_errors=True)


def anchors_of(
    method: Mapping[str, Any], models: Models, *, seed: int, cache: Path
) -> dict[tuple[int, str], Tensor]:
    """Return FDA's anchors by (layer, expert), (n, t, d) float32 each.

    Constructs what the cache lacks. Where the expert's layer is the base's there are none.
    """
    made, workspace = _construct(method, models, seed=seed, cache=cache), cache / "workspace"
    _command(made.folder / RECIPE, made.folder / OUTPUT, workspace)
    job = _metrics(made.folder / OUTPUT).job_id
    shutil.rmtree(made.folder / OUTPUT)
    found = {}
    for record in _records(workspace, job):
        about = record.construction
        if about is not None and record.files:
            data = bytearray(Path(record.files[0].path).read_bytes())
            anchors = torch.frombuffer(data, dtype=torch.float32)
            found[about.layer, about.expert] = anchors.reshape(about.anchors, about.tokens, -1)
    return found


@dataclass(frozen=True, kw_only=True)
class _Ran:
    folder: Path
    weights: str
    cost: Cost
    alignment: float | None


def _construct(method: Mapping[str, Any], models: Models, *, seed: int, cache: Path) -> _Ran:
    """Run the first stage alone; its model is the base, so only the result stays."""
    alone = {**method, "start": "base", "adapt": {"epochs": 0}}
    found = _merge(alone, models, seed=seed, cache=cache, constructs=True)
    shutil.rmtree(found.folder / OUTPUT, ignore_errors=True)
    return found


def _merge(
    method: Mapping[str, Any], models: Models, *, seed: int, cache: Path, constructs: bool
) -> _Ran:
    folder = _folder(method, models, seed=seed, cache=cache)
    said = _result(method, models, folder)
    if said is None:
        if (folder / RESULT).exists():
            shutil.rmtree(folder)
        said = _run(method, models, folder, seed=seed, cache=cache, constructs=constructs)
    return _Ran(
        folder=folder,
        weights=said["weights"],
        cost=Cost(**said["cost"]),
        alignment=said["alignment"],
    )


def _result(method: Mapping[str, Any], models: Models, folder: Path) -> dict[str, Any] | None:
    """Return what is written down of a merge; None if nothing is, or of other defaults."""
    if not (folder / RESULT).exists():
        return None
    said: dict[str, Any] = json.loads((folder / RESULT).read_text())
    then = said.get("settled", {"experts": [each["name"] for each in said["recipe"]["experts"]]})
    return None if is_other(then, settled(method, list(models.experts))) else said


def _make_again(found: _Ran, workspace: Path) -> None:
    output = found.folder / OUTPUT
    _command(found.folder / RECIPE, output, workspace)
    weights = digest_of(output)
    if weights != found.weights:
        raise RuntimeError(
            f"{output} has weights {weights}, {found.weights} before; remove {found.folder}"
        )


def _folder(method: Mapping[str, Any], models: Models, *, seed: int, cache: Path) -> Path:
    key = key_of(method=dict(method), models=dict(models.digests), seed=seed)
    return cache / "merges" / f"{method['name']}-{key}"


def _run(
    method: Mapping[str, Any],
    models: Models,
    folder: Path,
    *,
    seed: int,
    cache: Path,
    constructs: bool,
) -> dict[str, Any]:
    """Run the command, write its result last and return it."""
    recipe = {
        "base": str(models.base),
        "experts": [{"name": n, "model": str(at)} for n, at in models.experts.items()],
        "method": dict(method),
        "seed": seed,
    }
    write_text(folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False))
    workspace = cache / "workspace"
    taken = _command(folder / RECIPE, folder / OUTPUT, workspace)
    metrics = _metrics(folder / OUTPUT)
    records = list(_records(workspace, metrics.job_id))
    earlier, flops = _earlier(records, taken.pid, workspace, constructs=constructs)
    cost = Cost(
        cpu_seconds=round(taken.cpu_seconds + sum(map(_cpu_seconds, earlier)), 2),
        wall_seconds=round(taken.wall_seconds + sum(unit.seconds for unit in earlier), 2),
        peak_memory_bytes=max([taken.peak, *(unit.peak_memory_bytes for unit in earlier)]),
        flops=flops,
    )
    said = {
        "recipe": recipe,
        "settled": settled(method, list(models.experts)),
        "weights": digest_of(folder / OUTPUT),
        "cost": asdict(cost),
        "alignment": _alignment(metrics),
    }
    write_text(folder / RESULT, json.dumps(said, indent=1) + "\n")
    return said


def _command(recipe: Path, output: Path, workspace: Path) -> Taken:
    """Run `fda merge`; raise `RuntimeError` with what it said if it fails."""
    command = [sys.executable, "-m", "fda_core.cli", "merge", str(recipe), "--quiet"]
    command += ["--output", str(output), "--workspace", str(workspace)]
    command += ["--workers", "1", "--threads", "1", "--device", "cpu"]
    log = recipe.with_name("stderr.txt")
    taken = run(command, log=log, environment=ENVIRONMENT)
    if taken.code:
        raise RuntimeError(f"{' '.join(command)} ended with {taken.code}: {log.read_text()}")
    return taken


def _metrics(output: Path) -> Metrics:
    return Metrics.model_validate_json((output / METRICS_FILE).read_text())


def _records(workspace: Path, job: str) -> Iterable[UnitRecord]:
    for file in sorted((workspace / "jobs" / job / "records").glob("*.json")):
        yield UnitRecord.model_validate_json(file.read_text())


def _earlier(
    records: Iterable[UnitRecord], pid: int, workspace: Path, *, constructs: bool
) -> tuple[list[UnitCost], int]:
    """Return what units cost that other processes ran, and the FLOPs of the stage's units.

    The first stage is its construction units, wherever they were run; the second is the rest.
    """
    earlier, flops = [], 0
    for record in records:
        if (record.kind == "construct") is not constructs:
            continue
        cost = record.cost
        if record.source == "cache":
            cost = _first_cost(record, workspace)
        if record.source == "cache" or not record.worker.endswith(f":{pid}"):
            earlier.append(cost)
        flops += cost.flops
    return earlier, flops


def _cpu_seconds(cost: UnitCost) -> float:
    return cost.seconds if cost.cpu_seconds is None else cost.cpu_seconds


def _first_cost(record: UnitRecord, workspace: Path) -> UnitCost:
    """Return what constructing cost whose anchors a unit found in the cache."""
    anchors = record.files[0].path
    name = f"{record.unit}.json"
    for file in sorted((workspace / "jobs").glob(f"*/records/{name}")):
        other = UnitRecord.model_validate_json(file.read_text())
        if other.source == "run" and [made.path for made in other.files] == [anchors]:
            return other.cost
    raise RuntimeError(f"no record says what {anchors} cost; remove it to construct it again")


def _alignment(metrics: Metrics) -> float | None:
    found = [m.alignment_best for m in metrics.construction if m.alignment_best is not None]
    return sum(found) / len(found) if found else None
