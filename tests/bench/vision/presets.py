"""FDA's presets on whole models: what the paper's settings and the quick ones cost and give.

    python -m tests.bench.vision.presets [--cache bench-output/vision] [--part test]

Two tasks whose test images no setting was ever chosen by. Writes presets.json and presets.md
under the cache; what is in the cache is not computed again. The published settings alone take
three quarters of an hour on one core.

    {"format": 1, "made", "machine", "part", "tasks": [...],
     "rows": [{"name", "method", "accuracy": {"value", "error"}, "by_task",
               "difference": {"value", "error"} | null,   to the first row, paired by image
               "alignment", "construct": {cost}, "merge": {cost}}]}
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.vision.ablations import among
from tests.bench.vision.appearing import write_text
from tests.bench.vision.catalogue import DEFAULT_CACHE
from tests.bench.vision.contenders import ADAPT_BASE, SIZE, Contender
from tests.bench.vision.evaluate import groups_of
from tests.bench.vision.results import FORMAT, Row, cost_of, machine
from tests.bench.vision.run import Suite, prepare, row_of
from tests.bench.vision.uncertainty import (
    GroupsOf,
    Runs,
    accuracy,
    mean_accuracy,
    mean_difference,
)

TASKS = ("fashion", "icons")
PUBLISHED: Mapping[str, Any] = {
    "construct": {**SIZE, "init": "weight", "optimiser": "adamw", "steps": 1200},
    "adapt": {"learning_rate": 1e-5, "epochs": 100, "batch": 128},
}
OURS: Mapping[str, Any] = {
    **SIZE,
    "init": "spectral",
    "optimiser": "muon",
    "metric": "update",
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "published": PUBLISHED,
    "quick": {
        "construct": {**OURS, "cosine": "layer", "steps": 40},
        "adapt": dict(ADAPT_BASE),
    },
    "quick, but per_tensor and 200 steps": {
        "construct": {**OURS, "steps": 200},
        "adapt": dict(ADAPT_BASE),
    },
}


def contenders() -> list[Contender]:
    """Return the rows, the published settings first."""
    return [
        Contender(name=name, group="fda", method={"name": "fda", "start": "base", **settings})
        for name, settings in SETTINGS.items()
    ]


def document(rows: Sequence[Row], groups: GroupsOf, *, part: str) -> dict[str, Any]:
    """Return all as plain data."""
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "part": part,
        "tasks": list(TASKS),
        "rows": [_row(row, None if row is rows[0] else rows[0].runs, groups) for row in rows],
    }


def _row(row: Row, published: Runs | None, groups: GroupsOf) -> dict[str, Any]:
    merge = row.merges[0]
    return {
        "name": row.contender.name,
        "method": dict(row.contender.method or {}),
        "accuracy": asdict(mean_accuracy(row.runs, groups)),
        "by_task": {t: asdict(accuracy(row.runs[t], groups.get(t))) for t in row.runs},
        "difference": asdict(mean_difference(row.runs, published, groups)) if published else None,
        "alignment": merge.alignment,
        "construct": cost_of([m.construction for m in row.merges if m.construction is not None]),
        "merge": cost_of([m.cost for m in row.merges]),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table."""
    lines = [
        f"FDA from the base on {' and '.join(found['tasks'])}, {found['part']} images, "
        f"{found['made'][:10]}.",
        "",
        "| settings | accuracy ± s.e. | to published | alignment | I: CPU s | II: CPU s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        difference = _percent(row["difference"], sign="+") if row["difference"] else "–"
        lines.append(
            f"| {row['name']} | {_percent(row['accuracy'])} | {difference} "
            f"| {row['alignment']:.3f} | {row['construct']['cpu_seconds']:.0f} "
            f"| {row['merge']['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _percent(estimate: Mapping[str, float], *, sign: str = "") -> str:
    return f"{100 * estimate['value']:{sign}.1f} ± {100 * estimate['error']:.1f}"


def run(suite: Suite) -> None:
    """Measure row by row, and write the files."""
    part = among(suite, TASKS)
    rows = []
    for contender in contenders():
        print(f"{contender.name} ...", flush=True)
        rows.append(row_of(part, contender))
    found = document(rows, groups_of(part.tasks, part.part), part=part.part)
    write_text(suite.cache / "presets.json", json.dumps(found, indent=1) + "\n")
    write_text(suite.cache / "presets.md", markdown(found))
    print(markdown(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    chosen = parser.parse_args(arguments)
    run(prepare(chosen.cache.absolute(), part=chosen.part))


if __name__ == "__main__":
    main()
