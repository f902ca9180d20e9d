"""The benchmark's Markdown table, from the plain data of results.json.

python -m tests.bench.vision.table bench-output/vision/results.json
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEVEL = "≈"
NONE = "–"


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table, with a line before it that says when and where, and notes after it."""
    tasks = [task["name"] for task in results["tasks"]]
    head = ["method", *tasks, "mean ± s.e.", "share", "I: CPU s", "MB", "TFLOP"]
    head += ["II: CPU s", "MB", "TFLOP"]
    rows = [_row(contender, tasks) for contender in results["contenders"]]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1), *map(_line, rows)]
    return "\n".join([_caption(results), "", *lines, "", *_notes(results)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(contender: Mapping[str, Any], tasks: Sequence[str]) -> list[str]:
    mean, share = contender["mean"], contender["share"]
    mark = f" {LEVEL}" if contender["is_level_with_best"] else ""
    return [
        contender["name"],
        *(percent(contender["tasks"][task]["value"]) for task in tasks),
        f"{percent(mean['value'])} ± {100 * mean['error']:.1f}{mark}",
        f"{percent(share['value'])} %",
        *_cost(contender["construct"]),
        *_cost(contender["merge"]),
    ]


def percent(ratio: float) -> str:
    """Return a ratio in percent with one digit."""
    return f"{100 * ratio:.1f}"


def _cost(cost: Mapping[str, float] | None) -> list[str]:
    if cost is None:
        return [NONE] * 3
    tera = cost["flops"] / 1e12
    return [
        f"{cost['cpu_seconds']:.0f}",
        f"{cost['peak_memory_bytes'] / 1e6:.0f}",
        f"{tera:.0f}" if tera >= 10 else f"{tera:.2g}",
    ]


def _caption(results: Mapping[str, Any]) -> str:
    machine, tasks = results["machine"], results["tasks"]
    images = sum(task["images"][results["part"]] for task in tasks)
    return (
        f"Accuracy in percent on the {results['part']} parts of {len(tasks)} tasks "
        f"({images} images); {results['made'][:10]}, {machine['processor']}, one core, "
        f"torch {machine['torch']}."
    )


def _notes(results: Mapping[str, Any]) -> list[str]:
    left_out = "; ".join(f"{name} {reason}" for name, reason in results["left_out"].items())
    most = max(len(contender["seeds"]) for contender in results["contenders"])
    seeds = f"{most} seeds" if most > 1 else "seeds (none of them is here)"
    return [
        f"`{LEVEL}` marks merges that are not worse than the best by more than two standard "
        "errors of the difference, paired by image. Standard errors are over test images and, "
        f"for random methods, over {seeds}. Share is of the individual experts' mean.",
        "",
        "Stage I is constructing anchors, stage II all the rest: CPU-seconds of the whole "
        "command on one thread, start-up included, and its largest resident memory; FLOPs are "
        "counted from shapes, for matrix products only.",
        "",
        f"Left out: {left_out}.",
    ]


def main() -> None:
    """Print the table of a results file."""
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
