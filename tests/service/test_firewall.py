"""The shipper's unit on a machine with cgroup version 2 alone, as Debian has it: which addresses the kernel lets it reach."""

from __future__ import annotations

from pathlib import Path

from tests.service.machine import Machine, tree

UNIT = "ebpf-monitor-ship.service"
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
ExecStartPre=
ExecStart=
ExecStart=/usr/bin/python3 /etc/probe.py
User=
Group=
ReadWritePaths=
"""


def test_the_unit_reaches_the_allowed_servers_and_nothing_else() -> None:
    machine = Machine(tree(), "em-firewall", unified=True)
    try:
        machine.boot()
        units = Path(machine.root, "etc/systemd/system")
        (units / UNIT).write_bytes((Path(__file__).resolve().parents[2] / "systemd" / UNIT).read_bytes())
        (units / f"{UNIT}.d").mkdir()
        (units / f"{UNIT}.d/probe.conf").write_text(AS_PROBE)
        Path(machine.root, "etc/probe.py").write_text(PROBE)
        for words in (
            ("systemctl", "daemon-reload"),
            # what systemd/allow-servers does with the configured server
            ("systemctl", "set-property", "--runtime", UNIT, "IPAddressAllow=127.0.0.0/8 ::1/128 10.9.9.9"),
            ("systemctl", "start", UNIT),
        ):
            machine.run(*words, check=True)
        said = machine.journal(UNIT)
        assert "127.0.0.1 may be reached\n10.9.9.8 may not be reached\n10.9.9.9 may be reached\n" in said
    finally:
        machine.close()
