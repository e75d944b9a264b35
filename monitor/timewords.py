"""Points in time as people type them: journalctl's words, RFC 3339, and seconds since 1970.

Owns the grammar of --since and --until; never asks for the time itself.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from decimal import Decimal

SECOND_NS = 1_000_000_000
_UNITS = {  # systemd.time(7); a month is 30.44 days and a year 365.25
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1_000),
    **dict.fromkeys(("msec", "ms"), 1_000_000),
    **dict.fromkeys(("seconds", "second", "sec", "s"), SECOND_NS),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60 * SECOND_NS),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600 * SECOND_NS),
    **dict.fromkeys(("days", "day", "d"), 86_400 * SECOND_NS),
    **dict.fromkeys(("weeks", "week", "w"), 7 * 86_400 * SECOND_NS),
    **dict.fromkeys(("months", "month", "M"), 2_630_016 * SECOND_NS),
    **dict.fromkeys(("years", "year", "y"), 31_557_600 * SECOND_NS),
}
_SPAN = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([A-Za-zµμ]*)", re.ASCII)
_EPOCH = re.compile(r"@(\d{1,11})(?:\.(\d{1,9}))?", re.ASCII)
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_ABSOLUTE = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d))?"
    r"(?:(?:^|[ T])(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"\s*(?P<zone>Z|z|[+-]\d\d:?\d\d|[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+\-]+)*)?",
    re.ASCII,
)
_LAST_NS = (1 << 63) - 1


class TimeError(ValueError):
    """A text that is no point in time; the message says what may be written."""

    def __init__(self, text: str, why: str = "") -> None:
        allowed = '"2026-11-22 16:00", "16:00", "yesterday", "10 min ago", "-1h", "@1795363200" or RFC 3339'
        super().__init__(f"{text!r} is not a time{': ' + why if why else ''}; write it as {allowed}")


def nanoseconds(text: str, now: datetime.datetime) -> int:
    """The point in time that `text` names, in nanoseconds since 1970. `now` is aware, its zone the local one.

    Words and forms as journalctl takes them (systemd.time(7)): now, today, yesterday, tomorrow (midnight), a date, a
    time, both, each with a zone behind ("UTC", "Europe/Berlin", "+02:00"), spans as "-1h30min", "+5s" and "2 days ago",
    and "@" with seconds since 1970. A date alone is its first moment. Raises TimeError.
    """
    words = text.strip()
    now_ns = _ns(now)
    if words == "now":
        return now_ns
    if epoch := _EPOCH.fullmatch(words):
        return _bounded(text, int(epoch[1]) * SECOND_NS + int((epoch[2] or "0").ljust(9, "0")))
    if words.startswith(("-", "+")):
        span = _span(text, words[1:])
        return _bounded(text, now_ns - span if words[0] == "-" else now_ns + span)
    if words.endswith(" ago"):
        return _bounded(text, now_ns - _span(text, words.removesuffix(" ago")))
    word, _, rest = words.partition(" ")
    if word in _DAYS:
        day = now.date() + datetime.timedelta(days=_DAYS[word])
        return _absolute(text, f"{day} {rest}".strip(), now)
    return _absolute(text, words, now)


def _span(text: str, words: str) -> int:
    total, at = Decimal(0), 0
    while at < len(words):
        match = _SPAN.match(words, at)
        if match is None:
            raise TimeError(text)
        unit = match[2] or "s"
        if unit not in _UNITS:
            raise TimeError(text, f"{unit!r} is not a unit of time")
        total += Decimal(match[1]) * _UNITS[unit]
        at = match.end()
    if not at:
        raise TimeError(text)
    return int(total)


def _absolute(text: str, words: str, now: datetime.datetime) -> int:
    match = _ABSOLUTE.fullmatch(words)
    if match is None or not (match["date"] or match["hour"]):
        hint = f'write "-{words}" or "{words} ago"' if _SPAN.match(words) and ":" not in words else ""
        raise TimeError(text, hint)
    try:
        day = datetime.date.fromisoformat(match["date"]) if match["date"] else now.date()
        clock = datetime.time(int(match["hour"] or 0), int(match["minute"] or 0), int(match["second"] or 0))
        moment = datetime.datetime.combine(day, clock, _zone(text, match["zone"]))
        if moment.tzinfo is None:
            moment = moment.astimezone()  # by the rules of that day, not of today
        seconds = _ns(moment)
    except (ValueError, OverflowError, OSError) as error:
        if isinstance(error, TimeError):
            raise
        raise TimeError(text, str(error)) from None
    return _bounded(text, seconds + int((match["fraction"] or "0").ljust(9, "0")))


def _zone(text: str, name: str | None) -> datetime.tzinfo | None:
    if name is None:
        return None
    if name in ("Z", "z", "UTC"):
        return datetime.UTC
    if name[0] in "+-":
        sign = -1 if name[0] == "-" else 1
        return datetime.timezone(sign * datetime.timedelta(hours=int(name[1:3]), minutes=int(name[-2:])))
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise TimeError(text, f"no such time zone: {name}") from None


def _ns(moment: datetime.datetime) -> int:
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1000


def _bounded(text: str, ns: int) -> int:
    if not 0 <= ns <= _LAST_NS:
        raise TimeError(text, "outside the years 1970 to 2262")
    return ns
