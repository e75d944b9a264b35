"""What `make install` leaves (the package's content is made by the same script) without dpkg, on a machine with cgroup version 2
alone, as Debian has it: it is enabled, the shipper's firewall opens for the configured server alone, and all goes again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import Machine, tree
from tests.service.package import ROOT, built

UNIT, SHIP = "ebpf-monitor.service", "ebpf-monitor-ship.service"
PROBE = """
import socket
for address in ("127.0.0.1", "10.9.9.8", "10.9.9.9"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"x", (address, 9))
            print(address, "may be reached")
        except PermissionError:
            print(address, "may not be reached")
        except OSError:  # no route: not the firewall's doing
            print(address, "may be reached")
"""
AS_PROBE = """[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/usr/bin/python3 /etc/probe.py
"""
SCRIPT = "/root/checkout/scripts/install.sh"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Everything is in its place, and nothing was started."""
    made = Machine(tree(), "em-install", unified=True)
    try:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", built()], stdout=subprocess.PIPE) as content:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", made.root], stdin=content.stdout, check=True)
        assert content.returncode == 0
        script = Path(made.root, SCRIPT.lstrip("/"))
        script.parent.mkdir(parents=True)
        shutil.copy(ROOT / "scripts/install.sh", script)
        made.boot()
        yield made
    finally:
        made.close()


def test_it_is_enabled_and_records(machine: Machine) -> None:
    assert "running: ebpf-monitor status" in machine.run(SCRIPT, "enable", seconds=400, check=True).text
    for unit in (UNIT, "ebpf-monitor-logrotate.timer"):
        assert machine.run("systemctl", "is-enabled", unit).text == "enabled\n"
        assert machine.run("systemctl", "is-active", unit).text == "active\n"
    assert machine.run("systemctl", "is-enabled", SHIP).text == "disabled\n"
    assert machine.run("ebpf-monitor", "status").status == 0


def test_the_shippers_unit_reaches_the_configured_server_and_nothing_else(machine: Machine) -> None:
    config = {"storage_type": "elasticsearch", "es_config": {"es_host": ["10.9.9.9"]}}
    Path(machine.root, "etc/ebpf-monitor/conf.d/probe.json").write_text(json.dumps(config))
    Path(machine.root, "etc/probe.py").write_text(PROBE)
    changes = Path(machine.root, "etc/systemd/system", f"{SHIP}.d")
    changes.mkdir()
    (changes / "probe.conf").write_text(AS_PROBE)
    machine.run("systemctl", "daemon-reload", check=True)
    machine.run("systemctl", "start", SHIP, check=True)  # ExecStartPre is the unit's own: allow-servers
    said = machine.journal(SHIP)
    assert "127.0.0.1 may be reached\n10.9.9.8 may not be reached\n10.9.9.9 may be reached\n" in said
    shutil.rmtree(changes)


def test_uninstall_leaves_configuration_and_log_and_nothing_else(machine: Machine) -> None:
    machine.run(SCRIPT, "uninstall", seconds=200, check=True)
    assert machine.run("systemctl", "is-active", UNIT).text == "inactive\n"
    left = machine.run("find", "/etc", "/usr", "/lib", "/var", "/run", "/sys/fs/bpf", "-path", "*ebpf-monitor*").text
    kept = ("/etc/ebpf-monitor", "/run/systemd", "/var/log/journal", "/run/log")
    assert [line for line in left.splitlines() if not line.startswith(kept)] == []
    assert machine.run("find", "/etc/ebpf-monitor/config.json", "/var/monitoring/events/events.jsonl", check=True).text
