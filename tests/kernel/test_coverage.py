"""The coverage table against the running kernel's own list of system calls and io_uring operations."""

from __future__ import annotations

import re
from pathlib import Path

from monitor import coverage, tables
from monitor.kernel.btf import Btf

# The kernel's functions are not always called as the call is; and each kernel has stubs for calls of other machines.
CALLED = {
    "newfstat": "fstat",
    "newlstat": "lstat",
    "newstat": "stat",
    "newuname": "uname",
    "oldumount": "umount",
    "mmap_pgoff": "mmap2",
    "llseek": "_llseek",
    "old_getrlimit": "getrlimit",
    "old_readdir": "readdir",
    "old_msgctl": "msgctl",
    "old_semctl": "semctl",
    "old_shmctl": "shmctl",
    "send": "sendto",
    "recv": "recvfrom",
    "gethostname": "uname",
    "sync_file_range2": "sync_file_range",
}
OF_OTHER_MACHINES = re.compile("pciconfig_|s390_|spu_|rtas$|subpage_prot$|ni_syscall$|cachectl$|kern_features$")


def functions() -> set[str]:
    """Names of the running kernel's system calls: every __x64_sys_NAME."""
    symbols = Path("/proc/kallsyms").read_text(encoding="ascii")
    return set(re.findall(r" __x64_sys_(\w+)$", symbols, re.MULTILINE))


def call_name(function: str) -> str:
    """The call that a function serves: without the marks of 32-bit times and 16-bit ids."""
    if function in CALLED:
        return CALLED[function]
    return re.sub("^ia32_", "", re.sub("(_time32|32|16)$", "", function))


def test_every_call_of_the_running_kernel_is_in_the_table() -> None:
    found = functions()
    assert len(found) > 400
    decided = {row.name for compat in (False, True) for row in coverage.calls(compat=compat) if row.seen or row.reason}
    unknown = {name for name in found if call_name(name) not in decided and name not in decided}
    assert {name for name in unknown if not OF_OTHER_MACHINES.match(name)} == set()


def test_calls_that_are_said_not_to_exist_do_not() -> None:
    found = {call_name(name) for name in functions()}
    gone = {name for name, why in coverage.reasons().items() if why.startswith("does not exist")}
    assert gone & found <= {"uselib"}  # gone by configuration only
    assert gone <= tables.SYSCALL_NUMBERS.keys() | tables.COMPAT_SYSCALL_NUMBERS.keys()


def test_the_operations_of_the_running_kernels_io_uring_are_in_the_table() -> None:
    btf = Btf()
    last = btf.enum_value("io_uring_op", "IORING_OP_LAST")
    assert last is not None
    assert 40 < last <= len(tables.IO_URING_OPERATIONS)
    numbers = {name: btf.enum_value("io_uring_op", f"IORING_OP_{name}") for name in tables.IO_URING_OPERATIONS[:last]}
    assert numbers == {name: number for number, name in enumerate(tables.IO_URING_OPERATIONS[:last])}
