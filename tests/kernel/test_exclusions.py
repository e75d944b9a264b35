"""Own rules on the real kernel: exactly what they select is left out and counted, and nothing can be made to look like it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.acts import AT_FDCWD, Script
from tests.kernel.monitor_process import MonitorProcess, name_of
from tests.kernel.test_socket_events import Ends

ROOM = Path(f"/var/tmp/ebpf-monitor-exclusions-{os.getpid()}")
TOOL, TREE, SECRET = ROOM / "tool", ROOM / "tree", ROOM / "secret"
USER = 61234
RULES: list[dict[str, Any]] = [
    {"name": "tool", "executable": str(TOOL)},
    {"name": "tree", "directory": str(TREE), "direction": "read"},
    {"name": "user", "uid": USER, "events": ["file_read"]},
    {"name": "missing", "executable": str(ROOM / "missing")},
    {"name": "anybody-s", "executable": str(ROOM / "anybody-s")},
]
pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full", "sensitive_paths": [str(SECRET)], "exclusions": RULES}], indirect=True, ids=["rules"]
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def room(programs: Path) -> Iterator[None]:
    """What the rules are about. Made before the monitor starts."""
    for directory in (ROOM, TREE, SECRET):
        directory.mkdir(mode=0o755)
    for program in (TOOL, ROOM / "anybody-s"):
        shutil.copy(programs / "actor", program)
        program.chmod(0o755)
    os.chown(ROOM / "anybody-s", USER, 0)
    for file in (ROOM / "f", TREE / "f", SECRET / "f", ROOM / "elsewhere"):
        file.write_bytes(b"x" * 100)
    yield
    shutil.rmtree(ROOM)


def counts(monitor: MonitorProcess) -> dict[str, int]:
    """What each rule has left out."""
    status = monitor.fresh_status()
    found = {name: rule["count"] for name, rule in status["exclusions"].items()}
    assert sum(found.values()) == status["ledger"]["suppressed"]["exclusions"]
    return found


def gained(monitor: MonitorProcess, before: dict[str, int]) -> dict[str, int]:
    """By which the counts have grown."""
    return {name: n - before[name] for name, n in counts(monitor).items() if n != before[name]}


def visit(script: Script, path: Path, how: int = os.O_RDONLY, reads: int = 3) -> None:
    """open, reads, close."""
    opened = script.call("openat", AT_FDCWD, script.text(path), how)
    script.call("pread64", opened, script.room(8), 8, 0, repeat=reads)
    if how != os.O_RDONLY:
        script.call("write", opened, script.data(b"abc"), 3)
    script.call("close", opened)


def seen(monitor: MonitorProcess, pid: int) -> list[tuple[str, str]]:
    """(event, path) of what the program did."""
    return [(name_of(one), one["file"]["path"]) for one in monitor.program(pid)]


ALL = ("file_open", "file_read", "file_close")


def test_a_rule_for_a_program_hides_opens_reads_writes_and_closes_and_nothing_else(
    monitor: MonitorProcess, script: Script
) -> None:
    before = counts(monitor)
    visit(script, ROOM / "f", os.O_RDWR)
    visit(script, SECRET / "f")
    script.call("openat", AT_FDCWD, script.text(ROOM / "none"), os.O_RDONLY)
    made = script.call("openat", AT_FDCWD, script.text(ROOM / "made"), os.O_RDWR | os.O_CREAT, 0o600)
    script.call("close", made)
    script.call("unlink", script.text(ROOM / "made"))
    script.call("mkdir", script.text(ROOM / "d"), 0o700)
    script.call("rmdir", script.text(ROOM / "d"))
    Ends(script, socket.AF_INET).connect()
    names = Counter(name_of(one) for one in monitor.program(script.run(program=TOOL)))  # exec and exit are there
    assert names["file_open"] == 3, "sensitive, failed, created"
    assert (names["file_read"], names["file_close"], names["file_write"]) == (1, 2, 0)
    for event in ("file_delete", "file_mkdir", "file_rmdir", "socket_connect"):
        assert names[event] == 1, (event, names)
    assert gained(monitor, before) == {"tool": 1 + 3 + 1 + 1}, "open, each read, write, close"


@pytest.mark.parametrize(
    "how", ["copy of the same name", "comm", "hard link to it moved there", "changeable by others"]
)
def test_nothing_can_pass_for_the_program_of_a_rule(
    monitor: MonitorProcess, script: Script, programs: Path, place: Path, how: str
) -> None:
    before, program = counts(monitor), programs / "actor"
    if how == "copy of the same name":
        program = place / TOOL.name
        shutil.copy(TOOL, program)
    elif how == "comm":
        script.call("prctl", 15, script.text(TOOL.name))
    elif how == "changeable by others":
        program = ROOM / "anybody-s"
    else:  # the rule's name stands for the new file; the process still runs the old one
        program = ROOM / "old"
        os.link(programs / "actor", program) if programs.stat().st_dev == ROOM.stat().st_dev else shutil.copy(
            TOOL, program
        )
    visit(script, ROOM / "f")
    assert seen(monitor, script.run(program=program)) == [(name, str(ROOM / "f")) for name in ALL]
    assert gained(monitor, before) == {}


def test_a_rule_for_a_directory_hides_what_stands_in_it(monitor: MonitorProcess, script: Script) -> None:
    before = counts(monitor)
    visit(script, TREE / "f")
    visit(script, TREE / "f", os.O_RDWR, reads=1)
    wanted = [(name, str(TREE / "f")) for name in ("file_open", "file_read", "file_write", "file_close")]
    assert seen(monitor, script.run()) == wanted, "a descriptor that can write is not this rule's"
    assert gained(monitor, before) == {"tree": 5}


@pytest.mark.parametrize("how", ["hard link", "bind mount", "symlink", "directory of the same name"])
def test_nothing_can_be_made_to_stand_in_the_directory_of_a_rule(monitor: MonitorProcess, how: str) -> None:
    before, shown, other = counts(monitor), TREE / "shown", ROOM / "elsewhere"
    script = f"exec cat {shown}"
    if how == "hard link":
        shown.hardlink_to(other)
    elif how == "bind mount":
        shown.write_bytes(b"")
        script = f"mount --bind {other} {shown} && exec cat {shown}"
    elif how == "symlink":
        shown.symlink_to(other)
    else:
        script = f"mount -t tmpfs t {ROOM} && mkdir {TREE} && echo x >{shown} && exec cat {shown}"
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL)
    assert child.wait() == 0
    shown.unlink(missing_ok=True)
    paths = [one["file"].get("path") for one in monitor.lifetime(child.pid) if name_of(one) == "file_read"]
    assert str(other if how == "symlink" else shown) in paths
    assert gained(monitor, before) == {}


def test_a_rule_for_reads_keeps_the_totals_of_what_was_told(monitor: MonitorProcess, script: Script) -> None:
    before = counts(monitor)
    script.call("setresuid", USER, USER, USER)
    visit(script, ROOM / "f")
    found = [one for one in monitor.program(script.run()) if name_of(one).startswith("file_")]
    assert [name_of(one) for one in found] == ["file_open", "file_close"]
    assert found[-1]["ebpf"]["read"] == {"count": 3, "bytes": 24}
    assert gained(monitor, before) == {"user": 3}


@pytest.fixture
def ram() -> Iterator[dict[str, Path]]:
    """Two file systems that nobody else uses, and a cgroup."""
    found = {name: ROOM / name for name in ("ramfs", "tmpfs")}
    for name, place in found.items():
        place.mkdir()
        subprocess.run(["mount", "-t", name, name, place], check=True)
        (place / "f").write_bytes(b"x" * 100)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    group = Path(next(at for _, at, kind, *_ in mounts if kind == "cgroup2")) / f"ebpf-monitor-rule-{os.getpid()}"
    group.mkdir()
    yield found | {"cgroup": group}
    group.rmdir()
    for name in ("ramfs", "tmpfs"):
        subprocess.run(["umount", found[name]], check=True)
        found[name].rmdir()


def change(monitor: MonitorProcess, rules: list[dict[str, Any]]) -> None:
    """Saves the configuration with these rules, and waits until the monitor has taken it."""
    taken = monitor.said().count("is taken")
    (monitor.directory / "config.json").write_text(json.dumps(monitor.keys | {"exclusions": rules}))
    monitor.until(lambda: monitor.said().count("is taken") == taken + 1, "the change", 30)


@contextlib.contextmanager
def only(monitor: MonitorProcess, **members: Any) -> Iterator[Callable[[], int]]:
    """One rule in the place of all, for a while; what it is given says how much that rule has left out since."""
    change(monitor, [{"name": "by"} | members])
    before = counts(monitor)["by"]
    try:
        yield lambda: counts(monitor)["by"] - before
    finally:
        change(monitor, RULES)


@pytest.mark.parametrize("by", ["filesystem", "device"])
def test_a_rule_for_a_file_system_hides_what_is_on_it(
    monitor: MonitorProcess, script: Script, ram: dict[str, Path], by: str
) -> None:
    hidden, shown = ("ramfs", "tmpfs") if by == "filesystem" else ("tmpfs", "ramfs")
    device = ram[hidden].stat().st_dev
    with only(monitor, **{by: "ramfs" if by == "filesystem" else f"{os.major(device)}:{os.minor(device)}"}) as left_out:
        visit(script, ram[hidden] / "f")
        visit(script, ram[shown] / "f")
        assert seen(monitor, script.run()) == [(name, str(ram[shown] / "f")) for name in ALL]
        assert left_out() == 5


@pytest.mark.parametrize("sensitive", [True, False])
def test_a_rule_hides_sensitive_objects_only_if_it_says_so(
    monitor: MonitorProcess, script: Script, sensitive: bool
) -> None:
    with only(monitor, directory=str(SECRET), sensitive=sensitive) as left_out:
        visit(script, SECRET / "f")
        assert seen(monitor, script.run()) == ([] if sensitive else [(name, str(SECRET / "f")) for name in ALL])
        assert left_out() == (5 if sensitive else 0)


def test_a_rule_for_a_cgroup_hides_what_is_done_in_it_and_below(monitor: MonitorProcess, ram: dict[str, Path]) -> None:
    (below := ram["cgroup"] / "below").mkdir()
    outside = ram["cgroup"].with_name(ram["cgroup"].name + "-outside")
    outside.mkdir()
    try:
        with only(monitor, cgroup=str(ram["cgroup"])) as left_out:
            for group, reads in ((ram["cgroup"], 0), (below, 0), (outside, 1)):
                command = f"echo $$ >{group}/cgroup.procs; exec cat {ROOM}/f"
                child = subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL)
                assert child.wait() == 0
                found = monitor.lifetime(child.pid)
                read = [one for one in found if name_of(one) == "file_read" and one["file"]["path"] == str(ROOM / "f")]
                assert (len(read) > 0) == reads, (group, [name_of(one) for one in found])
                assert "process_exec" in map(name_of, found), "a rule hides no program"
            assert left_out() > 0
    finally:
        below.rmdir()
        outside.rmdir()


def test_a_change_of_the_rules_holds_at_once_and_counts_stay_with_their_names(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    assert "anybody-s leaves nothing out" in monitor.said()
    assert monitor.fresh_status()["exclusions"]["missing"]["waiting"].endswith("No such file or directory")
    before = counts(monitor)
    change(monitor, [RULES[2], RULES[0]])
    visit(script, TREE / "f")
    assert seen(monitor, script.run()) == [(name, str(TREE / "f")) for name in ALL]
    second = Script(programs / "actor")
    visit(second, ROOM / "f")
    second.run(program=TOOL)
    second.close()
    time.sleep(0.1)
    after = counts(monitor)
    assert after["tool"] - before["tool"] == 5
    assert {name: after[name] for name in ("tree", "user")} == {name: before[name] for name in ("tree", "user")}
    change(monitor, RULES)
