"""What the ablations vary: one reference setting, and points that change one thing of it.

All points are FDA from the base on three tasks, but for the number of experts, where task
arithmetic and TSV-M stand beside it. Minibatches of adaptation are as large as one expert's
anchors, so that changing their number does not change how many steps adaptation takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fda_core.anchors.config import ConstructConfig
from tests.bench.vision.catalogue import TASKS

Settings = Mapping[str, Any]
Change = Mapping[str, Settings]
"""By stage, construct or adapt."""

SUB_SUITE = ("mnist", "animals", "kanji")
REFERENCE: Mapping[str, Settings] = {
    "construct": {
        "anchors": 32,
        "tokens": 5,
        "init": "spectral",
        "steps": 60,
        "optimiser": "adamw",
        "distance": "cosine",
        "cosine": "per_tensor",
    },
    "adapt": {"epochs": 50, "batch": 32, "distance": "l2"},
}
SIGMAS = (10.0, 1.0, 0.01, 1e-4)
DISTANCES = ("cosine", "l2", "l1")
EXPERTS = range(2, 9)
BESIDE = ("task_arithmetic", "tsvm")
"""Merged beside FDA where the number of experts varies."""

VARIED: Mapping[str, Mapping[str, Change]] = {
    "init": {
        "weight": {"construct": {"init": "weight"}},
        **{
            f"gaussian {sigma:g}": {"construct": {"init": "gaussian", "sigma": sigma}}
            for sigma in SIGMAS
        },
        "spectral": {},
    },
    "steps": {str(k): {"construct": {"steps": k}} for k in (10, 20, 40, 60, 120, 240)},
    "construct distance": {name: {"construct": {"distance": name}} for name in DISTANCES},
    "adapt distance": {name: {"adapt": {"distance": name}} for name in DISTANCES},
    "anchors": {
        str(n): {"construct": {"anchors": n}, "adapt": {"batch": n}} for n in (8, 16, 32, 64, 128)
    },
    "tokens": {str(t): {"construct": {"tokens": t}} for t in (1, 2, 5, 17)},
    "objective": {name: {"construct": {"cosine": name}} for name in ("per_tensor", "layer")},
    "optimiser": {name: {"construct": {"optimiser": name}} for name in ("adamw", "muon")},
}
NUMBERS = ("steps", "anchors", "tokens")
"""Groups whose points are numbers."""
GROUPS = (*VARIED, "experts")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One merge of the ablations; `x` is its place on an axis where its group has one."""

    group: str
    name: str
    method: Mapping[str, Any]
    tasks: tuple[str, ...]
    x: float | None = None

    @property
    def is_reference(self) -> bool:
        """Say whether it is the setting that the others change."""
        return self.method == reference() and self.tasks == SUB_SUITE


def points(group: str) -> list[Point]:
    """Return a group's points in order, without those the product has no setting for."""
    if group == "experts":
        return _experts()
    return [
        Point(
            group=group,
            name=name,
            method=fda(change),
            tasks=SUB_SUITE,
            x=float(name) if group in NUMBERS else None,
        )
        for name, change in VARIED[group].items()
        if not unknown(change)
    ]


def skipped() -> dict[str, str]:
    """Return the groups of which points are left out, each with the reason."""
    found = {}
    for group, levels in VARIED.items():
        keys = sorted({key for change in levels.values() for key in unknown(change)})
        if keys:
            found[group] = f"the product has no construct.{', '.join(keys)}"
    return found


def unknown(change: Change) -> list[str]:
    """Return the settings of construction that the product does not know."""
    return [key for key in change.get("construct", {}) if key not in ConstructConfig.model_fields]


def reference() -> dict[str, Any]:
    """Return the method of the reference."""
    return fda({})


def fda(change: Change) -> dict[str, Any]:
    """Return the reference with a change, as far as the product knows its settings."""
    construct = {**REFERENCE["construct"], **change.get("construct", {})}
    fields = ConstructConfig.model_fields
    return {
        "name": "fda",
        "start": "base",
        "construct": {key: value for key, value in construct.items() if key in fields},
        "adapt": {**REFERENCE["adapt"], **change.get("adapt", {})},
    }


def _experts() -> list[Point]:
    methods = [{"name": name} for name in BESIDE] + [reference()]
    return [
        Point(
            group="experts",
            name=f"{method['name']}, {count}",
            method=method,
            tasks=tuple(TASKS)[:count],
            x=float(count),
        )
        for method in methods
        for count in EXPERTS
    ]
