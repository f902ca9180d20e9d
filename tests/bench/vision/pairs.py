"""What is gained by one step, paired by picture: FDA over its start, one setting over another.

Taken between rows that are there, by their names. A row's accuracies are means over its seeds;
a random method with one seed has no error over seeds, so that its differences are a little less
sure than they look.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.vision.contenders import FULL, SCALED, STARTS, name_of
from tests.bench.vision.results import Row, best_merge
from tests.bench.vision.uncertainty import GroupsOf, mean_difference

TITLES = ("fda", "fda (update)", "fda (update, layer)", "fda (quick)")
BEFORE: Mapping[str, str] = {
    "fda (update)": "fda",
    "fda (update, layer)": "fda (update)",
    "fda (quick)": "fda",
}
"""The settings that are compared with each: one step before it."""


def pairs(rows: Sequence[Row], groups: GroupsOf) -> list[dict[str, Any]]:
    """Return {"name", "less", "difference": {"value", "error"}} of all pairs that are there."""
    named = {row.contender.name: row for row in rows}
    wanted = [*_of_starts(), *_of_settings(), *_of_scale(), *_of_best(rows)]
    return [
        {
            "name": name,
            "less": less,
            "difference": asdict(mean_difference(named[name].runs, named[less].runs, groups)),
        }
        for name, less in dict.fromkeys(wanted)
        if name in named and less in named and name != less
    ]


def _of_starts() -> Iterator[tuple[str, str]]:
    for title in TITLES:
        for start in STARTS:
            yield f"{title} from {name_of(start)}", name_of(start)


def _of_settings() -> Iterator[tuple[str, str]]:
    for title, before in BEFORE.items():
        for start in STARTS:
            yield f"{title} from {name_of(start)}", f"{before} from {name_of(start)}"


def _of_scale() -> Iterator[tuple[str, str]]:
    for name in SCALED:
        yield name_of({"name": name, **FULL}), name


def _of_best(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield the best FDA with the best other merge, and with the best that is published."""
    best = best_merge([row for row in rows if row.contender.group == "fda"])
    others = [row for row in rows if row.contender.group == "data-free"]
    published = [row for row in others if "transfer" not in (row.contender.method or {})]
    for rival in (best_merge(others), best_merge(published)):
        if best is not None and rival is not None:
            yield best.contender.name, rival.contender.name
