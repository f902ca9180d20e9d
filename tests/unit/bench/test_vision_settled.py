"""A kept merge is known by what its recipe means, and by nothing that came after it."""

import pytest

from tests.bench.vision.settled import is_other, settled

EXPERTS = ("one", "two")


def test_defaults_of_the_method_the_start_and_the_preset_are_written_out() -> None:
    start = {"name": "iwudi", "transfer": "full"}
    found = settled({"name": "fda", "start": start, "preset": "quick"}, EXPERTS)
    assert found["experts"] == ["one", "two"]
    assert found["method"]["start"]["time"] == 300
    assert found["method"]["construct"]["metric"] == "update"
    assert found["method"]["construct"]["learning_rate"] == 1.0
    assert found["method"]["adapt"]["learning_rate"] == 1e-3


def test_a_default_that_changed_is_another_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    method = {"name": "fda", "preset": "quick"}
    then = settled(method, EXPERTS)
    assert not is_other(then, settled(method, EXPERTS))
    monkeypatch.setattr("fda_core.methods.fda_presets.ELEMENT_FACTOR", 5.0)
    assert is_other(then, settled(method, EXPERTS))


def test_a_parameter_that_came_later_is_no_other_merge_and_one_that_went_is() -> None:
    now = settled({"name": "tsvm"}, EXPERTS)
    older = {**now, "method": {k: v for k, v in now["method"].items() if k != "transfer"}}
    assert not is_other(older, now)
    assert is_other(now, older)


def test_another_order_of_the_experts_is_another_merge() -> None:
    now = settled({"name": "slerp"}, EXPERTS)
    assert is_other(settled({"name": "slerp"}, EXPERTS[::-1]), now)
