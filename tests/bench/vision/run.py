"""One command for the whole benchmark: data, base, heads, experts, merges, judgement, table, page.

    python -m tests.bench.vision [--cache bench-output/vision] [--only NAME ...] [--part test]

Whatever is in the cache is not computed again, so an interrupted run goes on when started
again. `--only` says which contenders are merged now, by name or group (data-free, fda); the
table has all that the cache holds.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.vision import report
from tests.bench.vision.appearing import write_text
from tests.bench.vision.backbone import base_of
from tests.bench.vision.catalogue import DEFAULT_CACHE, TASKS, load_task
from tests.bench.vision.contenders import BASE, INDIVIDUAL, SEEDS, Contender, contenders, left_out
from tests.bench.vision.evaluate import Correct, Judged, evaluate, groups_of
from tests.bench.vision.experts import expert_folder, expert_of, make_experts, training_of
from tests.bench.vision.heads import head_of
from tests.bench.vision.merging import Merged, Models, drop_weights, is_merged, merge
from tests.bench.vision.pairs import pairs
from tests.bench.vision.results import Row, document
from tests.bench.vision.table import markdown
from tests.bench.vision.task import Part
from tests.bench.vision.uncertainty import Runs, mean_accuracy


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All that merges are made from and judged by."""

    cache: Path
    part: Part
    tasks: Sequence[Judged]
    models: Models
    keeps_models: bool


def prepare(
    cache: Path, *, part: Part = "test", jobs: int = 2, keeps_models: bool = False
) -> Suite:
    """Return the suite, its experts trained where the cache has none."""
    base = base_of(cache)
    loaded = [load_task(name, cache) for name in TASKS]
    missing = [task.name for task in loaded if not expert_folder(task, base, cache).exists()]
    if missing:
        print(f"training {', '.join(missing)}; about a minute each on one core", flush=True)
        make_experts(missing, cache, jobs=jobs)
    tasks = [Judged(task=task, head=head_of(task, base, cache)) for task in loaded]
    experts = {judged.name: expert_of(judged, base, cache) for judged in tasks}
    models = Models.of(base, experts)
    return Suite(cache=cache, part=part, tasks=tasks, models=models, keeps_models=keeps_models)


def row_of(suite: Suite, contender: Contender) -> Row:
    """Return a contender's row, computing what the cache lacks."""
    if contender == BASE:
        return Row(contender=contender, runs=_runs([_judge(suite, suite.models.base)]))
    if contender == INDIVIDUAL:
        return Row(contender=contender, runs=_runs([_individual(suite)]))
    merges, outcomes = [], []
    for seed in contender.seeds:
        merged, correct = _merge_and_judge(suite, contender, seed)
        merges.append(merged)
        outcomes.append(correct)
    return Row(contender=contender, runs=_runs(outcomes), merges=merges)


def is_there(suite: Suite, contender: Contender) -> bool:
    """Say whether a contender's merges are all in the cache."""
    method = contender.method
    return method is None or all(
        is_merged(method, suite.models, seed=seed, cache=suite.cache) for seed in contender.seeds
    )


def _judge(suite: Suite, folder: Path, weights: str | None = None) -> dict[str, Correct]:
    return evaluate(folder, suite.tasks, part=suite.part, cache=suite.cache, weights=weights)


def _individual(suite: Suite) -> dict[str, Correct]:
    found: dict[str, Correct] = {}
    for judged in suite.tasks:
        folder = suite.models.experts[judged.name]
        found |= evaluate(folder, [judged], part=suite.part, cache=suite.cache)
    return found


def _merge_and_judge(
    suite: Suite, contender: Contender, seed: int
) -> tuple[Merged, dict[str, Correct]]:
    method = contender.method or {}
    merged = merge(method, suite.models, seed=seed, cache=suite.cache)
    try:
        correct = _judge(suite, merged.folder, merged.weights)
    except FileNotFoundError:
        merged = merge(method, suite.models, seed=seed, cache=suite.cache, again=True)
        correct = _judge(suite, merged.folder, merged.weights)
    if not suite.keeps_models:
        drop_weights(merged)
    return merged, correct


def _runs(seeds: Sequence[Mapping[str, Correct]]) -> Runs:
    """Return the outcomes by task, (seeds, images) each."""
    return {task: np.stack([correct[task] for correct in seeds]) for task in seeds[0]}


def run(suite: Suite, only: Sequence[str], *, fda_seeds: Sequence[int] = SEEDS) -> None:
    """Merge and judge the chosen contenders; write results.json and table.md of all there are."""
    everyone = contenders(len(suite.tasks), fda_seeds=fda_seeds)
    chosen = [c for c in everyone if not only or c.name in only or c.group in only]
    for number, contender in enumerate(chosen, 1):
        began, there = time.perf_counter(), is_there(suite, contender)
        row = row_of(suite, contender)
        where = f"[{number}/{len(chosen)}]"
        _tell(suite, row, where, time.perf_counter() - began, there=there)
    present = [c for c in everyone if is_there(suite, c)]
    rows = [row_of(suite, contender) for contender in present]
    found = document(
        rows,
        suite.tasks,
        part=suite.part,
        training={name: training_of(folder) for name, folder in suite.models.experts.items()},
        left_out=left_out(len(suite.tasks)),
    )
    found["pairs"] = pairs(rows, groups_of(suite.tasks, suite.part))
    table = markdown(found)
    write_text(suite.cache / "results.json", json.dumps(found, indent=1) + "\n")
    write_text(suite.cache / "table.md", table)
    print(table)
    print(f"figures: {report.write(suite.cache)}")


def _tell(suite: Suite, row: Row, where: str, seconds: float, *, there: bool) -> None:
    mean = mean_accuracy(row.runs, groups_of(suite.tasks, suite.part))
    said = f"{where} {row.contender.name}: {100 * mean.value:.1f} ± {100 * mean.error:.1f} %"
    if row.merges:
        costs = ", ".join(f"{merged.cost.cpu_seconds:.1f}" for merged in row.merges)
        said += f", merged in {costs} CPU s{' (in the cache)' if there else ''}"
    print(f"{said}, {seconds:.1f} s here", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.vision", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", nargs="+", default=[], help="contenders or groups of them")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--jobs", type=int, default=2, help="experts trained at a time")
    parser.add_argument(
        "--keep-models", action="store_true", help="keep merged weights once they are judged"
    )
    parser.add_argument(
        "--fda-seeds", type=int, nargs="+", default=SEEDS, help="each takes half an hour of a core"
    )
    chosen = parser.parse_args(arguments)
    suite = prepare(
        chosen.cache.absolute(),
        part=chosen.part,
        jobs=chosen.jobs,
        keeps_models=chosen.keep_models,
    )
    run(suite, chosen.only, fda_seeds=tuple(chosen.fda_seeds))
