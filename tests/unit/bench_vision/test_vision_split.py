"""Cutting a pool: groups and pictures on one side each, quotas met, the same cut every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.bench.vision.near import near_joined
from tests.bench.vision.split import PARTS, Pool, Sizes, cut, distinct, parts_of
from tests.bench.vision.task import SIDE, Task


def _pool(labels: list[int], groups: list[int], *, codes: list[int] | None = None) -> Pool:
    """Return a pool whose picture i says `codes[i]`, or i, in its first pixels."""
    images = np.zeros((len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    numbers = np.array(range(len(labels)) if codes is None else codes)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
    return Pool(
        images=images,
        labels=np.array(labels, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
        classes=tuple(f"class {label}" for label in range(max(labels) + 1)),
    )


def _codes(images: NDArray[np.uint8]) -> list[int]:
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]


def _sides(task: Task) -> dict[int, str]:
    return {code: part for part in PARTS for code in _codes(task.parts[part].images)}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=3, max_size=150))
def test_no_group_is_on_two_sides(rows: list[tuple[int, int]]) -> None:
    labels = [0, 1, 2, *(label for label, _ in rows)]
    groups = [100, 101, 102, *(group for _, group in rows)]
    sides = _sides(cut("x", _pool(labels, groups), Sizes(train=12, validation=4, test=8)))
    for group in set(groups):
        members = [code for code, other in enumerate(groups) if other == group]
        assert len({sides[code] for code in members if code in sides}) <= 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=100))
def test_no_picture_is_there_twice_and_none_with_two_labels(rows: list[tuple[int, int]]) -> None:
    rows = [(0, 1000), (1, 1001), *rows]
    labels, codes = [label for label, _ in rows], [code for _, code in rows]
    pool = _pool(labels, list(range(len(rows))), codes=codes)
    task = cut("x", pool, Sizes(train=30, validation=10, test=20))
    kept = [code for part in PARTS for code in _codes(task.parts[part].images)]
    assert len(kept) == len(set(kept))
    assert all(len({label for label, other in rows if other == code}) == 1 for code in kept)


def test_quotas_are_met_where_there_is_plenty() -> None:
    labels = [0] * 300 + [1] * 400
    task = cut("x", _pool(labels, list(range(700))), Sizes(train=120, validation=40, test=100))
    for part, count in zip(PARTS, (120, 40, 100), strict=True):
        np.testing.assert_array_equal(np.bincount(task.parts[part].labels), [count, count])


def test_a_short_class_gives_up_test_pictures_first() -> None:
    sizes = Sizes(train=120, validation=40, test=100)
    np.testing.assert_allclose(sizes.shares(1000), [120, 40, 100])
    np.testing.assert_allclose(sizes.shares(240), [120, 40, 80])
    np.testing.assert_allclose(sizes.shares(220), [120, 40, 60])
    np.testing.assert_allclose(sizes.shares(110), [60, 20, 30])


def test_the_cut_is_the_same_every_time() -> None:
    pool = _pool([0] * 90 + [1] * 90, [code // 3 for code in range(180)])
    sizes = Sizes(train=40, validation=10, test=20)
    first, again = parts_of(pool, sizes), parts_of(pool, sizes)
    for part in PARTS:
        np.testing.assert_array_equal(first[part], again[part])


def test_each_part_takes_one_of_each_group_before_a_second() -> None:
    groups = [code // 10 for code in range(600)]
    pool = _pool([0] * 600, groups)
    rows = parts_of(pool, Sizes(train=20, validation=8, test=10))
    for part in PARTS:
        assert len(set(pool.groups[rows[part]].tolist())) == len(rows[part])


def test_pools_of_uneven_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 1\)"):
        _pool([0, 0], [1])


def test_distinct_keeps_the_first_of_equal_pictures() -> None:
    kept = distinct(_pool([0, 0, 1, 1], [0, 1, 2, 3], codes=[7, 7, 8, 9]))
    assert kept.groups.tolist() == [0, 2, 3]


def _noisy(seed: int, amount: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (14, 14, 3)).repeat(4, axis=0).repeat(4, axis=1)
    return (coarse + np.random.default_rng(99).integers(0, amount + 1, coarse.shape)).astype("u1")


def test_groups_of_near_pictures_become_one_and_others_do_not() -> None:
    images = np.stack([_noisy(1, 0), _noisy(1, 6), _noisy(2, 0), _noisy(3, 0), _noisy(3, 4)])
    pool = Pool(
        images=images,
        labels=np.zeros(5, dtype=np.int64),
        groups=np.array([10, 20, 30, 40, 30]),
        classes=("only",),
    )
    joined = near_joined(pool).groups
    assert joined[0] == joined[1]
    # Picture 3 is near picture 4, which is of picture 2's group.
    assert joined[2] == joined[3] == joined[4]
    assert joined[0] != joined[2]
