"""Opening hours, at any instant: past midnight, and where clocks are changed."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.access.errors import UnusablePolicy
from federation_member.access.hours import DAYS, Hours

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "at", "open_"),
    [
        ("mon-fri 08:00-18:00", "2026-11-23T08:00:00", True),
        ("mon-fri 08:00-18:00", "2026-11-23T07:59:59", False),
        ("mon-fri 08:00-18:00", "2026-11-23T17:59:59", True),
        ("mon-fri 08:00-18:00", "2026-11-23T18:00:00", False),
        ("mon-fri 08:00-18:00", "2026-11-28T12:00:00", False),
        ("mon-fri 08:00-18:00 Europe/Berlin", "2026-11-23T07:00:00", True),  # winter: one hour ahead
        ("mon-fri 08:00-18:00 Europe/Berlin", "2026-07-20T06:00:00", True),  # summer: two
        ("mon-fri 08:00-18:00 Europe/Berlin", "2026-07-20T05:59:00", False),
        ("mon", "2026-11-23T23:59:59", True),
        ("mon", "2026-11-24T00:00:00", False),
        ("mon Pacific/Auckland", "2026-11-22T11:00:00", True),  # Monday begins there first
        ("Europe/Berlin", "2026-11-22T03:00:00", True),
        ("08:00-12:00,13:00-18:00", "2026-11-22T12:30:00", False),
        ("08:00-12:00,13:00-18:00", "2026-11-22T13:00:00", True),
        ("sat,sun 10:00-24:00", "2026-11-22T23:59:00", True),
        ("sat-mon", "2026-11-24T00:00:00", False),
        ("sat-mon", "2026-11-23T12:00:00", True),
        ("MON-Fri 08:00-18:00", "2026-11-23T09:00:00", True),
        # past midnight: the range belongs to the day on which it began
        ("fri 22:00-06:00", "2026-11-27T22:00:00", True),
        ("fri 22:00-06:00", "2026-11-28T05:59:00", True),
        ("fri 22:00-06:00", "2026-11-28T06:00:00", False),
        ("fri 22:00-06:00", "2026-11-27T05:00:00", False),
        ("sun 22:00-06:00", "2026-11-23T01:00:00", True),
        # 2026-03-29 02:00 → 03:00 in Berlin: the hour between does not come
        ("02:00-03:00 Europe/Berlin", "2026-03-29T00:59:59", False),
        ("02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00", False),
        ("00:00-04:00 Europe/Berlin", "2026-03-29T01:59:59", True),
        ("00:00-04:00 Europe/Berlin", "2026-03-29T02:00:00", False),
        # 2026-10-25 03:00 → 02:00: it comes twice
        ("02:00-03:00 Europe/Berlin", "2026-10-25T00:30:00", True),
        ("02:00-03:00 Europe/Berlin", "2026-10-25T01:30:00", True),
        ("02:00-03:00 Europe/Berlin", "2026-10-25T02:00:00", False),
        ("sat 22:00-03:00 Europe/Berlin", "2026-10-25T01:59:59", True),
    ],
)
def test_when_it_is_open(hours: str, at: str, open_: bool) -> None:
    assert Hours.parse(hours).admits(utc(at)) is open_


@given(
    st.sampled_from(DAYS),
    st.sampled_from(DAYS),
    st.integers(0, 23),
    st.integers(0, 23),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe"]),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants them bare
)
def test_it_is_what_the_wall_clock_says(first: str, last: str, start: int, end: int, zone: str, at: datetime) -> None:
    """Against a calendar of a week, written out hour by hour."""
    days = [DAYS[(DAYS.index(first) + step) % 7] for step in range((DAYS.index(last) - DAYS.index(first)) % 7 + 1)]
    length = (end - start) % 24
    calendar = {(DAYS.index(day) * 24 + start + hour) % (7 * 24) for day in days for hour in range(length)}
    local = at.astimezone(ZoneInfo(zone))
    hours = Hours.parse(f"{first}-{last} {start:02}:00-{end:02}:00 {zone}")
    assert hours.admits(at) == (local.weekday() * 24 + local.hour in calendar)
    assert hours.empty == (not calendar)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1990, 1, 1)))  # noqa: DTZ001
def test_whose_zone_the_instant_is_told_in_does_not_matter(at: datetime) -> None:
    hours = Hours.parse("mon-thu 08:00-18:00 America/New_York")
    if at.year < 9000:
        assert hours.admits(at) == hours.admits(at.astimezone(ZoneInfo("Asia/Tokyo")))


@pytest.mark.parametrize(
    "text",
    ["", " ", "mon-fri 8:00-18:00", "mon-fri 08:00-25:00", "mon-fri 24:00-08:00", "08:00-18:60", "08:00", "mon-fry 08:00-18:00",
     "monday", "mon- 08:00-09:00", "mon-tue-wed", "mon,,tue", "mon 08:00-18:00 Europe/Nowhere", "mon 08:00-18:00 ../etc/passwd",
     "mon 08:00-18:00 /etc/localtime", "mon 08:00-18:00 Europe", "mon 08:00-18:00 UTC UTC", "08:00-18:00 mon", "٠٨:٠٠-١٨:٠٠",
     "mon " * 100, "08:00-18:00," * 1000, "x" * 10_000, "08:00-18:00 Europe/Berlin\0", "mon;tue"],
)  # fmt: skip
def test_what_are_no_hours(text: str) -> None:
    with pytest.raises(UnusablePolicy) as told:
        Hours.parse(text)
    assert len(told.value.message) < 300


def test_empty_hours_admit_nothing() -> None:
    hours = Hours.parse("08:00-08:00,09:00-09:00")
    assert hours.empty
    assert not any(hours.admits(MONDAY + timedelta(minutes=minute)) for minute in range(24 * 60))
    assert not Hours.parse("08:00-08:00,09:00-09:01").empty


def test_the_clock_is_told_as_there() -> None:
    assert Hours.parse("mon Europe/Berlin").clock(utc("2026-11-22T23:30:00")) == "mon 00:30 cet"


def test_zones_need_no_files_of_the_system() -> None:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        assert Hours.parse("mon Europe/Berlin").clock(utc("2026-07-20T12:00:00")) == "mon 14:00 cest"
    finally:
        zoneinfo.reset_tzpath(to=before)
