"""The package on a real systemd: install, start, limits of the sandbox, reload, rotate, hang, kill, full disk, restart,
update, stop, removal. One machine, in this order; each test leaves the service running as it found it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.elasticsearch.server import PASSWORDS, Server
from tests.kernel.harness import Acts, alone, wait_for
from tests.service.installed import UNIT, Installed
from tests.service.package import built, with_version

RESTARTS = int(os.environ.get("EBPF_MONITOR_RESTARTS", "3"))
"""How often it is restarted under load; 100 take some minutes."""
UPGRADES = int(os.environ.get("EBPF_MONITOR_UPGRADES", "1"))
"""How often it is upgraded and downgraded under load."""
OLDER = os.environ.get("EBPF_MONITOR_OLDER_PACKAGE", "")
"""A package of an older release, to which and from which is changed; without it, of the same release with other programs."""
SHIP, METRICS, ROTATION = (f"ebpf-monitor-{name}.service" for name in ("ship", "metrics", "logrotate"))
METRICS_URL = "http://127.0.0.1:9877/metrics"  # the machine has the host's network
SCORE = 1.5
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


@pytest.fixture(autouse=True)
def load_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test with a load shares the host's kernel with no other test that counts; whatever happens, the load ends with it."""
    with alone() if "program" in request.fixturenames else contextlib.nullcontext():
        yield
        for acts in Acts.running:
            acts.process.kill()
            acts.process.wait()
        Acts.running.clear()


@pytest.fixture
def limited(service: Installed) -> None:
    """The machine's units can be held to a CPU quota and a memory limit."""
    if service.machine.unified:
        pytest.skip(
            "this kernel has the controllers cpu and memory in cgroup version 1, which this systemd no longer knows"
        )


def documents(service: Installed, event: str) -> list[dict[str, Any]]:
    return [orjson.loads(line)["ebpf"] for line in service.lines(f'"event":"{event}"'.encode())]


def test_installing_enables_and_starts_it_and_an_event_came_the_whole_way_before_ready(service: Installed) -> None:
    assert service.show("ActiveState") == "active"
    assert service.show("Type") == "notify"
    for unit in (UNIT, "ebpf-monitor-logrotate.timer"):
        assert service.machine.run("systemctl", "is-enabled", unit).text == "enabled\n"
    assert service.machine.run("systemctl", "is-enabled", SHIP).text == "disabled\n", (
        "only who wants delivery enables it"
    )
    assert re.fullmatch(r"[\d,]+ lines logged, \d+ events lost, rings \d+ % full", service.show("StatusText"))
    journal = service.machine.journal(UNIT)
    assert re.search(
        r"(?s)recording as process \d+; log in /var/monitoring/events\n.*Started ebpf-monitor.service", journal
    )
    assert "Traceback" not in journal
    assert any(service.lines(b'"event":"process_exec"'))
    assert service.machine.run("ebpf-monitor", "status").status == 0
    doctor = service.machine.run("ebpf-monitor", "doctor")
    assert doctor.status == 0, doctor.text


def test_the_package_is_for_the_python_of_this_release_alone(service: Installed) -> None:
    """dpkg and apt refuse it on another, whose Python could not load what is inside."""
    depends = service.machine.run("dpkg-query", "-W", "-f", "${Depends}", "ebpf-monitor", check=True).text
    major, minor = service.machine.run("/usr/bin/python3", "--version", check=True).text.split()[1].split(".")[:2]
    assert f"python3 (>= {major}.{minor}), python3 (<< {major}.{int(minor) + 1})," in depends


@pytest.mark.parametrize("unit", [UNIT, SHIP, METRICS, ROTATION])
def test_the_sandbox_scores_at_most_one_and_a_half(service: Installed, unit: str) -> None:
    text = service.machine.run("systemd-analyze", "security", "--no-pager", unit, check=True).text
    found = re.search(r"Overall exposure level for .*: ([\d.]+) ", text)
    assert found, text[-500:]
    assert float(found[1]) <= SCORE, text


def test_the_sandbox_is_what_the_process_really_has(service: Installed) -> None:
    pid = service.machine.host_pid(service.main_pid)
    status = Path(f"/proc/{pid}/status").read_text()
    cap_bpf_and_perfmon = "000000c000000000"
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{name}:\t{cap_bpf_and_perfmon}\n" in status
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status
    for kind in ("net", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{service.machine.leader}/ns/{kind}")
    interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "_fastpath" in mapped
    assert "llvm" not in mapped
    assert not re.search(r"(?m)^\S+ rwx", mapped)


def test_the_log_belongs_to_a_group_and_nobody_else_sees_it(service: Installed) -> None:
    run, log = service.machine.run, "/var/monitoring/events/events.jsonl"
    assert run("stat", "-c", "%A %U %G", log).text == "-rw-r----- root ebpf-monitor\n"
    assert run("runuser", "-u", "ebpf-monitor", "--", "head", "-c", "1", log).text == "{"
    assert run("runuser", "-u", "ebpf-monitor", "--", "touch", log).status != 0
    assert run("runuser", "-u", "nobody", "--", "cat", log).status != 0
    assert run("stat", "-c", "%A %U %G", "/etc/ebpf-monitor/config.json").text == "-rw-r----- root ebpf-monitor\n"
    wide = run("find", "/var/monitoring", "/run/ebpf-monitor", "/etc/ebpf-monitor", "-perm", "/o+rwx").text
    assert not wide


def test_the_metrics_unit_serves_what_the_status_says_without_any_privilege(service: Installed) -> None:
    service.systemctl("start", METRICS)
    try:
        found: list[str] = []

        def answered() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(METRICS_URL, timeout=30) as answer:
                found[:] = [answer.read().decode()]
            return bool(found)

        wait_for(answered, 60, service.machine.journal(METRICS))
        for line in ("up 1.0", "ledger_balanced 1.0", "log_writable 1.0", "configuration_taken 1.0"):
            assert f"\nebpf_monitor_{line}\n" in found[0]
        seen = re.search(r"\nebpf_monitor_lines_logged_total ([\d.e+]+)\n", found[0])
        assert seen is not None
        assert float(seen[1]) > 0
        pid = service.machine.host_pid(int(service.machine.show(METRICS, "MainPID")["MainPID"]))
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000\n" in status
        assert "CapBnd:\t0000000000000000\n" in status
        assert not re.search(r"(?m)^Uid:\t0\t", status)
    finally:
        service.systemctl("stop", METRICS)


def doctor(service: Installed, *before: str) -> dict[str, dict[str, str]]:
    """What doctor finds when it is started by `before`, by name of the check: what is not ok."""
    text = service.machine.run(*before, "ebpf-monitor", "doctor", "--json").text
    return {check["name"]: check for check in orjson.loads(text)["checks"] if check["state"] != "ok"}


def test_doctor_finds_what_is_really_wrong_and_its_commands_mend_it(service: Installed) -> None:
    drop_in = service.inside("/etc/ebpf-monitor/conf.d/wrong.json")
    drop_in.write_text(json.dumps({"storage_type": "elasticsearch", "es_config": {"es_port": 9, "secure": False}}))
    drop_in.chmod(0o644)
    service.inside("/var/monitoring/events").chmod(0o777)
    hidden = (
        "mount -t tmpfs t /sys/kernel/btf && mount -t tmpfs t /sys/kernel/security && umount /sys/fs/bpf && "
        "echo 'none integrity [confidentiality]' >/sys/kernel/security/lockdown && "
        "mount -t tmpfs -o size=64k,mode=777 t /var/monitoring/events && "
        '{ head -c 64k /dev/zero >/var/monitoring/events/other || :; } && exec setarch --uname-2.6 "$@"'
    )
    try:
        found = doctor(service, "unshare", "-m", "sh", "-ec", hidden, "sh")
        missing = {name for name, check in found.items() if check["state"] == "missing"}
        assert missing == {"BTF", "lockdown", "kernel features", "events_dir", "disk", "Elasticsearch"}, found
        assert "2.6." in found["kernel"]["text"]
        assert found["bpffs"]["fix"] == "mount -t bpf bpf /sys/fs/bpf"
        assert all(check["fix"] for check in found.values())
        service.machine.run("sh", "-c", found["events_dir"]["fix"], check=True)
        drop_in.chmod(0o666)
        refused = doctor(service)["configuration"]
        assert refused["text"].startswith("/etc/ebpf-monitor/conf.d/wrong.json: others can write to it")
        service.machine.run("sh", "-c", refused["fix"], check=True)
        assert doctor(service).keys() <= {"Elasticsearch", "events_dir", "clock"}
        nobody = doctor(service, "runuser", "-u", "nobody", "--")
        assert nobody["capabilities"]["state"] == nobody["configuration"]["state"] == "missing"
        assert nobody["configuration"]["fix"] == "sudo ebpf-monitor doctor"
    finally:
        drop_in.unlink()
        service.inside("/var/monitoring/events").chmod(0o750)


def test_in_a_pid_namespace_the_log_has_the_hosts_numbers_and_not_the_monitor_itself(service: Installed) -> None:
    own = service.machine.host_pid(service.main_pid)
    service.machine.run("/bin/true", "in-the-namespace", check=True)

    def executed() -> list[dict[str, Any]]:
        shown = [orjson.loads(line) for line in service.lines(b'"event":"process_exec"')]
        return [one["process"] for one in shown if one["process"].get("args") == ["/bin/true", "in-the-namespace"]]

    wait_for(executed, 30)
    assert executed()[0]["pid"] > 1000, "a number of the namespace would be small"
    mine = list(map(orjson.loads, service.lines(b'"pid":%d,' % own)))
    assert not [
        one for one in mine if one["process"]["pid"] == own and one["ebpf"]["event"].startswith(("file_", "socket_"))
    ]


def test_the_shippers_unit_delivers_what_is_logged_through_rotation(
    service: Installed, elasticsearch: Server, program: Path
) -> None:
    es, etc = elasticsearch.config(), service.inside("/etc/ebpf-monitor")
    (etc / "ca.pem").write_bytes(elasticsearch.ca.read_bytes())
    (etc / "admin.env").write_text(f"ES_USER=admin\nES_PASSWORD={PASSWORDS['admin']}\n")
    (etc / "admin.env").chmod(0o600)
    place = {"es_host": "localhost", "es_port": es.es_port, "es_user": es.es_user, "es_password": es.es_password}
    es_config = place | {"ca_certs": "/etc/ebpf-monitor/ca.pem", "batch_size": 2000}
    service.configure(es_config=es_config, heartbeat_interval_s=2)
    setup = ("ebpf-monitor", "setup-elasticsearch", "--credentials", "/etc/ebpf-monitor/admin.env")
    service.machine.run(*setup, check=True)
    (etc / "admin.env").unlink()
    try:
        service.systemctl("start", SHIP)
        acts = service.load(program, 500)
        for _ in range(3):
            until = acts.performed + 300
            wait_for(lambda until=until: acts.performed > until)
            service.machine.run("logrotate", "-f", "/etc/logrotate.d/ebpf-monitor", check=True)
            time.sleep(1.1)  # the rule's names have seconds
        performed = acts.stop()
        query = {"query": {"prefix": {"file.path": f"{acts.directory}/none/"}}}

        def delivered() -> int:
            elasticsearch.ask("POST", "/ebpf-events-*/_refresh")
            reply = elasticsearch.ask("POST", "/ebpf-events-*/_count", query)
            if reply.status == 429:  # its small heap is busy with what is delivered
                return 0
            assert reply.status == 200, reply
            return int(orjson.loads(reply.body)["count"])

        wait_for(
            lambda: delivered() >= performed, 180, f"{performed} acts are delivered: {service.machine.journal(SHIP)}"
        )
        wait_for(lambda: delivered() == performed, 30, "none is there twice")
        beats = lambda: [one["ledger"].get("created", 0) for one in documents(service, "monitor_heartbeat")]  # noqa: E731
        wait_for(lambda: max(beats()) >= performed, 60, "the collector may read how far the delivery is")
        assert service.machine.show(SHIP, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
        pid = service.machine.host_pid(int(service.machine.show(SHIP, "MainPID")["MainPID"]))
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000\n" in status
        assert "CapBnd:\t0000000000000000\n" in status
        assert not re.search(r"(?m)^Uid:\t0\t", status)
        assert "127.0.0.0/8" in service.machine.show(SHIP, "IPAddressAllow")["IPAddressAllow"]
        assert es.es_password not in service.machine.journal(SHIP)
        begun = time.monotonic()
        service.systemctl("stop", SHIP)
        assert time.monotonic() - begun < 30
        assert service.machine.show(SHIP, "Result")["Result"] == "success"
    finally:
        service.systemctl("stop", SHIP)
        (etc / "ca.pem").unlink()
        service.configure()


def test_reload_and_logrotate_go_on_in_a_new_file(service: Installed, program: Path) -> None:
    live, files = service.events_dir / "events.jsonl", [0]
    forced = service.inside(f"/etc/systemd/system/{ROTATION}.d")
    forced.mkdir()
    command = "/usr/sbin/logrotate -v -f --state /var/lib/logrotate/status /etc/logrotate.d/ebpf-monitor"
    (forced / "test.conf").write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
    service.systemctl("daemon-reload")

    def rotated() -> list[str]:
        return sorted({path.name.removesuffix(".gz") for path in service.events_dir.glob("events.jsonl-*")})

    before = rotated()

    def rotate() -> None:
        service.systemctl("reload", UNIT)
        text = service.machine.run("logrotate", "-f", "-v", "/etc/logrotate.conf", check=True).text
        assert "error" not in text, text
        wait_for(lambda: live.stat().st_size, what="the new file is written")
        time.sleep(1.1)  # the rule's names have seconds
        files[0] = live.stat().st_ino
        service.systemctl("start", ROTATION)  # the same in the unit's sandbox
        wait_for(lambda: live.stat().st_ino != files[0] and live.stat().st_size, what="the third file is written")

    service.under_load(program, rotate)
    assert "error" not in service.machine.journal(ROTATION)
    compressed, last = [name for name in rotated() if name not in before]
    assert (service.events_dir / last).stat().st_ino == files[0]
    for name in (f"{compressed}.gz", last, "events.jsonl"):
        text = service.machine.run("stat", "-c", "%A %U %G", f"/var/monitoring/events/{name}").text
        assert text == "-rw-r----- root ebpf-monitor\n"
    assert service.show("NRestarts") == "0"
    shutil.rmtree(forced)


def restarted(service: Installed, before: int) -> bool:
    found = service.machine.show(UNIT, "NRestarts", "ActiveState")
    return int(found["NRestarts"]) > before and found["ActiveState"] == "active"


def test_after_kill_9_it_starts_again_and_nothing_is_lost(service: Installed, program: Path) -> None:
    def kill() -> None:
        before = int(service.show("NRestarts"))
        os.kill(service.machine.host_pid(service.main_pid), signal.SIGKILL)
        wait_for(lambda: restarted(service, before), 120, "it is started again")

    service.under_load(program, kill)
    assert "Main process exited, code=killed, status=9/KILL" in service.machine.journal(UNIT)


class Stopped:
    """One thread held by ptrace(2) while everything else of its process runs on. For the thread that enters it alone."""

    def __init__(self, tid: int) -> None:
        self.tid, self.libc = tid, ctypes.CDLL(None, use_errno=True)

    def _ptrace(self, request: int) -> None:
        zero = ctypes.c_void_p(0)
        if self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(self.tid), zero, zero):
            raise OSError(ctypes.get_errno(), "ptrace")

    def hold_until_it_ends(self) -> None:
        self._ptrace(PTRACE_SEIZE)
        self._ptrace(PTRACE_INTERRUPT)
        while True:
            _, status = os.waitpid(self.tid, WALL)
            if not os.WIFSTOPPED(status):
                return


def writing_thread(pid: int) -> int:
    """The thread that syncs the log and writes the durable point: beside the main one it makes the most write calls."""

    def writes(thread: Path) -> int:
        return int(re.findall(r"syscw: (\d+)", (thread / "io").read_text())[0])

    threads = [thread for thread in Path(f"/proc/{pid}/task").iterdir() if thread.name != str(pid)]
    return int(max(threads, key=writes).name)


ENCODES_NOTHING = """
from pathlib import Path
from monitor.cli import main
from monitor.pipeline import Pipeline
hang, fill = Path("/run/ebpf-monitor/hang"), Pipeline.fill
hang.unlink(missing_ok=True)
Pipeline.fill = lambda self: not hang.exists() and fill(self)
main()
"""
"""The monitor, whose encoder takes nothing more once that file is there; all else goes on."""


@pytest.mark.parametrize("part", ["reader", "encoder", "writer"])
def test_a_part_that_hangs_is_killed_by_the_watchdog_and_nothing_is_lost(
    service: Installed, program: Path, part: str
) -> None:
    changed = "WatchdogSec=4s\nRestartSec=100ms"
    if part == "encoder":
        service.inside("/etc/hang.py").write_text(ENCODES_NOTHING)
        changed += "\nExecStart=\nExecStart=/usr/lib/ebpf-monitor/bin/python3 -I /etc/hang.py run --no-ship"
    service.drop_in(changed)
    service.configure(heartbeat_interval_s=1)  # its own lines prove nothing of the parts
    timeouts = service.machine.journal(UNIT).count("Watchdog timeout")

    def hang() -> None:
        before, pid = int(service.show("NRestarts")), service.machine.host_pid(service.main_pid)
        holder = None
        if part == "reader":
            os.kill(pid, signal.SIGSTOP)
        elif part == "encoder":
            service.inside("/run/ebpf-monitor/hang").touch()
        else:
            stopped = Stopped(writing_thread(pid))
            holder = threading.Thread(target=stopped.hold_until_it_ends)
            holder.start()
        wait_for(lambda: restarted(service, before), 120, "the watchdog acts")
        if holder:
            holder.join(30)

    service.under_load(program, hang)
    assert service.machine.journal(UNIT).count("Watchdog timeout") == timeouts + 1
    service.drop_in("")
    service.configure()


def test_a_full_disk_is_told_and_survived(service: Installed, program: Path) -> None:
    service.systemctl("stop", UNIT)
    service.machine.run(
        "mount", "-t", "tmpfs", "-o", "size=600m,mode=750", "tmpfs", "/var/monitoring/events", check=True
    )
    service.machine.run("chgrp", "ebpf-monitor", "/var/monitoring/events", check=True)
    service.drop_in("WatchdogSec=4s")
    try:
        service.systemctl("start", UNIT)
        pid, filler = service.main_pid, "/var/monitoring/events/other"
        acts = service.load(program, 500)
        wait_for(lambda: acts.performed > 200)
        service.machine.run("sh", "-c", f"head -c 700M /dev/zero >{filler}")
        wait_for(lambda: "cannot be written" in service.show("StatusText"), 60, "the status says it")
        time.sleep(6)  # longer than the watchdog waits: a full disk is no hanging part
        assert service.main_pid == pid
        assert service.machine.run("ebpf-monitor", "status").status == 1
        service.machine.run("rm", filler, check=True)
        wait_for(lambda: "cannot be written" not in service.show("StatusText"), 60, "the status says it")
        performed = acts.stop()
        ledger = service.balanced()
        if ledger["unwritten"] == 0:  # else the rings were too small for it, which the ledger says
            service.check(acts, performed)
        service.verify()
        journal = service.machine.journal(UNIT)
        assert re.search(r"(?s)cannot write the log: .*No space left on device.*the log is written again", journal)
    finally:
        service.systemctl("stop", UNIT)
        service.machine.run("umount", "/var/monitoring/events", check=True)
        service.drop_in("")
        service.systemctl("start", UNIT)


def refused_or_logged(service: Installed, acts: Acts, performed: int) -> tuple[int, int]:
    """(acts in the log, events refused): together they are all that was performed, or more."""
    ledger = service.balanced()
    logged, refused = service.logged(acts).total(), sum(ledger["refused"].values())
    assert logged + refused >= performed, "what is not logged is counted"
    return logged, refused


@pytest.mark.usefixtures("limited")
def test_below_its_cpu_quota_it_degrades_by_the_ledgers_rules(service: Installed, program: Path) -> None:
    """A twentieth of a CPU cannot read this: what does not fit is refused and counted, and nothing is killed."""
    service.configure(ring_bytes=1 << 20)
    pid = service.main_pid
    group = service.machine.cgroup(service.machine.host_pid(pid), "cpu")

    def throttled() -> int:
        return int(re.findall(r"nr_throttled (\d+)", (group / "cpu.stat").read_text())[0])

    before = throttled()
    service.systemctl("set-property", "--runtime", UNIT, "CPUQuota=5%")
    try:
        acts = service.load(program, 0)
        wait_for(lambda: acts.performed > 60_000 and throttled() > before, 120, "the quota is what holds it")
        performed = acts.stop()
    finally:
        service.systemctl("set-property", "--runtime", UNIT, "CPUQuota=100%")
    logged, refused = refused_or_logged(service, acts, performed)
    assert refused > 0
    assert logged < performed
    assert service.main_pid == pid
    assert service.show("Result") == "success"
    service.configure()


@pytest.mark.usefixtures("limited")
def test_at_its_memory_limit_the_logs_page_cache_goes_and_the_process_stays(service: Installed, program: Path) -> None:
    """What it needs is bounded, and below MemoryMax; what lies above that is page cache of the log. The limit is set so low here
    that this cache reaches it."""
    pid = service.main_pid
    group = service.machine.cgroup(service.machine.host_pid(pid), "memory")
    service.systemctl("set-property", "--runtime", UNIT, f"MemoryMax={_bytes(group, 'usage_in_bytes') + (48 << 20)}")
    try:
        before = _bytes(group, "failcnt")
        acts = service.load(program, 0)
        wait_for(lambda: acts.performed > 60_000 and _bytes(group, "failcnt") > before, 120, "the limit is reached")
        performed = acts.stop()
        refused_or_logged(service, acts, performed)
    finally:
        service.systemctl("set-property", "--runtime", UNIT, "MemoryMax=1G")
    assert "oom_kill 0\n" in (group / "memory.oom_control").read_text()
    assert service.main_pid == pid
    assert service.show("Result") == "success"


def _bytes(group: Path, name: str) -> int:
    return int((group / f"memory.{name}").read_text())


def test_restarts_under_load_lose_no_event_and_do_so_within_seconds(service: Installed, program: Path) -> None:
    def restart() -> None:
        for _ in range(RESTARTS):
            service.systemctl("restart", UNIT)

    performed = service.under_load(program, restart)
    assert performed > 5000
    print(f"{performed} acts, {RESTARTS} restarts")
    reasons = [one["monitor"]["reason"] for one in documents(service, "monitor_stop")]
    assert reasons[-RESTARTS:] == ["SIGUSR1"] * RESTARTS
    assert "stopped (SIGUSR1)" in service.machine.journal(UNIT)


def test_an_upgrade_and_a_downgrade_under_load_lose_no_event(service: Installed, program: Path) -> None:
    newer = with_version(built(), "1.1", service.machine.root / "root")

    def installed() -> str:
        return service.machine.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "ebpf-monitor", check=True).text

    def change() -> None:
        pid = service.main_pid
        for package, version in ((newer.name, "1.1"), ("ebpf-monitor.deb", "1.0")) * UPGRADES:
            service.machine.run("dpkg", "-i", f"/root/{package}", seconds=400, check=True)
            assert installed() == f"install ok installed {version}"
            assert service.show("ActiveState") == "active"
            assert service.main_pid != pid
            pid = service.main_pid

    service.under_load(program, change, rate=2000)
    assert all(one["monitor"]["adopted"] for one in documents(service, "monitor_start")[-2 * UPGRADES :])


def test_a_change_of_the_programs_loses_nothing_that_is_not_counted_both_ways(
    service: Installed, program: Path
) -> None:
    directory = service.machine.root / "root"
    other = Path(shutil.copy(OLDER, directory)) if OLDER else with_version(built(), "1.2", directory, layout="another")

    def losses() -> list[dict[str, Any]]:
        return [one["loss"] for one in documents(service, "monitor_loss") if one["loss"]["reason"] == "layout"]

    before = len(losses())
    acts = service.load(program, 500)
    wait_for(lambda: acts.performed > 200)
    for package in (other.name, "ebpf-monitor.deb"):
        service.machine.run("dpkg", "-i", f"/root/{package}", seconds=400, check=True)
    until = acts.performed + 200
    wait_for(lambda: acts.performed > until, what="the load goes on")
    performed = acts.stop()
    service.balanced()
    missing = sorted(set(range(performed)) - service.logged(acts).keys())
    lost = losses()[before:]
    assert len(lost) == 2
    assert len(missing) <= sum(loss["count"] for loss in lost), "what is not in the log is counted"
    gaps = [number for number, last in zip(missing[1:], missing[:-1], strict=True) if number != last + 1]
    assert len(gaps) <= 1, "two gaps: from the end of one reader to the programs of the next"
    assert len(list((service.machine.bpf / "ebpf-monitor").glob("*"))) == 1


def test_a_wrong_configuration_is_told_and_not_tried_again(service: Installed) -> None:
    path = service.inside("/etc/ebpf-monitor/config.json")
    before = path.read_text()
    path.write_text('{"profil": "full"}')
    service.machine.run("systemctl", "restart", UNIT)
    wait_for(lambda: service.show("ActiveState") == "failed", 30)
    assert service.show("ExecMainStatus") == "78"
    assert "config.json" in service.machine.journal(UNIT).rpartition("Starting")[2]
    path.write_text(before)
    service.systemctl("reset-failed", UNIT)
    service.systemctl("start", UNIT)


def test_a_stop_takes_the_programs_out_of_the_kernel(service: Installed, program: Path) -> None:
    acts = service.load(program)
    wait_for(lambda: acts.performed > 2000)
    begun = time.monotonic()
    service.systemctl("stop", UNIT)
    assert time.monotonic() - begun < 30, "TimeoutStopSec is 60"
    acts.stop()
    assert service.show("Result") == "success"
    assert not list((service.machine.bpf / "ebpf-monitor").glob("*"))
    service.verify()  # of all that was done to it up to here
    assert re.search(r"stopped \(SIGTERM\): [\d,]+ lines logged\n", service.machine.journal(UNIT))
    assert service.machine.run("ebpf-monitor", "status").status == 3
    service.systemctl("start", UNIT)


def test_a_removal_leaves_configuration_and_log_and_a_purge_leaves_nothing(service: Installed) -> None:
    run = service.machine.run
    run("dpkg", "-r", "ebpf-monitor", check=True, seconds=400)
    assert run("systemctl", "is-active", UNIT).text == "inactive\n"
    assert not (service.machine.bpf / "ebpf-monitor").exists()
    assert service.inside("/etc/ebpf-monitor/config.json").exists()
    assert list(service.events_dir.glob("events.jsonl*"))
    assert not service.inside("/usr/lib/ebpf-monitor").exists()
    run("dpkg", "-P", "ebpf-monitor", check=True, seconds=400)
    places = ["/etc", "/usr", "/lib", "/var/lib/systemd", "/var/monitoring", "/run/ebpf-monitor", "/sys/fs/bpf"]
    left = run("find", *places, "-path", "*ebpf-monitor*", "-not", "-path", "/etc/systemd/system/*.d*").text
    assert [line for line in left.splitlines() if "No such file" not in line] == []
    assert not service.inside("/var/monitoring").exists()
