"""Data that passes without read and write: both ends of each call are events, with the true objects and exact totals."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full"}, {"profile": "trace"}], indirect=True, ids=["folding", "trace"]
)
PRIME = 7
SIZE = 13


def acts(found: list[Document], call: str) -> list[tuple[str, str | None, int]]:
    """(event, path, bytes) of what this call is said to have done."""
    return [
        (name_of(one), one.get("file", {}).get("path"), one["ebpf"]["ret"])
        for one in found
        if one["ebpf"].get("syscall") == call
    ]


def totals(found: list[Document], path: str) -> tuple[int, int, int, int]:
    """Reads, bytes read, writes, bytes written by the close records of this file."""
    closes = [one["ebpf"] for one in found if name_of(one) == "file_close" and one.get("file", {}).get("path") == path]
    return (
        sum(one["read"]["count"] for one in closes),
        sum(one["read"]["bytes"] for one in closes),
        sum(one["write"]["count"] for one in closes),
        sum(one["write"]["bytes"] for one in closes),
    )


def files(script: Script, place: Path) -> tuple[object, object]:
    """Descriptors of a file of 1,000 bytes, and of an empty one."""
    (place / "from").write_bytes(b"x" * 1000)
    (place / "to").touch()
    source = script.call("openat", AT_FDCWD, script.text(place / "from"), os.O_RDONLY, 0)
    return source, script.call("openat", AT_FDCWD, script.text(place / "to"), os.O_WRONLY, 0)


@pytest.mark.parametrize("call", ["sendfile", "copy_file_range"])
def test_from_file_to_file(monitor: MonitorProcess, script: Script, place: Path, call: str) -> None:
    source, to = files(script, place)
    if call == "sendfile":
        moved = script.call(call, to, source, 0, SIZE, repeat=PRIME)
    else:
        moved = script.call(call, source, 0, to, 0, SIZE, 0, repeat=PRIME)
    script.call("close", source)
    script.call("close", to)
    found = monitor.program(script.run())
    assert moved.ret == SIZE
    one = [("file_read", f"{place}/from", SIZE), ("file_write", f"{place}/to", SIZE)]
    assert acts(found, call) == one * (1 if monitor.keys["profile"] == "full" else PRIME)
    assert totals(found, f"{place}/from") == (PRIME, PRIME * SIZE, 0, 0)
    assert totals(found, f"{place}/to") == (0, 0, PRIME, PRIME * SIZE)


def test_through_pipes(monitor: MonitorProcess, script: Script, place: Path) -> None:
    source, to = files(script, place)
    ends = script.room(8), script.room(8)
    for where in ends:
        script.call("pipe", where)
    first, second = (5, 6), (7, 8)  # the lowest free numbers, checked below
    script.call("splice", source, 0, first[1], 0, SIZE, 0)
    script.call("tee", first[0], second[1], SIZE, 0)
    script.call("splice", first[0], 0, to, 0, SIZE, 0)
    script.call("vmsplice", second[1], script.vector(5), 1, 0)
    script.call("vmsplice", second[0], script.vector(3), 1, 0)
    for descriptor in (source, to, *first, *second):
        script.call("close", descriptor)
    found = monitor.program(script.run())
    pipes = [tuple(int.from_bytes(script.read(where + at, 4), "little") for at in (0, 4)) for where in ends]
    assert pipes == [first, second], "the script's descriptors"
    folds = monitor.keys["profile"] == "full"
    again = [] if folds else [("file_read", None, SIZE)]  # tee has read from that pipe before
    assert acts(found, "splice") == [
        ("file_read", f"{place}/from", SIZE),
        ("file_write", None, SIZE),
        *again,
        ("file_write", f"{place}/to", SIZE),
    ]
    assert acts(found, "tee") == [("file_read", None, SIZE), ("file_write", None, SIZE)]
    assert [act[0] for act in acts(found, "vmsplice")] == ["file_write", "file_read"][folds:]
    # both ends of a pipe have one identity: device and inode
    moved = [one for one in found if name_of(one) in ("file_read", "file_write") and "path" not in one["file"]]
    identity = {one["ebpf"]["fd"]: (one["file"]["device"], one["file"]["inode"], one["file"]["type"]) for one in moved}
    assert identity[first[0]] == identity[first[1]] != identity[second[0]] == identity[second[1]]
    assert {kind for _, _, kind in identity.values()} == {"fifo"}


def test_to_a_socket(monitor: MonitorProcess, script: Script, place: Path) -> None:
    source, _ = files(script, place)
    pair = script.room(8)
    script.call("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, pair)
    script.call("sendfile", 5, source, 0, SIZE)
    pid = script.run()
    found = monitor.program(pid)
    ends = [int.from_bytes(script.read(pair + at, 4), "little") for at in (0, 4)]
    assert ends[0] == 5
    moved = [one for one in found if one["ebpf"].get("syscall") == "sendfile"]
    assert [name_of(one) for one in moved] == ["file_read", "socket_send"]
    assert [one["ebpf"]["fd"] for one in moved] == [3, 5]
    assert moved[1]["ebpf"]["socket"]["family"] == "AF_UNIX"


def test_nothing_passed_and_failures(monitor: MonitorProcess, script: Script, place: Path) -> None:
    source, to = files(script, place)
    script.call("lseek", source, 1000, 0)
    at_end = script.call("sendfile", to, source, 0, SIZE)
    failed = script.call("sendfile", source, to, 0, SIZE)  # the wrong way round
    bad = script.call("copy_file_range", source, 0, 77, 0, SIZE, 0)
    found = monitor.program(script.run())
    assert (at_end.ret, failed.error, bad.error) == (0, "EBADF", "EBADF")
    shown = [
        (name_of(one), one.get("file", {}).get("path"), one["ebpf"]["ret"], one["ebpf"]["fd"])
        for one in found
        if one["ebpf"].get("syscall") in ("sendfile", "copy_file_range")
    ]
    wanted = [
        ("file_read", f"{place}/from", 0, source.ret),
        ("file_read", f"{place}/to", -9, to.ret),
        ("file_write", f"{place}/from", -9, source.ret),
        ("file_read", f"{place}/from", -9, source.ret),
        ("file_write", None, -9, 77),
    ]
    assert shown == wanted


def test_by_the_32_bit_entry_point(monitor: MonitorProcess, script: Script, place: Path) -> None:
    source, to = files(script, place)
    for call in ("sendfile", "sendfile64"):
        script.call32(call, to, source, 0, SIZE)
    script.call("close", source)
    script.call("close", to)
    found = monitor.program(script.run())
    assert totals(found, f"{place}/from") == (2, 2 * SIZE, 0, 0)
    assert totals(found, f"{place}/to") == (0, 0, 2, 2 * SIZE)
    assert acts(found, "sendfile") == [("file_read", f"{place}/from", SIZE), ("file_write", f"{place}/to", SIZE)]


def test_socketcall_is_seen_as_what_it_does(monitor: MonitorProcess, script: Script) -> None:
    def words(*values: int) -> int:
        return script.data(b"".join((value & 0xFFFFFFFF).to_bytes(4, "little") for value in values))

    receiver = script.call32("socketcall", 1, words(socket.AF_INET, socket.SOCK_DGRAM, 0))
    sender = script.call32("socketcall", 1, words(socket.AF_INET, socket.SOCK_DGRAM, 0))
    where, size = script.address(socket.AF_INET, "127.77.0.1", 4077)
    script.call32("socketcall", 2, words(3, where, size))
    sent = script.call32("socketcall", 11, words(4, script.data(b"hello"), 5, 0, where, size))
    script.call32("socketcall", 10, words(3, script.room(16), 16, 0))
    script.call32("socketcall", 3, words(4, where, size))
    script.call32("socketcall", 9, words(4, script.data(b"there"), 5, 0))
    found = monitor.program(script.run())
    assert (receiver.ret, sender.ret, sent.ret) == (3, 4, 5)
    shown = [
        (name_of(one), one["ebpf"]["fd"], one["ebpf"]["ret"], one.get("destination", {}).get("ip"))
        for one in found
        if one["ebpf"].get("syscall") == "socketcall"
    ]
    far = "127.77.0.1"
    wanted = [
        ("socket_bind", 3, 0, None),
        ("socket_send", 4, 5, far),
        ("socket_receive", 3, 5, None),
        ("socket_connect", 4, 0, far),
        *([("socket_send", 4, 5, far)] if monitor.keys["profile"] == "trace" else []),
    ]
    assert shown == wanted
