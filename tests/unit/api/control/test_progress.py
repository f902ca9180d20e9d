"""Progress by reckoned work, and what is tried when a device's memory runs out."""

from datetime import UTC, datetime, timedelta

import pytest

from api.control.memory import after_out_of_memory
from api.control.progress import Tally, fraction, reckoned_work
from api.db.tables import UnitRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOLVED = {"method": {"name": "fda", "parameters": {"construct": {"anchors": 64}}}}


def _unit(name: str = "u", state: str = "pending", **more) -> UnitRow:
    columns = {
        "layer": 3,
        "expert": "a",
        "step": 0,
        "steps": 0,
        "read_bytes": 0,
        "write_bytes": 0,
        "moved_bytes": 0,
        "flops": 0,
        "queue": "cpu",
        **more,
    }
    return UnitRow(id=name, state=state, **columns)


def test_a_unit_s_work_grows_with_operations_and_bytes_and_a_gpu_needs_less():
    small, large = _unit(flops=10**9), _unit(flops=10**12)
    assert reckoned_work(small) < reckoned_work(large)
    assert reckoned_work(_unit(flops=10**12, queue="gpu")) < reckoned_work(large)
    assert reckoned_work(_unit(read_bytes=10**9)) > reckoned_work(_unit())


def test_a_running_unit_counts_by_its_steps_else_by_its_bytes():
    assert fraction(_unit(state="running", step=5, steps=20)) == 0.25
    assert fraction(_unit(state="running", moved_bytes=50, read_bytes=100)) == 0.5
    assert fraction(_unit(state="running", moved_bytes=500, read_bytes=100)) == 1.0
    assert fraction(_unit(state="ready", step=5, steps=20)) == 0.0
    assert fraction(_unit(state="done")) == 1.0


def test_seconds_left_follow_the_speed_of_this_attempt_alone():
    kept = _unit("kept", "done", source="journal", flops=10**13)
    done = _unit("done", "done", source="run", flops=10**12)
    todo = _unit("todo", flops=10**12)
    tally = Tally.of([kept, done, todo], began=NOW)
    view = tally.view(NOW + timedelta(seconds=30), units_total=3, bytes_total=0)
    assert view["seconds_left"] == pytest.approx(30.0, rel=0.01)
    assert view["units_done"] == 2
    assert tally.view(NOW, units_total=3, bytes_total=0)["seconds_left"] is None


def test_a_tally_kept_up_agrees_with_one_made_anew():
    units = [_unit(f"u{k}", read_bytes=100 * k + 1) for k in range(4)]
    tally = Tally.of(units, began=NOW)
    units[0].state, units[1].state, units[1].moved_bytes = "done", "running", 50
    units[2].state = "running"
    for unit in units[:3]:
        tally.note(unit)
    units[2].state = "pending"
    tally.note(units[2])
    moment = NOW + timedelta(seconds=5)
    again = Tally.of(units, began=NOW)
    assert tally.view(moment, units_total=4, bytes_total=9) == again.view(
        moment, units_total=4, bytes_total=9
    )
    assert tally.view(moment, units_total=4, bytes_total=9)["ratio"] < 1


def test_nothing_is_left_for_a_method_without_anchors_and_without_a_larger_device():
    unit = _unit()
    assert after_out_of_memory(unit, resolved={"method": {"name": "ties"}}, served=set) is None


def test_the_larger_device_is_taken_where_nothing_can_be_halved():
    change = after_out_of_memory(
        _unit(), resolved={"method": {"name": "ties"}}, served=lambda: {"gpu-large"}
    )
    assert change is not None
    assert change.queue == "gpu-large"


def test_anchors_are_halved_until_one_is_left():
    unit = _unit(steps=10)
    seen = []
    while (change := after_out_of_memory(unit, resolved=RESOLVED, served=set)) is not None:
        unit.microbatch, unit.queue = change.microbatch, change.queue
        seen.append(change.microbatch)
    assert seen == [32, 16, 8, 4, 2, 1]
