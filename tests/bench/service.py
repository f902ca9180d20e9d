"""What the service costs: a unit that does nothing, a tiny job, the api's memory.

    python -m tests.bench.service [--units 1000] [--requests 10000]

Starts `fda up` with two workers whose units do nothing (`tests.bench.noop`), then once more
with real ones. Everything, the load too, runs on this machine's cores.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.checkpoints import base_model, expert_of
from tests.support.processes import memory_bytes
from tests.support.service import Service, running_service, seconds_of


def quantiles(seconds: list[float]) -> str:
    """Return median and 99th percentile in words."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"median {statistics.median(ordered) * 1e3:.1f} ms, p99 {last * 1e3:.1f} ms"


def models(root: Path, *, layers: int, experts: int) -> list[dict[str, str]]:
    """Make a tiny base with experts and return the recipe's list of them."""
    base = base_model(num_hidden_layers=layers)
    base.save(root / "base")
    found = []
    for k in range(experts):
        expert_of(base, seed=k + 1).save(root / f"e{k}")
        found.append({"name": f"e{k}", "model": str(root / f"e{k}")})
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fda-bench-") as scratch:
        root = Path(scratch)
        experts = models(root / "models", layers=2, experts=2)
        method: dict[str, Any] = {"name": "linear"}
        recipe = {"base": str(root / "models/base"), "experts": experts, "method": method}
        noop = {"FDA_RUNNER": "tests.bench.noop:NoopRunner"}
        with running_service(root / "noop", root, workers=2, environment=noop) as service:
            many_units(service, root, options.units)
        with running_service(root / "data", root, workers=1) as service:
            first = {**recipe, "output": str(root / "out/first")}
            service.wait(service.submit(first))
            tiny_jobs(service, recipe, root)
            memory(service, options.requests)


def many_units(service: Service, root: Path, units: int) -> None:
    """Time a job of units that do nothing."""
    per_layer = 10
    layers = units // per_layer
    experts = models(root / "deep", layers=layers, experts=per_layer - 1)
    recipe = {
        "base": str(root / "deep/base"),
        "experts": experts,
        "method": {"name": "fda"},
        "output": str(root / "out/deep"),
    }
    job = service.wait(service.submit(recipe), seconds=600)
    assert job["state"] == "succeeded", job["error"]
    stamps = job["timestamps"]
    began, ended = (seconds_of(stamps[name]) for name in ("running", "succeeded"))
    total = job["progress"]["units_total"]
    print(f"{total} no-op units on 2 workers: {(ended - began) / total * 1e3:.1f} ms a unit")


def tiny_jobs(service: Service, recipe: dict[str, Any], root: Path) -> None:
    """Time jobs of one merge unit on a warm service."""
    seconds = []
    for k in range(10):
        began = time.perf_counter()
        job = service.submit({**recipe, "output": str(root / f"out/tiny-{k}")})
        while True:
            found = service.ask("GET", f"/v1/jobs/{job}", params={"wait": 30})
            if found["state"] in {"succeeded", "failed"}:
                break
        assert found["state"] == "succeeded", found["error"]
        seconds.append(time.perf_counter() - began)
    print(f"a tiny job, POST to succeeded: {quantiles(seconds)}")


def memory(service: Service, requests: int) -> None:
    """Print the api's resident memory over many requests."""
    (api,) = service.children("api")[:1]
    figures = []
    for part in range(5):
        for _ in range(requests // 5 if part else requests // 20):
            service.http.get("/v1/jobs", params={"limit": 20})
        figures.append(memory_bytes(api, "VmRSS") / 2**20)
    print("api memory over requests, MiB: " + ", ".join(f"{f:.0f}" for f in figures))


if __name__ == "__main__":
    main()
