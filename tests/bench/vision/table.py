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
    lines = [line(head), "|---|" + "---:|" * (len(head) - 1), *map(line, rows)]
    parts = [_caption(results), "", *lines, "", *_notes(results), *_pairs(results)]
    return "\n".join(parts) + "\n"


def _pairs(results: Mapping[str, Any]) -> list[str]:
    """Return the paired differences there are as a table, with a line before it."""
    rows = [
        line([pair["name"], pair["less"], signed(pair["difference"])])
        for pair in results.get("pairs", [])
    ]
    if not rows:
        return []
    said = "Paired differences of mean accuracies, in points; a single seed has no error of seeds:"
    return ["", said, "", line(["merge", "less", "difference ± s.e."]), "|---|---|---:|", *rows]


def signed(estimate: Mapping[str, float]) -> str:
    """Return a difference in points with its error, both with two digits."""
    return f"{100 * estimate['value']:+.2f} ± {100 * estimate['error']:.2f}"


def line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
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
    machine, tasks, part = results["machine"], results["tasks"], results["part"]
    images = sum(task["images"][part] for task in tasks)
    groups = sum(task.get("groups", task["images"])[part] for task in tasks)
    return (
        f"Accuracy in percent on the {results['part']} parts of {len(tasks)} tasks "
        f"({images} images in {groups} groups of alike ones); "
        f"{results['made'][:10]}, {machine['processor']}, one core, "
        f"torch {machine['torch']}."
    )


def _notes(results: Mapping[str, Any]) -> list[str]:
    left_out = "; ".join(f"{name} {reason}" for name, reason in results["left_out"].items())
    most = max(len(contender["seeds"]) for contender in results["contenders"])
    seeds = f"{most} seeds" if most > 1 else "seeds (none of them is here)"
    return [
        f"`{LEVEL}` marks merges that are not worse than the best by more than two standard "
        "errors of the difference, paired by image. Standard errors are cluster-robust over "
        "groups of images that are alike (frames of one sprite, fonts of one character, "
        f"blocks of one picture) and, for random methods, over {seeds}. Share is of the "
        "individual experts' mean.",
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
