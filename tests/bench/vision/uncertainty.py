"""How sure an accuracy is, and when one model may be called better than another.

Two things vary: which images the test part happens to have, and, where a method is random,
its seed. With c_i the share of seeds that get image i right:

- an accuracy is the mean of c over a task's images, with variance var(c) / n; for one seed
  that is the binomial p (1 − p) / n;
- a difference of two models on the same images is the mean of d_i = a_i − b_i, with variance
  var(d) / n; for one seed each that is (n10 + n01 − (n10 − n01)² / n) / n², from the counts of
  images that one alone gets right;
- a mean over tasks has the sum of the tasks' variances over T²: tasks are the benchmark and no
  sample of one;
- the seeds add the variance of their means over tasks, divided by their number. Part of it is
  in var(c) already, so the whole errs on the careful side.

Nothing is called better within two standard errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.bool_]
"""(seeds, images) of one task: which images were right."""
Runs = Mapping[str, Outcomes]
"""The outcomes by task; equally many seeds in each."""

ERRORS_APART = 2.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float

    def is_above_zero(self) -> bool:
        """Say whether it is more than two standard errors above zero."""
        return self.value > ERRORS_APART * self.error


def accuracy(outcomes: Outcomes) -> Estimate:
    """Return the share of images that are right in one task, over seeds."""
    return _mean(outcomes.mean(axis=0, dtype=np.float64))


def difference(a: Outcomes, b: Outcomes) -> Estimate:
    """Return the accuracy of `a` less that of `b` on the same images of one task."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} images cannot be compared in pairs")
    return _mean(a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64))


def mean_accuracy(runs: Runs) -> Estimate:
    """Return the mean of a model's accuracies over tasks, seeds counted in its error."""
    found = _over_tasks([accuracy(outcomes) for outcomes in runs.values()])
    return _with_seeds(found, seed_error(runs))


def mean_difference(a: Runs, b: Runs) -> Estimate:
    """Return the mean over tasks of `a` less `b`, paired by image, seeds counted in its error."""
    if set(a) != set(b):
        raise ValueError(f"different tasks cannot be compared: {sorted(set(a) ^ set(b))}")
    found = _over_tasks([difference(a[task], b[task]) for task in a])
    return _with_seeds(found, seed_error(a), seed_error(b))


def better(a: Runs, b: Runs) -> bool:
    """Say whether `a` is better than `b` on the mean over tasks, by more than two errors."""
    return mean_difference(a, b).is_above_zero()


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


def _mean(values: NDArray[np.float64]) -> Estimate:
    error = sqrt(float(np.var(values)) / len(values))
    return Estimate(value=float(values.mean()), error=error)


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
