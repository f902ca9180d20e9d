"""Time whole merges of 374 M parameters as a user starts them: CPU-seconds and anonymous peak.

    python -m tests.bench.merges [--folder bench-output] [--methods linear,ties] [--mergekit PYTHON]

With `--mergekit` (a Python of its own environment with mergekit 0.1.5) each method is also
run there on the same files, interleaved; without it the published figures of mergekit on the
same kind of models are printed for scale.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.bench.big_models import EXPERTS, make
from tests.support.processes import memory_bytes

METHODS: dict[str, dict[str, object]] = {
    "linear": {},
    "task_arithmetic": {},
    "slerp": {"t": 0.5},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.9},
    "ties": {"density": 0.2},
}
MERGEKIT: dict[str, tuple[float, int]] = {
    "linear": (8.3, 824),
    "task_arithmetic": (9.9, 878),
    "slerp": (13.8, 808),
    "dare_ties": (33.9, 1100),
    "breadcrumbs": (70.0, 1282),
    "ties": (81.0, 1387),
}
FLOOR_CPU_SECONDS = 3.2
"""Reading four models and writing one with safetensors."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process from start to end."""

    wall_seconds: float
    cpu_seconds: float
    anonymous_bytes: int


def measure(command: list[str]) -> Run:
    """Run a command and return what it and its children took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_bytes(process.pid, "RssAnon"))
        time.sleep(0.01)
    said = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall_seconds=time.perf_counter() - began, cpu_seconds=cpu, anonymous_bytes=peak)


def _mergekit_document(models: Path, name: str) -> dict[str, object]:
    """Return the merge in mergekit's words, which our command reads too."""
    parameters = METHODS[name]
    base = str(models / "base")
    experts = [str(models / expert) for expert in EXPERTS]
    if name == "slerp":
        return {
            "merge_method": name,
            "base_model": base,
            "models": [{"model": base}, {"model": experts[0]}],
            "parameters": parameters,
            "dtype": "bfloat16",
        }
    return {
        "merge_method": name,
        "base_model": base,
        "models": [{"model": e, "parameters": {"weight": 0.3, **parameters}} for e in experts],
        "dtype": "bfloat16",
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("bench-output"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--mergekit", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    models = options.folder.absolute() / "models"
    make(models)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    print(
        f"{'method':<17}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}   mergekit: CPU s, peak MB, ratio"
    )
    for name in options.methods.split(","):
        document = _mergekit_document(models, name)
        ours, theirs = _interleaved(document, options.mergekit, options.rounds)
        cpu = statistics.median(run.cpu_seconds for run in ours)
        wall = statistics.median(run.wall_seconds for run in ours)
        peak = max(run.anonymous_bytes for run in ours) / 1e6
        if theirs:
            their_cpu = statistics.median(run.cpu_seconds for run in theirs)
            their_peak = max(run.anonymous_bytes for run in theirs) / 1e6
        else:
            their_cpu, their_peak = MERGEKIT[name]
        print(
            f"{name:<17}{cpu:>8.1f}{wall:>8.1f}{peak:>9.0f}   "
            f"{their_cpu:.1f}, {their_peak:.0f}, {cpu / their_cpu:.2f}",
            flush=True,
        )
    print(f"floor (read four models, write one, safetensors): {FLOOR_CPU_SECONDS} CPU s")


def _interleaved(
    document: dict[str, object], mergekit: Path | None, rounds: int
) -> tuple[list[Run], list[Run]]:
    ours, theirs = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=".") as scratch:
            recipe = Path(scratch) / "merge.yaml"
            recipe.write_text(yaml.safe_dump(document))
            output = Path(scratch) / "out"
            command = [sys.executable, "-m", "fda_core.cli", "merge", str(recipe)]
            ours.append(measure([*command, "--output", str(output), "--workers", "1", "--quiet"]))
            shutil.rmtree(output)
            if mergekit is not None:
                script = mergekit.with_name("mergekit-yaml")
                theirs.append(measure([str(script), str(recipe), str(output)]))
    return ours, theirs


if __name__ == "__main__":
    main()
