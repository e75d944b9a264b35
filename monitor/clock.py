"""Event time: from the kernel's boot-time nanoseconds to the wall clock and its text.

Owns the offset between the two clocks and tells slewing from stepping; never changes a clock, and never sorts or
rewrites what was already logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

STEP_NS = 2_000_000
"""Smallest change of the offset between two samples that is called a step, in nanoseconds."""

SLEW_PPM = 500
"""Fastest slewing that is not a step: the kernel's own limit (MAXFREQ in include/linux/timex.h), parts per million."""

NOISE_NS = 1_000_000
"""A reading whose bracket is wider than this (the machine was held up) is not adopted."""

MAX_TIME_NS = (1 << 63) - 1
"""Last time that Elasticsearch's `date_nanos` and the kernel's ktime_t can hold: 2262-04-11T23:47:16.854775807Z."""

_READINGS = 3


def _realtime() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def _boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class WallClock:
    """The offset from CLOCK_BOOTTIME, the kernel's event time, to CLOCK_REALTIME.

    Both readers give nanoseconds. The first sample is taken at once. In a time namespace CLOCK_BOOTTIME differs from
    what eBPF programs read: run in the host's.
    """

    def __init__(self, realtime: Callable[[], int] = _realtime, boottime: Callable[[], int] = _boottime) -> None:
        self._realtime = realtime
        self._boottime = boottime
        self._offset, self._noise, self._sampled = self._measure()

    @property
    def offset_ns(self) -> int:
        """Nanoseconds to add to a kernel time stamp to get nanoseconds since 1970, as of the last sample."""
        return self._offset

    def wall_ns(self, boot_ns: int) -> int:
        """Wall-clock nanoseconds of a kernel time stamp, by the offset of the last sample."""
        return boot_ns + self._offset

    def sample(self) -> int | None:
        """Measures the offset again and adopts it; the step in nanoseconds if the wall clock was set, else None.

        A step is a change of at least STEP_NS and of more than SLEW_PPM of the time since the last sample. A reading
        blurred by more than NOISE_NS is adopted only when it shows a step all the same; the next sample decides.
        """
        offset, noise, now = self._measure()
        change = offset - self._offset
        allowed = max(STEP_NS - 1, (now - self._sampled) * SLEW_PPM // 1_000_000)
        blur = noise + self._noise
        # A blurred reading must not pass for a step, and a step must not hide behind ordinary noise of some hundred ns.
        step = abs(change) > allowed + (blur if blur > NOISE_NS else 0)
        if not step and noise > NOISE_NS:
            return None
        self._offset, self._noise, self._sampled = offset, noise, now
        return change if step else None

    def _measure(self) -> tuple[int, int, int]:
        """(offset, width of the bracket, boot time) of the tightest of a few readings."""
        return min((self._reading() for _ in range(_READINGS)), key=lambda reading: reading[1])

    def _reading(self) -> tuple[int, int, int]:
        before = self._boottime()
        wall = self._realtime()
        after = self._boottime()
        return wall - (before + after) // 2, after - before, after


# Events come nearly sorted, so a few seconds would do; the room is for searches over a whole log.
@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}."


def rfc3339(ns: int) -> str:
    """RFC 3339 text, UTC, nine decimals, of nanoseconds since 1970, clamped to 0 and MAX_TIME_NS."""
    if not 0 <= ns <= MAX_TIME_NS:
        ns = 0 if ns < 0 else MAX_TIME_NS
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{_second(seconds)}{fraction:09d}Z"
