"""Units run once their needs are done, each once, whatever dies meanwhile."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fda_core.contract.plan import Unit
from fda_core.engine.run import MOST_LOSSES, Schedule
from fda_core.errors import LostResult


def _unit(name: str, *needs: str) -> Unit:
    return Unit(
        id=name, kind="merge", needs=needs, read_bytes=0, write_bytes=0, memory_bytes=0, flops=0
    )


UNITS = [_unit("a"), _unit("b"), _unit("c", "a", "b"), _unit("d"), _unit("end", "c", "d")]


def test_what_waits_is_not_ready_and_order_is_the_plans():
    schedule = Schedule(UNITS, set())
    assert [unit.id for unit in schedule.ready()] == ["a", "b", "d"]


def test_done_units_of_an_earlier_run_are_not_run_again():
    schedule = Schedule(UNITS, {"a", "b"})
    assert [unit.id for unit in schedule.ready()] == ["c", "d"]


def test_a_unit_given_back_is_ready_again():
    schedule = Schedule(UNITS, set())
    first = next(schedule.ready())
    schedule.start(first)
    assert first not in list(schedule.ready())
    schedule.give_back(first)
    assert next(schedule.ready()) == first


def test_what_was_lost_is_ready_again_before_what_needs_it():
    schedule = Schedule(UNITS, {"a", "b"})
    schedule.start(UNITS[2])
    schedule.lose(UNITS[2], LostResult("gone", units=["b"]))
    assert [unit.id for unit in schedule.ready()] == ["b", "d"]
    schedule.finish(UNITS[1])
    assert [unit.id for unit in schedule.ready()] == ["c", "d"]


def test_what_is_lost_again_and_again_ends_the_run():
    schedule = Schedule(UNITS, {"a", "b"})
    gone = LostResult("gone", units=["b"])
    for _ in range(MOST_LOSSES):
        schedule.lose(UNITS[2], gone)
        schedule.finish(UNITS[1])
    with pytest.raises(LostResult):
        schedule.lose(UNITS[2], gone)


@given(st.integers(0, 10**6))
def test_any_order_of_ends_and_deaths_finishes_every_unit_after_its_needs(seed):
    choices = random.Random(seed)
    schedule = Schedule(UNITS, set())
    running: list[Unit] = []
    done: list[str] = []
    while not schedule.finished:
        ready = list(schedule.ready())
        if ready and (not running or choices.random() < 0.5):
            unit = choices.choice(ready)
            schedule.start(unit)
            running.append(unit)
        else:
            unit = running.pop(choices.randrange(len(running)))
            if choices.random() < 0.3:
                schedule.give_back(unit)
            else:
                assert set(unit.needs) <= set(done)
                schedule.finish(unit)
                done.append(unit.id)
    assert sorted(done) == sorted(unit.id for unit in UNITS)
