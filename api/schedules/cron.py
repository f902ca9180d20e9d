"""When a schedule fires: cron expressions in an IANA time zone. Pure.

Around changes of the clock this does as Debian's cron does (the library is written after it).
A time of day that a spring day skips fires right after the gap; one that an autumn day has
twice fires the first time only. Expressions with `*` for hour or minute go by elapsed time.
"""

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from fda_core.errors import BadCron, UnknownZone

FIELDS = 5
NOWHERE = {"Factory", "localtime", "posixrules"}
"""Names that mean no place: another zone on every machine, or none."""
LOOKING_BACK = (1, 24, 24 * 31, 24 * 366, 24 * 366 * 50)
"""Hours; each window is looked through only if there was nothing in the one before."""


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone, or raise `UnknownZone` with the nearest known one."""
    try:
        known = available_timezones() - NOWHERE
        if name in known:
            return ZoneInfo(name)
    except (ValueError, OSError):
        known = set()
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise UnknownZone(
        f"there is no time zone {name!r}",
        hint=f"{meant}Give an IANA name, as UTC or Europe/Berlin.",
        zone=name,
    )


def check_cron(cron: str, zone: ZoneInfo, *, after: datetime) -> None:
    """Refuse an expression that cannot be read or never comes true, with `BadCron`."""
    count = len(cron.split())
    if count != FIELDS:
        raise BadCron(
            f"cron {cron!r} has {count} fields, not {FIELDS}",
            hint="Minute, hour, day of month, month, day of week: 30 2 * * 1-5.",
            cron=cron,
        )
    try:
        found = next(fires(cron, zone, after=after), None)
    except CronSimError as problem:
        raise BadCron(
            f"cron {cron!r}: {str(problem).lower()}",
            hint="Minute 0-59, hour 0-23, day 1-31, month 1-12, day of week 0-7 (Sunday is both).",
            cron=cron,
        ) from None
    if found is None:
        raise BadCron(
            f"cron {cron!r} names no time in the next 50 years",
            hint="Check day and month.",
            cron=cron,
        )


def fires(cron: str, zone: ZoneInfo, *, after: datetime) -> Iterator[datetime]:
    """Yield the fire times after a moment, in UTC, each later than the one before."""
    last = after.astimezone(UTC)
    for local in CronSim(cron, after.astimezone(zone)):
        # In the second pass of an autumn hour the library names the first pass again.
        moment = local.astimezone(UTC)
        if moment > last:
            last = moment
            yield moment


def next_fire(cron: str, zone: ZoneInfo, *, after: datetime) -> datetime | None:
    """Return the first fire time after a moment, in UTC; None if there is none in 50 years."""
    return next(fires(cron, zone, after=after), None)


def latest_fire(cron: str, zone: ZoneInfo, *, since: datetime, until: datetime) -> datetime:
    """Return the last fire time in [since, until]; `since` must be one itself.

    The work does not grow with the time between.
    """
    for hours in LOOKING_BACK:
        begin = max(since, until - timedelta(hours=hours))
        last = since if begin == since else None
        for moment in takewhile(lambda at: at <= until, fires(cron, zone, after=begin)):
            last = moment
        if last is not None:
            return last
    return since
