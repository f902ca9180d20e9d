"""results.json: everything the table, the figures and the page are made from, as plain data.

    {"format": 1, "made", "machine": {...}, "part": "test",
     "tasks": [{"name", "classes", "images": {"train", "validation", "test"},
                "groups": {of images that are alike; as "images"}, "scale",
                "training": {"protocol", "loss_by_epoch", "cpu_seconds", "wall_seconds"}}],
     "contenders": [{"name", "group", "method", "seeds",
                     "tasks": {TASK: {"value", "error"}}, "mean": {"value", "error"},
                     "seed_means": [...], "seed_error",
                     "share": {"value", "error"},         of the individual experts' mean
                     "gap": {"value", "error"},           to the best merge, paired; at most 0
                     "is_level_with_best",                within two standard errors
                     "merge": {cost} | null, "construct": {cost} | null, "alignment" | null,
                     "weights": [one digest per seed]}],
     "left_out": {METHOD: reason},
     "pairs": [{"name", "less", "difference": {"value", "error"}}]}     (pairs.py)

A cost is {"cpu_seconds", "wall_seconds", "peak_memory_bytes", "flops"}: means over seeds, the
peak the largest. Accuracies and shares are ratios from 0 to 1, their errors cluster-robust over
the groups of images.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import numpy as np
import torch

from fda_core.engine.device import describe_device
from tests.bench.vision.contenders import BASE, INDIVIDUAL, Contender
from tests.bench.vision.evaluate import Judged, groups_of
from tests.bench.vision.merging import Cost, Merged
from tests.bench.vision.task import Examples, Part
from tests.bench.vision.uncertainty import (
    NO_GROUPS,
    Estimate,
    GroupsOf,
    Runs,
    accuracy,
    contrast,
    mean_accuracy,
    mean_difference,
    seed_error,
    seed_means,
)

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender, what it got right, and its merges (none for base and experts)."""

    contender: Contender
    runs: Runs
    merges: Sequence[Merged] = ()


def document(
    rows: Sequence[Row],
    tasks: Sequence[Judged],
    *,
    part: Part,
    training: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Return the whole as plain data. The base's and the experts' rows must be among them."""
    individual = next(row for row in rows if row.contender == INDIVIDUAL)
    best = best_merge(rows)
    groups = groups_of(tasks, part)
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "part": part,
        "tasks": [
            {**task_facts(judged), "training": dict(training[judged.name])} for judged in tasks
        ],
        "contenders": [
            _contender(row, individual=individual, best=best, groups=groups) for row in rows
        ],
        "left_out": dict(left_out),
    }


def best_merge(rows: Sequence[Row]) -> Row | None:
    """Return the merge with the highest mean accuracy, or None if there is none."""
    merges = [row for row in rows if row.contender not in (BASE, INDIVIDUAL)]
    return max(merges, key=lambda row: mean_accuracy(row.runs).value, default=None)


def share_of(runs: Runs, whole: Runs, groups: GroupsOf = NO_GROUPS) -> Estimate:
    """Return the mean accuracy as a share of another's.

    Its error is that of a ratio r = a / b, to first order: of the paired a − r b, over b.
    """
    reference = mean_accuracy(whole).value
    share = mean_accuracy(runs).value / reference
    error = contrast([(1.0, runs), (-share, whole)], groups).error / reference
    return Estimate(value=share, error=error)


def _contender(row: Row, *, individual: Row, best: Row | None, groups: GroupsOf) -> dict[str, Any]:
    gap = mean_difference(row.runs, best.runs, groups) if best else None
    return {
        "name": row.contender.name,
        "group": row.contender.group,
        "method": dict(row.contender.method) if row.contender.method else None,
        "seeds": list(row.contender.seeds),
        "tasks": {
            task: asdict(accuracy(outcomes, groups.get(task)))
            for task, outcomes in row.runs.items()
        },
        "mean": asdict(mean_accuracy(row.runs, groups)),
        "seed_means": seed_means(row.runs),
        "seed_error": seed_error(row.runs),
        "share": asdict(share_of(row.runs, individual.runs, groups)),
        "gap": asdict(gap) if gap else None,
        "is_level_with_best": gap is not None and bool(row.merges) and _is_level(gap),
        "merge": cost_of([merged.cost for merged in row.merges]),
        "construct": cost_of([m.construction for m in row.merges if m.construction is not None]),
        "alignment": _mean([m.alignment for m in row.merges if m.alignment is not None]),
        "weights": [merged.weights for merged in row.merges],
    }


def _is_level(gap: Estimate) -> bool:
    return not Estimate(value=-gap.value, error=gap.error).is_above_zero()


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def cost_of(costs: Sequence[Cost]) -> dict[str, float] | None:
    """Return the mean cost and the largest peak as plain data; None without any."""
    if not costs:
        return None
    return {
        "cpu_seconds": round(fmean(cost.cpu_seconds for cost in costs), 2),
        "wall_seconds": round(fmean(cost.wall_seconds for cost in costs), 2),
        "peak_memory_bytes": max(cost.peak_memory_bytes for cost in costs),
        "flops": round(fmean(cost.flops for cost in costs)),
    }


def task_facts(judged: Judged) -> dict[str, Any]:
    """Return what a task is: classes, images and groups by part, the scale of its head."""
    return {
        "name": judged.name,
        "classes": len(judged.task.classes),
        "images": {part: len(examples) for part, examples in judged.task.parts.items()},
        "groups": {part: _groups(examples) for part, examples in judged.task.parts.items()},
        "scale": judged.head.scale,
    }


def _groups(examples: Examples) -> int:
    return len(examples if examples.groups is None else np.unique(examples.groups))


def machine() -> dict[str, Any]:
    """Return what figures of time depend on."""
    return {
        "processor": describe_device(torch.device("cpu")).removeprefix("cpu "),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
