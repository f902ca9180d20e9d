"""Do the ablations agree in direction with what is published (fda.md §4)? By rule, from numbers.

A claim is a weighted sum of mean accuracies that should be above zero, such as weight start
less gaussian start. It agrees or disagrees where the sum is more than two standard errors from
zero, and is within noise elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tests.bench.vision.ablation_points import BESIDE, DISTANCES
from tests.bench.vision.results import Row
from tests.bench.vision.uncertainty import (
    Estimate,
    GroupsOf,
    Runs,
    contrast,
    mean_accuracy,
)

Rows = Mapping[str, Row]
"""A group's rows by the point's name."""
Verdict = Literal["agrees", "disagrees", "within noise"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence, where it is from, and the sum of points' accuracies that should be positive."""

    group: str
    says: str
    source: str
    weights: Mapping[str, float]


def _more(group: str, better: str, worse: str, *, says: str, source: str) -> Claim:
    return Claim(group=group, says=says, source=source, weights={better: 1.0, worse: -1.0})


_STARTS = "ViT-B/32: σ 10, 1, 0.01, 1e-4 give 77.4, 81.8, 83.0, 71.2; weight 83.8"
CLAIMS: tuple[Claim, ...] = (
    _more("init", "weight", "gaussian 0.01", says="weight beats gaussian 0.01", source=_STARTS),
    _more("init", "gaussian 1", "gaussian 10", says="σ 1 beats σ 10", source=_STARTS),
    _more("init", "gaussian 0.01", "gaussian 1", says="σ 0.01 beats σ 1", source=_STARTS),
    _more("init", "gaussian 0.01", "gaussian 0.0001", says="σ 0.01 beats 1e-4", source=_STARTS),
    _more("anchors", "128", "32", says="128 anchors beat 32", source="ViT, 32 to 256"),
    _more("anchors", "32", "8", says="32 anchors beat 8", source="ViT, more is better"),
    _more("tokens", "17", "5", says="17 tokens beat 5", source="RoBERTa, all tasks but STS-B"),
    _more("steps", "240", "10", says="240 steps beat 10", source="ViT-B/32"),
    Claim(
        group="steps",
        says="steps 10 to 60 gain more than steps 60 to 240",
        source="ViT-B/32: gains flatten",
        weights={"60": 2.0, "10": -1.0, "240": -1.0},
    ),
    *(
        _more(
            "construct distance",
            "cosine",
            other,
            says=f"cosine beats {other} in construction",
            source="cosine is the best",
        )
        for other in ("l2", "l1")
    ),
)


def findings(
    rows: Mapping[str, Rows], alignments: Mapping[str, Mapping[str, float]], groups: GroupsOf
) -> list[dict[str, Any]]:
    """Return what is found of every claim whose points are there, as plain data."""
    found = []
    for claim in CLAIMS:
        here = rows.get(claim.group, {})
        if set(claim.weights) <= set(here):
            terms = [(weight, here[name].runs) for name, weight in claim.weights.items()]
            aligned = alignments.get(claim.group, {})
            gained = (
                sum(weight * aligned[name] for name, weight in claim.weights.items())
                if set(claim.weights) <= set(aligned)
                else None
            )
            found.append(_finding(claim, contrast(terms, groups), gained))
    return [*found, *_distances(rows, groups)]


def gap_findings(
    methods: Mapping[str, Mapping[int, Runs]],
    individual: Runs,
    groups: GroupsOf,
) -> list[dict[str, Any]]:
    """Return whether each method's gap to the individual experts grows from few to most.

    On the tasks that the few have: over all of the most, tasks that are harder to merge, added
    late, would count as a price of their number.
    """
    found = []
    for name in (*BESIDE, "fda"):
        by_count = methods.get(name, {})
        if len(by_count) > 1:
            few, most = min(by_count), max(by_count)
            first = list(by_count[few])
            claim = Claim(
                group="experts",
                says=f"{name}'s gap to the individual experts on the first {len(first)} tasks "
                f"grows from {few} to {most} of them",
                source="the gap grows with experts",
                weights={},
            )
            terms = [
                *_gap({task: by_count[most][task] for task in first}, individual, 1.0),
                *_gap(by_count[few], individual, -1.0),
            ]
            found.append(_finding(claim, contrast(terms, groups), None))
    return found


def gap(merged: Runs, individual: Runs, groups: GroupsOf, tasks: Sequence[str]) -> Estimate:
    """Return what the individual experts have before a merge on some of its tasks, paired."""
    chosen = {task: merged[task] for task in tasks}
    return contrast(_gap(chosen, individual, 1.0), groups)


def verdict(estimate: Estimate) -> Verdict:
    """Say what a sum that should be positive says."""
    if estimate.is_above_zero():
        return "agrees"
    below = Estimate(value=-estimate.value, error=estimate.error)
    return "disagrees" if below.is_above_zero() else "within noise"


def _gap(merged: Runs, individual: Runs, sign: float) -> list[tuple[float, Runs]]:
    return [(sign, {task: individual[task] for task in merged}), (-sign, merged)]


def _distances(rows: Mapping[str, Rows], groups: GroupsOf) -> list[dict[str, Any]]:
    """Compare how far the best and the worst distance of each stage are apart."""
    terms = []
    for group, sign in (("construct distance", 1.0), ("adapt distance", -1.0)):
        here = rows.get(group, {})
        if not set(DISTANCES) <= set(here):
            return []
        ranked = sorted(here.values(), key=lambda row: mean_accuracy(row.runs).value)
        terms += [(sign, ranked[-1].runs), (-sign, ranked[0].runs)]
    claim = Claim(
        group="adapt distance",
        says="the distance matters less in adaptation than in construction (best less worst)",
        source="ablation of both",
        weights={},
    )
    return [_finding(claim, contrast(terms, groups), None)]


def _finding(claim: Claim, estimate: Estimate, alignment: float | None) -> dict[str, Any]:
    return {
        "group": claim.group,
        "claim": claim.says,
        "source": claim.source,
        "difference": asdict(estimate),
        "alignment": alignment,
        "verdict": verdict(estimate),
    }
