"""Each check of doctor says ok on a host that is right, and names the missing thing and its cure on one that is not."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import platform
import shutil
import socket
import subprocess
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from monitor import doctor
from monitor.config_keys import Config, EsConfig
from monitor.doctor import Check, Host, document, examine, exit_status, text
from monitor.kernel import BccMissing, pins
from monitor.kernel.btf import BtfError
from tests import loglines
from tests.kernels import packages

FULL, NONE = "000001ffffffffff", "0000000000000000"
BPF_AND_PERFMON = f"{1 << 38 | 1 << 39:016x}"
MOUNTS = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host where everything is right, made of files; bcc and the kernel's features are there."""
    root = tmp_path / "root"
    for name, content in {
        "proc/self/status": f"Name:\tx\nCapEff:\t{FULL}\n",
        "proc/self/mounts": MOUNTS,
        "sys/kernel/btf/vmlinux": "btf",
        "proc/sys/kernel/random/boot_id": "5b6f2c8e-1d3a-4c57-9e80-112233445566\n",
        "proc/sys/kernel/hostname": "web1\n",
        "etc/machine-id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    events_dir = tmp_path / "events"
    events_dir.mkdir(mode=0o750)
    monkeypatch.setattr(doctor, "import_bcc", lambda: doctor)
    monkeypatch.setattr(pins, "lacking", dict)
    monkeypatch.setattr(doctor, "Btf", object)
    monkeypatch.setattr(pins, "features", lambda _btf: {"rdonly_cast": True, "ringbuf": True})
    monkeypatch.setattr(doctor, "synchronised", lambda: True)
    monkeypatch.setattr(platform, "release", lambda: "6.12.0-test")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("out", "run"):
        (tmp_path / name).mkdir(mode=0o750)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 50, 50))
    return Host(Config(events_dir=events_dir, output_dir=tmp_path / "out", run_dir=tmp_path / "run"), root)


def found(host: Host, name: str) -> list[Check]:
    return [check for check in examine(host) if check.name == name]


def one(host: Host, name: str) -> Check:
    (check,) = found(host, name)
    return check


def capabilities(host: Host, bits: str) -> None:
    host.path("/proc/self/status").write_text(f"CapEff:\t{bits}\n")


def test_host_that_is_right_has_only_ok_lines(host: Host) -> None:
    checks = examine(host)
    assert {check.state for check in checks} == {"ok"}, text(checks)
    assert exit_status(checks) == 0
    assert not any(check.fix for check in checks)


def test_without_capabilities_nothing_can_be_recorded(host: Host) -> None:
    capabilities(host, NONE)
    check = one(host, "capabilities")
    assert (check.state, check.fix) == ("missing", "sudo ebpf-monitor run")
    assert "CAP_BPF and CAP_PERFMON" in check.text
    assert one(host, "kernel features").state == "warn", "not tried, so nothing is said about them"


def test_the_two_capabilities_are_enough_but_for_earlier_processes(host: Host) -> None:
    capabilities(host, BPF_AND_PERFMON)
    assert [check.state for check in found(host, "capabilities")] == ["ok", "warn"]
    assert exit_status(examine(host)) == 0


def test_kernel_without_btf_is_missing(host: Host) -> None:
    host.path("/sys/kernel/btf/vmlinux").unlink()
    assert one(host, "BTF").state == "missing"
    assert "CONFIG_DEBUG_INFO_BTF" in one(host, "BTF").fix


def test_bpffs_that_is_not_mounted_is_mounted_by_run(host: Host) -> None:
    host.path("/proc/self/mounts").write_text(
        MOUNTS.replace("bpf /sys/fs/bpf bpf rw 0 0\n", "sysfs /sys sysfs rw 0 0\n")
    )
    assert (one(host, "bpffs").state, one(host, "bpffs").fix) == ("warn", "mount -t bpf bpf /sys/fs/bpf")


def test_pin_dir_elsewhere_must_lie_in_a_bpf_file_system(host: Host) -> None:
    elsewhere = replace(host, config=replace(host.config, pin_dir=Path("/run/my pins/x")))
    assert (one(elsewhere, "bpffs").state, one(elsewhere, "bpffs").fix) == (
        "missing",
        "mount -t bpf bpf '/run/my pins'",
    )


def test_missing_bcc_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise BccMissing(
            "the Python package bcc cannot be imported (No module named 'bcc'); install it with: apt install python3-bpfcc"
        )

    monkeypatch.setattr(doctor, "import_bcc", missing)
    assert one(host, "bcc").state == "missing"
    assert "apt install python3-bpfcc" in one(host, "bcc").fix


def test_feature_that_the_kernel_lacks_is_a_warning_that_says_what_it_costs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "features", lambda _btf: {"rdonly_cast": False, "ringbuf": True})
    assert one(host, "rdonly_cast").state == "warn"
    assert "0.3 us" in one(host, "rdonly_cast").text
    assert exit_status(examine(host)) == 0


def test_kernel_without_what_the_programs_need_is_told_with_its_own_answer(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "lacking", lambda: {"bpf_x (Linux 5.11)": "invalid func unknown#158"})
    (told,) = [check for check in found(host, "kernel features") if check.state == "missing"]
    assert "bpf_x (Linux 5.11): invalid func unknown#158" in told.text
    assert told.fix.startswith("boot a newer kernel")
    assert exit_status(examine(host)) != 0


@pytest.mark.parametrize(
    ("error", "told"),
    [(BtfError("not BTF"), "BTF: not BTF"), (FileNotFoundError(2, "No such file", "/sys/x"), "/sys/x: No such file")],
)
def test_features_that_cannot_be_tried_are_no_exception(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def failing(_btf: object) -> None:
        raise error

    monkeypatch.setattr(pins, "features", failing)
    assert (one(host, "kernel features").state, one(host, "kernel features").text) == (
        "missing",
        f"cannot be tried: {told}",
    )


def test_every_feature_that_is_tried_has_an_explanation() -> None:
    source = Path(pins.__file__).read_text()
    assert all(f'"{name}"' in source for name in doctor.FEATURES)
    assert len(doctor.FEATURES) == 7


def test_host_without_a_machine_id_is_warned(host: Host) -> None:
    host.path("/etc/machine-id").unlink()
    assert (one(host, "host").state, one(host, "host").fix) == ("warn", "systemd-machine-id-setup")


def test_lockdown_is_told_only_when_it_is_in_the_way(host: Host) -> None:
    assert found(host, "lockdown") == []
    host.path("/sys/kernel/security").mkdir()
    host.path("/sys/kernel/security/lockdown").write_text("none integrity [confidentiality]\n")
    assert one(host, "lockdown").state == "missing"
    host.path("/sys/kernel/security/lockdown").write_text("[none] integrity confidentiality\n")
    assert found(host, "lockdown") == []


def test_events_dir_that_is_not_there_will_be_made(host: Host) -> None:
    host.config.events_dir.rmdir()
    assert one(host, "events_dir").state == "ok"


@pytest.mark.parametrize(
    ("mode", "state", "fix"),
    [(0o770, "missing", "chmod go-w"), (0o777, "missing", "chmod go-w"), (0o755, "warn", "chmod o-rx")],
)
def test_events_dir_that_others_can_write_is_missing_and_one_they_can_read_a_warning(
    host: Host, mode: int, state: str, fix: str
) -> None:
    host.config.events_dir.chmod(mode)
    assert one(host, "events_dir").state == state
    assert one(host, "events_dir").fix == f"{fix} {host.config.events_dir}"


def test_events_dir_that_is_a_link_or_a_file_is_missing(host: Host, tmp_path: Path) -> None:
    host.config.events_dir.rmdir()
    host.config.events_dir.symlink_to(tmp_path)
    assert "symbolic link" in one(host, "events_dir").text
    host.config.events_dir.unlink()
    host.config.events_dir.write_text("")
    assert one(host, "events_dir").text.endswith("is not a directory")


def test_events_dir_of_another_user_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "stat", lambda *_, **__: os.stat_result((0o40750, 1, 1, 2, 999, 0, 0, 0, 0, 0)))
    assert "user 999" in next(doctor._directory("events_dir", host.config.events_dir)).text


@pytest.mark.parametrize(("free", "state"), [(50, "ok"), (5, "ok"), (4, "warn"), (0, "missing")])
def test_disk_that_is_full_is_told(host: Host, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100 - free, free))
    assert one(host, "disk").state == state


def test_a_disk_without_a_free_inode_is_full_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(host.config.events_dir)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:5], 1000, 0, 0, *real[8:])))
    assert (one(host, "disk").state, one(host, "disk").fix.split(" /")[0]) == ("missing", "du -x --inodes")
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:5], 0, 0, 0, *real[8:])))
    assert one(host, "disk").state == "ok", "a file system without a table of them"


def test_disk_of_a_directory_that_is_not_there_is_its_parent_s(host: Host) -> None:
    deep = replace(host, config=replace(host.config, events_dir=host.config.events_dir / "a" / "b"))
    assert one(deep, "disk").state == "ok"


def test_a_file_that_cannot_be_read_is_a_warning(host: Host) -> None:
    host.path("/proc/self/mounts").unlink()
    assert one(host, "bpffs").state == "warn"
    assert "No such file" in one(host, "bpffs").text


def test_missing_is_a_finding(host: Host) -> None:
    capabilities(host, NONE)
    checks = examine(host)
    assert exit_status(checks) == 1
    assert document(checks)["ok"] is False


def test_each_check_is_one_printable_line_with_its_fix(host: Host, tmp_path: Path) -> None:
    capabilities(host, NONE)
    nasty = replace(host, config=replace(host.config, events_dir=tmp_path / "a\x1b[2J\nb"))
    (tmp_path / "a\x1b[2J\nb").mkdir(mode=0o777)
    (tmp_path / "a\x1b[2J\nb").chmod(0o777)
    checks = examine(nasty)
    rows = text(checks).splitlines()
    assert len(rows) == len(checks)
    assert all(row.isprintable() for row in rows)
    assert all(
        f"-> {check.fix}".split("\x1b")[0].split("\n")[0] in row
        for check, row in zip(checks, rows, strict=True)
        if check.fix
    )
    assert json.loads(json.dumps(document(checks)))["checks"]


def test_nothing_bad_has_no_fix(host: Host) -> None:
    capabilities(host, NONE)
    host.path("/sys/kernel/btf/vmlinux").unlink()
    assert all(check.fix for check in examine(host) if check.state != "ok")


# ---- kernel, clock, configuration, delivery --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "state"),
    [("5.10.0-46-amd64", "warn"), ("6.1.0-56", "ok"), ("7.3.4", "ok"), ("8.0.0-rc1", "warn"), ("odd", "warn")],
)
def test_a_kernel_outside_of_what_is_tested_is_told(
    host: Host, monkeypatch: pytest.MonkeyPatch, release: str, state: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    assert one(host, "kernel").state == state


def test_the_tested_kernels_are_those_that_are_booted() -> None:
    booted = [tuple(map(int, name.split("."))) for name in packages.SUITES if name not in ("newest", *packages.REFUSED)]
    assert doctor.TESTED_KERNELS[0] == min(booted)
    assert doctor.TESTED_KERNELS[1] > max(booted)


def test_another_machine_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in found(host, "kernel")[0].text


def test_tracefs_is_not_needed(host: Host) -> None:
    assert (one(host, "tracefs").state, one(host, "tracefs").text) == ("ok", "not mounted, and not needed")
    host.path("/proc/self/mounts").write_text(MOUNTS + "tracefs /sys/kernel/tracing tracefs rw 0 0\n")
    assert one(host, "tracefs").text == "mounted, and not needed"


def test_a_clock_that_nobody_disciplines_is_a_warning(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "synchronised", lambda: False)
    assert (one(host, "clock").state, one(host, "clock").fix) == ("warn", "timedatectl set-ntp true")


def test_a_clock_before_the_program_was_made_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert one(host, "clock").state == "missing"
    assert "1970-01-01" in one(host, "clock").text


def test_a_clock_that_was_set_back_behind_the_log_is_told(host: Host) -> None:
    later = time.time_ns() + 3_600_000_000_000
    (host.config.events_dir / "events.jsonl").write_bytes(loglines.line(1, time_ns=later))
    assert "the clock was set back" in one(host, "clock").text


def test_the_kernel_answers_whether_its_clock_is_synchronised() -> None:
    assert doctor.synchronised() in (True, False)
    shown = subprocess.run(
        ["timedatectl", "show", "-p", "NTPSynchronized"], capture_output=True, text=True, check=False
    )
    if shown.returncode == 0:
        assert doctor.synchronised() == (shown.stdout.strip() == "NTPSynchronized=yes")


def test_a_configuration_that_is_refused_is_a_finding_with_its_command(host: Host) -> None:
    broken = replace(host, problem="/etc/x.json: others can write to it; take that away: chmod go-w /etc/x.json")
    assert (one(broken, "configuration").state, one(broken, "configuration").fix) == (
        "missing",
        "chmod go-w /etc/x.json",
    )
    assert found(host, "configuration") == []
    unread = replace(host, problem="/etc/x.json: this user may not read it; run as root, or give the file to this user")
    assert one(unread, "configuration").fix == "sudo ebpf-monitor doctor"


@pytest.mark.parametrize("key", ["output_dir", "run_dir"])
def test_the_other_directories_are_looked_at_too(host: Host, key: str) -> None:
    getattr(host.config, key).chmod(0o777)
    assert one(host, key).state == "missing"
    assert one(host, key).fix == f"chmod go-w {getattr(host.config, key)}"


def test_little_space_says_what_log_min_free_does(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 93, 7))
    assert one(host, "disk").state == "ok"
    more = replace(host, config=replace(host.config, log_min_free=10))
    assert one(more, "disk").state == "warn"
    assert "log_min_free (10 %)" in one(more, "disk").text


def delivering(host: Host, **members: object) -> Host:
    es = EsConfig(**{"es_host": ("127.0.0.1",), "secure": False} | members)  # type: ignore[arg-type]
    return replace(host, config=replace(host.config, storage_type="elasticsearch", es_config=es))


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers each request so; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "2")
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_elasticsearch_is_asked_only_where_it_is_used(host: Host) -> None:
    assert found(host, "Elasticsearch") == []


@pytest.mark.parametrize(
    ("status", "state", "word"),
    [(200, "ok", "answers"), (401, "missing", "refuses the credentials"), (503, "missing", "HTTP 503")],
)
def test_what_elasticsearch_answers_is_told(host: Host, status: int, state: str, word: str) -> None:
    with answering(status) as port:
        check = one(delivering(host, es_port=port), "Elasticsearch")
    assert check.state == state
    assert word in check.text
    assert bool(check.fix) == (state != "ok")


def test_an_elasticsearch_that_cannot_be_reached_is_missing(host: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        check = one(delivering(host, es_port=taken.getsockname()[1]), "Elasticsearch")
    assert check.state == "missing"
    assert check.fix.startswith("curl -v http://127.0.0.1:")
    assert one(delivering(host, es_user="x"), "Elasticsearch").state == "missing"
