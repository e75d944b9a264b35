"""The files that are installed beside the program: units, their little scripts, what they agree on. systemd itself: tests/service."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from monitor.config_keys import Config

ROOT = Path(__file__).resolve().parent.parent
UNITS = sorted((ROOT / "systemd").glob("*.service"))


@pytest.fixture
def allow_servers() -> ModuleType:
    """systemd/allow-servers as a module."""
    path = str(ROOT / "systemd/allow-servers")
    loader = importlib.machinery.SourceFileLoader("allow_servers", path)
    spec = importlib.util.spec_from_loader("allow_servers", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def lines(unit: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", (ROOT / "systemd" / unit).read_text())


def test_servers_are_allowed_by_address_and_a_lost_name_is_told(
    allow_servers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("# nameserver 9.9.9.9\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch x\nnameserver\n")
    assert allow_servers.resolvers(resolv) == {"192.0.2.53", "fe80::1"}
    assert allow_servers.resolvers(tmp_path / "none") == set()
    assert allow_servers.addresses("192.0.2.7") == {"192.0.2.7"}
    assert allow_servers.addresses("2001:db8::7") == {"2001:db8::7"}

    def lost(host: str, _port: None) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(allow_servers.socket, "getaddrinfo", lost)
    assert allow_servers.addresses("nowhere.invalid") == set()
    assert "nowhere.invalid: Name or service not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ("97 ebpf-monitor.service restart running", True),
        ("97 ebpf-monitor.service try-restart running", True),
        ("97 ebpf-monitor.service stop running", False),
        ("97 other.service restart running\n98 ebpf-monitor.service stop running", False),
        ("97 ebpf-monitor.service.d restart running", False),
        ("", False),
    ],
)
def test_only_a_restart_is_told_to_the_monitor(jobs: str, told: bool, tmp_path: Path) -> None:
    stub = tmp_path / "systemctl"
    stub.write_text(f"#!/bin/sh\ncat <<'X'\n{jobs}\nX\n")
    stub.chmod(0o755)
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        command = [ROOT / "systemd/hand-over", str(process.pid)]
        done = subprocess.run(command, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=False)
        try:
            status = process.wait(0.3)
        except subprocess.TimeoutExpired:
            status = 0
            process.kill()
    assert done.returncode == 0
    assert status == (-10 if told else 0)


def test_units_rotation_and_directories_agree_with_the_defaults() -> None:
    events, outputs = Config().events_dir, Config().output_dir
    (writable, pins) = lines("ebpf-monitor.service", "ReadWritePaths")
    assert Path(writable) in events.parents
    assert Path(writable) in outputs.parents
    assert Path(pins.removeprefix("-")) == Config().pin_dir
    assert lines("ebpf-monitor.service", "RuntimeDirectory") == [Config().run_dir.name]
    assert lines("ebpf-monitor-ship.service", "ReadWritePaths") == [f"{outputs}/ship"]
    made = re.findall(r"(?m)^d (\S+)", (ROOT / "systemd/ebpf-monitor.tmpfiles").read_text())
    assert {str(events), str(outputs), f"{outputs}/ship"} < set(made)
    assert (ROOT / "logrotate/ebpf-monitor").read_text().splitlines()[1] == f"{events}/events.jsonl {{"


@pytest.mark.parametrize("unit", ["ebpf-monitor.service", "ebpf-monitor-ship.service"])
def test_what_the_contract_says_of_a_unit(unit: str) -> None:
    assert lines(unit, "RestartPreventExitStatus") == ["64 75 77 78"]
    assert lines(unit, "MemoryDenyWriteExecute") == ["yes"]
    assert lines(unit, "NoNewPrivileges") == ["yes"]
    assert lines(unit, "IPAddressDeny") == ["any"]


def test_capabilities_are_two_and_none() -> None:
    assert lines("ebpf-monitor.service", "CapabilityBoundingSet") == ["CAP_BPF CAP_PERFMON"]
    assert lines("ebpf-monitor-ship.service", "CapabilityBoundingSet") == [""]


def test_rotation_never_truncates_and_signals_the_main_process_alone() -> None:
    text = (ROOT / "logrotate/ebpf-monitor").read_text()
    for word in ("daily", "maxsize", "compress", "delaycompress", "dateext", "create 0640 root ebpf-monitor"):
        assert re.search(rf"(?m)^    {word}", text), word
    assert "copytruncate" not in text
    assert "systemctl kill -s HUP --kill-whom=main ebpf-monitor.service" in text
