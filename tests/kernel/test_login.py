"""A real login: ssh, sudo, su, touch. The file that root has made names who came in, from where."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernel.monitor_process import ROOT, Document, MonitorProcess, name_of

TREE, SCRIPT = ROOT / ".venv" / "openssh", ROOT / "tests" / "kernel" / "ssh_login.sh"


@pytest.mark.skipif(not Path("/proc/self/ns/net").exists(), reason="this kernel has no network namespaces")
def test_who_came_in_by_ssh_is_named_after_sudo_and_su(monitor: MonitorProcess, public: Path) -> None:
    assert TREE.is_dir(), "scripts/setup.sh test unpacks it"
    scratch, target = public / "scratch", public / "made-by-root"
    scratch.mkdir()
    command = f"sudo su -c 'touch {target}'"
    subprocess.run(["unshare", "-m", "-n", SCRIPT, TREE, scratch, command], check=True, timeout=120)
    assert target.stat().st_uid == 0
    monitor.until(lambda: any(_makes(one, target) for one in _by_name(monitor, "touch")), "the file")
    documents = _by_name(monitor, "touch")
    opened = next(one for one in documents if _makes(one, target))
    assert opened["user"]["id"] == "0"
    started = next(
        one
        for one in documents
        if name_of(one) == "process_exec" and one["process"]["entity_id"] == opened["process"]["entity_id"]
    )
    entry = started["process"]["entry_leader"]
    assert started["user"]["id"] == "0"
    assert entry["user"]["id"] == "1777"
    assert entry["entry_meta"] == {"type": "sshd", "source": {"ip": "127.0.0.1"}}
    assert entry["entity_id"] in started["ebpf"]["ancestors"]
    assert started["process"]["interactive"] is True
    entered = next(one for one in monitor.journal.documents(entry["pid"]) if name_of(one) == "process_exec")
    assert entered["process"]["entity_id"] == entry["entity_id"]
    assert entered["process"]["command_line"].endswith(f"-c {command}")


def _makes(document: Document, target: Path) -> bool:
    return (
        name_of(document) == "file_open"
        and document["file"]["path"] == str(target)
        and document["event"]["action"] == "creation"
    )


def _by_name(monitor: MonitorProcess, name: str) -> list[Document]:
    every = [one for pid in monitor.journal.pids() for one in monitor.journal.documents(pid)]
    return [one for one in every if one.get("process", {}).get("name") == name]
