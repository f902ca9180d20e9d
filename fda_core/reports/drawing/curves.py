"""Series of numbers before they are drawn: cleaned, thinned, summed up across curves."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fda_core.reports.averages import quantile

Point = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Low, middle and high of many curves at the same places."""

    low: tuple[Point, ...]
    middle: tuple[Point, ...]
    high: tuple[Point, ...]


def clean(xs: Sequence[float], ys: Sequence[float]) -> tuple[Point, ...]:
    """Return the points whose values are finite, from left to right."""
    pairs = sorted(zip(map(float, xs), map(float, ys), strict=False))
    return tuple((x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y))


def thin(points: Sequence[Point], *, limit: int) -> tuple[Point, ...]:
    """Return at most `limit` points, with both ends and the peaks and dips between them.

    Each stretch of the curve gives its lowest and its highest point, so a spike survives.
    """
    if len(points) <= max(limit, 2):
        return tuple(points)
    inner = points[1:-1]
    stretches = max(1, (limit - 2) // 2)
    kept = [points[0]]
    for number in range(stretches):
        begin = number * len(inner) // stretches
        end = (number + 1) * len(inner) // stretches
        part = inner[begin:end]
        lowest, highest = min(part, key=_value), max(part, key=_value)
        kept.extend(sorted({lowest, highest}))
    return (*kept, points[-1])


def spread(
    curves: Iterable[Sequence[Point]], *, low_share: float = 0.0, high_share: float = 1.0
) -> Spread:
    """Return the spread of curves at up to 120 places where any of them has a point.

    A curve counts between its own first and last point, mixed linearly.
    """
    drawn = [curve for curve in curves if curve]
    places = sorted({x for curve in drawn for x, _ in curve})
    if len(places) > 120:
        last = len(places) - 1
        places = [places[round(number * last / 119)] for number in range(120)]
    rows = [(x, [y for y in (_at(curve, x) for curve in drawn) if y is not None]) for x in places]
    rows = [(x, ys) for x, ys in rows if ys]
    return Spread(
        low=tuple((x, quantile(ys, low_share)) for x, ys in rows),
        middle=tuple((x, quantile(ys, 0.5)) for x, ys in rows),
        high=tuple((x, quantile(ys, high_share)) for x, ys in rows),
    )


def _at(curve: Sequence[Point], x: float) -> float | None:
    if not curve or not curve[0][0] <= x <= curve[-1][0]:
        return None
    after = bisect_right(curve, (x, math.inf))
    x0, y0 = curve[after - 1]
    if after == len(curve) or x0 == x:
        return y0
    x1, y1 = curve[after]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _value(point: Point) -> float:
    return point[1]
