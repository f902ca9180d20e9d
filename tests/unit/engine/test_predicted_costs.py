"""Work into seconds, plans into stages."""

from pathlib import Path

import pytest

from fda_core.cli.show_costs import devices_for, duration
from fda_core.contract.rest.jobs import PlanView
from fda_core.engine.costs.calibrate import this_processor
from fda_core.engine.costs.devices import PRECISIONS, Device, Speeds, gpus
from fda_core.engine.costs.stages import other_costs, stage_costs
from fda_core.engine.costs.work import Work
from fda_core.engine.cut import total
from fda_core.errors import BadParameter
from tests.support.plans import plan_of

SPEEDS = Speeds(
    products=1e9,
    wide_products=1e8,
    factorisation=1e7,
    bandwidth=1e6,
    launch_seconds=1e-3,
    storage=1e5,
)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(flops=10**9), 1),
        (Work(flops=10**9, product_bytes=2 * 10**6), 2),
        (Work(flops=10**9, wide_flops=10**8), 2),
        (Work(flops=10**9, traffic_bytes=10**6), 2),
        (Work(factor_flops=10**7), 1),
        (Work(flops=10**9, launches=500), 1),
        (Work(flops=10**9, launches=3000), 3),
        (Work(read_bytes=10**5, write_bytes=10**5), 2),
        (Work(element_flops=10**12), 0),
    ],
)
def test_time_is_that_of_what_is_slowest(work: Work, seconds: float) -> None:
    assert SPEEDS.seconds(work, launches_overlap=True) == pytest.approx(seconds)


def test_a_processor_starts_kernels_and_runs_them_one_after_the_other() -> None:
    work = Work(flops=10**9, launches=500)
    assert SPEEDS.seconds(work, launches_overlap=False) == pytest.approx(1.5)


def test_work_adds_up() -> None:
    one = Work(flops=1, wide_flops=2, factor_flops=3, product_bytes=4, element_flops=5, launches=6)
    assert one + one + one == one * 3
    assert one.all_flops == 11
    assert (one + Work(traffic_bytes=1)).moved_bytes == 5


@pytest.mark.parametrize("compute", PRECISIONS)
def test_every_gpu_is_slower_at_worst_and_faster_at_best(compute: str) -> None:
    work = Work(
        flops=10**15, wide_flops=10**12, factor_flops=10**12, traffic_bytes=10**12, launches=10**4
    )
    for device in gpus(compute).values():
        found = device.seconds(work + Work(read_bytes=10**9))
        assert 0 < found.low < found.likely < found.high


def test_half_precision_and_float64_take_their_own_rates() -> None:
    products = Work(flops=10**15)
    likely = {name: gpus(name)["a100"].seconds(products).likely for name in PRECISIONS}
    assert likely["float64"] == likely["float32"] > likely["tf32"] > likely["bfloat16"]


def test_stages_add_up_to_the_plan(models: Path) -> None:
    method = {"name": "fda", "start": "tsvm", "construct": {"anchors": 8, "steps": 5}}
    made = plan_of(models, method)
    *stages, everything = stage_costs(made, gpus().values())
    assert [row.name for row in stages] == ["construct", "adapt", "merge", "publish"]
    assert everything.flops == sum(row.flops for row in stages) == total(made.units, "flops")
    assert everything.write_bytes == total(made.units, "write_bytes")
    assert everything.memory_bytes == max(unit.memory_bytes for unit in made.units)
    for name, found in everything.seconds.items():
        assert found.likely == pytest.approx(sum(row.seconds[name].likely for row in stages))


def test_more_steps_take_more_of_construction_alone(models: Path) -> None:
    settings = {"anchors": 8, "steps": 5}
    short = plan_of(models, {"name": "fda", "construct": settings})
    long = plan_of(models, {"name": "fda", "construct": {**settings, "steps": 10}})
    before, after = (
        {row.name: row.flops for row in stage_costs(made, [])} for made in (short, long)
    )
    assert after["construct"] == 2 * before["construct"]
    assert after["adapt"] == before["adapt"]


def test_what_is_cached_is_not_constructed(models: Path) -> None:
    made = plan_of(models, {"name": "fda", "construct": {"anchors": 8, "steps": 5}})
    cached = [u.model_copy(update={"cached": u.kind == "construct"}) for u in made.units]
    found = stage_costs(made.model_copy(update={"units": tuple(cached)}), [])[0]
    assert (found.name, found.flops, found.read_bytes) == ("construct", 0, 0)


@pytest.mark.parametrize(
    ("method", "others"),
    [
        ("fda", ["task_arithmetic", "tsvm", "wudi"]),
        ("tsvm", ["task_arithmetic", "wudi"]),
    ],
)
def test_other_methods_are_reckoned_on_the_same_inputs(
    models: Path, method: str, others: list[str]
) -> None:
    found = other_costs(plan_of(models, method), gpus().values())
    assert [row.name for row in found] == others
    own = {name: stage_costs(plan_of(models, name), gpus().values())[-1] for name in others}
    for row in found:
        assert row.flops == own[row.name].flops
        assert row.memory_bytes == own[row.name].memory_bytes


def test_variations_of_the_recipe_are_no_part_of_another_method(models: Path) -> None:
    vary = [{"layers": [0, 0], "set": {"density": 0.5}}]
    made = plan_of(models, {"name": "ties", "density": 0.2}, vary=vary)
    assert made.settings
    assert [row.name for row in other_costs(made, [])] == ["task_arithmetic", "tsvm", "wudi"]


def test_a_device_nobody_knows_is_refused_by_name(models: Path) -> None:
    made = plan_of(models, "ties")
    assert [device.name for device in devices_for(["l4", "l4"], made)] == ["l4"]
    assert [device.name for device in devices_for(None, made)] == list(gpus())
    with pytest.raises(BadParameter, match="abacus"):
        devices_for(["abacus"], made)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.04, "0.0 s"), (44.1, "44 s"), (90, "1.5 min"), (1797, "30 min"), (45_000, "12 h")],
)
def test_predicted_times_have_few_digits(value: float, said: str) -> None:
    assert duration(value) == said


def test_this_processor_is_measured_in_seconds() -> None:
    device = this_processor()
    assert isinstance(device, Device)
    assert 1e8 < device.likely.products < 1e13
    assert device.likely.wide_products < 2 * device.likely.products
    assert 1e8 < device.likely.bandwidth < 1e12
    assert device.worst.products < device.likely.products < device.best.products


def test_an_answer_of_an_older_service_is_read() -> None:
    view = PlanView(
        family="bert",
        layers=2,
        width=16,
        method="ties",
        experts=["a"],
        units=1,
        units_cached=0,
        units_by_kind={"publish": 1},
        read_bytes=1,
        write_bytes=1,
        peak_memory_bytes=1,
        flops=0,
        recipe={},
        plan=[],
    )
    assert view.stages == view.other_methods == []


def test_a_preset_is_planned_and_written_out(models: Path) -> None:
    made = plan_of(models, {"name": "fda", "preset": "quick"})
    said = made.recipe.method.parameters
    assert (said["construct"]["optimiser"], said["construct"]["steps"]) == ("muon", 40)
    assert said["adapt"]["learning_rate"] == pytest.approx(5e-4)
    assert {unit.steps for unit in made.units if unit.kind == "construct"} == {40}
    again = plan_of(models, {"name": "fda", **said})
    assert again.recipe.method == made.recipe.method
