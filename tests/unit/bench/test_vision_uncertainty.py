"""Standard errors of the vision benchmark, against closed forms and a simulation."""

from math import sqrt

import numpy as np
import pytest

from tests.bench.vision.uncertainty import (
    accuracy,
    better,
    contrast,
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


def test_groups_of_one_change_nothing() -> None:
    a, b = outcomes("1110100111"), outcomes("1010110101")
    alone = np.array([7, 3, 9, 1, 0, 2, 40, 5, 6, 8])
    found = accuracy(a, alone)
    assert (found.value, found.error) == pytest.approx((0.7, sqrt(0.7 * 0.3 / 10)))
    assert difference(a, b, alone).error == pytest.approx(difference(a, b).error)


def test_each_image_twice_in_a_group_of_its_own_tells_no_more_than_once() -> None:
    """An error that takes the copies for new images is too small by the root of two."""
    once, other = outcomes("1110100111"), outcomes("1010110101")
    twice, pairs = np.tile(once, 2), np.tile(np.arange(10), 2)
    assert accuracy(twice, pairs).error == pytest.approx(accuracy(once).error)
    assert accuracy(twice, pairs).error == pytest.approx(sqrt(2) * accuracy(twice).error)
    paired = difference(twice, np.tile(other, 2), pairs)
    assert paired.error == pytest.approx(sqrt(2) * difference(twice, np.tile(other, 2)).error)


def test_groups_of_uneven_size_follow_the_sandwich() -> None:
    found = accuracy(outcomes("111011"), np.array([5, 5, 5, 9, 9, 2]))
    residuals = [3 * (1 / 6), -5 / 6 + 1 / 6, 1 / 6]
    assert found.error == pytest.approx(sqrt(sum(r**2 for r in residuals)) / 6)


def test_groups_count_in_means_over_tasks_and_in_what_is_better() -> None:
    a, b = {"t": outcomes("1" * 55 + "0" * 45)}, {"t": outcomes("1" * 50 + "0" * 50)}
    together = {"t": np.repeat(np.arange(20), 5)}
    assert better(a, b)
    assert not better(a, b, together)
    assert mean_accuracy(a, together).error > mean_accuracy(a).error
    assert mean_difference(a, b, {"other": together["t"]}) == mean_difference(a, b)


def test_groups_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images have 2 groups"):
        accuracy(outcomes("110"), np.array([0, 1]))


def test_two_errors_cover_groups_that_are_right_or_wrong_together() -> None:
    numbers, inside, naive = np.random.default_rng(1), 0, 0
    groups = np.repeat(np.arange(100), 4)
    for _ in range(400):
        drawn = np.repeat(numbers.random((1, 100)) < 0.8, 4, axis=1)
        inside += abs(accuracy(drawn, groups).value - 0.8) <= 2 * accuracy(drawn, groups).error
        naive += abs(accuracy(drawn).value - 0.8) <= 2 * accuracy(drawn).error
    assert 0.92 < inside / 400 < 0.98
    assert naive / 400 < 0.75


def test_a_contrast_of_two_is_their_difference() -> None:
    a = {"one": outcomes("1110", "1100"), "two": outcomes("111110", "101010")}
    b = {"one": outcomes("1000", "1101"), "two": outcomes("100110", "101110")}
    groups = {"two": np.array([0, 0, 1, 1, 2, 2])}
    found, said = contrast([(1.0, a), (-1.0, b)], groups), mean_difference(a, b, groups)
    assert (found.value, found.error) == pytest.approx((said.value, said.error))


def test_a_contrast_pairs_images_of_the_tasks_that_terms_share() -> None:
    """The mean over one task less the mean over it and another: half of the first cancels."""
    one, both = {"t": outcomes("1100")}, {"t": outcomes("1100"), "u": outcomes("1110")}
    found = contrast([(1.0, one), (-1.0, both)])
    assert found.value == pytest.approx(0.5 - (0.5 + 0.75) / 2)
    assert found.error == pytest.approx(sqrt(0.25 * 0.25 / 4 + 0.25 * (0.75 * 0.25) / 4))


def test_two_errors_cover_what_is_drawn() -> None:
    numbers = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = accuracy(numbers.random((1, 300)) < 0.8)
        inside += abs(found.value - 0.8) <= 2 * found.error
    assert 0.92 < inside / 400 < 0.98
