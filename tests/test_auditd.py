"""auditd as a peer of the benchmark: what its programs say is read right, and nothing is started that was not asked for.

No audit here: the programs are stand-ins that say what the real ones said (auditd 3.0.9 on Linux 6.12).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.bench import auditd, conftest, measure
from tests.bench.auditd import Status
from tests.bench.load import BrokenBenchmark, Load
from tests.bench.measure import Bench
from tests.bench.peers import Absent

STATUS = """enabled 0
failure 1
pid 0
rate_limit 0
backlog_limit 64
lost 9377
backlog 0
backlog_wait_time 15000
backlog_wait_time_actual 98
loginuid_immutable 0 unlocked
"""
NOT_IN_KERNEL = "Error - audit support not in kernel\nCannot open netlink audit socket\n"
IDS = "auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295"
LOAD = f'{IDS} comm="bench-load" exe="/var/b/bench-load" subj=unconfined key="ebpf-monitor-bench"'
CTL = f'{IDS} comm="auditctl" exe="/usr/sbin/auditctl" subj=unconfined key=(null)'
TITLE = "2E2F62656E63682D6C6F6164006D697800302E3200313030300030002F6465762F73686D"
RECORDS = f"""\
type=DAEMON_START msg=audit(1795900000.254:5816): op=start ver=3.0.9 format=raw kernel=6.12.117+deb13-cloud-amd64 auid=4294967295 pid=174 uid=0 ses=4294967295 subj=unconfined  res=success
type=CONFIG_CHANGE msg=audit(1795900003.651:3): op=set audit_backlog_limit=65536 old=64 auid=4294967295 ses=4294967295 subj=unconfined res=1
type=SYSCALL msg=audit(1795900003.651:3): arch=c000003e syscall=44 success=yes exit=60 a0=3 a1=7ffc8e795ab0 a2=3c a3=0 items=0 ppid=160 pid=182 {CTL}
type=PROCTITLE msg=audit(1795900003.651:3): proctitle=617564697463746C002D62003635353336
type=SYSCALL msg=audit(1795900004.527:7): arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=4b1340 a2=242 a3=1a4 items=2 ppid=160 pid=193 {LOAD}
type=CWD msg=audit(1795900004.527:7): cwd="/var/b"
type=PATH msg=audit(1795900004.527:7): item=0 name="/dev/shm/project-00/" inode=2 dev=00:17 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0
type=PATH msg=audit(1795900004.527:7): item=1 name="/dev/shm/project-00/src_module_0000.c" inode=3 dev=00:17 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=CREATE cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0
type=PROCTITLE msg=audit(1795900004.527:7): proctitle={TITLE}
type=SYSCALL msg=audit(1795900004.527:8): arch=c000003e syscall=1 success=yes exit=64 a0=3 a1=4831a0 a2=40 a3=7fff98c58dc7 items=0 ppid=160 pid=193 {LOAD}
type=PROCTITLE msg=audit(1795900004.527:8): proctitle={TITLE}
type=SYSCALL msg=audit(1795900004.527:9): arch=c000003e syscall=3 success=yes exit=0 a0=3 a1=40 a2=43cf89 a3=0 items=0 ppid=160 pid=193 {LOAD}
type=PROCTITLE msg=audit(1795900004.527:9): proctitle={TITLE}
type=SYSCALL msg=audit(1795900005.331:776): arch=c000003e syscall=0 success=yes exit=16 a0=3 a1=7fff98c59020 a2=10 a3=1 items=0 ppid=160 pid=193 {LOAD}
type=PROCTITLE msg=audit(1795900005.331:776): proctitle={TITLE}
type=SYSCALL msg=audit(1795900008.443:1002): arch=c000003e syscall=1 success=yes exit=64 a0=3 a1=4831a0 a2=40 a3=7fff98352f07 items=0 ppid=160 pid=210 {LOAD}
type=DAEMON_END msg=audit(1795900016.693:5817): op=terminate auid=0 uid=0 ses=4294967295 pid=160 subj=unconfined res=success
""".encode()

# Stand-ins. The kernel's state is a directory with a file for each setting; what was asked for is in `calls`.
CONTROL = """#!/bin/sh
cd {state}; echo "$*" >>calls
case $1 in
  -s) for name in enabled failure pid rate_limit backlog_limit lost backlog; do echo "$name $(cat $name)"; done ;;
  -l) cat rules 2>/dev/null || echo "No rules" ;;
  -b) echo $2 >backlog_limit ;;
  -r) echo $2 >rate_limit ;;
  -f) echo $2 >failure ;;
  -e) echo $2 >enabled ;;
  -a) [ ! -e refuses ] || {{ echo "Error sending add rule data request (Invalid argument)" >&2; exit 255; }}; echo "$*" >rules ;;
  -d) rm rules ;;
esac
"""
DAEMON = """#!/bin/sh
echo "$$ $*" >>{state}/started
for last; do :; done
trap 'echo 0 >{state}/pid; exit 0' TERM
: >"$last/log/audit.log"; echo $$ >{state}/pid
while :; do sleep 0.05; done
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a kernel that nobody audits, with stand-ins on PATH that are all that there is."""
    programs, state = tmp_path / "programs", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    for line in STATUS.splitlines():
        (state / line.split()[0]).write_text(line.split()[1] + "\n")
    for name, text in (("auditctl", CONTROL), ("auditd", DAEMON)):
        (programs / name).write_text(text.format(state=state))
        (programs / name).chmod(0o755)
    monkeypatch.setattr(auditd, "_program", lambda name: str(programs / name))
    monkeypatch.setattr(auditd, "PINNED", ())
    monkeypatch.setattr(auditd, "_STILL_SECONDS", 0.01)
    monkeypatch.setattr(auditd, "_note", lambda: tmp_path / "audit-was-on")
    return state


def load_in(directory: Path) -> Load:
    (directory / "load").mkdir()
    return Load(directory / "load", directory)


def changes(state: Path) -> list[str]:
    """What auditctl was asked for, but the questions."""
    return [line for line in (state / "calls").read_text().splitlines() if line.split()[0] not in ("-s", "-l")]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_status_is_read() -> None:
    assert Status.parse(STATUS) == Status(0, 1, 0, 0, 64, 9377, 0)


def test_a_status_without_a_member_is_a_peer_that_is_not_there() -> None:
    with pytest.raises(Absent, match="does not say lost"):
        Status.parse(STATUS.replace("lost 9377\n", ""))


def test_each_call_of_the_load_is_one_act_whatever_comes_with_it() -> None:
    assert auditd.recorded(RECORDS, 193) == {"file_open": 1, "file_read": 1, "file_write": 1, "file_close": 1}
    assert auditd.recorded(RECORDS, 210) == {"file_write": 1}
    assert auditd.recorded(RECORDS, 182) == {}  # auditctl's own
    assert auditd.recorded(RECORDS, 160) == {}  # the parent is not the process
    assert auditd.recorded(RECORDS[: RECORDS.index(b"comm=", RECORDS.index(b"pid=193"))], 193) == {}  # a line that was cut


# --- not there --------------------------------------------------------------------------------------------------------


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_names, **_more: None)
    with pytest.raises(Absent, match=r"auditd is not installed \(Debian package auditd\)"):
        auditd.usable()


def test_a_kernel_without_audit(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    Path(auditd._program("auditctl")).write_text(f"#!/bin/sh\nprintf '{NOT_IN_KERNEL}' >&2; exit 1\n")
    with pytest.raises(Absent, match="this kernel has no audit"):
        auditd.usable()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("pid", "812", r"runs here already \(process 812\)"), ("enabled", "2", r"locked until a reboot \(enabled 2\)"),
     ("rules", "-w /etc/passwd -p wa\n-a never,task", r"of somebody else are loaded \(2\)")],
)  # fmt: skip
def test_a_machine_that_audits_is_left_alone(state: Path, tmp_path: Path, name: str, value: str, words: str) -> None:
    (state / name).write_text(value + "\n")
    with pytest.raises(Absent, match=f"{words}: nothing was touched"), auditd.running(load_in(tmp_path), []):
        pytest.fail("it runs")
    assert changes(state) == []
    assert not (state / "started").exists()
    assert not auditd.slow_path()


# --- only on request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plan", "value"), [(measure.FULL, None), (measure.FULL, "0"), (measure.SMOKE, None), (measure.SMOKE, "1")])
def test_without_the_request_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: measure.Plan, value: str | None
) -> None:
    def refuse(*words: object, **more: object) -> None:
        pytest.fail(f"started: {words}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.delenv(auditd.SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(auditd.SWITCH, value)
    bench = Bench(plan, tmp_path, Load(tmp_path, tmp_path))
    bench.audit()
    assert [(row.name, row.values, row.note) for row in bench.figures] == [
        ("lossless rate, auditd", [], auditd.ON_REQUEST), ("ratio to auditd", [], "")]  # fmt: skip


def test_on_request_a_missing_auditd_is_a_row_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(auditd.SWITCH, "1")
    monkeypatch.setattr(shutil, "which", lambda *_names, **_more: None)
    bench = Bench(measure.FULL, tmp_path, Load(tmp_path, tmp_path))
    bench.audit()
    assert bench.figures[0].note == "auditd is not installed (Debian package auditd)"


@pytest.mark.parametrize(("value", "last"), [("1", "test_bench.py"), ("0", "test_workloads.py")])
def test_nothing_is_measured_behind_it(monkeypatch: pytest.MonkeyPatch, value: str, last: str) -> None:
    monkeypatch.setenv(auditd.SWITCH, value)
    items = [SimpleNamespace(path=path) for path in sorted(Path(conftest.__file__).parent.glob("test_*.py"))]
    conftest.pytest_collection_modifyitems(cast("list[pytest.Item]", items))
    assert items[-1].path.name == last
    text = Path(conftest.__file__).with_name("test_bench.py").read_text()
    assert text.rindex("problems_of(bench, ") == text.index('problems_of(bench, "audit")')


def test_an_unknown_value_of_the_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="EBPF_MONITOR_AUDITD is 'yes'"):
        auditd.requested({auditd.SWITCH: "yes"})


def test_a_later_run_on_the_same_boot_says_that_audit_was_on(tmp_path: Path, state: Path) -> None:
    assert not Bench(measure.FULL, tmp_path, Load(tmp_path, tmp_path)).slow_path
    auditd._remember()
    bench = Bench(measure.FULL, tmp_path, Load(tmp_path, tmp_path))
    assert bench.slow_path
    assert "audit slow path" in bench.table()
    auditd._note().write_text("another boot\n")
    assert not auditd.slow_path()


# --- what is done is undone -------------------------------------------------------------------------------------------


def test_the_rule_is_the_last_to_come_and_the_first_to_go(tmp_path: Path, state: Path) -> None:
    (state / "failure").write_text("2\n")
    load, problems = load_in(tmp_path), list[str]()
    rule = f"always,exit -F arch=b64 -S openat,read,write,close -F exe={load.directory}/bench-load -k ebpf-monitor-bench"
    with auditd.running(load, problems) as daemon:
        assert auditd.slow_path()
        assert auditd.status().enabled == 1
        with pytest.raises(Absent, match="runs here already"):
            auditd.usable()
        (line,) = (state / "started").read_text().splitlines()
        assert line.endswith(f" -n -s nochange -c {daemon.place}")
    assert changes(state) == ["-b 65536", "-f 1", "-e 1", f"-a {rule}", f"-d {rule}", "-e 0", "-b 64", "-f 2"]
    assert problems == []
    assert auditd.usable().failure == 2
    assert not daemon.place.exists()


def test_all_is_undone_when_the_load_fails_and_what_was_on_stays_on(tmp_path: Path, state: Path) -> None:
    (state / "enabled").write_text("1\n")  # journald does that, without a daemon
    problems = list[str]()
    with pytest.raises(BrokenBenchmark), auditd.running(load_in(tmp_path), problems):
        raise BrokenBenchmark("the load failed")
    assert changes(state)[-2:] == ["-e 1", "-b 64"]
    assert (problems, auditd.usable().enabled) == ([], 1)


def test_a_rule_that_is_refused_leaves_nothing(tmp_path: Path, state: Path) -> None:
    (state / "refuses").touch()
    problems = list[str]()
    with pytest.raises(Absent, match="add rule data request"), auditd.running(load_in(tmp_path), problems):
        pytest.fail("it runs")
    assert (problems, auditd.usable()) == ([], Status.parse(STATUS))


def test_what_cannot_be_undone_is_told(tmp_path: Path, state: Path) -> None:
    problems = list[str]()
    with auditd.running(load_in(tmp_path), problems):
        control = Path(auditd._program("auditctl"))
        control.write_text(control.read_text().replace("rm rules", "echo sorry >&2; exit 255"))
    assert problems[0].startswith("auditd, at its end: auditctl -d always,exit")
    assert problems[1].startswith("auditd, after its end: rules are left: -a always,exit")
    assert (state / "pid").read_text() == "0\n"
