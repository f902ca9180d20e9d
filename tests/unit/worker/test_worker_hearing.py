import pytest

from worker.hearing import Hearing


class Ear:
    """A worker's hearing, looked at once a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hearing = Hearing(patience_seconds=3.0, clock=lambda: self.now)

    def look(self, waiting: int) -> bool:
        self.now += 1.0
        return self.hearing.is_deaf(waiting)


def test_messages_that_nobody_takes_make_an_idle_worker_deaf() -> None:
    ear = Ear()
    assert [ear.look(2) for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("what", ["empty", "takes", "redis away"])
def test_one_good_sign_starts_the_count_anew(what: str) -> None:
    ear = Ear()
    for _ in range(3):
        assert not ear.look(2)
    if what == "takes":
        with ear.hearing.taking():
            pass
    if what == "redis away":
        ear.hearing.forget()
    assert not ear.look(0 if what == "empty" else 2)
    assert not ear.look(2)
    assert not ear.look(2)


def test_a_long_unit_makes_nobody_deaf() -> None:
    ear = Ear()
    with ear.hearing.taking():
        assert not any(ear.look(2) for _ in range(10))
    assert [ear.look(2) for _ in range(4)] == [False, False, False, True]
