"""The ablations as Markdown: a table for each group, then what is found of each claim.

python -m tests.bench.vision.ablation_tables bench-output/vision/ablations.json
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.vision.table import NONE, line, percent

GROUP_HEAD = ("alignment", "accuracy ± s.e.", "less reference ± s.e.", "I: CPU s", "II: CPU s")
EXPERTS_HEAD = (
    *("accuracy ± s.e.", "gap to experts ± s.e.", "gap, first two tasks ± s.e."),
    *("I: CPU s", "II: CPU s"),
)
REFERENCE = " (reference)"


def markdown(found: Mapping[str, Any]) -> str:
    """Return the caption, every group's table and the verdicts."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in found["points"]:
        groups.setdefault(point["group"], []).append(point)
    parts = [caption(found)]
    for group, points in groups.items():
        verdicts = [sentence(each) for each in found["findings"] if each["group"] == group]
        said = "\n".join(f"- {verdict}" for verdict in verdicts)
        parts += [f"### {group.capitalize()}", _table(group, points), said]
    parts += [f"Left out of {group}: {reason}." for group, reason in found["skipped"].items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def caption(found: Mapping[str, Any]) -> str:
    """Return what was merged, where, and what the errors are."""
    reference = found["reference"]
    adapt = {f"adapt.{key}": value for key, value in reference["adapt"].items()}
    settings = {**reference["construct"], **adapt}
    tasks = next((p["tasks"] for p in found["points"] if p["is_reference"]), [])
    of = f" of {', '.join(tasks)}" if tasks else ""
    return (
        f"FDA from the base, mean accuracy in percent on the {found['part']} parts{of}; "
        f"{found['made'][:10]}, {found['machine']['processor']}, one core, one seed. Reference: "
        f"{', '.join(f'{key} {value}' for key, value in settings.items())}. Each row changes one "
        "thing (anchors: minibatches as large as one expert's anchors, too). Differences are "
        "paired by image; standard errors are cluster-robust over groups of alike images. "
        "Alignment is the mean cosine over tensors (objective layer: over layers)."
    )


def sentence(finding: Mapping[str, Any]) -> str:
    """Return a claim, where it is published, what was measured here and the verdict."""
    measured = f"{signed(finding['difference'])} points here"
    if finding["alignment"] is not None:
        measured += f", alignment {finding['alignment']:+.3f}"
    return f"{finding['claim']} ({finding['source']}): {measured}: **{finding['verdict']}**."


def signed(estimate: Mapping[str, float]) -> str:
    """Return a difference in points with its error."""
    return f"{100 * estimate['value']:+.1f} ± {100 * estimate['error']:.1f}"


def _table(group: str, points: Sequence[Mapping[str, Any]]) -> str:
    is_experts = group == "experts"
    first, rest = ("method, experts", EXPERTS_HEAD) if is_experts else (group, GROUP_HEAD)
    head = (first, *rest)
    rows = [_experts_row(p) if is_experts else _row(p) for p in points]
    return "\n".join([line(head), "|---|" + "---:|" * (len(head) - 1), *map(line, rows)])


def _row(point: Mapping[str, Any]) -> list[str]:
    alignment = point["alignment"]
    compared = point["difference"] is not None and not point["is_reference"]
    return [
        point["name"] + (REFERENCE if point["is_reference"] else ""),
        NONE if alignment is None else f"{alignment:.3f}",
        accuracy(point["accuracy"]),
        signed(point["difference"]) if compared else NONE,
        *_seconds(point),
    ]


def _experts_row(point: Mapping[str, Any]) -> list[str]:
    gaps = (point["gap"], point["gap_of_first"])
    return [
        point["name"],
        accuracy(point["accuracy"]),
        *(signed(each) if each else NONE for each in gaps),
        *_seconds(point),
    ]


def accuracy(estimate: Mapping[str, float]) -> str:
    """Return an accuracy in percent with its error."""
    return f"{percent(estimate['value'])} ± {100 * estimate['error']:.1f}"


def _seconds(point: Mapping[str, Any]) -> Iterator[str]:
    for stage in ("construct", "merge"):
        yield f"{point[stage]['cpu_seconds']:.0f}" if point[stage] else NONE


def main() -> None:
    """Print the tables of an ablations file."""
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
