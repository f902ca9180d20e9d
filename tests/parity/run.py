"""Merge tiny models with mergekit's command and with ours, from the same YAML, and compare.

Prints a table: method, case, the largest difference relative to the largest |θ − θ_0| of
mergekit's result, and why where they differ. Ends with 1 if they differ without a reason.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parity.cases import CASES, Case
from tests.support.checkpoints import read_tensors
from tests.support.command import fda
from tests.support.models import save_model

MODELS = {
    "llama": ("llama", 0.02, torch.float32),
    "gpt2": ("gpt2", 0.02, torch.float32),
    "qwen2": ("qwen2", 0.02, torch.float32),
    "distilbert": ("distilbert", 0.02, torch.float32),
    "far": ("llama", 0.3, torch.float32),
    "small": ("llama", 1e-5, torch.float64),
}
"""Family, standard deviation of the task vectors, dtype."""
CLOSE = 1e-5
"""Relative difference that rounding and another order of sums explain."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    case: Case
    difference: float | None
    allowed: float
    said: str

    @property
    def agrees(self) -> bool:
        """Say whether the results are the same but for rounding."""
        return self.difference is not None and self.difference <= self.allowed

    @property
    def is_fine(self) -> bool:
        """Say whether the results are as they should be."""
        return self.difference is not None and (self.agrees or self.case.why is not None)


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mergekit", required=True, help="Python with mergekit installed.")
    parser.add_argument("--only", default="", help="Cases whose method contains this.")
    given = parser.parse_args()
    cases = [case for case in CASES if given.only in case.method]
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare(cases, Path(scratch), given.mergekit)
    show(rows)
    sys.exit(0 if all(row.is_fine for row in rows) else 1)


def compare(cases: list[Case], folder: Path, python: str) -> list[Row]:
    """Merge every case twice and return what came out."""
    for kind in {case.models for case in cases}:
        save_models(folder / kind, *MODELS[kind])
    jobs = []
    for number, case in enumerate(cases):
        text = case.document
        for model in ("base", "a", "b", "c"):
            text = text.replace(f"{{{model}}}", str(folder / case.models / model))
        path = folder / f"{number}.yaml"
        path.write_text(text)
        jobs.append((str(path), str(folder / f"{number}-mergekit")))
    ends = run_mergekit(jobs, python)
    return [
        row_of(case, folder / str(number), error)
        for number, (case, error) in enumerate(zip(cases, ends, strict=True))
    ]


def save_models(folder: Path, family: str, size: float, dtype: torch.dtype) -> None:
    """Save a base and three fine-tunes of it, every tensor moved."""
    base = folder / "base"
    save_model(family, base)
    tensors = {n: t.to(dtype) for n, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    for seed, name in enumerate("abc"):
        numbers = torch.Generator().manual_seed(seed)
        tuned = {
            key: tensor + size * torch.randn(tensor.shape, generator=numbers).to(dtype)
            for key, tensor in sorted(tensors.items())
        }
        shutil.copytree(base, folder / name)
        save_file(tuned, folder / name / "model.safetensors", metadata={"format": "pt"})


def run_mergekit(jobs: list[tuple[str, str]], python: str) -> list[str | None]:
    """Run mergekit's command on each document; return its error where it failed."""
    script = Path(__file__).with_name("mergekit_side.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(jobs), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"mergekit did not run:\n{done.stderr[-3000:]}")
    ends: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return ends


def row_of(case: Case, stem: Path, error: str | None) -> Row:
    """Merge with our command and compare with what mergekit wrote."""
    output = Path(f"{stem}-ours")
    ours = fda("merge", f"{stem}.yaml", "--output", output, "--workers", 1, "--device", "cpu")
    if error is not None or ours.code != 0:
        said = error or (ours.err + ours.out).strip().splitlines()[0]
        return Row(case=case, difference=None, allowed=0, said=said)
    base = read_tensors(stem.parent / case.models / "base")
    theirs = read_tensors(Path(f"{stem}-mergekit"))
    plan = json.loads(fda("plan", f"{stem}.yaml", "--output", f"{stem}-plan", "--json").out)
    names = [t["name"] for t in plan["tensors"] if t["rule"] == "merge"]
    return difference(case, read_tensors(output), theirs, base, names)


def difference(
    case: Case,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    names: list[str],
) -> Row:
    """Compare the tensors that we merge."""
    lacking = [n for n in names if n not in theirs or theirs[n].dtype != ours[n].dtype]
    if lacking:
        return Row(case=case, difference=None, allowed=0, said=f"{lacking[0]} is of another kind")
    moved = max(float((theirs[n].double() - base[n].double()).abs().max()) for n in names)
    apart = max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in names)
    largest = max(float(theirs[n].abs().max()) for n in names)
    rounding = 8 * torch.finfo(torch.float32).eps * largest / moved if moved > 1e-4 else 0
    return Row(case=case, difference=apart / moved, allowed=max(CLOSE, rounding), said="")


def show(rows: list[Row]) -> None:
    """Print the table."""
    head = ("method", "case", "difference", "", "why")
    body = [
        (
            row.case.method,
            f"{row.case.what}",
            "-" if row.difference is None else f"{row.difference:.1e}",
            "agree" if row.agrees else "differ" if row.difference is not None else "failed",
            row.said if row.difference is None else "" if row.agrees else row.case.why or "?",
        )
        for row in rows
    ]
    widths = [max(len(line[k]) for line in [head, *body]) for k in range(4)]
    for line in [head, *body]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[4]]).rstrip())
    fine = sum(row.is_fine for row in rows)
    print(f"\n{fine} of {len(rows)} are as they should be")


if __name__ == "__main__":
    main()
