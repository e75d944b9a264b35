from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import MAX_TIME_NS, NOISE_NS, STEP_NS, WallClock, rfc3339

SECOND = 1_000_000_000
MS = 1_000_000


class Machine:
    """Two clocks that a test sets; reading either takes `cost` ns, or the next entry of `delays`."""

    def __init__(self, cost: int = 50) -> None:
        self.boot = 1000 * SECOND
        self.offset = 1_700_000_000 * SECOND
        self.cost = cost
        self.delays: list[int] = []

    def _spend(self) -> None:
        self.boot += self.delays.pop(0) if self.delays else self.cost

    def boottime(self) -> int:
        self._spend()
        return self.boot

    def realtime(self) -> int:
        self._spend()
        return self.boot + self.offset

    def clock(self) -> WallClock:
        return WallClock(self.realtime, self.boottime)


def test_first_offset_is_measured_at_once() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock.offset_ns == machine.offset
    assert clock.wall_ns(5) == machine.offset + 5
    assert clock.sample() is None


def test_the_tightest_of_three_readings_counts() -> None:
    machine = Machine()
    # boot, wall, boot: the first two readings are held up after the wall clock was read, which shifts their midpoint.
    machine.delays = [50, 50, 90 * MS, 50, 50, 70 * MS, 50, 50, 50]
    assert machine.clock().offset_ns == machine.offset


@pytest.mark.parametrize("change", [1, -1, MS, -MS, STEP_NS - 1, 1 - STEP_NS])
def test_slewing_is_adopted_silently(change: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.boot += SECOND
    machine.offset += change
    assert clock.sample() is None
    assert clock.offset_ns == machine.offset


@pytest.mark.parametrize("change", [STEP_NS, -STEP_NS, 3 * MS, 3600 * SECOND, -86400 * SECOND])
def test_a_step_is_returned_once_with_its_sign_and_adopted(change: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.boot += SECOND
    machine.offset += change
    assert clock.sample() == change
    assert clock.offset_ns == machine.offset
    assert clock.sample() is None


def test_long_gap_between_samples_allows_five_hundred_ppm() -> None:
    machine = Machine(cost=0)
    clock = machine.clock()
    machine.boot += 100 * SECOND
    machine.offset += 50 * MS
    assert clock.sample() is None
    machine.boot += 100 * SECOND
    machine.offset += 50 * MS + 1
    assert clock.sample() == 50 * MS + 1


def test_slewing_at_every_sample_never_adds_up_to_a_step() -> None:
    machine = Machine()
    clock = machine.clock()
    start = clock.offset_ns
    for _ in range(100):
        machine.boot += SECOND
        machine.offset += SECOND // 2000
        assert clock.sample() is None
    assert clock.offset_ns - start == 100 * (SECOND // 2000)


def test_a_reading_blurred_by_a_stall_is_neither_a_step_nor_adopted() -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.offset_ns
    machine.delays = [50, 50, 20 * MS] * 3
    assert clock.sample() is None
    assert clock.offset_ns == before
    assert 20 * MS > NOISE_NS


def test_a_step_far_beyond_the_blur_is_still_seen() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.offset += 3600 * SECOND
    machine.delays = [50, 50, 20 * MS] * 3
    step = clock.sample()
    assert step is not None
    assert abs(step - 3600 * SECOND) < 20 * MS
    assert clock.sample() is None  # the blur left in it is not a second step
    assert clock.offset_ns == machine.offset


def test_the_machines_own_clocks_agree_with_time() -> None:
    clock = WallClock()
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(clock.wall_ns(boot) - time.time_ns()) < SECOND


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (999_999_999, "1970-01-01T00:00:00.999999999Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00.000000000Z"),
        (1_795_366_321_123_456_789, "2026-11-22T16:52:01.123456789Z"),
        (4_107_542_400 * SECOND - 1, "2100-02-28T23:59:59.999999999Z"),
        (MAX_TIME_NS, "2262-04-11T23:47:16.854775807Z"),
        (MAX_TIME_NS + 1, "2262-04-11T23:47:16.854775807Z"),
        (1 << 200, "2262-04-11T23:47:16.854775807Z"),
        (-1, "1970-01-01T00:00:00.000000000Z"),
        (-(1 << 200), "1970-01-01T00:00:00.000000000Z"),
    ],
)
def test_rfc3339_of_known_times(ns: int, text: str) -> None:
    assert rfc3339(ns) == text


@given(st.integers(0, MAX_TIME_NS))
def test_rfc3339_agrees_with_datetime_and_sorts_like_its_number(ns: int) -> None:
    seconds, fraction = divmod(ns, SECOND)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert rfc3339(ns) == f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    assert rfc3339(ns) <= rfc3339(ns + 1)
