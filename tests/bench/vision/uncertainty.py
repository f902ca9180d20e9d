"""How sure an accuracy is, and when one model may be called better than another.

Two things vary: which images the test part happens to have, and, where a method is random,
its seed. With c_i the share of seeds that get image i right:

- an accuracy is the mean of c over a task's images, a difference of two models on the same
  images the mean of d_i = a_i − b_i. With r_i the distance of image i from that mean, its
  variance is Σ_g (Σ_{i in g} r_i)² / n² over groups g of images that are alike (frames of one
  sprite, fonts of one character): the sandwich estimate for clusters, without a correction for
  few of them. It is as large as the data say: pictures of a group that are right and wrong
  together count as one;
- where every image is a group by itself that is var(c) / n, for one seed the binomial
  p (1 − p) / n; and var(d) / n, for one seed each (n10 + n01 − (n10 − n01)² / n) / n², from the
  counts of images that one alone gets right;
- a mean over tasks has the sum of the tasks' variances over T²: tasks are the benchmark and no
  sample of one;
- the seeds add the variance of their means over tasks, divided by their number. Part of it is
  in var(c) already, so the whole errs on the careful side.

Nothing is called better within two standard errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.bool_]
"""(seeds, images) of one task: which images were right."""
Runs = Mapping[str, Outcomes]
"""The outcomes by task; equally many seeds in each."""
Groups = NDArray[np.int64]
"""(images,) of one task: which of them are alike."""
GroupsOf = Mapping[str, Groups]
"""By task; in a task that is not there every image is a group by itself."""

NO_GROUPS: GroupsOf = MappingProxyType({})

ERRORS_APART = 2.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float

    def is_above_zero(self) -> bool:
        """Say whether it is more than two standard errors above zero."""
        return self.value > ERRORS_APART * self.error


def accuracy(outcomes: Outcomes, groups: Groups | None = None) -> Estimate:
    """Return the share of images that are right in one task, over seeds."""
    return _mean(outcomes.mean(axis=0, dtype=np.float64), groups)


def difference(a: Outcomes, b: Outcomes, groups: Groups | None = None) -> Estimate:
    """Return the accuracy of `a` less that of `b` on the same images of one task."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} images cannot be compared in pairs")
    return _mean(a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64), groups)


def mean_accuracy(runs: Runs, groups: GroupsOf = NO_GROUPS) -> Estimate:
    """Return the mean of a model's accuracies over tasks, seeds counted in its error."""
    found = [accuracy(outcomes, groups.get(task)) for task, outcomes in runs.items()]
    return _with_seeds(_over_tasks(found), seed_error(runs))


def mean_difference(a: Runs, b: Runs, groups: GroupsOf = NO_GROUPS) -> Estimate:
    """Return the mean over tasks of `a` less `b`, paired by image, seeds counted in its error."""
    if set(a) != set(b):
        raise ValueError(f"different tasks cannot be compared: {sorted(set(a) ^ set(b))}")
    found = _over_tasks([difference(a[task], b[task], groups.get(task)) for task in a])
    return _with_seeds(found, seed_error(a), seed_error(b))


def contrast(terms: Sequence[tuple[float, Runs]], groups: GroupsOf = NO_GROUPS) -> Estimate:
    """Return a weighted sum of means over tasks, paired by image wherever tasks are the same.

    Each mean is over the tasks its runs have. `[(1, a), (-1, b)]` is `mean_difference`.
    """
    by_task: dict[str, NDArray[np.float64]] = {}
    for weight, runs in terms:
        for task, outcomes in runs.items():
            part = weight / len(runs) * outcomes.mean(axis=0, dtype=np.float64)
            by_task[task] = by_task[task] + part if task in by_task else part
    found = [_mean(values, groups.get(task)) for task, values in by_task.items()]
    value = sum(estimate.value for estimate in found)
    images = Estimate(value=value, error=sqrt(sum(estimate.error**2 for estimate in found)))
    return _with_seeds(images, *(weight * seed_error(runs) for weight, runs in terms))


def better(a: Runs, b: Runs, groups: GroupsOf = NO_GROUPS) -> bool:
    """Say whether `a` is better than `b` on the mean over tasks, by more than two errors."""
    return mean_difference(a, b, groups).is_above_zero()


def seed_means(runs: Runs) -> list[float]:
    """Return the mean over tasks for each seed."""
    by_task = [outcomes.mean(axis=1, dtype=np.float64) for outcomes in runs.values()]
    return [float(value) for value in np.mean(by_task, axis=0)]


def seed_error(runs: Runs) -> float:
    """Return the standard error over seeds of the mean over tasks; 0 for a single one."""
    return standard_error(seed_means(runs))


def standard_error(values: Sequence[float]) -> float:
    """Return the sample deviation over the root of the count; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1)) / sqrt(len(values))


def _mean(values: NDArray[np.float64], groups: Groups | None) -> Estimate:
    """Return the mean of values (n,) and its error, robust to groups (n,) of alike ones."""
    value, count = float(values.mean()), len(values)
    apart = values - value
    if groups is not None:
        if len(groups) != count:
            raise ValueError(f"{count} images have {len(groups)} groups")
        _, members = np.unique(groups, return_inverse=True)
        apart = np.bincount(members, weights=apart)
    return Estimate(value=value, error=sqrt(float(apart @ apart)) / count)


def _over_tasks(estimates: Sequence[Estimate]) -> Estimate:
    count = len(estimates)
    return Estimate(
        value=sum(estimate.value for estimate in estimates) / count,
        error=sqrt(sum(estimate.error**2 for estimate in estimates)) / count,
    )


def _with_seeds(found: Estimate, *errors: float) -> Estimate:
    return Estimate(
        value=found.value, error=sqrt(found.error**2 + sum(error**2 for error in errors))
    )
