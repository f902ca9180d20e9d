"""When schedules fire, around changes of the clock above all."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.schedules.cron import check_cron, fires, latest_fire, next_fire, zone_of
from fda_core.errors import BadCron, UnknownZone

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)
"""The day before 02:00 becomes 03:00 in Berlin."""
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)
"""The day before 03:00 becomes 02:00 in Berlin."""


def local(cron: str, *, after: datetime, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    found = islice(fires(cron, zone, after=after), count)
    return [moment.astimezone(zone).isoformat() for moment in found]


def test_a_time_that_a_spring_day_skips_fires_once_right_after_the_gap():
    assert local("30 2 * * *", after=SPRING, count=2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_an_autumn_day_has_twice_fires_the_first_time_only():
    assert local("30 2 * * *", after=AUTUMN, count=2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_between_the_two_passes_of_an_autumn_hour_the_next_is_the_day_after():
    second_pass = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
    assert local("30 2 * * *", after=second_pass, count=1) == ["2026-10-26T02:30:00+01:00"]


def test_every_hour_goes_by_elapsed_time_through_both_changes():
    for start in (SPRING, AUTUMN):
        moments = list(islice(fires("0 * * * *", BERLIN, after=start), 30))
        assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(hours=1)}


def test_southern_zones_change_the_other_way():
    sydney = ZoneInfo("Australia/Sydney")
    after = datetime(2026, 10, 3, tzinfo=UTC)
    assert local("30 2 * * *", after=after, count=2, zone=sydney) == [
        "2026-10-04T03:00:00+11:00",
        "2026-10-05T02:30:00+11:00",
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31))
    | st.datetimes(datetime(2026, 10, 23), datetime(2026, 10, 27)),
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "15 1-3 * * *", "0 0 * * 0", "59 2 L * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_fire_times_always_lie_ahead_and_grow(start: datetime, cron: str, name: str):
    after = start.replace(tzinfo=UTC)
    moments = [after, *islice(fires(cron, zone_of(name), after=after), 6)]
    assert all(earlier < later for earlier, later in pairwise(moments))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 60 * 24 * 40),
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 9 * * 1-5", "0 0 1 * *"]),
)
def test_the_latest_of_many_missed_ones_is_found_without_going_through_them(
    minutes: int, cron: str
):
    since = next_fire(cron, BERLIN, after=AUTUMN - timedelta(days=20))
    assert since is not None
    until = since + timedelta(minutes=minutes)
    slow = since
    for moment in fires(cron, BERLIN, after=since):
        if moment > until:
            break
        slow = moment
    assert latest_fire(cron, BERLIN, since=since, until=until) == slow


def test_years_of_missed_minutes_are_no_work():
    since = datetime(2000, 1, 1, tzinfo=UTC)
    assert latest_fire("* * * * *", BERLIN, since=since, until=SPRING) == SPRING


@pytest.mark.parametrize(
    ("cron", "word"),
    [
        ("* * * *", "4 fields"),
        ("0 0 0 1 1 *", "6 fields"),
        ("@daily", "1 fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day"),
        ("*/0 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day"),
        ("* * */20 * 1L", "names no time"),
        ("ä * * * *", "bad minute"),
    ],
)
def test_bad_expressions_are_refused_by_name(cron: str, word: str):
    with pytest.raises(BadCron, match=word):
        check_cron(cron, BERLIN, after=SPRING)


@settings(max_examples=40, deadline=None)
@given(st.text("0123456789*/,-#LWSUNJA ", max_size=20))
def test_any_text_is_an_expression_or_refused_by_name(text: str):
    try:
        check_cron(text, BERLIN, after=SPRING)
    except BadCron:
        return
    assert next_fire(text, BERLIN, after=SPRING) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("", "Europe/Berlim", "../etc/passwd", "/etc/localtime", "Europe"),
        *("localtime", "Factory", "posixrules"),
    ],
)
def test_unknown_zones_are_refused(name: str):
    with pytest.raises(UnknownZone) as refused:
        zone_of(name)
    if name == "Europe/Berlim":
        assert "'Europe/Berlin'" in (refused.value.hint or "")
