"""Who is compared in the vision benchmark, and what the results and the table say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fda_core.contract.recipe import MethodSpec
from fda_core.methods.registry import METHODS, resolve
from tests.bench.vision.contenders import BASE, INDIVIDUAL, Contender, contenders, left_out
from tests.bench.vision.evaluate import Judged
from tests.bench.vision.merging import Cost, Merged
from tests.bench.vision.pairs import pairs
from tests.bench.vision.results import Row, document, share_of
from tests.bench.vision.table import markdown

TASKS: list[Judged] = []
COST = Cost(cpu_seconds=3.0, wall_seconds=3.5, peak_memory_bytes=4 * 10**8, flops=2 * 10**12)


def row(name: str, right: int, *, merged: bool = True) -> Row:
    contender = Contender(name=name, group="data-free", method={"name": name})
    contender = {"base": BASE, "individual experts": INDIVIDUAL}.get(name, contender)
    outcome = np.arange(400)[None] < right
    merge = Merged(
        folder=Path("x"), weights="w", seed=0, cost=COST, construction=None, alignment=None
    )
    return Row(contender=contender, runs={"mnist": outcome}, merges=[merge] if merged else [])


def found() -> dict[str, object]:
    rows = [
        row("base", 200, merged=False),
        row("linear", 250),
        row("ties", 318),
        row("tsvm", 320),
        row("individual experts", 360, merged=False),
    ]
    said = document(
        rows, TASKS, part="test", training={}, left_out={"slerp": "merges at most 2 models"}
    )
    counts = {"images": {"test": 400}, "groups": {"test": 90}}
    said["tasks"] = [{"name": "mnist", "classes": 10, **counts}]
    return said


def test_every_method_is_compared_or_left_out_with_a_reason() -> None:
    names = {contender.name for contender in contenders(8)}
    assert {name for name in METHODS if name != "fda"} == (names | set(left_out(8))) - {
        "base",
        "individual experts",
        *(name for name in names if name.startswith("fda ") or name.endswith(", full")),
    }
    assert set(left_out(8)) == {"slerp", "nuslerp"}


def test_every_contender_is_a_method_the_engine_takes() -> None:
    for contender in contenders(8):
        if contender.method is not None:
            resolve(MethodSpec.model_validate(dict(contender.method)))


def test_only_merges_within_two_errors_of_the_best_are_marked() -> None:
    marked = {c["name"] for c in found()["contenders"] if c["is_level_with_best"]}  # type: ignore[attr-defined]
    assert marked == {"ties", "tsvm"}


def test_the_table_has_a_row_for_each_contender_and_says_what_is_left_out() -> None:
    text = markdown(found())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 5
    assert "| tsvm | 80.0 | 80.0 ± 2.0 ≈ | 88.9 % | – | – | – | 3 | 400 | 2 |" in text
    assert "slerp merges at most 2 models" in text
    assert "(400 images in 90 groups of alike ones)" in text
    assert "cluster-robust" in text


def test_a_share_has_the_error_of_a_ratio_of_paired_accuracies() -> None:
    """Where a model is right on each half of what another is, its share is a half for sure."""
    whole = np.tile([True, True, False, False], 50)[None]
    half = np.tile([True, False, False, False], 50)[None]
    found = share_of({"t": half}, {"t": whole})
    residuals = half[0] - 0.5 * whole[0]
    assert found.value == pytest.approx(0.5)
    assert found.error == pytest.approx(residuals.std() / np.sqrt(200) / 0.5)
    drawn = np.random.default_rng(0).integers(0, 200, (4000, 200))
    ratios = half[0][drawn].mean(axis=1) / whole[0][drawn].mean(axis=1)
    assert found.error == pytest.approx(ratios.std(), rel=0.05)


def test_steps_are_paired_with_what_they_are_compared_with() -> None:
    rows = [row("base", 200, merged=False), row("iwudi", 300), row("tsvm", 310)]
    scaled = {"name": "iwudi", "transfer": "full"}
    for title, right in (("fda", 290), ("fda (update)", 305), ("fda (quick)", 330)):
        made = row(f"{title} from iwudi", right)
        rows.append(replace(made, contender=replace(made.contender, group="fda")))
    full = row("iwudi, full", 340)
    rows.append(replace(full, contender=replace(full.contender, method=scaled)))
    found = {(p["name"], p["less"]): round(400 * p["difference"]["value"]) for p in pairs(rows, {})}
    assert found == {
        ("fda from iwudi", "iwudi"): -10,
        ("fda (update) from iwudi", "iwudi"): 5,
        ("fda (quick) from iwudi", "iwudi"): 30,
        ("fda (update) from iwudi", "fda from iwudi"): 15,
        ("fda (quick) from iwudi", "fda from iwudi"): 40,
        ("iwudi, full", "iwudi"): 40,
        ("fda (quick) from iwudi", "iwudi, full"): -10,
        ("fda (quick) from iwudi", "tsvm"): 20,
    }


def test_the_table_ends_with_the_paired_differences_there_are() -> None:
    pair = {"name": "a", "less": "b", "difference": {"value": 0.0123, "error": 0.002}}
    text = markdown({**found(), "pairs": [pair]})
    assert text.endswith("| a | b | +1.23 ± 0.20 |\n")
    assert "Paired differences" not in markdown(found())
