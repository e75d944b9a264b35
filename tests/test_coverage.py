"""What is seen and what is not: every call and operation is decided on, and every event's calls stand in the table."""

from __future__ import annotations

import pytest

from monitor import coverage, events, tables
from monitor.kernel import probes, uring


@pytest.mark.parametrize("compat", [False, True], ids=["64-bit", "32-bit"])
def test_every_call_is_seen_or_has_a_reason(compat: bool) -> None:
    rows = coverage.calls(compat=compat)
    assert [row.number for row in rows] == sorted(tables.COMPAT_SYSCALL_NAMES if compat else tables.SYSCALL_NAMES)
    assert [row.name for row in rows if not row.seen and not row.reason] == []


def test_every_operation_is_seen_or_has_a_reason() -> None:
    assert [row.name for row in coverage.operations() if not row.seen and not row.reason] == []
    assert uring.EVENTS.keys() | uring.reasons().keys() == set(tables.IO_URING_OPERATIONS)


def test_reasons_name_real_calls_once() -> None:
    words = [word for names in coverage.UNSEEN.values() for word in names.split()]
    assert len(words) == len(set(words))
    assert set(words) <= tables.SYSCALL_NUMBERS.keys() | tables.COMPAT_SYSCALL_NUMBERS.keys()


def test_what_the_programs_are_called_for_is_what_the_events_name() -> None:
    traced = {call.name for table in probes.TABLES.values() for call in table}
    named = {name for kind in events.EVENTS for name in kind.syscalls if "sys_exit" in kind.probe}
    assert named <= traced | {"exit", "exit_group"}
    watched = {call.name for table in probes.TABLES.values() for call in table if call.bits & 0xFF == probes.CLOCK}
    assert {name for name in traced if not any(name in kind.syscalls for kind in events.EVENTS)} == watched


def test_the_page_says_how_much() -> None:
    page = coverage.page("made")
    rows = coverage.calls()
    assert f"Seen: {sum(row.seen for row in rows)} of {len(rows)} of the 64-bit table" in page
    assert "| 257 | openat | file_open | tp_btf/sys_exit |" in page
    assert page.count("\n| ") > len(rows)
