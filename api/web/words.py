"""Figures and moments as people read them. The browser's `words.js` says them the same way."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def duration(seconds: float | None) -> str:
    """Return a length of time by its two largest units."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float | None) -> str:
    """Return a number of bytes with three digits."""
    if count is None:
        return "–"
    step = 0
    while count >= 999.5 and step < len(UNITS) - 1:
        count /= 1000
        step += 1
    digits = 0 if step == 0 or count >= 99.5 else 1
    return f"{count:.{digits}f} {UNITS[step]}"


def figure(value: Any, digits: int = 4) -> str:
    """Return a measured number; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.{digits}g}"


def cell(value: float) -> str:
    """Return a number for a narrow column: always three digits, so that they line up."""
    return f"{value:#.3g}"


def percent(ratio: float | None) -> str:
    """Return a share; 100 % only for all of it."""
    if ratio is None:
        return "–"
    return "100 %" if ratio >= 1 else f"{min(99, int(100 * ratio))} %"


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago, or in how long, a moment is."""
    if moment is None:
        return "–"
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    words = coarse(abs(seconds))
    return f"{words} ago" if seconds > 0 else f"in {words}"


def coarse(seconds: float) -> str:
    """Return a length of time by its largest unit."""
    for size_seconds, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_seconds:
            return f"{int(seconds // size_seconds)} {word}"
    return f"{int(seconds)} s"


def iso(moment: datetime) -> str:
    """Return a moment for machines."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def exact(moment: datetime) -> str:
    """Return a moment to the second, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def fire_words(local: datetime, now: datetime, zone: str) -> str:
    """Return a fire time in its schedule's zone: the day as one would say it, and the time."""
    place = ZoneInfo(zone)
    here = local.astimezone(place)
    today = now.astimezone(place).date()
    if here.date() == today:
        day = "today"
    elif here.date() == today + timedelta(days=1):
        day = "tomorrow"
    else:
        day = here.strftime("%a %-d %b") + ("" if here.year == today.year else f" {here.year}")
    return f"{day} {here:%H:%M}"


def tail(address: str | None) -> str:
    """Return the last part of an address: what tells models apart in a narrow column."""
    return (address or "").rstrip("/").rpartition("/")[2] or (address or "–")
