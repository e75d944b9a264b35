"""Credentials, signals, tracing, namespaces, mounts, and what changes the kernel: known acts, exactly these documents."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.acts import AT_FDCWD, Call, Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["casts", "helpers"],
)
PRIME = 7
PR_SET_NAME, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_CAP_AMBIENT = 15, 24, 28, 47
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_FILES = 0x20000, 0x4000000, 0x10000000, 0x400


def of(found: list[Document], event: str) -> list[Document]:
    return [one for one in found if name_of(one) == event]


def told(one: Document) -> tuple[str, int, str | None]:
    return one["ebpf"].get("syscall"), one["ebpf"]["ret"], one.get("error", {}).get("code")


def as_told(act: Call) -> tuple[str, int, str | None]:
    return act.name, act.ret, act.error


def held(one: Document, when: str, *names: str) -> list[str]:
    return [one["ebpf"]["credentials"][when][name] for name in names]


# ---- credentials -----------------------------------------------------------------------------------------------------


def test_credentials_are_what_the_kernel_holds_before_and_after(monitor: MonitorProcess, script: Script) -> None:
    made = []
    for i in range(PRIME):
        made += [
            script.call("setresgid", 10 + i, 20 + i, 30 + i),
            script.call("setresuid", -1, 40 + i, -1),
            script.call("setresuid", -1, 0, -1),
        ]
    nothing = [
        script.call("setresuid", -1, -1, -1),
        script.call("setuid", 0),
        script.call("prctl", PR_SET_NAME, script.text("n")),
    ]
    groups = script.call("setgroups", 3, script.data(struct.pack("<3I", 7, 8, 70000)))
    last = script.call("setresuid", 1000, 1001, 1002)
    back = script.call("setuid", 0)
    asked = script.call("setfsuid", 1000)
    found = of(monitor.program(script.run()), "process_credentials")
    assert all(act.ret == 0 for act in nothing), "and none of these is an event"
    assert [told(one) for one in found] == [as_told(act) for act in (*made, groups, last, back, asked)]
    for i in range(PRIME):
        gid, drop, again = found[3 * i : 3 * i + 3]
        assert held(gid, "after", "gid", "egid", "sgid", "fsgid") == [
            str(10 + i),
            str(20 + i),
            str(30 + i),
            str(20 + i),
        ]
        assert gid["event"]["action"] == "gid_change"
        assert gid["ebpf"]["requested"]["ids"] == [str(10 + i), str(20 + i), str(30 + i)]
        assert drop["ebpf"]["requested"]["ids"] == ["-1", str(40 + i), "-1"]
        assert held(drop, "after", "uid", "euid", "suid", "fsuid") == ["0", str(40 + i), "0", str(40 + i)]
        assert drop["ebpf"]["credentials"]["changed"] == ["euid", "fsuid", "effective"]
        assert held(drop, "after", "effective", "permitted")[0] == "0" * 16
        assert drop["user"]["id"] == str(40 + i)
        assert drop["event"]["action"] == "uid_change"
        assert held(again, "after", "effective") == held(again, "after", "permitted")
        assert "CAP_SYS_ADMIN" in again["process"]["thread"]["capabilities"]["effective"]
        assert "effective" not in drop["process"]["thread"]["capabilities"], "an empty set is not shown"
    for earlier, later in itertools.pairwise(found):
        assert later["ebpf"]["credentials"]["before"] == {
            name: value for name, value in earlier["ebpf"]["credentials"]["after"].items() if name != "groups"
        }
    four = found[3 * PRIME :]
    assert four[0]["ebpf"]["credentials"]["after"]["groups"] == ["7", "8", "70000"]
    assert four[0]["ebpf"]["credentials"]["changed"] == ["groups"]
    assert held(four[1], "after", "uid", "euid", "suid", "permitted") == ["1000", "1001", "1002", "0" * 16]
    assert (four[2]["error"]["code"], four[2]["event"]["type"]) == ("EPERM", ["info"])
    assert "changed" not in four[2]["ebpf"]["credentials"]
    assert four[3]["ebpf"]["credentials"]["changed"] == ["fsuid"], "whatever setfsuid returns"


def test_capabilities_and_securebits(monitor: MonitorProcess, script: Script) -> None:
    header = script.data(struct.pack("<Ii", 0x20080522, 0))
    sets = script.data(struct.pack("<6I", 0x20, 0x21, 0x20, 0, 0, 0))
    acts = [
        script.call("prctl", PR_CAPBSET_DROP, 13),
        script.call("prctl", PR_SET_SECUREBITS, 4),
        script.call("capset", header, sets),
        script.call("prctl", PR_CAP_AMBIENT, 2, 5),
        script.call("prctl", PR_CAP_AMBIENT, 2, 0),
    ]
    script.call("prctl", PR_CAP_AMBIENT, 1, 5)
    found = of(monitor.program(script.run()), "process_credentials")
    assert [told(one) for one in found] == [as_told(act) for act in acts]
    assert [one["ebpf"]["credentials"].get("changed") for one in found] == [
        ["bounding"],
        ["securebits"],
        ["inheritable", "permitted", "effective"],
        ["ambient"],
        None,
    ]
    before, after = (int(held(found[0], when, "bounding")[0], 16) for when in ("before", "after"))
    assert before ^ after == 1 << 13
    assert found[2]["process"]["thread"]["capabilities"] == {
        "effective": ["CAP_KILL"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
    }
    assert {one["event"]["action"] for one in found[:4]} == {"capabilities_change"}


def test_the_32_bit_calls_and_a_child_that_inherits(monitor: MonitorProcess, script: Script) -> None:
    script.call("setresuid", -1, 5, -1)
    child = script.begin_child()
    script.call32("setresuid32", -1, 0, -1)
    script.call32("setgid32", 70000)
    done = script.end_child(child)
    script.reap(done)
    parent = script.run()
    monitor.lifetime(parent)
    found = of(monitor.lifetime(done.ret), "process_credentials")
    assert [one["ebpf"]["syscall"] for one in found] == ["setresuid32", "setgid32"]
    assert held(found[0], "before", "uid", "euid") == ["0", "5"]
    assert held(found[1], "after", "gid", "egid") == ["70000", "70000"]


@pytest.mark.parametrize("how", ["setuid", "capability"])
def test_an_exec_that_gives_rights_shows_both_sides(
    monitor: MonitorProcess, script: Script, place: Path, programs: Path, how: str
) -> None:
    program = place / "program"
    shutil.copy(programs / "noop", program)
    program.chmod(0o4755 if how == "setuid" else 0o755)
    if how == "capability":
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    script.call("setresgid", 1000, 1000, 1000)
    script.call("setresuid", 1000, 1000, 1000)
    script.call("execve", script.text(program), script.strings(["program"]), script.words(0))
    pid = script.start()
    script.finish()
    found = monitor.lifetime(pid)
    at = max(i for i, one in enumerate(found) if name_of(one) == "process_exec")
    one = found[at + 1]
    assert (name_of(one), one["ebpf"]["syscall"], one["event"]["outcome"]) == (
        "process_credentials",
        "execve",
        "success",
    )
    assert one["process"]["executable"] == str(program)
    assert held(one, "before", "euid", "permitted") == ["1000", "0" * 16]
    if how == "setuid":
        assert held(one, "after", "uid", "euid", "suid") == ["1000", "0", "0"]
        assert one["ebpf"]["credentials"]["changed"][:3] == ["euid", "suid", "fsuid"]
    else:
        assert held(one, "after", "euid", "permitted") == ["1000", f"{1 << 10:016x}"]
        assert one["process"]["thread"]["capabilities"]["effective"] == ["CAP_NET_BIND_SERVICE"]
        assert one["event"]["action"] == "capabilities_change"


# ---- signals ---------------------------------------------------------------------------------------------------------


def sleeper(script: Script) -> tuple[Call, Call]:
    """A child that waits to be killed; its fork twice: the call, and the same for the reader."""
    child = script.begin_child()
    script.call("pause")
    return script.end_child(child), child[0]


def test_each_signal_names_its_receiver(monitor: MonitorProcess, script: Script) -> None:
    child, _ = sleeper(script)
    pidfd = script.call("pidfd_open", child, 0)
    queued = script.data(struct.pack("<iii", signal.SIGWINCH, 0, -1) + bytes(116))
    script.call("kill", child, 0)
    made = []
    for _ in range(PRIME):
        made += [
            (script.call("kill", child, signal.SIGWINCH), signal.SIGWINCH),
            (script.call("tkill", child, signal.SIGURG), signal.SIGURG),
            (script.call("tgkill", child, child, signal.SIGCONT), signal.SIGCONT),
            (script.call("rt_sigqueueinfo", child, signal.SIGWINCH, queued), signal.SIGWINCH),
            (script.call("pidfd_send_signal", pidfd, signal.SIGCHLD, 0, 0), signal.SIGCHLD),
        ]
    made.append((script.call("kill", child, signal.SIGKILL), signal.SIGKILL))
    script.reap(child)
    gone = script.call("kill", child, signal.SIGTERM)
    pid = script.run()
    found = of(monitor.program(pid), "process_signal")
    born = of(monitor.lifetime(child.ret), "process_fork")[0]["process"]["entity_id"]
    assert [(told(one), one["ebpf"]["signal"]["name"]) for one in found[:-1]] == [
        (as_told(act), number.name) for act, number in made
    ]
    for one in found[:-1]:
        target = one["ebpf"]["target"]
        assert (target["pid"], target["entity_id"], target["thread"]["id"]) == (child.ret, born, child.ret)
        assert target["thread"]["name"] == "actor"
        assert one["ebpf"]["signal"]["result"] in ("delivered", "ignored", "already_pending")
    assert told(found[-1]) == ("kill", gone.ret, "ESRCH")
    assert found[-1]["ebpf"]["target"] == {"pid": child.ret}
    assert found[-1]["ebpf"]["claimed"] is True


def test_a_signal_to_a_group_is_one_event_for_each_receiver(monitor: MonitorProcess, script: Script) -> None:
    script.call("setpgid", 0, 0)
    script.call("rt_sigaction", signal.SIGUSR1, script.words(1, 0, 0, 0), 0, 8)
    children = []
    for _ in range(PRIME):
        children.append(sleeper(script)[0])
    script.call("kill", 0, signal.SIGUSR1)
    script.call("rt_sigaction", signal.SIGTERM, script.words(1, 0, 0, 0), 0, 8)
    script.call("kill", 0, signal.SIGTERM)
    for child in children:
        script.call("kill", child, signal.SIGKILL)
        script.reap(child)
    pid = script.run()
    found = of(monitor.program(pid), "process_signal")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        got = [one["ebpf"]["target"]["pid"] for one in found if one["ebpf"]["signal"]["number"] == number]
        assert sorted(got) == sorted([pid, *(child.ret for child in children)])


def finds_tasks(monitor: MonitorProcess) -> bool:
    """Does this kernel give the process behind a number?"""
    return "task_from_vpid" in monitor.journal.made[0]["ebpf"]["monitor"]["features"]


def test_a_signal_that_may_not_be_sent_names_whom_it_was_for(monitor: MonitorProcess, script: Script) -> None:
    script.call("setresuid", 65534, 65534, 65534)
    refused = script.call("kill", os.getpid(), signal.SIGTERM)
    found = of(monitor.program(script.run()), "process_signal")
    assert [told(one) for one in found] == [("kill", refused.ret, "EPERM")]
    assert found[0]["ebpf"]["target"]["pid"] == os.getpid()
    if finds_tasks(monitor):
        assert found[0]["ebpf"]["target"]["thread"]["id"] == os.getpid()
    else:
        assert found[0]["ebpf"]["target"] == {"pid": os.getpid()}


# ---- tracing ---------------------------------------------------------------------------------------------------------


def test_tracing_and_foreign_memory(monitor: MonitorProcess, script: Script) -> None:
    child, _ = sleeper(script)
    place = script.room(64)
    local, remote = script.words(script.room(8), 8), script.words(place, 8)
    attach = script.call("ptrace", 0x4206, child, 0, 0)
    script.call("ptrace", 0x4207, child, 0, 0)  # INTERRUPT
    script.call("wait4", child, 0, 0x40000000, 0)
    script.call("ptrace", 2, child, place, script.room(8))  # PEEKDATA looks only
    poke = script.call("ptrace", 5, child, place, 77)
    detach = script.call("ptrace", 17, child, 0, 0)
    read = script.call("process_vm_readv", child, local, 1, remote, 1, 0)
    write = script.call("process_vm_writev", child, local, 1, remote, 1, 0)
    missing = script.call("process_vm_readv", 0x3FFFFFFF, local, 1, remote, 1, 0)
    script.call("kill", child, signal.SIGKILL)
    script.reap(child)
    found = of(monitor.program(script.run()), "process_ptrace")
    assert [told(one) for one in found] == [as_told(act) for act in (attach, poke, detach, read, write, missing)]
    assert [one["ebpf"].get("ptrace", {}).get("request") for one in found] == [
        *("PTRACE_SEIZE", "PTRACE_POKEDATA", "PTRACE_DETACH", None, None, None)
    ]
    born = of(monitor.lifetime(child.ret), "process_fork")[0]["process"]["entity_id"]
    shown = born if finds_tasks(monitor) else None
    assert [one["ebpf"]["target"].get("entity_id") for one in found] == [shown] * 5 + [None]
    assert [one["ebpf"]["target"]["pid"] for one in found[:-1]] == [child.ret] * 5
    assert (read.ret, write.ret, missing.error) == (8, 8, "ESRCH")
    assert found[-1]["ebpf"]["target"] == {"pid": 0x3FFFFFFF}


def test_a_child_that_asks_to_be_traced(monitor: MonitorProcess, script: Script) -> None:
    asked = script.call("ptrace", 0, 0, 0, 0)
    found = of(monitor.program(script.run()), "process_ptrace")
    assert [(told(one), one["ebpf"]["ptrace"]["request"]) for one in found] == [(as_told(asked), "PTRACE_TRACEME")]
    assert "target" not in found[0]["ebpf"]


# ---- namespaces and mounts -------------------------------------------------------------------------------------------


def namespaces(pid: int) -> dict[str, str]:
    names = ("mnt", "uts", "ipc", "net", "pid_for_children", "cgroup", "time", "user")
    links = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}
    return {name: link.partition("[")[2].rstrip("]") for name, link in links.items()}


def test_namespaces_by_every_door(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "root").mkdir()
    stay, done = script.room(8), script.room(8)
    other = script.call("open", script.text("/proc/self/ns/uts"), os.O_RDONLY)
    script.call("unshare", CLONE_FILES)
    acts = [
        script.call("unshare", CLONE_NEWNS | CLONE_NEWUTS),
        script.call("setns", other, CLONE_NEWUTS),
        script.call("setns", 999, 0),
    ]
    child = script.begin_child("clone", CLONE_NEWUTS | signal.SIGCHLD, 0)
    made = script.end_child(child)
    script.reap(made)
    rooted = script.call("chroot", script.text(place / "root"))
    missing = script.call("chroot", script.text("missing"))
    script.tell(done)
    script.wait(stay)
    pid = script.start()
    monitor.until(lambda: script.told(done), "the acts are done")
    truth = namespaces(pid)
    script.let(stay)
    script.finish()
    found = of(monitor.program(pid), "process_namespace")
    assert [told(one) for one in found] == [as_told(act) for act in (*acts, rooted, missing)]
    first, back, bad, root, claim = found
    assert first["ebpf"]["flags"] == "CLONE_NEWNS|CLONE_NEWUTS"
    assert first["ebpf"]["namespace"]["mnt"] == truth["mnt"] != namespaces(os.getpid())["mnt"]
    assert first["ebpf"]["namespace"]["uts"] != truth["uts"]
    assert (back["ebpf"]["namespace"], back["ebpf"]["fd"]) == (truth, other.ret)
    assert bad["error"]["code"] == "EBADF"
    assert (root["file"]["path"], root["ebpf"]["path_source"]) == (str(place / "root"), "file")
    assert (claim["file"]["path"], claim["ebpf"]["claimed"], claim["error"]["code"]) == (
        *(str(Path.cwd() / "missing"), True, "ENOENT"),
    )
    born = of(monitor.lifetime(made.ret), "process_namespace")
    assert [(one["ebpf"]["flags"], one["process"]["pid"]) for one in born] == [("CLONE_NEWUTS", made.ret)]
    assert born[0]["ebpf"]["namespace"]["uts"] != truth["uts"]


def test_a_user_namespace_gives_capabilities(monitor: MonitorProcess, script: Script) -> None:
    script.call("setresuid", 1000, 1000, 1000)
    script.call("unshare", CLONE_NEWUSER)
    found = monitor.program(script.run())
    assert [name_of(one) for one in found] == ["process_credentials", "process_namespace", "process_credentials"]
    gained = found[2]
    assert gained["ebpf"]["syscall"] == "unshare"
    assert {"user_ns", "effective", "permitted"} <= set(gained["ebpf"]["credentials"]["changed"])
    assert held(gained, "after", "user_ns") == [found[1]["ebpf"]["namespace"]["user"]]


def test_mounts(monitor: MonitorProcess, script: Script, place: Path) -> None:
    for name in ("a", "b", "c"):
        (place / name).mkdir()
    none, tmpfs = script.text("none"), script.text("tmpfs")
    a, b, c, empty = (script.text(one) for one in (place / "a", place / "b", place / "c", ""))
    script.call("unshare", CLONE_NEWNS)
    mounts: list[tuple[Call, dict[str, Any]]] = [
        (script.call("mount", none, script.text("/"), 0, 0x44000, 0), {"source": "none"}),
        (script.call("mount", script.text("mine"), a, tmpfs, 6, 0), {"source": "mine", "type": "tmpfs"}),
        (script.call("mount", a, b, 0, 0x1000, 0), {"source": str(place / "a")}),
        (script.call("mount", none, script.text("missing"), tmpfs, 0, 0), {"source": "none", "type": "tmpfs"}),
    ]
    opened = script.call("fsopen", tmpfs, 0)
    script.call("fsconfig", opened, 1, script.text("source"), script.text("theirs"), 0)
    script.call("fsconfig", opened, 6, 0, 0, 0)
    tree = script.call("fsmount", opened, 0, 0)
    mounts.append((script.call("move_mount", tree, empty, AT_FDCWD, c, 4), {"source": "theirs", "type": "tmpfs"}))
    unmounts = [script.call("umount2", b, 2), script.call("umount2", b, 0)]
    found = monitor.program(script.run())
    mounted, unmounted = of(found, "file_mount"), of(found, "file_umount")
    assert [(told(one), one["ebpf"]["mount"]) for one in mounted] == [(as_told(act), about) for act, about in mounts]
    assert [one["ebpf"].get("flags") for one in mounted] == [
        *("MS_REC|MS_PRIVATE", "MS_NOSUID|MS_NODEV", "MS_BIND", None, "MOVE_MOUNT_F_EMPTY_PATH")
    ]
    assert [one["file"]["path"] for one in mounted[1:3]] == [str(place / "a"), str(place / "b")]
    moved = mounted[-1]
    assert (moved["file"]["path"], moved["ebpf"]["path_source"]) == (str(place / "c"), "file")
    assert "claimed" not in moved["ebpf"]
    assert moved["file"]["type"] == "dir"
    assert [told(one) for one in unmounted] == [as_told(act) for act in unmounts]
    assert [one["file"]["path"] for one in unmounted] == [str(place / "b")] * 2
    assert unmounted[0]["ebpf"]["flags"] == "MNT_DETACH"


# ---- the kernel ------------------------------------------------------------------------------------------------------


def test_bpf_programs(monitor: MonitorProcess, script: Script) -> None:
    code = script.data(bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0)))
    licence = script.text("GPL")

    def attributes(kind: int, instructions: int) -> int:
        head = struct.pack("<IIQQIIQII", kind, instructions, code, licence, 0, 0, 0, 0, 0)
        return script.data(head + b"my_prog\xff".ljust(16, b"\0") + bytes(64))

    maps = script.call("bpf", 0, script.data(struct.pack("<5I", 2, 4, 4, 1, 0) + bytes(64)), 84)
    loads = [script.call("bpf", 5, script.data(struct.pack("<IIQQIIQII", 1, 2, code, licence, 0, 0, 0, 0, 0)
                         + b"my_prog".ljust(16, b"\0") + bytes(64)), 128) for _ in range(PRIME)]  # fmt: skip
    bad = script.call("bpf", 5, attributes(1, 1 << 30), 128)
    found = of(monitor.program(script.run()), "kernel_bpf")
    assert maps.ret >= 0
    assert [told(one) for one in found] == [as_told(act) for act in (*loads, bad)]
    programs = [one["ebpf"]["bpf"]["program"] for one in found[:-1]]
    assert len({one["id"] for one in programs}) == PRIME
    assert {(one["type"], one["name"], one["instructions"], one["tag"]) for one in programs} == {
        ("socket_filter", "my_prog", 2, programs[0]["tag"])
    }
    assert {one["ebpf"]["bpf"]["command"] for one in found} == {"BPF_PROG_LOAD"}
    assert found[-1]["ebpf"]["claimed"] is True
    assert found[-1]["ebpf"]["bpf"]["program"]["name"] == "my_prog\\xff"
    assert bad.ret < 0


def test_io_uring_instances(monitor: MonitorProcess, script: Script) -> None:
    params = script.data(struct.pack("<4I", 0, 0, 1 << 4, 0) + bytes(104))
    made = script.call("io_uring_setup", 13, params)
    bad = script.call("io_uring_setup", 0, params)
    found = of(monitor.program(script.run()), "kernel_io_uring")
    assert [told(one) for one in found] == [as_told(made), as_told(bad)]
    assert found[0]["ebpf"]["io_uring"] == {"entries": 16}, "as the kernel rounded it up"
    assert found[0]["ebpf"]["flags"] == "IORING_SETUP_CLAMP"
    assert found[0]["ebpf"]["fd"] == made.ret


def test_module_calls_that_fail(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "no.ko").write_bytes(b"no module")
    opened = script.call("open", script.text(place / "no.ko"), os.O_RDONLY)
    acts = [
        script.call("finit_module", opened, script.text("debug=1"), 0),
        script.call("init_module", script.room(64), 64, script.text("x=y")),
        script.call("delete_module", script.text("not_there"), 0x800),
    ]
    found = of(monitor.program(script.run()), "kernel_module")
    assert [told(one) for one in found] == [as_told(act) for act in acts]
    assert (found[0]["file"]["path"], found[0]["ebpf"]["path_source"]) == (str(place / "no.ko"), "file")
    assert [one["ebpf"]["module"] for one in found] == [
        {"parameters": "debug=1"},
        {"parameters": "x=y"},
        {"name": "not_there"},
    ]
    assert all(act.ret < 0 for act in acts)
