"""Who is compared: every method without data at its defaults, and FDA from several starts.

FDA's settings for the whole table are here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fda_core.methods.registry import METHODS, describe

Group = Literal["reference", "data-free", "fda"]

SEEDS = (0, 1, 2)
RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear", "fda"})
"""Methods whose result depends on the seed."""

SIZE: Mapping[str, Any] = {"anchors": 64, "tokens": 5}
"""5 tokens are a third of the images' 17; the base's config (518 pixels) would have 1370."""
CONSTRUCT: Mapping[str, Any] = {**SIZE, "init": "spectral", "optimiser": "muon", "steps": 100}
"""A hundredth of what the published settings take here."""
METRIC: Mapping[str, Any] = {**CONSTRUCT, "metric": "update"}
"""The same steps, in our own metric."""
WHOLE: Mapping[str, Any] = {**METRIC, "cosine": "layer"}
"""The same, by the paper's one cosine over a layer instead of its code's one per tensor."""
ADAPT_BASE: Mapping[str, Any] = {
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "epochs": 20,
    "batch": 32,
}
ADAPT: Mapping[str, Any] = {"learning_rate": 1e-3, "schedule": "cosine", "epochs": 10, "batch": 32}
"""From a merged start, whose coefficients are the variables."""
ADAPT_SUM: Mapping[str, Any] = {**ADAPT, "learning_rate": 1e-2, "epochs": 20}
"""From task arithmetic, which has further to go; tried on validation images only."""
FULL: Mapping[str, Any] = {"transfer": "full"}
"""Our own scale of matrix methods, chosen from the task vectors alone."""
SCALED = ("tsvm", "iwudi", "swudi")
STARTS: Sequence[str | Mapping[str, Any]] = (
    "base",
    "task_arithmetic",
    "tsvm",
    "iwudi",
    {"name": "iwudi", **FULL},
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the table; `method` is the recipe's, None for what is no merge."""

    name: str
    group: Group
    method: Mapping[str, Any] | None = None
    seeds: Sequence[int] = (0,)


BASE = Contender(name="base", group="reference")
INDIVIDUAL = Contender(name="individual experts", group="reference")


def contenders(experts: int, *, fda_seeds: Sequence[int] = SEEDS) -> list[Contender]:
    """Return every row in the table's order."""
    unfit = left_out(experts)
    plain = [_plain(name) for name in METHODS if name != "fda" and name not in unfit]
    scaled = [
        Contender(name=f"{name}, full", group="data-free", method={"name": name, **FULL})
        for name in SCALED
    ]
    fda = [fda_from(start, seeds=fda_seeds) for start in STARTS]
    ours = [
        fda_from(start, construct=construct, title=title, seeds=fda_seeds[:1])
        for title, construct in (("fda (update)", METRIC), ("fda (update, layer)", WHOLE))
        for start in STARTS
    ]
    quick = [_quick_from(start) for start in ("base", {"name": "iwudi", **FULL})]
    return [BASE, *plain, *scaled, *fda, *ours, *quick, INDIVIDUAL]


def left_out(experts: int) -> dict[str, str]:
    """Return the methods that cannot merge so many experts, each with the reason."""
    return {
        name: f"merges at most {most} models, not {experts}"
        for name in METHODS
        if (most := describe(name)["max_experts"]) is not None and most < experts
    }


def fda_from(
    start: str | Mapping[str, Any],
    *,
    construct: Mapping[str, Any] = CONSTRUCT,
    adapt: Mapping[str, Any] | None = None,
    title: str = "fda",
    seeds: Sequence[int] = SEEDS,
) -> Contender:
    """Return FDA that begins from the base or from what another method merged."""
    method = {
        "name": "fda",
        "start": start if isinstance(start, str) else dict(start),
        "construct": dict(construct),
        "adapt": dict(adapt or _adapt_from(start)),
    }
    return Contender(name=f"{title} from {name_of(start)}", group="fda", method=method, seeds=seeds)


def _quick_from(start: str | Mapping[str, Any]) -> Contender:
    """Return FDA with the preset as users name it, and as many anchors as the others have."""
    method = {
        "name": "fda",
        "start": start if isinstance(start, str) else dict(start),
        "preset": "quick",
        "construct": dict(SIZE),
    }
    return Contender(name=f"fda (quick) from {name_of(start)}", group="fda", method=method)


def name_of(start: str | Mapping[str, Any]) -> str:
    """Return what the row of a start is called."""
    return start if isinstance(start, str) else f"{start['name']}, full"


def _adapt_from(start: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if start == "base":
        return ADAPT_BASE
    return ADAPT_SUM if start == "task_arithmetic" else ADAPT


def _plain(name: str) -> Contender:
    seeds = SEEDS if name in RANDOM else SEEDS[:1]
    return Contender(name=name, group="data-free", method={"name": name}, seeds=seeds)
