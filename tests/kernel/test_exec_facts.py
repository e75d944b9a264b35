"""What an exec says beyond its executable: script and interpreter, memory files, deleted files, descriptors, rights, environment."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.kernel.acts import Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [
        {"profile": "full", "exec_environment": ["LD_PRELOAD", "LD_LIBRARY_PATH"]},
        {"profile": "full", "exec_environment": ["LD_PRELOAD"], "environment": {"EBPF_MONITOR_NO_CASTS": "1"}},
    ],
    indirect=True,
    ids=["casts", "helpers"],
)
AT_EMPTY_PATH = 0x1000


def started(monitor: MonitorProcess, script: Script) -> Document:
    """The last exec of the script's process."""
    pid = script.start()
    script.finish()
    return [one for one in monitor.lifetime(pid) if name_of(one) == "process_exec"][-1]


@pytest.fixture
def program(place: Path, programs: Path) -> Path:
    return Path(shutil.copy(programs / "noop", place / "program"))


def test_a_plain_exec_says_nothing_more(monitor: MonitorProcess, script: Script, program: Path) -> None:
    script.call("execve", script.text(program), script.strings(["p"]), script.words(0))
    assert "exec" not in started(monitor, script)["ebpf"]


def test_a_relative_name_and_a_link_are_told(
    monitor: MonitorProcess, script: Script, program: Path, place: Path
) -> None:
    (place / "link").symlink_to(program)
    script.call("chdir", script.text(place))
    script.call("execve", script.text("./link"), script.strings(["p"]), script.words(0))
    found = started(monitor, script)
    assert found["ebpf"]["exec"] == {"filename": "./link"}
    assert found["process"]["executable"] == str(program)


def test_a_script_and_its_interpreter(monitor: MonitorProcess, script: Script, program: Path, place: Path) -> None:
    (place / "run.sh").write_text(f"#!{program} -x\n")
    (place / "run.sh").chmod(0o755)
    script.call("execve", script.text(place / "run.sh"), script.strings(["name"]), script.words(0))
    found = started(monitor, script)
    assert found["ebpf"]["exec"] == {
        "filename": str(place / "run.sh"), "interpreter": str(program), "kind": ["script"]
    }  # fmt: skip
    assert found["process"]["executable"] == str(program)
    assert found["process"]["args"] == [str(program), "-x", str(place / "run.sh")]


@pytest.mark.parametrize("how", ["proc", "execveat"])
def test_a_memory_file_by_descriptor(monitor: MonitorProcess, script: Script, program: Path, how: str) -> None:
    content = program.read_bytes()
    made = script.call("memfd_create", script.text("payload"), 0)
    size = 1 << 20
    for at in range(0, len(content), size):
        part = content[at : at + size]
        script.call("write", made, script.data(part), len(part))
    if how == "proc":
        script.call("dup2", made, 77)
        script.call("execve", script.text("/proc/self/fd/77"), script.strings(["p"]), script.words(0))
    else:
        script.call("execveat", made, script.text(""), script.strings(["p"]), script.words(0), AT_EMPTY_PATH)
    found = started(monitor, script)
    assert found["ebpf"]["exec"]["kind"] == ["memfd", "descriptor"]
    given = found["ebpf"]["exec"]["filename"]
    assert given == "/proc/self/fd/77" if how == "proc" else given.startswith("/dev/fd/")
    assert found["process"]["executable"] == "memfd:payload"


def test_a_deleted_file(monitor: MonitorProcess, script: Script, program: Path) -> None:
    opened = script.call("open", script.text(program), os.O_RDONLY)
    script.call("unlink", script.text(program))
    script.call("execveat", opened, script.text(""), script.strings(["p"]), script.words(0), AT_EMPTY_PATH)
    found = started(monitor, script)
    assert found["ebpf"]["exec"]["kind"] == ["deleted", "descriptor"]
    assert found["ebpf"]["path_flags"] == ["deleted"]


@pytest.mark.parametrize("how", ["setuid", "setgid", "file_capabilities", "setuid of another"])
def test_an_exec_that_gives_rights(monitor: MonitorProcess, script: Script, program: Path, how: str) -> None:
    if how == "file_capabilities":
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    elif how == "setuid of another":
        os.chown(program, 1234, 0)
    program.chmod({"setuid": 0o4755, "setgid": 0o2755, "file_capabilities": 0o755}.get(how, 0o4755))
    if how == "file_capabilities":
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    script.call("setresgid", 1000, 1000, 1000)
    script.call("setresuid", 1000, 1000, 1000)
    script.call("execve", script.text(program), script.strings(["p"]), script.words(0))
    assert started(monitor, script)["ebpf"]["exec"]["kind"] == [how.split()[0]]


def test_configured_variables_and_no_others(monitor: MonitorProcess, script: Script, program: Path) -> None:
    given = [f"FILL{i}={i}" for i in range(40)]
    given[20:20] = ["LD_PRELOAD=/tmp/a.so", "LD_PRELOADED=no", "SECRET=token", "LD_LIBRARY_PATH=/tmp:/x", "x" * 3000]
    script.call("execve", script.text(program), script.strings(["p"]), script.strings(given))
    wanted = [name + "=" for name in monitor.keys["exec_environment"]]
    shown = started(monitor, script)["process"]["env_vars"]
    assert shown == [one for one in given if one.startswith(tuple(wanted))]


def test_a_long_value_forges_no_variable(monitor: MonitorProcess, script: Script, program: Path) -> None:
    forged = ["LONG=".ljust(1023, "x") + "LD_PRELOAD=/forged"]
    script.call("execve", script.text(program), script.strings(["p"]), script.strings(forged))
    assert "env_vars" not in started(monitor, script)["process"]
