"""Axes: values to pixels, and where the ticks go."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a chart; `low` lies at pixel `begin`, `high` at pixel `end`."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value; on a log axis the value is above zero."""
        low, high, here = (
            (math.log10(number) for number in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        share = (here - low) / (high - low) if high > low else 0.5
        return self.begin + share * (self.end - self.begin)

    def ticks(self, count: int = 5) -> tuple[float, ...]:
        """Return about `count` round values inside the axis."""
        if self.log:
            return log_ticks(self.low, self.high, count)
        return linear_ticks(self.low, self.high, count)

    def numbers(self) -> str:
        """Return what a script needs to read values off pixels."""
        ends = f"{self.begin:g} {self.end:g} {self.low:.6g} {self.high:.6g}"
        return f"{ends} {'log' if self.log else 'linear'}"


def span(values: Iterable[float], *, pad_ratio: float = 0.05) -> tuple[float, float]:
    """Return a range that holds the values with a little room; (0, 1) without any."""
    found = list(values)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    room = (high - low) * pad_ratio or abs(high) * pad_ratio or 1.0
    return low - room, high + room


def round_up(value: float) -> float:
    """Return the next number of the form 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 or 10 times a power of ten.

    Zero and below give 1.
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
        if value <= step * power * (1 + 1e-9):
            return step * power
    return 10 * power


def log_span(values: Iterable[float]) -> tuple[float, float]:
    """Return a range that holds the values above zero, with room, for a log axis."""
    found = [value for value in values if value > 0]
    if not found:
        return 0.1, 1.0
    low, high = min(found), max(found)
    room = max((high / low) ** 0.06, 1.05)
    return low / room, high * room


def linear_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return round numbers from `low` to `high`, a step of 1, 2 or 5 times a power apart."""
    if high <= low:
        return (low,)
    step = _round_step((high - low) / max(1, count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def log_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return powers of ten from `low` to `high`; with few of them, numbers between."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    exponents = range(first, last + 1)
    for every in range(max(1, math.ceil(len(exponents) / max(1, count))), 0, -1):
        chosen = [exponent for exponent in exponents if exponent % every == 0]
        inside = _powers(low, high, chosen, (1,))
        if len(inside) >= 3:
            return inside
    for factors in ((1, 2, 5), range(1, 10)):
        inside = _powers(low, high, exponents, factors)
        if len(inside) >= 3:
            return inside
    return tuple(tick for tick in linear_ticks(low, high, count) if low <= tick <= high)


def _powers(
    low: float, high: float, exponents: Sequence[int], factors: Sequence[int]
) -> tuple[float, ...]:
    ticks = (factor * 10.0**exponent for exponent in exponents for factor in factors)
    return tuple(tick for tick in ticks if low <= tick <= high)


def tick_text(value: float) -> str:
    """Return a tick's label: 0.25, 1,200, 1e-6."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "\u2212")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5):
        if rough <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power
