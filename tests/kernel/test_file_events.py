"""file_open, file_read, file_write, file_close, file_delete, file_rename: known acts through every system call, exactly
these documents, with folding and without it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.acts import AT_FDCWD, Call, Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of, wall_ns

pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full"}, {"profile": "trace"}], indirect=True, ids=["folding", "trace"]
)
PRIME = 7
READS = ("read", "pread64", "readv", "preadv", "preadv2")
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
OPENS = ("open", "openat", "openat2", "creat", "open_by_handle_at")
SIZE = 13


def folds(monitor: MonitorProcess) -> bool:
    return bool(monitor.keys["profile"] != "trace")


def shown(document: Document) -> tuple[str, str | None, int, str | None]:
    return (
        name_of(document),
        document["ebpf"].get("syscall"),
        document["ebpf"]["ret"],
        document.get("error", {}).get("code"),
    )


def path_of(document: Document) -> str | None:
    found: str | None = document.get("file", {}).get("path")
    return found


def open_by(script: Script, call: str, path: Path | str, flags: int = os.O_RDWR, mode: int = 0) -> Call:
    """Opens `path` through this call; open_by_handle_at needs one more descriptor, opened before."""
    where = script.text(path)
    if call == "open":
        return script.call(call, where, flags, mode)
    if call == "creat":
        return script.call(call, where, mode)
    if call == "openat":
        return script.call(call, AT_FDCWD, where, flags, mode)
    if call == "openat2":
        return script.call(call, AT_FDCWD, where, script.words(flags, mode, 0), 24)
    handle = script.data(struct.pack("<Ii", 128, 0) + bytes(128))
    script.call("name_to_handle_at", AT_FDCWD, where, handle, script.room(8), 0)
    return script.call(call, AT_FDCWD, handle, flags)


def transfer(script: Script, call: str, descriptor: Call | int, size: int = SIZE) -> Call:
    """One call of the read or write family."""
    if "v" in call:
        return script.call(call, descriptor, script.vector(size - 3, 3), 2, 0, 0)
    return script.call(call, descriptor, script.room(size), size, 0)


@pytest.mark.parametrize("call", OPENS)
def test_each_open_is_one_document_with_the_true_path_and_stat_of_the_file(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    (place / "f").write_bytes(b"x" * 100)
    (place / "f").chmod(0o640)
    script.call("chdir", script.text(place))
    opened, stated, closed = [], [], []
    for _ in range(PRIME):
        opened.append(open_by(script, call, "f" if call != "open_by_handle_at" else place / "f"))
        stated.append(script.stat(opened[-1]))
        closed.append(script.call("close", opened[-1]))
    found = monitor.program(script.run())
    wanted: list[Any] = []
    for call_, close in zip(opened, closed, strict=True):
        assert call_.ret > 2
        wanted += [("file_open", call, call_.ret, None), ("file_close", "close", close.ret, None)]
    assert [shown(one) for one in found] == wanted
    for i, (made, about) in enumerate(zip(opened, stated, strict=True)):
        file = found[2 * i]["file"]
        assert (file["inode"], file["device"], file["mode"]) == script.stated(about)
        assert (file["path"], file["name"], file["type"]) == (str(place / "f"), "f", "file")
        assert found[2 * i]["ebpf"]["path_source"] == "file"
        assert "claimed" not in found[2 * i]["ebpf"]
        assert found[2 * i]["ebpf"]["fd"] == made.ret
        assert found[2 * i]["event"]["action"] == "open"
        assert made.before - 50_000_000 <= wall_ns(found[2 * i]) <= made.after + 50_000_000
        assert found[2 * i + 1]["file"] == file, "the close names the same file"
        assert found[2 * i + 1]["ebpf"]["close"]["reason"] == "close"


@pytest.mark.parametrize("call", ["open", "openat", "openat2", "creat"])
def test_an_open_that_created_the_file_says_so_and_only_that_one(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    for i in range(PRIME):
        for _ in range(2):
            open_by(script, call, place / f"n{i}", os.O_RDWR | os.O_CREAT, 0o600)
    found = [one for one in monitor.program(script.run()) if name_of(one) == "file_open"]
    assert [(one["event"]["action"], one["event"]["type"]) for one in found] == [
        ("creation", ["creation"]),
        ("open", ["access"]),
    ] * PRIME
    assert [one["file"]["path"] for one in found] == [str(place / f"n{i}") for i in range(PRIME) for _ in range(2)]
    if call != "creat":
        assert all("O_CREAT" in one["ebpf"]["flags"].split("|") for one in found)


def test_open_flags_are_shown_by_name(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "f").touch()
    flags = os.O_WRONLY | os.O_APPEND | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_SYNC
    open_by(script, "openat", place / "f", flags)
    open_by(script, "openat", place, os.O_RDONLY | os.O_DIRECTORY)
    open_by(script, "openat2", place / "f", os.O_RDONLY | os.O_CLOEXEC)
    first, second, third = [one for one in monitor.program(script.run()) if name_of(one) == "file_open"]
    assert set(first["ebpf"]["flags"].split("|")) - {"O_LARGEFILE"} == {
        "O_WRONLY",
        "O_APPEND",
        "O_TRUNC",
        "O_NONBLOCK",
        "O_CLOEXEC",
        "O_NOFOLLOW",
        "O_SYNC",
    }
    assert set(second["ebpf"]["flags"].split("|")) - {"O_LARGEFILE"} == {"O_RDONLY", "O_DIRECTORY"}
    assert set(third["ebpf"]["flags"].split("|")) - {"O_LARGEFILE"} == {"O_RDONLY", "O_CLOEXEC"}
    assert (second["file"]["type"], second["file"]["path"]) == ("dir", str(place))


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_transfers_are_recorded_as_the_profile_says_and_totals_are_exact(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    (place / "f").write_bytes(b"x" * 1000)
    opened = open_by(script, "openat", place / "f")
    made = [transfer(script, call, opened) for _ in range(PRIME)]
    script.call("close", opened)
    found = monitor.program(script.run())
    assert [one.ret for one in made] == [SIZE] * PRIME
    event = "file_read" if call in READS else "file_write"
    recorded = 1 if folds(monitor) else PRIME
    assert [shown(one) for one in found] == [
        ("file_open", "openat", opened.ret, None),
        *[(event, call, SIZE, None)] * recorded,
        ("file_close", "close", 0, None),
    ]
    assert {path_of(one) for one in found} == {str(place / "f")}
    assert {one["ebpf"]["fd"] for one in found} == {opened.ret}
    nothing, all_of_it = {"count": 0, "bytes": 0}, {"count": PRIME, "bytes": PRIME * SIZE}
    assert (found[-1]["ebpf"]["read"], found[-1]["ebpf"]["write"]) == (
        (all_of_it, nothing) if call in READS else (nothing, all_of_it)
    )
    assert made[0].before - 50_000_000 <= wall_ns(found[1]) <= made[0].after + 50_000_000


def test_the_first_read_and_the_first_write_of_one_descriptor_are_both_events(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    (place / "f").write_bytes(b"x" * 1000)
    opened = open_by(script, "openat", place / "f")
    for call in (*READS, *WRITES, *READS):
        transfer(script, call, opened)
    script.call("close", opened)
    found = monitor.program(script.run())
    events = [name_of(one) for one in found[1:-1]]
    assert events == (
        ["file_read", "file_write"] if folds(monitor) else ["file_read"] * 5 + ["file_write"] * 5 + ["file_read"] * 5
    )
    assert found[-1]["ebpf"]["read"] == {"count": 10, "bytes": 10 * SIZE}
    assert found[-1]["ebpf"]["write"] == {"count": 5, "bytes": 5 * SIZE}


def test_a_read_at_the_end_counts_with_no_bytes(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "f").write_bytes(b"x" * SIZE)
    opened = open_by(script, "openat", place / "f")
    for _ in range(3):
        transfer(script, "read", opened)
    script.call("close", opened)
    found = monitor.program(script.run())
    assert found[-1]["ebpf"]["read"] == {"count": 3, "bytes": SIZE}


def test_descriptors_that_were_open_before_are_named_at_their_first_use(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    (place / "f").write_bytes(b"x" * 100)
    inherited = os.open(place / "f", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    child = script.begin_child()
    transfer(script, "read", inherited)
    script.call("close", inherited)
    made = script.end_child(child)
    script.reap(made)
    with subprocess.Popen([script.actor, str(script.fd)], pass_fds=[script.fd, inherited]) as process:
        assert process.wait() == 0
    os.close(inherited)
    found = monitor.lifetime(made.ret)
    assert [shown(one) for one in found] == [
        ("process_fork", "fork", made.ret, None),
        ("file_read", "read", SIZE, None),
        ("file_close", "close", 0, None),
        ("process_exit", None, 0, None),
    ]
    assert path_of(found[1]) == path_of(found[2]) == str(place / "f")


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_failed_transfers_have_their_error_and_the_file_where_there_is_one(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    (place / "f").write_bytes(b"x" * 100)
    wrong_way = open_by(script, "openat", place / "f", os.O_WRONLY if call in READS else os.O_RDONLY)
    transfer(script, call, wrong_way)
    transfer(script, call, 999)
    script.call("close", 999)
    script.call("close", wrong_way)
    found = monitor.program(script.run())
    event = "file_read" if call in READS else "file_write"
    assert [(shown(one), path_of(one)) for one in found] == [
        (("file_open", "openat", wrong_way.ret, None), str(place / "f")),
        ((event, call, -9, "EBADF"), str(place / "f")),
        ((event, call, -9, "EBADF"), None),
        (("file_close", "close", -9, "EBADF"), None),
        (("file_close", "close", 0, None), str(place / "f")),
    ]
    assert found[-1]["ebpf"]["read"] == found[-1]["ebpf"]["write"] == {"count": 0, "bytes": 0}
    assert [one["ebpf"].get("errno") for one in found] == [None, 9, 9, 9, None]
    assert [one["event"]["outcome"] for one in found] == ["success", "failure", "failure", "failure", "success"]


def test_dup2_and_dup3_over_a_used_descriptor_end_its_session(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    made = []
    for i in range(PRIME):
        first, second = (
            open_by(script, "openat", place / f"{name}{i}", os.O_RDWR | os.O_CREAT, 0o600) for name in "ab"
        )
        transfer(script, "write", first)
        made.append((first, second, script.call("dup3" if i % 2 else "dup2", second, first, 0)))
        transfer(script, "write", first)
        script.call("close", first)
        script.call("close", second)
    found = monitor.program(script.run())
    wanted: list[Any] = []
    for i, (first, second, dup) in enumerate(made):
        a, b = str(place / f"a{i}"), str(place / f"b{i}")
        wanted += [
            ("file_open", first.ret, a),
            ("file_open", second.ret, b),
            ("file_write", SIZE, a),
            ("file_close", dup.ret, a),
            ("file_write", SIZE, b),
            ("file_close", 0, b),
            ("file_close", 0, b),
        ]
    assert [(name_of(one), one["ebpf"]["ret"], path_of(one)) for one in found] == wanted
    ends = [one for one in found if name_of(one) == "file_close"]
    assert [one["ebpf"]["close"]["reason"] for one in ends] == ["dup", "close", "close"] * PRIME
    assert [one["ebpf"]["syscall"] for one in ends] == [
        name for i in range(PRIME) for name in ("dup3" if i % 2 else "dup2", "close", "close")
    ]
    assert [one["ebpf"]["write"]["bytes"] for one in ends] == [SIZE, SIZE, 0] * PRIME


def test_dup2_to_itself_ends_nothing(monitor: MonitorProcess, script: Script, place: Path) -> None:
    opened = open_by(script, "openat", place / "f", os.O_RDWR | os.O_CREAT, 0o600)
    transfer(script, "write", opened)
    script.call("dup2", opened, opened)
    script.call("close", opened)
    found = monitor.program(script.run())
    assert [name_of(one) for one in found] == ["file_open", "file_write", "file_close"]
    assert found[-1]["ebpf"]["write"] == {"count": 1, "bytes": SIZE}


def test_close_range_ends_each_session_in_it_once(monitor: MonitorProcess, script: Script, place: Path) -> None:
    opened = [open_by(script, "openat", place / f"f{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(PRIME)]
    for one in opened:
        transfer(script, "write", one)
    script.call("close_range", opened[1], 0xFFFFFFFF, 0)
    script.call("close_range", opened[0], opened[0], 4)  # CLOSE_RANGE_CLOEXEC closes nothing
    script.call("close", opened[0])
    found = monitor.program(script.run())
    ends = [one for one in found if name_of(one) == "file_close"]
    assert len(found) == 3 * PRIME
    assert [(one["ebpf"]["syscall"], path_of(one), one["ebpf"]["close"]["reason"]) for one in ends] == [
        *[("close_range", str(place / f"f{i}"), "close") for i in range(1, PRIME)],
        ("close", str(place / "f0"), "close"),
    ]
    assert {one["ebpf"]["write"]["bytes"] for one in ends} == {SIZE}


def test_an_exec_ends_the_sessions_and_what_stays_open_begins_a_new_one(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    going, staying = 60, 61
    for name, number, flags in (("going", going, os.O_CLOEXEC), ("staying", staying, 0)):
        opened = open_by(script, "openat", place / name, os.O_RDWR | os.O_CREAT, 0o600)
        script.call("dup3", opened, number, flags)
        script.call("close", opened)
        transfer(script, "write", number)
    script.exec_again()
    transfer(script, "write", staying)
    transfer(script, "write", going)
    found = monitor.lifetime(script.run())
    start = next(i for i, one in enumerate(found) if name_of(one) == "process_exec")
    assert [
        (name_of(one), path_of(one), one["ebpf"].get("close", {}).get("reason"), one["ebpf"].get("write"))
        for one in found[start + 7 :]
    ] == [
        ("file_close", str(place / "going"), "exec", {"count": 1, "bytes": SIZE}),
        ("file_close", str(place / "staying"), "exec", {"count": 1, "bytes": SIZE}),
        ("process_exec", str(script.actor), None, None),
        ("file_write", str(place / "staying"), None, None),
        ("file_write", None, None, None),
        ("file_close", str(place / "staying"), "exit", {"count": 1, "bytes": SIZE}),
        ("process_exit", None, None, None),
    ]
    assert [one["process"]["thread"]["name"] for one in found[start + 7 :]] == ["actor"] * 7
    assert [one.get("error", {}).get("code") for one in found[start + 7 :]] == [
        None,
        None,
        None,
        None,
        "EBADF",
        None,
        None,
    ]


def test_an_exit_ends_every_open_session_with_its_totals_before_its_own_document(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    opened = [open_by(script, "openat", place / f"f{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(PRIME)]
    for i, one in enumerate(opened):
        for _ in range(i):
            transfer(script, "write", one)
    found = monitor.lifetime(script.run())
    ends = [one for one in found if name_of(one) == "file_close" and one["ebpf"]["close"]["reason"] == "exit"]
    assert found[-PRIME - 1 : -1] == ends
    assert {path_of(one): one["ebpf"]["write"]["count"] for one in ends} == {
        str(place / f"f{i}"): i for i in range(PRIME)
    }
    assert all(one["process"]["pid"] == script.pid for one in ends)


# ---- names: delete and rename ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["unlink", "unlinkat"])
def test_each_delete_is_one_document_with_the_name_that_went(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    names = [f"f{i}" for i in range(3 * PRIME)]
    (place / "d").mkdir()
    for name in names:
        (place / "d" / name).touch()
    script.call("chdir", script.text(place))
    directory = open_by(script, "openat", place / "d", os.O_RDONLY | os.O_DIRECTORY)
    for i, name in enumerate(names):
        absolute, relative = script.text(place / "d" / name), script.text(f"d/{name}")
        if call == "unlink":
            script.call(call, absolute if i % 3 else relative)
        else:
            forms: list[tuple[int | Call, int]] = [
                (AT_FDCWD, absolute),
                (AT_FDCWD, relative),
                (directory, script.text(name)),
            ]
            script.call(call, *forms[i % 3], 0)
    script.call("unlinkat", AT_FDCWD, script.text(place / "d"), 0x200)  # a directory: not this event
    found = [one for one in monitor.program(script.run()) if name_of(one) == "file_delete"]
    assert [shown(one) for one in found] == [("file_delete", call, 0, None)] * len(names)
    assert [path_of(one) for one in found] == [str(place / "d" / name) for name in names]
    assert not list((place).glob("d/*"))
    assert all(one["event"]["action"] == "deletion" and one["event"]["type"] == ["deletion"] for one in found)
    assert all(one["ebpf"]["path_source"] in ("caller", "hook", "fs") for one in found)
    assert all(one["ebpf"].get("claimed") is True for one in found if one["ebpf"]["path_source"] == "caller")


@pytest.mark.parametrize("call", ["rename", "renameat", "renameat2"])
def test_each_rename_is_one_document_with_both_names(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    names = [f"f{i}" for i in range(3 * PRIME)]
    for directory in "ab":
        (place / directory).mkdir()
    for name in names:
        (place / "a" / name).touch()
    script.call("chdir", script.text(place))
    one_fd, other_fd = (open_by(script, "openat", place / name, os.O_RDONLY | os.O_DIRECTORY) for name in "ab")
    extra = (0,) if call == "renameat2" else ()
    for i, name in enumerate(names):
        if call == "rename":
            script.call(
                call,
                script.text(f"a/{name}" if i % 3 else place / "a" / name),
                script.text(f"b/{name}" if i % 2 else place / "b" / name),
            )
        else:
            forms: list[tuple[int | Call, int]] = [
                (AT_FDCWD, script.text(place / "a" / name)),
                (AT_FDCWD, script.text(f"a/{name}")),
                (one_fd, script.text(name)),
            ]
            script.call(call, *forms[i % 3], other_fd, script.text(name), *extra)
    found = [one for one in monitor.program(script.run()) if name_of(one) == "file_rename"]
    assert [shown(one) for one in found] == [("file_rename", call, 0, None)] * len(names)
    assert [(one["file"]["Ext"]["original"]["path"], path_of(one)) for one in found] == [
        (str(place / "a" / name), str(place / "b" / name)) for name in names
    ]
    assert all(one["file"]["name"] == name for one, name in zip(found, names, strict=True))


def test_an_exchange_is_one_rename(monitor: MonitorProcess, script: Script, place: Path) -> None:
    for name in "ab":
        (place / name).write_text(name)
    script.call("renameat2", AT_FDCWD, script.text(place / "a"), AT_FDCWD, script.text(place / "b"), 2)
    found = monitor.program(script.run())
    assert (place / "a").read_text() == "b"
    assert [(name_of(one), one["file"]["Ext"]["original"]["path"], path_of(one)) for one in found] == [
        ("file_rename", str(place / "a"), str(place / "b"))
    ]


# ---- failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "openat", "openat2", "creat"])
def test_a_failed_open_has_its_error_and_the_claimed_path_made_absolute(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    (place / "secret").mkdir(mode=0o700)
    (place / "file").touch()
    script.call("chdir", script.text(place))
    script.call("setresuid", 65534, 65534, 65534)
    made: list[tuple[Call, str]] = []
    for _ in range(PRIME):
        for name, wanted in (
            ("missing", f"{place}/missing"),
            (f"{place}/missing", f"{place}/missing"),
            ("secret/x", f"{place}/secret/x"),
            ("file/x", f"{place}/file/x"),
            ("./a/../missing", f"{place}/./a/../missing"),
            ("/nowhere", "/nowhere"),
        ):
            made.append((open_by(script, call, name, os.O_WRONLY), wanted))
    found = [one for one in monitor.program(script.run()) if one["ebpf"]["event"] != "process_credentials"]
    assert [(shown(one), path_of(one)) for one in found] == [
        (("file_open", call, act.ret, act.error), wanted) for act, wanted in made
    ]
    assert {act.error for act, _ in made} == {"ENOENT", "EACCES", "ENOTDIR"}
    assert all(one["ebpf"]["claimed"] is True and one["ebpf"]["path_source"] == "caller" for one in found)
    assert all(
        one["event"]["outcome"] == "failure" and one["event"]["type"] == ["info"] and "fd" not in one["ebpf"]
        for one in found
    )
    assert all(one["user"]["id"] == "65534" for one in found)


def test_a_failed_open_below_a_descriptor_is_made_absolute_by_that_directory(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    (place / "d").mkdir()
    directory = open_by(script, "openat", place / "d", os.O_RDONLY | os.O_DIRECTORY)
    script.call("chdir", script.text("/"))
    for _ in range(PRIME):
        script.call("openat", directory, script.text("x"), os.O_RDONLY)
        script.call("openat2", directory, script.text("y/z"), script.words(0, 0, 0), 24)
        script.call("openat", directory, script.text("/abs"), os.O_RDONLY)
    found = monitor.program(script.run())[1:]
    assert [(shown(one)[1], path_of(one)) for one in found[:-1]] == [
        ("openat", f"{place}/d/x"),
        ("openat2", f"{place}/d/y/z"),
        ("openat", "/abs"),
    ] * PRIME


def test_openat2_names_what_its_resolve_flags_led_to(monitor: MonitorProcess, script: Script, place: Path) -> None:
    """Linux include/uapi/linux/openat2.h: with RESOLVE_IN_ROOT the directory is `/` for names and links."""
    no_xdev, no_magiclinks, no_symlinks, beneath, in_root, cached = (1 << bit for bit in range(6))
    (place / "d/e").mkdir(parents=True)
    for file in ("d/e/f", "f"):
        (place / file).touch()
    (place / "d/link").symlink_to("/e/f")
    directory = open_by(script, "openat", place / "d", os.O_RDONLY | os.O_DIRECTORY)
    made = [
        (script.call("openat2", directory, script.text(name), script.words(os.O_RDONLY, 0, resolve), 24), name, error)
        for name, resolve, error in (
            ("link", in_root, ""),
            ("/e/f", in_root, ""),
            ("../../e/f", in_root, ""),
            ("e/../e/f", beneath | no_xdev, ""),
            ("e/f", no_symlinks | no_magiclinks, ""),
            ("e/f", cached, ""),
            ("../f", beneath, "EXDEV"),
            ("/e/f", beneath, "EXDEV"),
            ("link", no_symlinks, "ELOOP"),
            ("../f", in_root, "ENOENT"),
            ("/proc/self/exe", no_magiclinks, "ELOOP"),
        )
    ]
    found = [one for one in monitor.program(script.run()) if one["ebpf"].get("syscall") == "openat2"]
    assert [shown(one)[3] or "" for one in found] == [error for _, _, error in made]
    for one, (_, name, error) in zip(found, made, strict=True):
        claim = name if name.startswith("/") else f"{place}/d/{name}"
        assert path_of(one) == (claim if error else f"{place}/d/e/f")
        assert one["ebpf"]["path_source"] == ("caller" if error else "file")


def test_each_way_an_open_fails_has_its_own_error(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "f").touch()
    (place / "link").symlink_to(place / "link")
    where = script.text(place / "f")
    made = [
        open_by(script, "openat", place / "link"),
        open_by(script, "openat", place / "f", os.O_CREAT | os.O_EXCL, 0o600),
        open_by(script, "openat", place, os.O_WRONLY),
        open_by(script, "openat", place / ("n" * 256)),
        script.call("openat", AT_FDCWD, script.text(""), 0),
        script.call("openat", 999, script.text("x"), 0),
        script.call("openat", AT_FDCWD, 8, 0),
        script.call("openat2", AT_FDCWD, where, script.words(0, 0, 0), 3),
        script.call("open_by_handle_at", AT_FDCWD, script.data(struct.pack("<Ii", 8, 1) + bytes(8)), 0),
    ]
    script.call("prlimit64", 0, 7, script.words(3, 3), 0)
    made.append(open_by(script, "openat", place / "f"))
    found = monitor.program(script.run())
    assert [shown(one) for one in found] == [("file_open", act.name, act.ret, act.error) for act in made]
    assert [act.error for act in made] == [
        "ELOOP",
        "EEXIST",
        "EISDIR",
        "ENAMETOOLONG",
        "ENOENT",
        "EBADF",
        "EFAULT",
        "EINVAL",
        "ESTALE",
        "EMFILE",
    ]
    paths = [
        str(place / "link"),
        str(place / "f"),
        str(place),
        str(place / ("n" * 256)),
        "",
        "x",
        None,
        str(place / "f"),
        None,
        str(place / "f"),
    ]
    assert [path_of(one) for one in found] == paths


def test_a_claimed_path_of_4095_bytes_is_whole(monitor: MonitorProcess, script: Script, place: Path) -> None:
    name = "/" + "/".join(["d" * 200] * 20)
    name += "/" + "e" * (4095 - len(name) - 1)
    open_by(script, "openat", name)
    open_by(script, "openat", name[1:])
    found = monitor.program(script.run(cwd=place))
    assert [path_of(one) for one in found] == [name, f"{place}{name}"]


@pytest.mark.parametrize("call", ["unlink", "unlinkat", "rename", "renameat", "renameat2"])
def test_a_failed_delete_or_rename_has_its_error_and_claimed_names(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    (place / "d" / "e").mkdir(parents=True)
    (place / "f").touch()
    script.call("chdir", script.text(place / "d"))
    directory = open_by(script, "openat", place, os.O_RDONLY | os.O_DIRECTORY)
    at = call.endswith(("at", "at2"))
    made: list[tuple[Call, str, str]] = []
    for _ in range(PRIME):
        for base, name, error, absolute in (
            (AT_FDCWD, "missing", "ENOENT", f"{place}/d/missing"),
            (AT_FDCWD, "../f/x", "ENOTDIR", f"{place}/d/../f/x"),
            (directory if at else AT_FDCWD, "gone", "ENOENT", f"{place}/gone" if at else f"{place}/d/gone"),
        ):
            where = script.text(name)
            if call == "unlink":
                made.append((script.call(call, where), error, absolute))
            elif call == "unlinkat":
                made.append((script.call(call, base, where, 0), error, absolute))
            elif call == "rename":
                made.append((script.call(call, where, script.text("new")), error, absolute))
            else:
                made.append((script.call(call, base, where, directory, script.text("new"), 0), error, absolute))
    found = monitor.program(script.run())[1:-1]
    event = "file_delete" if call.startswith("unlink") else "file_rename"
    assert [shown(one) for one in found] == [(event, call, act.ret, error) for act, error, _ in made]
    if event == "file_delete":
        assert [path_of(one) for one in found] == [absolute for _, _, absolute in made]
    else:
        new = f"{place}/d/new" if call == "rename" else f"{place}/new"
        assert [(one["file"]["Ext"]["original"]["path"], path_of(one)) for one in found] == [
            (absolute, new) for _, _, absolute in made
        ]
    assert all(one["ebpf"]["claimed"] is True and one["event"]["type"] == ["info"] for one in found)


def test_calls_through_the_32_bit_entry_are_the_same_events(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    opened = script.call32("open", script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    script.call32("write", opened, script.room(SIZE), SIZE)
    script.call32("close", opened)
    script.call32("rename", script.text(place / "f"), script.text(place / "g"))
    script.call32("unlink", script.text(place / "g"))
    script.call32("open", script.text(place / "missing"), os.O_RDONLY)
    script.call("getppid")  # 110: a number that is another call in the 32-bit table
    found = monitor.program(script.run())
    assert [(*shown(one), path_of(one)) for one in found] == [
        ("file_open", "open", opened.ret, None, str(place / "f")),
        ("file_write", "write", SIZE, None, str(place / "f")),
        ("file_close", "close", 0, None, str(place / "f")),
        ("file_rename", "rename", 0, None, str(place / "g")),
        ("file_delete", "unlink", 0, None, str(place / "g")),
        ("file_open", "open", -2, "ENOENT", str(place / "missing")),
    ]


@pytest.mark.parametrize("call", ["openat", "unlink", "rename"])
def test_a_claimed_path_that_is_too_long_is_flagged(
    monitor: MonitorProcess, script: Script, place: Path, call: str
) -> None:
    name = "/" + "xy/" * 1700
    where = script.text(name)
    made = script.call(call, *((AT_FDCWD, where, 0) if call == "openat" else (where, where)))
    found = monitor.program(script.run())
    assert (made.error, found[0]["error"]["code"]) == ("ENAMETOOLONG", "ENAMETOOLONG")
    assert found[0]["file"]["path"] == name[:4095]
    assert found[0]["ebpf"]["truncated"] is True
