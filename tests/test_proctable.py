"""The process table: inheritance, entries, what is told of those that have ended, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from monitor import decode, events
from monitor.decode import Record
from monitor.proctable import ProcessTable, ancestors
from tests.fakes import context, control, facts, lineage, spelled

USER = {"id": "1000", "name": "eve"}
SYSTEMD, SSHD, SHELL, CHILD = (1, 1_000_001), (250, 5_000_000_001), (300, 7_000_000_001), (310, 8_000_000_001)
CONTAINER = b"/system.slice/docker-" + b"4f" * 32 + b".scope"


def entity(pid: int, start: int) -> str:
    return f"{pid}@{start}"


def record(
    name: str, key: tuple[int, int], *above: tuple[int, int], blobs: dict[str, bytes] | None = None, **members: Any
) -> Record:
    about = {name: members.pop(name) for name in list(members) if name in events.CONTEXT.names}
    given = {"context": context(**about), "ancestors": lineage(*above)} | (blobs or {})
    who = facts(
        tgid=key[0],
        tid=key[0],
        start=key[1],
        ppid=above[0][0] if above else 0,
        parent_start=above[0][1] if above else 0,
    )
    return decode.control(control(name, given, **(who | members)))


def program(path: bytes, parent: bytes = b"") -> dict[str, bytes]:
    return {"executable": spelled(path)} | ({"parent_executable": spelled(parent)} if parent else {})


@pytest.fixture
def table() -> ProcessTable:
    return ProcessTable(entity)


def login(table: ProcessTable) -> None:
    table.learn(record("process_exec", SSHD, SYSTEMD, blobs=program(b"/usr/sbin/sshd"), session=250), {"id": "0"})
    peer = {"peer_family": 10, "peer_port": 50022, "peer": bytes.fromhex("20010db8000000000000000000000007")}
    table.learn(
        record("process_exec", SHELL, SSHD, SYSTEMD, blobs=program(b"/usr/bin/bash", b"/usr/sbin/sshd"), **peer), USER
    )


def test_ancestors_are_read_in_their_order() -> None:
    assert ancestors(record("process_fork", CHILD, SHELL, SSHD, SYSTEMD)) == [SHELL, SSHD, SYSTEMD]
    assert ancestors(record("process_fork", CHILD)) == []


def test_a_shell_of_sshd_is_an_entry_with_the_clients_address(table: ProcessTable) -> None:
    login(table)
    forked = record("process_fork", CHILD, SHELL, SSHD, SYSTEMD, group=310, group_start=8_000_000_001)
    table.learn(forked, {"id": "0"})
    about, extra = table.members(forked, {})
    assert about["entry_leader"] == {
        "pid": 300,
        "entity_id": entity(*SHELL),
        "name": "bash",
        "user": USER,
        "entry_meta": {"type": "sshd", "source": {"ip": "2001:db8::7"}},
    }
    assert about["session_leader"] == {"pid": 300, "entity_id": entity(*SHELL), "name": "bash"}
    assert about["group_leader"] == {"pid": 310, "entity_id": entity(*CHILD), "name": "bash"}
    assert extra["ancestors"] == [entity(*SHELL), entity(*SSHD), entity(*SYSTEMD)]


def test_the_entry_stays_when_user_session_and_parents_change(table: ProcessTable) -> None:
    login(table)
    own = record(
        "process_exec",
        CHILD,
        SHELL,
        SSHD,
        SYSTEMD,
        blobs=program(b"/usr/bin/sudo", b"/usr/bin/bash"),
        session=310,
        tty=136 << 20,
    )
    table.learn(own, {"id": "0"})
    table.ended(SHELL)
    table.ended(SSHD)
    grandchild = record("process_fork", (311, 9), CHILD, SHELL, SSHD, SYSTEMD, session=310)
    table.learn(grandchild, {"id": "0"})
    assert table.members(grandchild, {})[0]["entry_leader"]["user"] == USER


def test_a_lost_fork_is_bridged_by_the_ancestors_further_up(table: ProcessTable) -> None:
    login(table)
    far = record("process_exec", (400, 10), (399, 9), (398, 8), SHELL, SSHD, blobs=program(b"/usr/bin/touch"))
    table.learn(far, {"id": "0"})
    assert table.members(far, {})[0]["entry_leader"]["pid"] == 300


@pytest.mark.parametrize(
    ("members", "blobs", "door"),
    [
        ({}, program(b"/usr/sbin/cron", b"/usr/lib/systemd/systemd"), "init"),
        ({"tty": 4 << 20 | 1}, program(b"/usr/bin/bash", b"/usr/bin/login"), "terminal"),
        ({"tty": 4 << 20 | 64}, program(b"/usr/bin/bash", b"/usr/bin/login"), "console"),
        ({"tty": 5 << 20 | 1}, program(b"/usr/bin/bash", b"/usr/bin/login"), "console"),
        ({}, program(b"/usr/bin/sh", b"/usr/bin/ssm-session-worker"), "ssm"),
        (
            {},
            program(b"/usr/bin/sh", b"/usr/bin/containerd-shim-runc-v2") | {"cgroup": spelled(CONTAINER)},
            "container",
        ),
    ],
)
def test_each_door(table: ProcessTable, members: dict[str, Any], blobs: dict[str, bytes], door: str) -> None:
    found = record("process_found", SHELL, SYSTEMD, blobs=blobs, **members)
    table.learn(found, USER)
    assert table.members(found, {})[0]["entry_leader"]["entry_meta"] == {"type": door}


def test_no_entry_without_a_door(table: ProcessTable) -> None:
    sshd_itself = record(
        "process_exec", SHELL, SSHD, blobs=program(b"/usr/sbin/sshd-session", b"/usr/sbin/sshd"), peer_family=2
    )
    no_leader = record("process_exec", CHILD, SHELL, blobs=program(b"/usr/bin/sh", b"/usr/sbin/sshd"))
    for one in (sshd_itself, no_leader):
        table.learn(one, USER)
        assert "entry_leader" not in table.members(one, {})[0]


def test_leaders_that_have_ended_keep_their_names_and_unknown_ones_only_a_number(table: ProcessTable) -> None:
    login(table)
    table.ended(SHELL)
    child = record("process_fork", CHILD, SHELL, session_start=0, group=77, group_start=0)
    about, _ = table.members(child, {})
    assert about["session_leader"] == {"pid": 300, "entity_id": entity(*SHELL), "name": "bash"}
    assert about["group_leader"] == {"pid": 77}
    assert about["interactive"] is False
    assert "tty" not in about


def test_the_table_is_bounded_and_the_living_stay_longest() -> None:
    table = ProcessTable(entity, living=8, ended=4)
    keys = [(pid, pid * 1000) for pid in range(100, 120)]
    for key in keys:
        table.learn(record("process_fork", key, SYSTEMD), USER)
        if key[0] % 2:
            table.ended(key)
    assert len(table) <= 12
    assert all(table.get((pid, pid * 1000)) for pid in range(104, 120, 2))
    assert table.get(keys[0]) is None


def test_records_without_a_context_say_nothing(table: ProcessTable) -> None:
    plain = decode.control(control("process_exit", {}, **facts()))
    assert table.members(plain, {}) == ({}, {})
