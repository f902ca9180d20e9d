"""The anchors' spectra and subspaces as Markdown, and whether they go where is published.

python -m tests.bench.vision.subspace_tables bench-output/vision/subspaces.json
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench.vision.ablation_claims import verdict
from tests.bench.vision.table import line
from tests.bench.vision.uncertainty import Estimate, standard_error

CLAIMS: tuple[tuple[str, str, float], ...] = (
    ("the effective rank falls (a longer tail)", "effective_rank", -1.0),
    ("the strongest fifth of the directions gains energy", "head_energy", 1.0),
    ("the strongest directions come nearer to those of real features", "similarity", 1.0),
)
HEAD = ("start", "steps", "alignment", "effective rank", "energy of the top 20 %", "similarity")


def findings(anchors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each start and claim the mean change over (task, layer) and its verdict.

    Errors are over the cells; with a single one there is none, and the sign decides.
    """
    found = []
    for init, optimiser in ways(anchors):
        cells = of_way(anchors, init, optimiser)
        for claim, key, sign in CLAIMS:
            changes = [sign * (c["stages"][-1][key] - c["stages"][0][key]) for c in cells]
            estimate = Estimate(value=fmean(changes), error=standard_error(changes))
            found.append(
                {
                    "claim": claim,
                    "of": key,
                    "init": init,
                    "optimiser": optimiser,
                    "difference": asdict(estimate),
                    "cells": len(cells),
                    "verdict": verdict(estimate),
                }
            )
    return found


def ways(anchors: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the starts and optimisers there are, in order."""
    return list(dict.fromkeys((each["init"], each["optimiser"]) for each in anchors))


def of_way(
    anchors: Sequence[Mapping[str, Any]], init: str, optimiser: str
) -> list[Mapping[str, Any]]:
    """Return the cells of one start and optimiser."""
    return [each for each in anchors if (each["init"], each["optimiser"]) == (init, optimiser)]


def markdown(found: Mapping[str, Any]) -> str:
    """Return means over (task, layer) by start and steps, the features' own, and verdicts."""
    anchors, features = found["anchors"], found["features"]
    rows = [
        [f"{init}, {optimiser}", *_row([cell["stages"][number] for cell in cells])]
        for init, optimiser in ways(anchors)
        for cells in [of_way(anchors, init, optimiser)]
        for number in range(len(cells[0]["stages"]))
    ]
    tasks = list(dict.fromkeys(each["task"] for each in features))
    size, chance = anchors[0]["size"], fmean(each["chance"] for each in anchors)
    caption = (
        f"Means over {', '.join(tasks)} and layers {', '.join(map(str, found['layers']))}; "
        f"{found['made'][:10]}. Similarity is tr(P P̂)/k of the {size} strongest directions of "
        f"the anchors and of the layer's real inputs ({found['images']} train images of each "
        f"task, used for measuring only); by chance it is {chance:.3f}. Of the real inputs, "
        f"the effective rank is {_mean(features, 'effective_rank'):.1f} and the strongest fifth "
        f"has {100 * _mean(features, 'head_energy'):.1f} % of the energy."
    )
    table = [line(HEAD), "|---|" + "---:|" * (len(HEAD) - 1), *map(line, rows)]
    said = [sentence(each) for each in found["findings"]]
    return "\n".join([caption, "", *table, "", *(f"- {each}" for each in said)]) + "\n"


def sentence(finding: Mapping[str, Any]) -> str:
    """Return a claim, what was measured and the verdict."""
    value, error = finding["difference"]["value"], finding["difference"]["error"]
    return (
        f"{finding['claim']} (from {finding['init']}, {finding['optimiser']}): by "
        f"{value:+.3g} ± {error:.2g} over {finding['cells']} layers of experts: "
        f"**{finding['verdict']}**."
    )


def _row(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    aligned = [stage["alignment"] for stage in stages if stage["alignment"] is not None]
    return [
        str(stages[0]["steps"]),
        f"{fmean(aligned):.3f}" if aligned else "–",
        f"{_mean(stages, 'effective_rank'):.1f}",
        f"{100 * _mean(stages, 'head_energy'):.1f} %",
        f"{_mean(stages, 'similarity'):.3f}",
    ]


def _mean(items: Sequence[Mapping[str, Any]], key: str) -> float:
    return fmean(item[key] for item in items)


def main() -> None:
    """Print the table of a subspaces file."""
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
