"""What a start refuses: a kernel that the probes would misread, one that lacks what they need, hooks that are not what they seem."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, MonitorRun

SHIFTED = """
_offsets = probes.offsets
probes.offsets = lambda btf: {{name: at + ({by} if name == "{name}" else 0) for name, at in _offsets(btf).items()}}
"""


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    pins = BPFFS / f"ebpf-monitor-refusal-{os.getpid()}"
    made = MonitorRun(tmp_path / "monitor", pins, {"profile": "minimal"})
    yield made
    made.finish()


@pytest.mark.parametrize(
    ("name", "by", "said"),
    [
        ("OFF_cred__euid", 4, "cred.euid"),
        ("OFF_inode__i_ino", -8, "inode.i_ino"),
        ("OFF_dentry__d_name__name", 8, "file.f_path"),
        ("OFF_task_struct__start_boottime", 8, "task_struct.start_boottime"),
    ],
)
def test_a_wrong_offset_is_refused_by_the_self_test_which_names_the_field(
    monitor: MonitorRun, name: str, by: int, said: str
) -> None:
    monitor.runner = SHIFTED.format(name=name, by=by)
    monitor.lends = False  # nobody else may find what is compiled here
    assert monitor.launch().wait(60) == 1
    assert "the probes misread this kernel" in monitor.output
    assert said in monitor.output
    assert "Traceback" not in monitor.output
    assert monitor.captures() == []


def test_hooks_that_do_not_keep_their_promise_are_gone_without(monitor: MonitorRun) -> None:
    """The feature test says yes, the kernel then refuses: the monitor runs, by the caller's word."""
    monitor.runner = "from monitor.kernel import pins\npins.optional_hooks = lambda btf: ('path_unlink',)"
    monitor.start()
    assert monitor.stop() == 0
    (told,) = [one["ebpf"]["monitor"] for one in monitor.documents(b'"event":"monitor_start"')]
    source = dict(one.split(": ") for one in told["name_sources"])["file_delete"]
    assert (source == "caller") == ("going on without them" in monitor.output)
    assert ("fentry/security_path_unlink" in told["hooks"]) == (source == "hook")


def test_a_kernel_that_lacks_what_the_programs_need_is_refused_in_one_line(monitor: MonitorRun) -> None:
    """As Linux 5.10 is (docs/kernels.md): here one of the attempts is made to fail, by a helper that no kernel has."""
    monitor.runner = "from monitor.kernel import pins\npins._NEEDED['a helper'] = lambda: pins._load(pins._CURRENT_TASK.replace('9e000000', 'ffffff0f'))"
    assert monitor.launch().wait(60) == 1
    assert "lacks what the programs cannot do without: a helper: BPF_PROG_LOAD(probe): " in monitor.output
    assert "invalid func unknown#" in monitor.output
    assert "Traceback" not in monitor.output
    assert monitor.captures() == []
