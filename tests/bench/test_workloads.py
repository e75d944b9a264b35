"""The counting and the table of `make workloads`, and a short run of the whole."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.bench import load, workloads
from tests.bench.workloads import ACTS, Cost, Seen


def line(event: str, pid: int, parent: int = 1) -> bytes:
    about = {"pid": pid, "parent": {"pid": parent}}
    return orjson.dumps({"ebpf": {"event": event}, "process": about}) + b"\n"


def test_only_the_events_of_a_process_and_its_offspring_are_counted() -> None:
    lines = [
        line("process_fork", 7, 5),
        line("process_fork", 8, 7),
        line("file_open", 8),
        line("file_open", 9),
        line("process_found", 7),
        b'{"ebpf":{"event":"monitor_start"}}\n',
    ]
    found = workloads.count(lines, 7)
    assert found.lines == {"process_fork": 2, "file_open": 1}
    assert found.bytes.total() == sum(map(len, lines[:3]))
    assert workloads.count(lines, None).lines == {"process_fork": 2, "file_open": 2}


def test_the_table_says_what_was_measured() -> None:
    seen = Seen(seconds=2.0)
    seen.lines["file_open"], seen.bytes["file_open"] = 10, 20_000_000
    found = {
        "seen": {"work": {"full": seen, "standard": Seen(seconds=2.0)}},
        "rules": {"work": {"proc": 3}},
        "costs": dict.fromkeys(ACTS, Cost(900.0, 1000.0, (-2000.0, 3000.0), 2.0, 1.0, 3.0)),
    }
    page = workloads.page(found, load.machine())
    assert "| work | full | 10 | 100% | 20.00 | 2,000,000 | 5.0 | 864.00 |" in page
    assert "| work | standard | 0 | 0% | 0.00 | - | 0.0 | 0.00 |" in page
    assert "| work | 0 | 0 | 0 | 3 |" in page
    assert "| file_read | file_read | 900 | 1,000 (-2,000 to 3,000) | 2.0 | 3 |" in page


def test_coverage_is_counted_from_its_page() -> None:
    found = workloads.coverage()
    assert len(found) >= 3
    assert all(0 < seen < every for seen, every in found.values())


def test_a_short_run_measures_everything(tmp_path: Path) -> None:
    found = workloads.measure(tmp_path, small=True, profiles=("full",))
    for name, by_profile in found["seen"].items():
        assert name == "idle host" or by_profile["full"].lines["process_exit"] >= 1
    assert found["rules"]["idle host"].keys() == {rule["name"] for rule in workloads.RULES}
    assert set(found["costs"]) == set(workloads.FEW_ACTS) < set(ACTS)
    for name, cost in found["costs"].items():
        assert cost.events > 0, f"{name}: others may fill the rings meanwhile, but not all the time"
    assert found["costs"]["process_exec"].programs_ns > 1000  # three events, a path and the arguments
