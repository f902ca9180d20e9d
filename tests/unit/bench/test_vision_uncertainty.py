"""Standard errors of the vision benchmark, against closed forms and a simulation."""

from math import sqrt

import numpy as np
import pytest

from tests.bench.vision.uncertainty import (
    accuracy,
    better,
    difference,
    mean_accuracy,
    mean_difference,
    seed_error,
    standard_error,
)


def outcomes(*seeds: str) -> np.ndarray:
    return np.array([[letter == "1" for letter in seed] for seed in seeds])


def test_one_seed_has_the_binomial_error() -> None:
    found = accuracy(outcomes("1110100111"))
    assert found.value == pytest.approx(0.7)
    assert found.error == pytest.approx(sqrt(0.7 * 0.3 / 10))


def test_a_difference_has_the_error_of_the_discordant_counts() -> None:
    a, b = outcomes("1111110000"), outcomes("1111001000")
    n10, n01, n = 2, 1, 10
    found = difference(a, b)
    assert found.value == pytest.approx((n10 - n01) / n)
    assert found.error == pytest.approx(sqrt(n10 + n01 - (n10 - n01) ** 2 / n) / n)


def test_equal_models_differ_by_nothing_for_sure() -> None:
    a = outcomes("110101")
    found = difference(a, a)
    assert (found.value, found.error) == (0.0, 0.0)
    assert not better({"t": a}, {"t": a})


def test_pairing_knows_a_difference_better_than_two_accuracies_do() -> None:
    a, b = outcomes("1" * 60 + "0" * 40), outcomes("1" * 50 + "0" * 50)
    apart = sqrt(accuracy(a).error ** 2 + accuracy(b).error ** 2)
    assert difference(a, b).error < apart / 2


def test_the_mean_of_tasks_adds_variances() -> None:
    runs = {"one": outcomes("1100"), "two": outcomes("111110")}
    found = mean_accuracy(runs)
    one, two = 0.5 * 0.5 / 4, (5 / 6) * (1 / 6) / 6
    assert found.value == pytest.approx((0.5 + 5 / 6) / 2)
    assert found.error == pytest.approx(sqrt(one + two) / 2)


def test_seeds_add_the_error_of_their_mean() -> None:
    runs = {"t": outcomes("1110", "1100", "1111")}
    means = [0.75, 0.5, 1.0]
    over_seeds = float(np.std(means, ddof=1)) / sqrt(3)
    shares = np.array([1.0, 1.0, 2 / 3, 1 / 3])
    assert seed_error(runs) == pytest.approx(over_seeds)
    assert mean_accuracy(runs).error == pytest.approx(sqrt(shares.var() / 4 + over_seeds**2))


def test_both_models_seeds_are_counted_in_a_difference() -> None:
    a, b = {"t": outcomes("1110", "1100")}, {"t": outcomes("1000", "0000")}
    found = mean_difference(a, b)
    shares = np.array([0.5, 1.0, 0.5, 0.0])
    assert found.error == pytest.approx(
        sqrt(shares.var() / 4 + seed_error(a) ** 2 + seed_error(b) ** 2)
    )


@pytest.mark.parametrize(("won", "said"), [(3, False), (4, True)])
def test_better_needs_more_than_two_errors(won: int, said: bool) -> None:
    """Of 100 images, `a` alone gets `won` right and `b` none: more than 2 errors from 4 on."""
    a, b = outcomes("1" * 50 + "0" * 50), outcomes("1" * (50 - won) + "0" * (50 + won))
    assert better({"t": a}, {"t": b}) is said
    assert not better({"t": b}, {"t": a})


def test_a_single_value_has_no_error_over_seeds() -> None:
    assert standard_error([0.8]) == 0.0


def test_models_judged_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 4 images"):
        difference(outcomes("110"), outcomes("1101"))
    with pytest.raises(ValueError, match="different tasks"):
        mean_difference({"a": outcomes("1")}, {"b": outcomes("1")})


def test_two_errors_cover_what_is_drawn() -> None:
    numbers = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = accuracy(numbers.random((1, 300)) < 0.8)
        inside += abs(found.value - 0.8) <= 2 * found.error
    assert 0.92 < inside / 400 < 0.98
