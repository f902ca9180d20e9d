"""How long trying again waits, and when it gives up, on a clock of the test's own."""

import threading

import pytest

from fda_core.errors import NotFound, Unavailable
from fda_core.storage.retry import Patience, RetryPolicy


class Clock:
    """Time that passes only by sleeping, or when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def policy(clock: Clock, **changes: object) -> RetryPolicy:
    return RetryPolicy(**{"clock": clock, "sleep": clock.sleep, "jitter": lambda: 0.0, **changes})


def fail_until_it_raises(patience: Patience, problem: Unavailable) -> Unavailable:
    cause = OSError("cause")

    def bear_for_ever() -> None:
        while True:
            patience.bear(problem, cause=cause)

    with pytest.raises(Unavailable) as caught:
        bear_for_ever()
    assert caught.value.__cause__ is cause
    return caught.value


def test_waits_double_up_to_the_longest() -> None:
    clock = Clock()
    fail_until_it_raises(Patience(policy(clock)), Unavailable("x"))
    assert clock.waits == [0.25, 0.5, 1, 2, 4, 8, 15]


def test_the_default_policy_waits_about_half_a_minute_in_all() -> None:
    clock = Clock()
    fail_until_it_raises(Patience(policy(clock)), Unavailable("x"))
    assert 25 < sum(clock.waits) < 35


@pytest.mark.parametrize(("jitter", "part"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_jitter_cuts_a_wait_by_up_to_half(jitter: float, part: float) -> None:
    waits = RetryPolicy(first_wait_seconds=4, jitter=lambda: jitter)
    assert waits.wait_seconds(1) == 4 * part


def test_the_number_of_tries_is_kept_and_told() -> None:
    clock = Clock()
    said = fail_until_it_raises(
        Patience(policy(clock, tries=3)), Unavailable("x: no", hint="h", uri="x")
    )
    assert len(clock.waits) == 2
    assert said.message == "x: no; gave up after 3 tries in 0.8 s"
    assert (said.hint, said.context) == ("h", {"uri": "x"})


def test_one_try_waits_for_nothing() -> None:
    clock = Clock()
    said = fail_until_it_raises(Patience(policy(clock, tries=1)), Unavailable("x"))
    assert clock.waits == []
    assert "after 1 try in" in said.message


def test_the_total_is_never_waited_beyond() -> None:
    clock = Clock()
    fail_until_it_raises(Patience(policy(clock, tries=10**6, total_seconds=20)), Unavailable("x"))
    assert clock.now - 1000 <= 20
    assert clock.waits == [0.25, 0.5, 1, 2, 4, 8]


def test_slow_failures_count_against_the_total() -> None:
    clock = Clock()
    patience = Patience(policy(clock, total_seconds=60))
    clock.now += 59.9
    fail_until_it_raises(patience, Unavailable("x"))
    assert clock.waits == []


def test_progress_restores_patience() -> None:
    clock = Clock()
    patience = Patience(policy(clock, tries=3))
    for _ in range(50):
        patience.progressed()
        patience.bear(Unavailable("x"), cause=OSError())
    assert clock.waits == [0.25] * 50


def test_a_stopped_operation_waits_no_more() -> None:
    clock, stop = Clock(), threading.Event()
    patience = Patience(policy(clock), stop=stop)
    patience.bear(Unavailable("x"), cause=OSError())
    stop.set()
    fail_until_it_raises(patience, Unavailable("x"))
    assert len(clock.waits) == 1


def test_the_error_keeps_its_class() -> None:
    with pytest.raises(NotFound, match="gone"):
        Patience(RetryPolicy(tries=1)).bear(NotFound("gone"), cause=OSError())
