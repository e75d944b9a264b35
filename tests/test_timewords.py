"""Points in time as people type them: each form, with the zone of the one who asks."""

from __future__ import annotations

import datetime
import os
import time
import zoneinfo
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.timewords import SECOND_NS, TimeError, nanoseconds

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOW = datetime.datetime(2026, 11, 22, 17, 30, 15, 250_000, BERLIN)  # UTC+1
NOW_NS = 1_795_365_015_250_000_000
DAY_NS = 86_400 * SECOND_NS


@pytest.fixture(autouse=True)
def _berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def utc(text: str) -> int:
    """Nanoseconds of an ISO time in UTC with whole seconds."""
    return int(datetime.datetime.fromisoformat(text + "+00:00").timestamp()) * SECOND_NS


FORMS = {
    "now": NOW_NS,
    "today": utc("2026-11-21T23:00:00"),
    "yesterday": utc("2026-11-20T23:00:00"),
    "tomorrow": utc("2026-11-22T23:00:00"),
    "yesterday 16:00": utc("2026-11-21T15:00:00"),
    "2026-11-22": utc("2026-11-21T23:00:00"),
    "2026-11-22 16:00": utc("2026-11-22T15:00:00"),
    "2026-11-22 16:00:30": utc("2026-11-22T15:00:30"),
    "2026-11-22 16:00:30.5": utc("2026-11-22T15:00:30") + 500_000_000,
    "2026-11-22T16:00:30.123456789Z": utc("2026-11-22T16:00:30") + 123_456_789,
    "2026-11-22T16:00:30+02:00": utc("2026-11-22T14:00:30"),
    "2026-11-22 16:00 UTC": utc("2026-11-22T16:00:00"),
    "2026-11-22 16:00 America/New_York": utc("2026-11-22T21:00:00"),
    "2026-07-01 16:00": utc("2026-07-01T14:00:00"),  # summer time, though it is winter now
    "16:00": utc("2026-11-22T15:00:00"),
    "6:05": utc("2026-11-22T05:05:00"),
    "16:00:01": utc("2026-11-22T15:00:01"),
    "@1795363200": 1_795_363_200 * SECOND_NS,
    "@1795363200.25": 1_795_363_200 * SECOND_NS + 250_000_000,
    "@0": 0,
    "-1h": NOW_NS - 3600 * SECOND_NS,
    "-1h30min": NOW_NS - 5400 * SECOND_NS,
    "-90": NOW_NS - 90 * SECOND_NS,
    "+5s": NOW_NS + 5 * SECOND_NS,
    "-0.5s": NOW_NS - SECOND_NS // 2,
    "-250ms": NOW_NS - SECOND_NS // 4,
    "10 min ago": NOW_NS - 600 * SECOND_NS,
    "1 day ago": NOW_NS - DAY_NS,
    "2 days 3 hours ago": NOW_NS - 2 * DAY_NS - 3 * 3600 * SECOND_NS,
    "1w ago": NOW_NS - 7 * DAY_NS,
    "2 weeks ago": NOW_NS - 14 * DAY_NS,
    " 10min ago ": NOW_NS - 600 * SECOND_NS,
    "1M ago": NOW_NS - 2_630_016 * SECOND_NS,
    "1m ago": NOW_NS - 60 * SECOND_NS,
    "1 year ago": NOW_NS - 31_557_600 * SECOND_NS,
}


@pytest.mark.parametrize("text", FORMS)
def test_form_names_its_moment(text: str) -> None:
    assert nanoseconds(text, NOW) == FORMS[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "1h",
        "ago",
        " ago",
        "-",
        "+",
        "-1 parsec",
        "@",
        "@x",
        "@-5",
        "2026-13-01",
        "2026-02-30",
        "25:00",
        "12:60",
        "2026-11-22 16",
        "16:00 Mars/Olympus",
        "2026-11-22X16:00",
        "-1h -2h",
        "99999 years ago",
        "1900-01-01",
        "2300-01-01",
        "@99999999999",
        "2026-11-22 16:00 ../../etc/passwd",
        "\u0661h ago",
        "-1e5",
    ],
)
def test_other_text_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(TimeError, match="10 min ago"):
        nanoseconds(text, NOW)


def test_span_without_a_sign_is_told_how_to_write_it() -> None:
    with pytest.raises(TimeError, match='write "-1h" or "1h ago"'):
        nanoseconds("1h", NOW)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_time_error(text: str) -> None:
    try:
        assert nanoseconds(text, NOW) >= 0
    except TimeError:
        return


@given(st.integers(0, (1 << 63) - 1))
def test_rfc3339_of_a_line_comes_back_exactly(ns: int) -> None:
    from monitor.clock import rfc3339

    assert nanoseconds(rfc3339(ns), NOW) == ns
