"""Runs the measurements: all of them with EBPF_MONITOR_BENCH=full (make bench), else a smoke version of the same code.

A test fails when a count does not add up or the benchmark is broken; a slow machine fails nothing.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from monitor import frames
from monitor.compressor import Compressor
from tests.bench import measure
from tests.bench.load import LOAD_NAME, ROOT, BrokenBenchmark, Load, LoadRun, Tally, counted, plain_blocks, tally
from tests.bench.measure import Bench
from tests.bench.tracers import MONITOR_CPU, Step, account

SWITCH = "EBPF_MONITOR_BENCH"
SECTIONS = {"throughput", "overflow", "storms", "costs", "programs", "footprint", "extremes", "audit"}
"""all of them together are a result to keep"""


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
        whole = plan is measure.FULL and made.sections == SECTIONS and not made.slow_path
        made.save(ROOT / "docs" / "bench.json" if whole else directory / f"{plan.name}.json")
        print(f"\n\n{made.table()}\n")
    finally:
        made.remove()
        os.sched_setaffinity(0, affinity)


def problems_of(bench: Bench, section: str) -> list[str]:
    """Runs one section; what did not add up in it."""
    before, began = len(bench.problems), time.monotonic()
    getattr(bench, section)()
    bench.sections.add(section)
    bench.details.setdefault("seconds", {})[section] = round(time.monotonic() - began)
    print(f"\n{section}: {time.monotonic() - began:.0f} s")
    return bench.problems[before:]


def test_every_act_is_logged_or_admitted_at_every_rate(bench: Bench) -> None:
    assert problems_of(bench, "throughput") == []


def test_an_overflow_is_admitted_to_the_last_act(bench: Bench) -> None:
    assert problems_of(bench, "overflow") == []


def test_storms_of_programs_and_connections_add_up(bench: Bench) -> None:
    assert problems_of(bench, "storms") == []


def test_a_syscall_costs_what_it_costs(bench: Bench) -> None:
    assert problems_of(bench, "costs") == []


def test_real_programs_run_as_well_traced(bench: Bench) -> None:
    assert problems_of(bench, "programs") == []


def test_a_killed_monitor_is_followed_by_one_that_adopts_and_adds_up(bench: Bench) -> None:
    assert problems_of(bench, "footprint") == []


def test_extremes_add_up(bench: Bench) -> None:
    assert problems_of(bench, "extremes") == []


def test_auditd_on_request_at_its_rate_and_last(bench: Bench) -> None:
    assert problems_of(bench, "audit") == []


def step(acts: int, documents: int, lost: int, folded: int) -> Step:
    run = LoadRun("oc", 1, acts, 1.0, 1.0, acts, 1.0, Counter(file_open=acts))
    found = Tally(mine=Counter(file_open=documents))
    return Step(run, documents, acts - documents, lost, folded, 0, 0, 0, tally=found)


def test_losses_that_explain_every_missing_act_are_accepted() -> None:
    assert account(step(100, 90, 7, 3), 0) == 0
    assert account(step(100, 90, 12, 0), 2) == 2


@pytest.mark.parametrize(
    ("documents", "lost", "words"),
    [(99, 0, "1 acts vanished in silence"), (90, 11, "1 more are given up"), (101, 0, "101 documents of file_open")],
)
def test_a_single_act_that_does_not_add_up_is_noticed(documents: int, lost: int, words: str) -> None:
    with pytest.raises(BrokenBenchmark, match=words):
        account(step(100, documents, lost, 0), 0)


def test_a_file_that_is_too_long_to_tally_is_counted_as_a_tally_counts(tmp_path: Path) -> None:
    names = ("monitor_start", "monitor_loss", "monitor_loss.degraded", "monitor_loss", "monitor_stop")
    documents = [orjson.loads((ROOT / "tests" / "goldens" / f"{name}.json").read_bytes()) for name in names]
    for number, document in enumerate(documents, 1):
        document["event"]["sequence"] = number
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(orjson.dumps(document) + b"\n" for document in documents))
    found, whole = counted(path, b'"event":"monitor_loss"', b"nowhere"), tally(path, None)
    assert (found.lines, found.lost) == (whole.lines, sum(whole.lost.values()))
    assert found.lost > 0
    assert found.found == [3, 0]


@pytest.mark.parametrize("framed", [False, True])
def test_parts_of_a_file_have_each_of_its_lines_once(tmp_path: Path, framed: bool) -> None:
    lines = [b"%d" % number * (number % 7 + 1) + b"\n" for number in range(300)]
    path, whole = tmp_path / "events.jsonl", b"".join(lines)
    data = memoryview(whole)
    path.write_bytes(frames.HEADER + Compressor(1).data(data, 0) if framed else whole)
    for step in (1, 2, 7, 100, 1000, len(whole)):
        bounds = [*range(0, len(whole), step), len(whole)]
        with path.open("rb") as log:
            parts = [b"".join(plain_blocks(log.fileno(), a, b)) for a, b in itertools.pairwise(bounds)]
        assert b"".join(parts) == whole
        for (begin, until), part in zip(itertools.pairwise(bounds), parts, strict=True):
            starts = [at for at in range(begin, until) if at == 0 or whole[at - 1 : at] == b"\n"]
            assert part.count(b"\n") == len(starts)


def test_lines_that_are_not_parsed_are_counted_like_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, lines = LoadRun("mix", 77, 0, 1.0, 1.0, 0, 1.0, Counter()), []
    for number in range(1, 401):
        event = ("file_open", "file_read", "file_write", "file_close", "process_fork")[number % 5]
        document = orjson.loads((ROOT / "tests" / "goldens" / f"{event}.json").read_bytes())
        document["event"]["sequence"] = number
        document["process"] |= {"pid": 77 if number % 7 else 78, "name": LOAD_NAME if number % 11 else "nice"}
        lines.append(orjson.dumps(document) + b"\n")
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(lines))
    found = tally(path, run)
    monkeypatch.setattr("tests.bench.load._PARSED", 1)
    assert found == tally(path, run)
    assert found.mine["file_read"] > 50 < found.foreign["file_read"] + 50
