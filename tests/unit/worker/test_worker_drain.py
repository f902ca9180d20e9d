import os
import signal

import pytest

from worker.drain import Drain, Interrupted


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stops() -> list[int]:
    return []


@pytest.fixture
def drain(clock: Clock, stops: list[int]) -> Drain:
    return Drain(5.0, stop_taking=lambda: stops.append(1), clock=clock)


def test_a_unit_has_the_grace_period_from_the_first_request(drain: Drain, clock: Clock) -> None:
    assert not drain.begun
    assert not drain.is_over
    drain.begin("first")
    clock.now = 4.9
    drain.begin("second")
    assert drain.begun
    assert not drain.is_over
    clock.now = 5.0
    assert drain.is_over
    assert drain.why == "first"


def test_taking_is_stopped_once(drain: Drain, stops: list[int]) -> None:
    drain.begin("first")
    drain.begin("second")
    assert stops == [1]


def test_the_second_signal_breaks_into_a_unit_and_only_there(drain: Drain) -> None:
    drain.on_signal(signal.SIGTERM, None)
    assert drain.exit_code == 0
    with pytest.raises(Interrupted), drain.interruptible():
        drain.on_signal(signal.SIGINT, None)
    assert drain.exit_code == 128 + signal.SIGINT


def test_an_idle_worker_is_not_broken_into(drain: Drain) -> None:
    drain.on_signal(signal.SIGTERM, None)
    drain.on_signal(signal.SIGTERM, None)
    assert drain.exit_code == 128 + signal.SIGTERM


def test_the_third_signal_ends_the_process(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    for _ in range(3):
        drain.on_signal(signal.SIGTERM, None)
    assert codes == [128 + signal.SIGTERM]
