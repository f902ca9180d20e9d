"""The paper's ablations in small: which setting of FDA buys what, on three tasks.

    python -m tests.bench.vision.ablations [--cache bench-output/vision] [--only GROUP ...]
                                           [--part test] [--list]

Writes ablations.json and ablations.md under the cache after every point. What is in the cache
is not computed again; `--only` says what is merged now, and the files have all there is.

    {"format": 1, "made", "machine", "part", "reference": {"construct", "adapt"},
     "tasks": [{"name", "classes", "images", "groups"}],
     "points": [{"group", "name", "x" | null, "is_reference", "tasks": [...], "method",
                 "accuracy": {"value", "error"},          mean over its tasks
                 "by_task": {TASK: {"value", "error"}},
                 "difference": {"value", "error"} | null, to the reference, paired by image
                 "alignment" | null, "construct": {cost} | null, "merge": {cost},
                 "gap": {"value", "error"} | null,        experts only: individual less merged
                 "gap_of_first": {"value", "error"} | null}],  the same, on the first two tasks
     "findings": [{"group", "claim", "source", "difference": {"value", "error"},
                   "alignment" | null, "verdict": agrees | disagrees | within noise}],
     "skipped": {GROUP: reason}}

Costs are those of results.json. Errors are cluster-robust, as there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.vision import ablation_points, report
from tests.bench.vision.ablation_claims import findings, gap, gap_findings
from tests.bench.vision.ablation_points import GROUPS, Point, points
from tests.bench.vision.ablation_tables import markdown
from tests.bench.vision.appearing import write_text
from tests.bench.vision.catalogue import DEFAULT_CACHE
from tests.bench.vision.contenders import INDIVIDUAL, Contender
from tests.bench.vision.evaluate import Judged, groups_of
from tests.bench.vision.merging import Models
from tests.bench.vision.results import FORMAT, Row, cost_of, machine, task_facts
from tests.bench.vision.run import Suite, is_there, prepare, row_of
from tests.bench.vision.uncertainty import GroupsOf, Runs, accuracy, mean_accuracy, mean_difference

FIRST = 2
"""Tasks whose gap is followed over all numbers of experts."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A point and what came of it."""

    point: Point
    row: Row

    @property
    def alignment(self) -> float | None:
        """Return the mean alignment of its anchors; None for methods without."""
        return self.row.merges[0].alignment


def among(suite: Suite, names: Sequence[str]) -> Suite:
    """Return the suite of some of its tasks."""
    experts = {name: suite.models.experts[name] for name in names}
    digests = {name: suite.models.digests[name] for name in ("", *names)}
    tasks = {judged.name: judged for judged in suite.tasks}
    return replace(
        suite,
        tasks=[tasks[name] for name in names],
        models=Models(base=suite.models.base, experts=experts, digests=digests),
    )


def contender(point: Point) -> Contender:
    """Return a point as the benchmark's driver takes it."""
    group = "fda" if point.method["name"] == "fda" else "data-free"
    return Contender(name=f"{point.group}: {point.name}", group=group, method=point.method)


def measure(suite: Suite, point: Point) -> Measured:
    """Return what a point gives, merging and judging what the cache lacks."""
    return Measured(point=point, row=row_of(among(suite, point.tasks), contender(point)))


def run(suite: Suite, only: Sequence[str]) -> None:
    """Measure the chosen groups point by point; write the files after each."""
    chosen = [point for group in GROUPS if group in only for point in points(group)]
    individual = row_of(suite, INDIVIDUAL).runs
    for number, point in enumerate(chosen, 1):
        part = among(suite, point.tasks)
        began, there = time.perf_counter(), is_there(part, contender(point))
        found = measure(suite, point)
        mean = mean_accuracy(found.row.runs, groups_of(part.tasks, part.part))
        print(
            f"[{number}/{len(chosen)}] {point.group}: {point.name}: "
            f"{100 * mean.value:.1f} ± {100 * mean.error:.1f} %, alignment {found.alignment}"
            f"{', in the cache' if there else ''}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        if not there or number == len(chosen):
            write(suite, individual)
    print((suite.cache / "ablations.md").read_text())
    print(f"figures: {report.write(suite.cache)}")


def write(suite: Suite, individual: Runs) -> None:
    """Write what the cache holds of all points."""
    everything = [point for group in GROUPS for point in points(group)]
    there = [p for p in everything if is_there(among(suite, p.tasks), contender(p))]
    found = document([measure(suite, point) for point in there], suite, individual)
    write_text(suite.cache / "ablations.json", json.dumps(found, indent=1) + "\n")
    write_text(suite.cache / "ablations.md", markdown(found))


def document(measured: Sequence[Measured], suite: Suite, individual: Runs) -> dict[str, Any]:
    """Return all as plain data; `individual` has every task's own expert."""
    groups = groups_of(suite.tasks, suite.part)
    reference = next((m for m in measured if m.point.is_reference), None)
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "part": suite.part,
        "reference": {k: v for k, v in ablation_points.reference().items() if k != "name"},
        "tasks": [_task(judged) for judged in suite.tasks],
        "points": [_point(m, reference, individual, groups) for m in measured],
        "findings": _findings(measured, individual, groups),
        "skipped": ablation_points.skipped(),
    }


def _task(judged: Judged) -> dict[str, Any]:
    facts = task_facts(judged)
    return {key: facts[key] for key in ("name", "classes", "images", "groups")}


def _point(
    measured: Measured, reference: Measured | None, individual: Runs, groups: GroupsOf
) -> dict[str, Any]:
    point, runs, merges = measured.point, measured.row.runs, measured.row.merges
    counts_experts = point.group == "experts"
    compared = None if counts_experts or reference is None else reference.row.runs
    return {
        "group": point.group,
        "name": point.name,
        "x": point.x,
        "is_reference": point.is_reference,
        "tasks": list(point.tasks),
        "method": dict(point.method),
        "accuracy": asdict(mean_accuracy(runs, groups)),
        "by_task": {task: asdict(accuracy(runs[task], groups.get(task))) for task in runs},
        "difference": asdict(mean_difference(runs, compared, groups)) if compared else None,
        "alignment": measured.alignment,
        "construct": cost_of([m.construction for m in merges if m.construction is not None]),
        "merge": cost_of([m.cost for m in merges]),
        "gap": asdict(gap(runs, individual, groups, point.tasks)) if counts_experts else None,
        "gap_of_first": asdict(gap(runs, individual, groups, point.tasks[:FIRST]))
        if counts_experts
        else None,
    }


def _findings(
    measured: Sequence[Measured], individual: Runs, groups: GroupsOf
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Row]] = {}
    aligned: dict[str, dict[str, float]] = {}
    methods: dict[str, dict[int, Runs]] = {}
    for each in measured:
        rows.setdefault(each.point.group, {})[each.point.name] = each.row
        if each.alignment is not None:
            aligned.setdefault(each.point.group, {})[each.point.name] = each.alignment
        if each.point.group == "experts":
            by_count: dict[int, Runs] = methods.setdefault(each.point.method["name"], {})
            by_count[len(each.point.tasks)] = each.row.runs
    return [*findings(rows, aligned, groups), *gap_findings(methods, individual, groups)]


def list_points(suite: Suite, only: Sequence[str]) -> None:
    """Print every point and whether its merges are in the cache."""
    for group in only:
        for point in points(group):
            there = is_there(among(suite, point.tasks), contender(point))
            print(f"{group}: {point.name}{'  (in the cache)' if there else ''}")
    for group, reason in ablation_points.skipped().items():
        print(f"{group} is left out: {reason}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ablations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--list", action="store_true", help="only say what would be merged")
    chosen = parser.parse_args(arguments)
    suite = prepare(chosen.cache.absolute(), part=chosen.part)
    (list_points if chosen.list else run)(suite, chosen.only)


if __name__ == "__main__":
    main()
