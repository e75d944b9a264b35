"""Each profile records exactly its events and counts what it leaves out; `standard`'s rule for quiet objects."""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script
from tests.kernel.monitor_process import MonitorProcess, name_of
from tests.kernel.test_socket_events import Ends

AGE = 3
SENSITIVE = "/usr/include/linux"
CONFIGURATIONS = [
    {"profile": profile, "quiet_age_s": AGE, "sensitive_paths": ["/etc", SENSITIVE]}
    for profile in ("minimal", "standard", "full", "trace")
]
pytestmark = pytest.mark.parametrize(
    "running", CONFIGURATIONS, indirect=True, ids=[str(one["profile"]) for one in CONFIGURATIONS]
)
CALLS = 5


def act(script: Script, place: Path) -> None:
    """File acts: open, CALLS reads, CALLS writes, close, rename, delete; sockets: a connection with CALLS sends."""
    opened = script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    for call in ("write", "pread64") * CALLS:
        script.call(call, opened, script.room(8), 8, 0)
    script.call("close", opened)
    script.call("rename", script.text(place / "f"), script.text(place / "g"))
    script.call("unlink", script.text(place / "g"))
    script.call("openat", AT_FDCWD, script.text(place / "missing"), os.O_RDONLY)
    script.call("mkdir", script.text(place / "d"), 0o700)
    script.call("memfd_create", script.text("x"), 0)
    ends = Ends(script, socket.AF_INET)
    ends.connect()
    accepted = ends.accept()
    for _ in range(CALLS):
        script.call("write", ends.client, script.room(8), 8)
        script.call("read", accepted, script.room(8), 8)
    script.call("close", ends.client)


FOLDED = {
    "file_open": 2,
    "file_write": 1,
    "file_read": 1,
    "file_close": 1,
    "file_rename": 1,
    "file_delete": 1,
    "file_mkdir": 1,
    "file_memfd": 1,
    "socket_bind": 1,
    "socket_listen": 1,
    "socket_connect": 1,
    "socket_accept": 1,
    "socket_send": 1,
    "socket_receive": 1,
    "socket_close": 3,
}
EVENTS = {
    "minimal": {"socket_listen": 1, "socket_connect": 1, "socket_accept": 1},
    "standard": FOLDED,
    "full": FOLDED,
    "trace": FOLDED | {"file_write": CALLS, "file_read": CALLS, "socket_send": CALLS, "socket_receive": CALLS},
}


def test_each_profile_records_exactly_its_events(monitor: MonitorProcess, script: Script, place: Path) -> None:
    before = monitor.fresh_status()["ledger"]
    act(script, place)
    found = monitor.program(script.run())
    profile = str(monitor.keys["profile"])
    assert Counter(name_of(one) for one in found) == EVENTS[profile]
    after = monitor.fresh_status()["ledger"]
    left_out = after["suppressed"]["profile"] - before["suppressed"]["profile"]
    if profile == "minimal":
        assert left_out >= 4 * CALLS + 9, "each call that was left out is counted"
    else:
        assert left_out == 0
    if profile == "trace":
        assert after["folded"] == 0
    else:
        assert after["folded"] - before["folded"] >= (0 if profile == "minimal" else 4 * (CALLS - 1))


def test_what_minimal_records_has_its_facts(monitor: MonitorProcess, script: Script, place: Path) -> None:
    act(script, place)
    found = monitor.lifetime(script.run())
    connected = next(one for one in found if name_of(one) == "socket_connect")
    assert connected["destination"]["ip"] == "127.0.0.1"
    assert {"process_exec", "process_exit"} < {name_of(one) for one in found}
    assert {one["process"].get("executable") for one in found[-4:]} == {str(script.actor)}


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of root that changed more than AGE seconds ago."""
    directory = tmp_path_factory.mktemp("aged").resolve()
    for name, mode in (
        ("quiet", 0o644),
        ("users", 0o644),
        ("group-writable", 0o664),
        ("world-writable", 0o666),
        ("recent", 0o644),
        ("written", 0o644),
    ):
        (directory / name).write_bytes(b"x" * 100)
        (directory / name).chmod(mode)
    os.chown(directory / "users", 1000, 1000)
    born = time.time()
    while time.time() < born + AGE + 2:
        time.sleep(0.05)
    return directory


def look(script: Script, path: Path | str, how: int = os.O_RDONLY) -> None:
    """open, read, close."""
    opened = script.call("openat", AT_FDCWD, script.text(path), how)
    script.call("read", opened, script.room(16), 16)
    script.call("close", opened)


def test_standard_leaves_out_quiet_objects_and_counts_them(monitor: MonitorProcess, script: Script, aged: Path) -> None:
    quiet = [aged / "quiet", Path("/proc/version"), Path("/sys/kernel/notes"), Path("/usr/bin/env")]
    before = monitor.fresh_status()["ledger"]["suppressed"]
    for path in quiet:
        look(script, path)
    found = monitor.program(script.run())
    after = monitor.fresh_status()["ledger"]["suppressed"]
    profile = str(monitor.keys["profile"])
    if profile in ("full", "trace"):
        assert [name_of(one) for one in found] == ["file_open", "file_read", "file_close"] * len(quiet)
        assert after["quiet"] == before["quiet"]
        assert all(one["ebpf"]["quiet"] for one in found), "marked: a shipping profile can withhold it"
    else:
        assert found == []
        assert after["quiet" if profile == "standard" else "profile"] - before[
            "quiet" if profile == "standard" else "profile"
        ] >= 3 * len(quiet)


def test_executable_maps_of_quiet_files_are_left_out_and_counted(
    monitor: MonitorProcess, script: Script, aged: Path
) -> None:
    """So is a library of root; of a user's file, or shared by a descriptor that can write, it is always told."""
    descriptors = [script.call("openat", AT_FDCWD, script.text(aged / name), os.O_RDONLY) for name in ("quiet", "users")]
    writing = script.call("openat", AT_FDCWD, script.text(aged / "quiet"), os.O_RDWR)
    for descriptor in descriptors:
        for _ in range(CALLS):
            script.call("mmap", 0, 4096, mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0)
    script.call("mmap", 0, 4096, mmap.PROT_READ, mmap.MAP_SHARED, writing, 0)
    before = monitor.fresh_status()["ledger"]["suppressed"]
    found = [one for one in monitor.program(script.run()) if name_of(one) == "file_map"]
    after = monitor.fresh_status()["ledger"]["suppressed"]
    profile = str(monitor.keys["profile"])
    loud = [*["users"] * CALLS, "quiet"]
    told = {"minimal": [], "standard": loud}.get(profile, ["quiet"] * CALLS + loud)
    assert [one["file"]["name"] for one in found] == told
    assert sum("quiet" in one["ebpf"] for one in found) == (CALLS if profile in ("full", "trace") else 0)
    why = {"minimal": "profile", "standard": "quiet"}.get(profile)
    if why is not None:
        assert after[why] - before[why] >= 2 * CALLS + 1 - len(told)


@pytest.mark.parametrize(
    "name",
    ["users", "group-writable", "world-writable", "recent", "sensitive", "below sensitive", "directory of a user"],
)
def test_what_is_not_root_s_alone_old_and_ordinary_is_never_quiet(
    monitor: MonitorProcess, script: Script, aged: Path, place: Path, name: str
) -> None:
    path = {
        "sensitive": Path("/etc/passwd"),
        "below sensitive": next(Path(SENSITIVE).glob("[a-z]*.h")),
        "directory of a user": place / "d",
    }.get(name, aged / name)
    if name == "directory of a user":
        path.mkdir()
        os.chown(path, 1000, 1000)
    if name == "recent":
        script.call("fchmodat", AT_FDCWD, script.text(path), 0o644, 0)  # its ctime is now
    opened = script.call("openat", AT_FDCWD, script.text(path), os.O_RDONLY)
    script.call("close", opened)
    found = [one for one in monitor.program(script.run()) if name_of(one) != "file_mode"]
    wanted = [] if monitor.keys["profile"] == "minimal" else [("file_open", str(path)), ("file_close", str(path))]
    assert [(name_of(one), one["file"]["path"]) for one in found] == wanted
    assert not any("quiet" in one["ebpf"] for one in found)


def test_what_is_marked_in_full_is_what_standard_leaves_out(
    monitor: MonitorProcess, script: Script, aged: Path
) -> None:
    """A file that is quiet until its mode is changed while a descriptor of it is open."""
    path = aged / f"turns-{monitor.keys['profile']}"
    path.write_bytes(b"x" * 100)
    time.sleep(AGE + 1.1)
    opened = script.call("openat", AT_FDCWD, script.text(path), os.O_RDONLY)
    for _ in range(2):
        script.call("pread64", opened, script.room(8), 8, 0)
    script.call("fchmodat", AT_FDCWD, script.text(path), 0o600, 0)
    for _ in range(2):
        script.call("pread64", opened, script.room(8), 8, 0)
    script.call("close", opened)
    found = monitor.program(script.run())
    profile = str(monitor.keys["profile"])
    reads = ["file_read"] * (2 if profile == "trace" else 1)
    marked = [name_of(one) for one in found if "quiet" in one["ebpf"]]
    assert marked == ([] if profile in ("minimal", "standard") else ["file_open", *reads])
    rest = [name_of(one) for one in found if "quiet" not in one["ebpf"]]
    assert rest == ([] if profile == "minimal" else ["file_mode", *reads, "file_close"])


def test_a_write_to_a_quiet_file_and_its_close_are_recorded(
    monitor: MonitorProcess, script: Script, aged: Path
) -> None:
    before = aged / "written"
    opened = script.call("openat", AT_FDCWD, script.text(before), os.O_RDWR)
    script.call("read", opened, script.room(16), 16)
    script.call("write", opened, script.data(b"abc"), 3)
    script.call("close", opened)
    found = monitor.program(script.run())
    profile = str(monitor.keys["profile"])
    names = [name_of(one) for one in found]
    if profile == "minimal":
        assert names == []
        return
    if profile == "standard":
        first_time = names == ["file_write", "file_close"]
        assert first_time or names == ["file_open", "file_read", "file_write", "file_close"], names
    else:
        assert names == ["file_open", "file_read", "file_write", "file_close"]
    assert {one["file"]["path"] for one in found} == {str(before)}
    assert found[-1]["ebpf"]["write"] == {"count": 1, "bytes": 3}


def test_deleting_renaming_and_failing_on_quiet_objects_are_recorded(
    monitor: MonitorProcess, script: Script, aged: Path
) -> None:
    quiet = aged / f"quiet-{monitor.keys['profile']}"
    os.link(aged / "quiet", quiet)
    script.call("rename", script.text(quiet), script.text(f"{quiet}2"))
    script.call("unlink", script.text(f"{quiet}2"))
    script.call("openat", AT_FDCWD, script.text(quiet), os.O_RDONLY)
    found = monitor.program(script.run())
    assert [name_of(one) for one in found] == (
        [] if monitor.keys["profile"] == "minimal" else ["file_rename", "file_delete", "file_open"]
    )
