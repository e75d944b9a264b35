from __future__ import annotations

import errno
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import tables

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")


def header_syscalls(name: str) -> dict[int, str]:
    """Number -> name by a header of this machine; empty where it is not installed."""
    header = HEADERS / name
    if not header.exists():
        return {}
    pattern = re.compile(r"^#define __NR_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?", re.M)
    return {int(number): word for word, number in pattern.findall(header.read_text())}


@pytest.mark.parametrize(
    ("header", "table"),
    [
        ("unistd_64.h", tables.SYSCALL_NAMES),
        ("unistd_32.h", tables.COMPAT_SYSCALL_NAMES),
        ("unistd_x32.h", tables.X32_SYSCALL_NAMES),
    ],
)
def test_syscalls_agree_with_the_machines_header(header: str, table: dict[int, str]) -> None:
    # A header newer than the table may know more at its end, never other names.
    theirs = {number: name for number, name in header_syscalls(header).items() if number <= 471 or number >= 512}
    assert {number: table.get(number) for number in theirs} == theirs


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "read"), (1, "write"), (2, "open"), (3, "close"), (17, "pread64"), (40, "sendfile"), (41, "socket"),
        (42, "connect"), (43, "accept"), (49, "bind"), (50, "listen"), (56, "clone"), (59, "execve"), (60, "exit"),
        (82, "rename"), (87, "unlink"), (231, "exit_group"), (257, "openat"), (263, "unlinkat"), (288, "accept4"),
        (316, "renameat2"), (321, "bpf"), (322, "execveat"), (327, "preadv2"), (334, "rseq"), (335, "uretprobe"),
        (336, "uprobe"), (424, "pidfd_send_signal"), (435, "clone3"), (436, "close_range"), (437, "openat2"),
        (450, "set_mempolicy_home_node"), (451, "cachestat"), (452, "fchmodat2"), (453, "map_shadow_stack"),
        (454, "futex_wake"), (455, "futex_wait"), (456, "futex_requeue"), (457, "statmount"), (458, "listmount"),
        (459, "lsm_get_self_attr"), (460, "lsm_set_self_attr"), (461, "lsm_list_modules"), (462, "mseal"),
        (463, "setxattrat"), (464, "getxattrat"), (465, "listxattrat"), (466, "removexattrat"),
        (467, "open_tree_attr"), (468, "file_getattr"), (469, "file_setattr"), (470, "listns"),
    ],
)  # fmt: skip
def test_syscall_numbers_and_names_are_the_kernels(number: int, name: str) -> None:
    assert tables.syscall_name(number) == name
    assert tables.syscall_number(name) == number


def test_the_syscall_table_is_dense_but_for_the_kernels_own_gap() -> None:
    assert sorted(tables.SYSCALL_NAMES) == [*range(337), *range(424, 472)]
    assert len(tables.SYSCALL_NUMBERS) == len(tables.SYSCALL_NAMES)
    assert len(tables.COMPAT_SYSCALL_NUMBERS) == len(tables.COMPAT_SYSCALL_NAMES)


def test_compat_and_x32_calls_have_their_own_numbers() -> None:
    assert tables.syscall_name(5, compat=True) == "open"
    assert tables.syscall_name(11, compat=True) == "execve"
    assert tables.syscall_name(359, compat=True) == "socket"
    assert tables.syscall_number("execve", compat=True) == 11
    assert tables.syscall_name(tables.X32_SYSCALL_BIT + 520) == "execve"
    assert tables.syscall_name(tables.X32_SYSCALL_BIT + 257) == "openat"


def test_unknown_numbers_and_names_are_told_as_such() -> None:
    assert tables.syscall_name(9999) == "syscall_9999"
    assert tables.syscall_name(-1) == "syscall_-1"
    assert tables.syscall_name(520) == "syscall_520"  # x32's, but its bit is not set
    assert tables.syscall_number("nosuchcall") is None
    assert tables.errno_name(4000) == "E4000"
    assert tables.signal_name(0) == "SIG0"
    assert tables.socket_family(99) == "AF_99"
    assert tables.socket_type(9) == "SOCK_9"
    assert tables.ip_protocol(200) == "200"


def test_errors_agree_with_the_errno_module_in_every_spelling() -> None:
    spellings = {name: getattr(errno, name) for name in dir(errno) if name.startswith("E")}
    assert {name: tables.ERRNO_NUMBERS[name] for name in spellings} == spellings
    for number in errno.errorcode:
        assert spellings[tables.errno_name(number)] == number


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "EPERM"), (2, "ENOENT"), (11, "EAGAIN"), (13, "EACCES"), (35, "EDEADLK"), (95, "EOPNOTSUPP"),
        (115, "EINPROGRESS"), (133, "EHWPOISON"), (512, "ERESTARTSYS"), (513, "ERESTARTNOINTR"),
        (514, "ERESTARTNOHAND"), (516, "ERESTART_RESTARTBLOCK"), (524, "ENOTSUPP"),
    ],
)  # fmt: skip
def test_errors_have_the_kernels_name(number: int, name: str) -> None:
    assert tables.errno_name(number) == name
    assert tables.ERRNO_NUMBERS[name] == number


def test_every_error_is_within_the_kernels_range() -> None:
    assert all(0 < number <= tables.MAX_ERRNO for number in tables.ERRNO_NAMES)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0, ["O_RDONLY"]),
        (1, ["O_WRONLY"]),
        (2, ["O_RDWR"]),
        (3, ["O_ACCMODE"]),
        (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ["O_WRONLY", "O_CREAT", "O_TRUNC"]),
        (os.O_RDWR | os.O_TMPFILE, ["O_RDWR", "O_TMPFILE"]),
        (os.O_DIRECTORY, ["O_RDONLY", "O_DIRECTORY"]),
        (os.O_SYNC, ["O_RDONLY", "O_SYNC"]),
        (os.O_DSYNC, ["O_RDONLY", "O_DSYNC"]),
        (os.O_PATH | os.O_NOFOLLOW, ["O_NOFOLLOW", "O_PATH"]),
        (0x8000, ["O_RDONLY", "O_LARGEFILE"]),
        (1 << 40, ["O_RDONLY", "0x10000000000"]),
        (os.O_APPEND | 0x20, ["O_RDONLY", "O_APPEND", "0x20"]),
    ],
)
def test_open_flags_are_named(value: int, names: list[str]) -> None:
    assert tables.open_flags(value) == names


@pytest.mark.parametrize(
    "name",
    [
        "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DSYNC", "O_ASYNC", "O_DIRECT",
        "O_DIRECTORY", "O_NOFOLLOW", "O_NOATIME", "O_CLOEXEC", "O_SYNC", "O_TMPFILE",
    ],
)  # fmt: skip
def test_open_flags_agree_with_the_os_module(name: str) -> None:
    assert tables.open_flags(getattr(os, name)) == ["O_RDONLY", name]


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_flag_names_lose_no_bit_of_any_value(value: int) -> None:
    masks = {name: mask for mask, name in tables.OPEN_FLAGS}
    named = tables.open_flags(value)
    total = 0
    for name in named:
        total |= masks[name] if name in masks else int(name, 16) if name.startswith("0x") else 0
    assert total == value & 0xFFFFFFFFFFFFFFFC
    assert "O_PATH" in named or named[0] == tables.ACCESS_MODES[value & 3]


def test_clone_flags_know_where_the_low_byte_is_a_signal() -> None:
    thread = 0x3D0F00
    assert tables.clone_flags(thread) == [
        "CLONE_VM", "CLONE_FS", "CLONE_FILES", "CLONE_SIGHAND", "CLONE_THREAD", "CLONE_SYSVSEM", "CLONE_SETTLS",
        "CLONE_PARENT_SETTID", "CLONE_CHILD_CLEARTID",
    ]  # fmt: skip
    assert tables.clone_flags(0x4111, exit_signal=True) == ["CLONE_VM", "CLONE_VFORK"]
    assert tables.clone_flags(0x80) == ["CLONE_NEWTIME"]
    assert tables.clone_flags(0x200000000 | 0x20000000) == ["CLONE_NEWPID", "CLONE_INTO_CGROUP"]
    assert tables.clone_flags(0x11) == ["0x11"]


def test_rename_flags_are_named() -> None:
    assert tables.rename_flags(0) == []
    assert tables.rename_flags(1) == ["RENAME_NOREPLACE"]
    assert tables.rename_flags(2 | 8) == ["RENAME_EXCHANGE", "0x8"]


def test_socket_words_agree_with_the_socket_module() -> None:
    for name in dir(socket):
        if name.startswith("AF_") and name != "AF_ROUTE":  # AF_ROUTE is a second name of AF_NETLINK
            assert tables.socket_family(getattr(socket, name)) == name
    for name in ("SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"):
        assert tables.socket_type(getattr(socket, name) | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) == name
    assert tables.socket_family(45) == "AF_MCTP"


def test_ip_protocols_agree_with_the_socket_module() -> None:
    words = {"IPPROTO_TCP": "tcp", "IPPROTO_UDP": "udp", "IPPROTO_ICMP": "icmp", "IPPROTO_ICMPV6": "ipv6-icmp"}
    words |= {"IPPROTO_SCTP": "sctp", "IPPROTO_UDPLITE": "udplite", "IPPROTO_GRE": "gre", "IPPROTO_MPTCP": "mptcp"}
    assert {name: tables.ip_protocol(getattr(socket, name)) for name in words} == words


def test_signals_agree_with_the_signal_module() -> None:
    for number in signal.Signals:
        assert tables.signal_name(number) == signal.Signals(number).name
    assert tables.signal_name(35) == "SIGRTMIN+1"
    assert tables.signal_name(63) == "SIGRTMIN+29"
    assert tables.signal_name(32) == "SIG32"
