"""Time planning a merge of a 70B-shaped base and four experts, on disk and over S3.

    python -m tests.bench.planning [--rounds 3] [--latency-ms 10] [--profile]

Models are headers and holes. S3 is a small server in a process of its own that answers each
request after the latency: real services take 10 to 30 ms to the first byte. Imports are not
counted, a new client's are.
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fda_core.contract.plan import Plan
from fda_core.engine import cache_alias, layout
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from fda_core.storage.local import LocalStorage
from fda_core.storage.resolve import storages
from tests.bench.sparse_models import EXPERTS, make
from tests.support.folder_s3 import BUCKET, folder_s3

METHODS: dict[str, Any] = {
    "task_arithmetic": "task_arithmetic",
    "ties": "ties",
    "fda": {"name": "fda", "start": "tsvm"},
    "fda, scope mlp": {"name": "fda", "scope": "mlp"},
}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@dataclass(frozen=True, kw_only=True)
class Took:
    """One planning."""

    wall_seconds: float
    cpu_seconds: float
    units: int


def plan(at: str, method: Any) -> Plan:
    """Plan a merge of the models below an address."""
    document = {
        "base": f"{at}/base",
        "experts": [{"name": name, "model": f"{at}/{name}"} for name in EXPERTS],
        "method": method,
        "output": f"{at}/merged/out",
    }
    return make_plan(recipe_of(document), storages(), cwd="/")


def timed(work: Callable[[], Plan]) -> Took:
    """Run it and return what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    units = len(work().units)
    return Took(
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        units=units,
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=10.0)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        if options.profile:
            _profile(folder)
            return
        with folder_s3(Path(folder), latency_seconds=options.latency_ms / 1000) as endpoint:
            os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=endpoint)
            places = {"disk": folder, f"S3, {options.latency_ms:g} ms": f"s3://{BUCKET}"}
            print(f"{'method':<18}{'units':>6}  {'where':<12}{'wall s':>8}{'CPU s':>8}")
            plan(folder, "ties")  # imports
            for name, method in METHODS.items():
                _row(name, method, places, options.rounds)
            for at in places.values():
                _fill_cache(plan(at, METHODS["fda"]), Path(folder))
            _row("fda, all cached", METHODS["fda"], places, options.rounds)


def _row(name: str, method: Any, places: dict[str, str], rounds: int) -> None:
    took: dict[str, list[Took]] = {where: [] for where in places}
    for _ in range(rounds):
        for where, at in places.items():
            took[where].append(timed(partial(plan, at, method)))
    for where, runs in took.items():
        wall = statistics.median(run.wall_seconds for run in runs)
        cpu = statistics.median(run.cpu_seconds for run in runs)
        print(f"{name:<18}{runs[0].units:>6}  {where:<12}{wall:>8.2f}{cpu:>8.2f}", flush=True)


def _fill_cache(planned: Plan, folder: Path) -> None:
    """Write the notes and entries an earlier merge would have left, all of them empty inside."""
    method = resolve(planned.recipe.method)
    assert isinstance(method, Fda)
    here = f"{folder}/merged/.fda-workspace"
    for unit in planned.units:
        if unit.kind == "construct" and unit.layer is not None and unit.expert is not None:
            alias = cache_alias.alias(planned, method, unit.layer, unit.expert)
            LocalStorage().put(
                layout.anchor_alias(here, alias), json.dumps({"key": alias}).encode()
            )
            LocalStorage().put(f"{layout.anchors(here, alias)}/metrics.json", b"{}")


def _profile(at: str) -> None:
    plan(at, "ties")
    for method in (METHODS["ties"], METHODS["fda"]):
        with cProfile.Profile() as profile:
            plan(at, method)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(35)


if __name__ == "__main__":
    main()
