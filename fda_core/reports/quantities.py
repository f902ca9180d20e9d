"""Numbers as people read them."""

import math

NO_VALUE = "n/a"


def number(value: float | None, *, digits: int = 4) -> str:
    """Return a plain decimal, or n/a for None and whatever is not finite."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.removeprefix("-")


def percent(value: float | None, *, digits: int = 1) -> str:
    """Return a ratio as per cent."""
    shown = number(None if value is None else value * 100, digits=digits)
    return shown if shown == NO_VALUE else f"{shown}\u00a0%"


def significant(value: float | None, *, digits: int = 4) -> str:
    """Return a number of any size with so many digits, such as 0.001234 or 1.2e+09."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return a length of time: 0.42 s, 12.3 s, 4 min 10 s, 3 h 12 min."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def size(count_bytes: int) -> str:
    """Return a number of bytes: 512 B, 84.1 MiB, 12.0 GiB."""
    return _scaled(float(count_bytes), 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def operations(flops: int) -> str:
    """Return a number of floating-point operations: 47.0 PFLOP."""
    names = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")
    return _scaled(float(flops), 1000.0, names)


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """Return an amount with its noun: 1 layer, 12 layers."""
    return f"{amount:,} {singular if amount == 1 else plural or singular + 's'}"


def _scaled(value: float, step: float, names: tuple[str, ...]) -> str:
    for name in names[:-1]:
        if value < step * 0.99995:
            return f"{value:.0f} {name}" if name == names[0] else f"{value:.1f} {name}"
        value /= step
    return f"{value:,.1f} {names[-1]}"
