from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor import procfs
from monitor.procfs import ProcessSkippedError, ProcfsError, ScannedProcess, scan

KTHREAD = 0x00200000


def stat_line(pid: int, comm: bytes, *, ppid: int = 1, flags: int = 0x400000, start: int = 4242) -> bytes:
    tail = [b"S", *(str(n).encode() for n in (ppid, pid, pid, 0, -1, flags, *([0] * 12), start, 1000, 10))]
    return b"%d (%s) %s\n" % (pid, comm, b" ".join(tail))


def add(
    proc: Path,
    pid: int,
    *,
    comm: bytes = b"sh",
    args: bytes = b"sh\0-c\0true\0",
    exe: bytes | None = b"/usr/bin/dash",
    cgroup: bytes = b"0::/system.slice/ssh.service\n",
    flags: int = 0x400000,
    ppid: int = 1,
) -> Path:
    """One process of a fake /proc."""
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "stat").write_bytes(stat_line(pid, comm, flags=flags, ppid=ppid))
    (directory / "status").write_bytes(b"Name:\tsh\nUid:\t1000\t1001\t1002\t1003\nGid:\t50\t51\t52\t53\n")
    (directory / "cmdline").write_bytes(args)
    (directory / "cgroup").write_bytes(cgroup)
    if exe is not None:
        (directory / "exe").symlink_to(os.fsdecode(exe))
        (directory / "cwd").symlink_to(os.fsdecode(b"/home/caf\xe9"))
    return directory


def test_every_field_of_a_process_is_read(tmp_path: Path) -> None:
    add(tmp_path, 77, ppid=5)
    assert list(scan(tmp_path)) == [
        ScannedProcess(
            pid=77,
            ppid=5,
            start_ticks=4242,
            args=(b"sh", b"-c", b"true"),
            args_bytes=11,
            args_truncated=False,
            executable=b"/usr/bin/dash",
            executable_deleted=False,
            cwd=b"/home/caf\xe9",
            comm=b"sh",
            uid=1001,
            gid=51,
            real_uid=1000,
            real_gid=50,
            cgroup=b"/system.slice/ssh.service",
            is_kernel_thread=False,
        )
    ]


def test_processes_come_by_pid_and_other_entries_are_no_processes(tmp_path: Path) -> None:
    for pid in (100, 9, 20):
        add(tmp_path, pid)
    for name in ("self", "sys", "1x", "\u0661"):
        (tmp_path / name).mkdir()
    assert [process.pid for process in scan(tmp_path)] == [9, 20, 100]


@given(st.binary(max_size=64))
@example(b"a) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 (b")
@example(b"two words")
@example(b"line\nbreak")
@example(b")")
@example(b"(((")
@example(b"")
def test_any_comm_leaves_the_numbers_after_it_right(comm: bytes) -> None:
    assert procfs.parse_stat(stat_line(7, comm, ppid=3, flags=64, start=99)) == (comm, 3, 64, 99)


@pytest.mark.parametrize(
    "line", [b"", b"7", b"7 (sh) S 1", b"7 sh S 1 2 3", b"(sh) S 1", stat_line(7, b"x").replace(b"4242", b"z")]
)
def test_a_stat_that_does_not_parse_is_told(line: bytes) -> None:
    with pytest.raises(ProcessSkippedError, match=r"^stat: "):
        procfs.parse_stat(line)


@pytest.mark.parametrize("status", [b"", b"Uid:\t1\t2\t3\t4\n", b"Uid:\t1\nGid:\t1\t1\n", b"Uid:\tx\ty\nGid:\t1\t1\n"])
def test_a_status_without_ids_is_told(status: bytes) -> None:
    with pytest.raises(ProcessSkippedError, match=r"^status: "):
        procfs.parse_ids(status)


@pytest.mark.parametrize(
    ("raw", "args"),
    [
        (b"", ()),
        (b"a\0", (b"a",)),
        (b"a\0\0", (b"a", b"")),
        (b"\0", (b"",)),
        (b"a\0b c\0", (b"a", b"b c")),
        (b"sshd: root@pts/0", (b"sshd: root@pts/0",)),
        (b"\xff\n\0", (b"\xff\n",)),
    ],
)
def test_arguments_are_split_where_the_kernel_ends_them(raw: bytes, args: tuple[bytes, ...]) -> None:
    assert procfs.parse_args(raw) == args


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b"0::/a.service\n", b"/a.service"),
        (b"0::/\n", b"/"),
        (b"", b"/"),
        (b"9:name=systemd:/user.slice\n8:pids:/p\n0::/\n", b"/user.slice"),
        (b"8:pids:/p\n1:name=systemd:/init.scope\n0::/unified\n", b"/unified"),
        (b"9:name=systemd:/\n4:memory:/api/2784\n3:cpuset:/c\n0::/\n", b"/api/2784"),
        (b"0::/with:colons:in it\n", b"/with:colons:in it"),
        (b"0::/\xff\n", b"/\xff"),
        (b"nonsense\n", b"/"),
    ],
)
def test_the_cgroup_is_the_most_telling_hierarchys(content: bytes, path: bytes) -> None:
    assert procfs.parse_cgroup(content) == path


def test_a_kernel_thread_is_known_by_its_flag_not_by_its_missing_files(tmp_path: Path) -> None:
    add(tmp_path, 2, comm=b"kworker/0:0-events", args=b"", exe=None, flags=KTHREAD | 0x8040)
    add(tmp_path, 3, comm=b"[fake]", args=b"", exe=None)
    thread, pretender = scan(tmp_path)
    assert thread.is_kernel_thread
    assert (thread.executable, thread.cwd, thread.args) == (None, None, ())
    assert not pretender.is_kernel_thread


@pytest.mark.parametrize("missing", ["stat", "status", "cmdline"])
def test_a_process_that_vanishes_in_the_middle_is_skipped_as_gone(tmp_path: Path, missing: str) -> None:
    add(tmp_path, 5)
    (add(tmp_path, 6) / missing).unlink()
    add(tmp_path, 7)
    skipped: list[tuple[int, str]] = []
    assert [process.pid for process in scan(tmp_path, on_skip=lambda *told: skipped.append(told))] == [5, 7]
    assert skipped == [(6, "gone")]


def test_a_process_that_vanishes_between_listing_and_reading_is_skipped(tmp_path: Path) -> None:
    add(tmp_path, 5)
    directory = add(tmp_path, 6)
    processes = scan(tmp_path)
    assert next(processes).pid == 5
    directory.rename(tmp_path / "away")
    assert list(processes) == []


def test_a_reaped_process_of_the_real_proc_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessSkippedError, match=r"^gone$"):
        procfs.read_process(Path("/proc"), child.pid)


def test_a_malformed_process_does_not_hide_the_others(tmp_path: Path) -> None:
    (add(tmp_path, 5) / "stat").write_bytes(b"5 (sh")
    add(tmp_path, 6)
    skipped: list[tuple[int, str]] = []
    assert [process.pid for process in scan(tmp_path, on_skip=lambda *told: skipped.append(told))] == [6]
    assert skipped == [(5, "stat: no name in parentheses")]


def refused(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets the kernel refuse these files of /proc/PID, as it does without CAP_SYS_PTRACE (tests may run as root)."""
    real_open, real_readlink = os.open, os.readlink

    def fake_open(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path in names:
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, mode, dir_fd=dir_fd)  # type: ignore[call-overload,no-any-return]

    def fake_readlink(path: bytes, *, dir_fd: int | None = None) -> bytes:
        if os.fsdecode(path) in names:
            raise PermissionError(13, "Permission denied")
        return real_readlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", fake_open)
    monkeypatch.setattr(os, "readlink", fake_readlink)


def test_links_that_may_not_be_read_leave_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, 5)
    refused(monkeypatch, "exe", "cwd")
    (process,) = scan(tmp_path)
    assert (process.executable, process.cwd, process.comm) == (None, None, b"sh")


def test_a_process_that_may_not_be_read_is_told_with_file_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, 5)
    refused(monkeypatch, "status")
    skipped: list[tuple[int, str]] = []
    assert list(scan(tmp_path, on_skip=lambda *told: skipped.append(told))) == []
    assert skipped == [(5, "status: Permission denied")]


def test_a_kernel_without_cgroups_has_every_process_at_the_root(tmp_path: Path) -> None:
    (add(tmp_path, 5) / "cgroup").unlink()
    assert [process.cgroup for process in scan(tmp_path)] == [b"/"]


def test_a_long_command_line_is_cut_and_says_so(tmp_path: Path) -> None:
    add(tmp_path, 5, args=b"a\0" + b"b" * 15_000 + b"\0")
    (process,) = scan(tmp_path, max_args_bytes=10_000)
    assert process.args == (b"a", b"b" * 9_998)
    assert (process.args_truncated, process.args_bytes) == (True, 15_003)
    (whole,) = scan(tmp_path)
    assert not whole.args_truncated
    assert whole.args == (b"a", b"b" * 15_000)


def test_a_deleted_executable_loses_the_kernels_mark_but_a_file_of_that_name_keeps_it(tmp_path: Path) -> None:
    add(tmp_path, 5, exe=b"/gone/program (deleted)")
    odd = tmp_path / "program (deleted)"
    odd.write_bytes(b"")
    add(tmp_path, 6, exe=os.fsencode(odd))
    deleted, kept = scan(tmp_path)
    assert (deleted.executable, deleted.executable_deleted) == (b"/gone/program", True)
    assert (kept.executable, kept.executable_deleted) == (os.fsencode(odd), False)


def test_a_proc_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ProcfsError, match="nowhere: No such file"):
        list(scan(tmp_path / "nowhere"))


def test_we_find_ourselves_in_the_real_proc() -> None:
    (own,) = [process for process in scan() if process.pid == os.getpid()]
    assert own.ppid == os.getppid()
    assert (own.uid, own.gid, own.real_uid) == (os.geteuid(), os.getegid(), os.getuid())
    assert own.executable == os.fsencode(Path("/proc/self/exe").readlink())
    assert own.cwd == os.fsencode(Path.cwd())
    assert own.comm + b"\n" == Path("/proc/self/comm").read_bytes()
    assert b"\0".join(own.args) + b"\0" == Path("/proc/self/cmdline").read_bytes()
    assert not own.is_kernel_thread
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    assert own.start_ticks == ticks


def read_after_exec(pid: int) -> ScannedProcess:
    """The process once its exec is complete: the new program is shown before its arguments stand in its memory."""
    deadline = time.monotonic() + 10
    while not (process := procfs.read_process(Path("/proc"), pid)).args:
        assert time.monotonic() < deadline
    return process


def test_a_real_process_with_an_odd_name_and_a_deleted_program_is_read(tmp_path: Path) -> None:
    program = tmp_path / ") 1 (\n x"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    child = subprocess.Popen([os.fsencode(program), b"60"])
    try:
        program.unlink()
        process = read_after_exec(child.pid)
        assert process.comm == b") 1 (\n x"
        assert process.ppid == os.getpid()
        assert (process.executable, process.executable_deleted) == (os.fsencode(program), True)
        assert process.args == (os.fsencode(program), b"60")
    finally:
        child.kill()
        child.wait()


def test_scanning_leaves_no_descriptor_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    list(scan())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_kernel_start_time_matches_the_ticks_it_is_shown_as() -> None:
    assert procfs.same_start(42_429_999_999, 4242)
    assert procfs.same_start(42_420_000_000, 4242)
    assert not procfs.same_start(42_430_000_000, 4242)
    assert not procfs.same_start(42_419_999_999, 4242)
