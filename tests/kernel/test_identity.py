"""Who did it, where and when: entity ids, users, groups, parents, containers, threads, the host, the time and the order."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script
from tests.kernel.monitor_process import MonitorProcess, name_of, wall_ns

pytestmark = pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])
DAEMON, NOBODY, NAMELESS = 1, 65534, 54321


def touch(script: Script, path: Path) -> None:
    """One act that is recorded: a failed open."""
    script.call("openat", AT_FDCWD, script.text(path), os.O_RDONLY)


def test_an_entity_id_is_the_same_in_all_events_of_a_process_and_another_in_every_other(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    forks = []
    for _ in range(499):
        forks.append(script.spawn("fork"))
        script.reap(forks[-1])
    touch(script, place / "missing")
    script.exec_again()
    touch(script, place / "missing")
    script.run()
    own = {one["process"]["entity_id"] for one in monitor.lifetime(script.pid)}
    assert len(own) == 1, "an exec does not make another process"
    monitor.lifetime(forks[-1].ret)
    born = monitor.journal.born[script.pid]
    assert len(born) == 499 == len({entity for _, entity in born} - own)
    assert all(len(one) == 22 for one in own)


def test_a_pid_that_comes_again_is_another_process(monitor: MonitorProcess, script: Script) -> None:
    number = next(number for number in range(29_989, 0, -1) if not Path(f"/proc/{number}").exists())
    arguments = script.words(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, script.data(number.to_bytes(4, "little")), 1)
    made = []
    for _ in range(5):
        made.append(script.spawn("clone3", arguments, 80))
        script.reap(made[-1])
    script.run()
    assert {one.ret for one in made} == {number}
    monitor.lifetime(script.pid)
    found = monitor.journal.documents(number)
    assert [name_of(one) for one in found] == ["process_fork", "process_exit"] * 5
    assert [one["process"]["entity_id"] for one in found[::2]] == [one["process"]["entity_id"] for one in found[1::2]]
    assert len({one["process"]["entity_id"] for one in found}) == 5


def test_each_document_names_host_boot_and_agent(monitor: MonitorProcess, script: Script) -> None:
    monitor.program(script.run())
    found = monitor.lifetime(script.pid)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert all(one["host"]["boot"]["id"] == boot and one["host"]["name"] == socket.gethostname() for one in found)
    machine = Path("/etc/machine-id")
    if machine.exists() and len(machine.read_text().strip()) == 32:
        assert {one["host"]["id"] for one in found} == {machine.read_text().strip()}
    assert {one["agent"]["type"] for one in found} == {"ebpf-monitor"}


def test_ids_follow_setresuid_setresgid_and_back_at_once(monitor: MonitorProcess, script: Script, place: Path) -> None:
    steps = [
        ("setresgid", 0, DAEMON),
        ("setresuid", 0, NOBODY),
        ("setresuid", 0, 0),
        ("setresuid", 0, NAMELESS),
        ("setresuid", NAMELESS, NAMELESS),
    ]
    touch(script, place / "x")
    for call, real, effective in steps:
        script.call(call, real, effective, 0xFFFFFFFF)
        touch(script, place / "x")
    found = [one for one in monitor.program(script.run()) if name_of(one) != "process_credentials"]
    assert [(one["user"]["id"], one["group"]["id"]) for one in found] == [
        ("0", "0"),
        ("0", "1"),
        ("65534", "1"),
        ("0", "1"),
        ("54321", "1"),
        ("54321", "1"),
    ]
    assert [one["process"].get("real_user", {}).get("id", one["user"]["id"]) for one in found] == ["0"] * 5 + ["54321"]
    assert [one["process"].get("real_group", {}).get("id", one["group"]["id"]) for one in found] == ["0"] * 6
    assert [one["user"].get("name") for one in found] == ["root", "root", "nobody", "root", None, None]
    assert found[1]["group"]["name"] == "daemon"


def test_a_setuid_program_has_the_owner_s_effective_and_the_caller_s_real_id(
    monitor: MonitorProcess, script: Script, programs: Path, place: Path
) -> None:
    program = programs / "setuid"
    shutil.copyfile(programs / "noop", program)
    os.chown(program, DAEMON, DAEMON)
    program.chmod(0o6755)
    child = script.begin_child()
    script.call("setresgid", NAMELESS, NAMELESS, NAMELESS)
    script.call("setresuid", NOBODY, NOBODY, NOBODY)
    script.call("execve", script.text(program), script.strings(["setuid"]), script.words(0))
    made = script.end_child(child, 77)
    script.reap(made)
    script.run()
    acts = ("process_credentials", "process_hash")  # of this test's own preparation, and late
    documents = [one for one in monitor.lifetime(made.ret) if name_of(one) not in acts]
    program.unlink()
    for one in documents[1:]:
        assert (one["user"]["id"], one["process"]["real_user"]["id"]) == ("1", "65534"), name_of(one)
        assert (one["group"]["id"], one["process"]["real_group"]["id"]) == ("1", "54321")
        assert (one["user"]["name"], one["process"]["real_user"]["name"]) == ("daemon", "nobody")
    assert [name_of(one) for one in documents] == ["process_fork", "process_exec", "process_exit"]
    assert documents[1]["file"]["mode"] == "6755"


def test_a_thread_name_follows_prctl_and_the_process_name_stays(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    names = ["one", "a name of 15 by", "x"]
    for name in names:
        script.call("prctl", 15, script.text(name), 0, 0, 0)
        touch(script, place / "x")
    found = monitor.program(script.run())
    assert [(one["process"]["thread"]["name"], one["process"]["name"]) for one in found] == [
        (name, "actor") for name in names
    ]
    assert all(one["process"]["thread"]["id"] == one["process"]["pid"] == script.pid for one in found)


def test_an_orphan_s_parent_is_the_one_that_took_it(monitor: MonitorProcess, script: Script, place: Path) -> None:
    go, said = script.words(0), script.words(0)
    child = script.begin_child()
    touch(script, place / "before")
    script.tell(said)
    script.wait(go)
    touch(script, place / "after")
    made = script.end_child(child)
    script.wait(said)
    script.run()
    first = monitor.lifetime(script.pid)
    script.let(go)
    documents = [one for one in monitor.lifetime(made.ret) if name_of(one) == "file_open"]
    before, after = documents
    assert before["process"]["parent"] == {"pid": script.pid, "entity_id": first[-1]["process"]["entity_id"]}
    assert after["process"]["parent"]["pid"] != script.pid
    assert before["process"]["entity_id"] == after["process"]["entity_id"]


def test_the_login_uid_is_shown_once_it_is_set(monitor: MonitorProcess, script: Script, place: Path) -> None:
    if not Path("/proc/self/loginuid").exists():
        pytest.skip("needs a kernel with CONFIG_AUDIT")
    before = Path("/proc/self/loginuid").read_text()
    opened = script.call("openat", AT_FDCWD, script.text("/proc/self/loginuid"), os.O_WRONLY)
    written = script.call("write", opened, script.data(b"12345"), 5)
    child = script.begin_child()
    made = script.end_child(child)
    script.reap(made)
    script.run()
    if written.ret != 5:
        pytest.skip("needs a kernel that lets root change the login uid")
    found = monitor.lifetime(made.ret)
    assert all(one["ebpf"]["login"]["uid"] == 12345 for one in found)
    first = next(one for one in monitor.lifetime(script.pid) if name_of(one) == "process_exec")
    unset = before.strip() == "4294967295"
    assert first["ebpf"].get("login", {}).get("uid") == (None if unset else int(before))


def cgroups() -> list[Path]:
    """The cgroup2 mount, and where it is not alone the pids controller's."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [
        Path(at)
        for _, at, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(","))
    ]


@pytest.mark.parametrize(
    "form",
    [
        "docker/{}",
        "system.slice/docker-{}.scope",
        "kubepods/burstable/pod1/{}",
        "docker/{}/" + "within/" * 12 + f"docker-{'0' * 64}.scope",  # made by whoever is in it
    ],
)
def test_the_container_id_comes_from_the_cgroup_of_each_event(
    monitor: MonitorProcess, script: Script, place: Path, form: str
) -> None:
    container = os.urandom(32).hex()
    root = next(iter(cgroups()), None)
    if root is None:
        pytest.skip("needs a cgroup file system")
    group = root / form.format(container)
    missing = [one for one in (group, *group.parents) if not one.exists()]
    group.mkdir(parents=True)
    try:
        touch(script, place / "before")
        opened = script.call("openat", AT_FDCWD, script.text(group / "cgroup.procs"), os.O_WRONLY)
        moved = script.call("write", opened, script.data(b"0"), 1)
        touch(script, place / "after")
        child = script.begin_child()
        script.exec_again()
        made = script.end_child(child)
        script.reap(made)
        documents = monitor.program(script.run())
        children = monitor.lifetime(made.ret)
    finally:
        for one in missing:
            one.rmdir()
    assert moved.ret == 1
    by_name = {one["file"]["name"]: one.get("container") for one in documents if name_of(one) == "file_open"}
    assert by_name["before"] is None
    assert by_name["after"] == {"id": container}
    assert all(one.get("container") == {"id": container} for one in children)
    assert monitor.lifetime(script.pid)[-1]["container"] == {"id": container}


def test_the_time_of_each_event_is_that_of_the_act(monitor: MonitorProcess, script: Script, place: Path) -> None:
    made = []
    for i in range(211):
        made.append(script.call("openat", AT_FDCWD, script.text(place / f"x{i}"), os.O_RDONLY))
        script.call("nanosleep", script.words(0, 500_000), 0)
    found = monitor.program(script.run())
    off = sorted(max(act.before - wall_ns(one), wall_ns(one) - act.after) for act, one in zip(made, found, strict=True))
    assert off[-1] < 50_000_000
    assert off[len(off) // 2] < 100_000, "the clocks agree better than the limit says"


def test_a_process_that_changes_its_cpu_keeps_its_order(monitor: MonitorProcess, script: Script, place: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    wanted = []
    for i in range(503):
        cpu = cpus[i % 2]
        script.call("sched_setaffinity", 0, 128, script.data((1 << cpu).to_bytes(128, "little")))
        opened = script.call("openat", AT_FDCWD, script.text(place / f"f{i}"), os.O_RDWR | os.O_CREAT, 0o600)
        script.call("write", opened, script.room(8), 8)
        script.call("rename", script.text(place / f"f{i}"), script.text(place / f"g{i}"))
        script.call("close", opened)
        wanted += [
            ("file_open", f"f{i}", cpu),
            ("file_write", f"f{i}", cpu),
            ("file_rename", f"g{i}", cpu),
            ("file_close", f"f{i}", cpu),
        ]
    found = monitor.program(script.run(), 30)
    assert [(name_of(one), one["file"]["name"], one["ebpf"]["cpu"]) for one in found] == wanted


def test_processes_that_were_there_before_are_in_the_log_with_the_same_entity_id(
    monitor: MonitorProcess, place: Path
) -> None:
    (place / "mine").touch()
    mine = str(place / "mine")
    monitor.until(
        lambda: any(one.get("file", {}).get("path") == mine for one in monitor.journal.documents(os.getpid())),
        "this process's open",
    )
    acting = monitor.journal.documents(os.getpid())[-1]
    found = [one for one in monitor.journal.found if one["process"]["pid"] == os.getpid()]
    assert [one["process"]["entity_id"] for one in found] == [acting["process"]["entity_id"]]
    assert found[0]["process"]["executable"] == acting["process"]["executable"] == os.readlink("/proc/self/exe")
