"""Runs the measurements: all of them with EBPF_MONITOR_BENCH=full (make bench), else a smoke version of the same code.

A test fails when a count does not add up or the benchmark is broken; a slow machine fails nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bench import measure
from tests.bench.load import ROOT, Load
from tests.bench.measure import Bench
from tests.bench.tracers import MONITOR_CPU

SWITCH = "EBPF_MONITOR_BENCH"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    state = os.environ.get(SWITCH, "smoke")
    if state not in ("smoke", "full"):
        raise pytest.UsageError(f"{SWITCH} is {state!r}: allowed are full and smoke (unset)")
    plan = measure.FULL if state == "full" else measure.SMOKE
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs: one for the load, one for the monitor")
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {MONITOR_CPU})  # what we do ourselves shall not stand among the load's events
    directory = ROOT / measure.RESULTS
    made = Bench(plan, directory / f"work-{os.getpid()}", Load.build(directory / f"work-{os.getpid()}" / "load"))
    try:
        yield made
        made.save(directory / ("results.json" if plan is measure.FULL else "smoke.json"))
        print(f"\n\n{made.table()}\n")
    finally:
        made.remove()
        os.sched_setaffinity(0, affinity)


def problems_of(bench: Bench, section: str) -> list[str]:
    """Runs one section; what did not add up in it."""
    before = len(bench.problems)
    getattr(bench, section)()
    return bench.problems[before:]


def test_every_act_is_logged_or_admitted_at_every_rate(bench: Bench) -> None:
    assert problems_of(bench, "throughput") == []


def test_an_overflow_is_admitted_to_the_last_act(bench: Bench) -> None:
    assert problems_of(bench, "overflow") == []


def test_storms_of_programs_and_connections_add_up(bench: Bench) -> None:
    assert problems_of(bench, "storms") == []


def test_a_syscall_costs_what_it_costs(bench: Bench) -> None:
    assert problems_of(bench, "costs") == []


def test_a_killed_monitor_is_followed_by_one_that_adopts_and_adds_up(bench: Bench) -> None:
    assert problems_of(bench, "footprint") == []
