"""The ablations' points change one thing each, and their verdicts follow from the numbers."""

from typing import Any

import pytest

from fda_core.anchors.config import ConstructConfig
from fda_core.contract.recipe import MethodSpec
from fda_core.methods.registry import resolve
from tests.bench.vision import ablation_points
from tests.bench.vision.ablation_claims import CLAIMS, gap_findings, verdict
from tests.bench.vision.ablation_points import GROUPS, SUB_SUITE, VARIED, Point, points, reference
from tests.bench.vision.ablation_tables import markdown
from tests.bench.vision.ablations import Measured, among, contender, document
from tests.bench.vision.catalogue import TASKS
from tests.bench.vision.uncertainty import Estimate
from tests.unit.bench.vision_rows import row, runs, suite

ALL = tuple(TASKS)


def everything() -> list[Point]:
    return [point for group in GROUPS for point in points(group)]


def measured(right: dict[tuple[str, str], int], *, otherwise: int = 300) -> dict[str, Any]:
    """Return the document of all points, with so many of 400 images right in each task."""
    rows = [
        Measured(
            point=point,
            row=row(contender(point), right.get((point.group, point.name), otherwise), point.tasks),
        )
        for point in everything()
    ]
    return document(rows, suite(ALL), runs(360, ALL))


def test_every_point_is_a_method_the_engine_takes() -> None:
    for point in everything():
        given = {k: v for k, v in point.method.items() if k != "name"}
        if "start" in given:
            given["start"] = {"name": given["start"]}
        resolve(MethodSpec(name=point.method["name"], parameters=given))


def test_every_group_but_the_experts_has_the_reference_once() -> None:
    for group in VARIED:
        if points(group):
            assert [point.is_reference for point in points(group)].count(True) == 1, group
    assert not any(point.is_reference for point in points("experts"))


def test_points_change_one_setting_and_anchors_their_minibatch_too() -> None:
    start = reference()
    for point in everything():
        if point.group == "experts":
            continue
        changed = {
            f"{stage}.{key}"
            for stage in ("construct", "adapt")
            for key in point.method[stage]
            if point.method[stage][key] != start[stage].get(key)
        }
        allowed = {"construct.sigma", "construct.init"}, {"construct.anchors", "adapt.batch"}
        assert len(changed) <= 1 or changed in allowed, point


def test_experts_are_two_to_eight_in_the_suites_order() -> None:
    assert {point.tasks for point in points("experts")} == {ALL[:k] for k in range(2, 9)}
    assert {p.method["name"] for p in points("experts")} == {"task_arithmetic", "tsvm", "fda"}


def test_a_setting_the_product_does_not_know_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {k: v for k, v in ConstructConfig.model_fields.items() if k != "optimiser"}
    monkeypatch.setattr(
        ablation_points, "ConstructConfig", type("Fields", (), {"model_fields": fields})
    )
    assert points("optimiser") == []
    assert ablation_points.skipped() == {"optimiser": "the product has no construct.optimiser"}
    assert "optimiser" not in reference()["construct"]


def test_every_claim_is_about_points_there_are() -> None:
    names = {group: {point.name for point in points(group)} for group in GROUPS}
    for claim in CLAIMS:
        assert set(claim.weights) <= names[claim.group], claim
        assert sum(claim.weights.values()) == 0


@pytest.mark.parametrize(
    ("value", "said"), [(0.021, "agrees"), (0.02, "within noise"), (-0.021, "disagrees")]
)
def test_two_errors_decide(value: float, said: str) -> None:
    assert verdict(Estimate(value=value, error=0.01)) == said


def test_verdicts_follow_the_direction_of_the_numbers() -> None:
    right = {
        ("init", "gaussian 10"): 200,
        ("init", "gaussian 1"): 250,
        ("init", "gaussian 0.01"): 280,
        ("init", "gaussian 0.0001"): 320,
        ("init", "weight"): 280,
    }
    said = {f["claim"]: f["verdict"] for f in measured(right)["findings"]}
    assert said["σ 1 beats σ 10"] == "agrees"
    assert said["σ 0.01 beats 1e-4"] == "disagrees"
    assert said["weight beats gaussian 0.01"] == "within noise"


def test_gains_that_flatten_are_told_from_gains_that_do_not() -> None:
    flat = {("steps", "10"): 200, ("steps", "60"): 300, ("steps", "240"): 310}
    steep = {**flat, ("steps", "60"): 220}
    name = "steps 10 to 60 gain more than steps 60 to 240"
    for right, said in ((flat, "agrees"), (steep, "disagrees")):
        found = {f["claim"]: f for f in measured(right)["findings"]}
        assert found[name]["verdict"] == said
    assert found[name]["difference"]["value"] == pytest.approx((2 * 220 - 200 - 310) / 400)


def test_the_distances_spreads_are_compared() -> None:
    right = {("construct distance", "l1"): 200, ("adapt distance", "l1"): 280}
    found = measured(right)["findings"]
    spread = next(f for f in found if f["group"] == "adapt distance")
    assert spread["difference"]["value"] == pytest.approx((100 - 20) / 400)
    assert spread["verdict"] == "agrees"


def test_the_gap_to_the_experts_is_paired_and_its_growth_judged() -> None:
    right = {("experts", f"fda, {k}"): 350 - 10 * k for k in range(2, 9)}
    right |= {("experts", f"tsvm, {k}"): 340 for k in range(2, 9)}
    found = measured(right)
    of = {p["name"]: p for p in found["points"] if p["group"] == "experts"}
    assert of["fda, 8"]["gap"]["value"] == pytest.approx((360 - 270) / 400)
    assert of["fda, 8"]["gap_of_first"]["value"] == pytest.approx((360 - 270) / 400)
    assert of["fda, 8"]["difference"] is None
    said = {
        f["claim"].split("'")[0]: f["verdict"] for f in found["findings"] if "gap" in f["claim"]
    }
    assert said == {"task_arithmetic": "within noise", "tsvm": "within noise", "fda": "agrees"}


def test_harder_tasks_that_come_later_do_not_make_the_gap_grow() -> None:
    few, individual = ALL[:2], {**runs(360, ALL[:2]), **runs(390, ALL[2:])}
    by_count = {2: runs(300, few), 8: {**runs(300, few), **runs(100, ALL[2:])}}
    (said,) = gap_findings({"tsvm": by_count}, individual, {})
    assert said["difference"] == {"value": 0.0, "error": 0.0}
    assert "on the first 2 tasks" in said["claim"]


def test_differences_are_to_the_reference_and_nothing_at_it() -> None:
    found = measured({("steps", "10"): 260})
    of = {(p["group"], p["name"]): p for p in found["points"]}
    assert of["steps", "10"]["difference"]["value"] == pytest.approx(-0.1)
    assert of["init", "spectral"]["difference"] == {"value": 0.0, "error": 0.0}
    # 40 images in 20 groups of two differ: the error of groups, not of images.
    assert of["steps", "10"]["difference"]["error"] == pytest.approx(
        (2 * 0.1 * 0.9 / 400 / len(SUB_SUITE)) ** 0.5
    )


def test_the_tables_have_every_point_and_every_verdict() -> None:
    found = measured({("steps", "10"): 260})
    text = markdown(found)
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == len(
        found["points"]
    ) + len({point["group"] for point in found["points"]})
    assert "| 10 | 0.500 | 65.0 ± 1.9 | -10.0 ± 1.2 | 3 | 3 |" in text
    assert text.count("**agrees**") + text.count("**within noise**") + text.count(
        "**disagrees**"
    ) == len(found["findings"])
    for group, reason in found["skipped"].items():
        assert f"Left out of {group}: {reason}." in text


def test_a_file_of_half_the_points_has_half_the_verdicts() -> None:
    rows = [
        Measured(point=point, row=row(contender(point), 300, point.tasks))
        for point in points("init")[:2]
    ]
    found = document(rows, suite(ALL), runs(360, ALL))
    assert found["findings"] == []
    assert [point["difference"] for point in found["points"]] == [None, None]
    assert "### Init" in markdown(found)


def test_a_part_of_the_suite_has_its_models_and_tasks_only() -> None:
    part = among(suite(ALL), SUB_SUITE)
    assert [judged.name for judged in part.tasks] == list(SUB_SUITE)
    assert set(part.models.digests) == {"", *SUB_SUITE}
    assert tuple(part.models.experts) == SUB_SUITE
