"""Means and quantiles of numbers some of which may be missing."""

import math
from collections.abc import Iterable, Sequence


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the finite values, or None without any."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(found) / len(found) if found else None


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value at a share of the way through the sorted values, mixed linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (place - lower)
