"""Loops have one leader at a time, whatever dies."""

import os
import subprocess
import sys

import pytest

from api.control.leader import LEASE_SECONDS, Leader, is_dead, new_holder
from api.db.session import Database
from tests.support.control import MovableClock, in_threads


@pytest.fixture(params=["database", "postgres_database"])
def some_database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


def _two(database: Database) -> tuple[MovableClock, Leader, Leader]:
    clock = MovableClock()
    loops = ("planner", "clock")
    one, two = (Leader(database, loops, holder=name, clock=clock) for name in ("one", "two"))
    return clock, one, two


def test_the_second_waits_until_the_first_is_gone(some_database: Database):
    clock, one, two = _two(some_database)
    one.renew()
    two.renew()
    assert one.leads("planner")
    assert not two.leads("planner")
    clock.advance(LEASE_SECONDS / 2)
    one.renew()
    clock.advance(LEASE_SECONDS / 2 + 1)
    two.renew()
    assert one.leads("planner")
    clock.advance(LEASE_SECONDS)
    assert not one.leads("planner"), "it knows without asking"
    two.renew()
    assert two.leads("planner")
    one.renew()
    assert not one.leads("planner")


def test_a_leader_that_goes_lets_the_next_begin_at_once(some_database: Database):
    _, one, two = _two(some_database)
    one.renew()
    one.release()
    two.renew()
    assert not one.leads("clock")
    assert two.leads("clock")


def test_of_many_who_begin_at_once_one_leads(some_database: Database):
    clock = MovableClock()
    leaders = [Leader(some_database, ("planner",), holder=f"h{k}", clock=clock) for k in range(8)]
    in_threads(*(leader.renew for leader in leaders))
    assert sum(leader.leads("planner") for leader in leaders) == 1


def _holder_of_another_process() -> str:
    code = "from api.control.leader import new_holder; print(new_holder())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_a_killed_process_of_this_machine_led_is_taken_at_once(some_database: Database):
    clock, dead = MovableClock(), _holder_of_another_process()
    Leader(some_database, ("planner", "clock"), holder=dead, clock=clock).renew()
    successor = Leader(some_database, ("planner", "clock"), holder=new_holder(), clock=clock)
    successor.renew()
    assert successor.leads("planner")
    assert successor.leads("clock")


def test_only_what_is_surely_dead_counts_as_dead():
    place, me, _ = new_holder().split(":")
    assert me == str(os.getpid())
    assert is_dead(_holder_of_another_process())
    assert is_dead(f"{place}:{me}:earlier"), "a container's first process has the same number"
    assert not is_dead(f"{place}:{os.getppid()}:x"), "it lives"
    assert not is_dead(f"elsewhere/1:{2**22 + 1}:x"), "nobody here can tell"
    assert not is_dead("one")
    assert not is_dead(f"{place}:{10**30}:x")
