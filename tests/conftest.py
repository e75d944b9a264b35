"""What all tests share: the rule for tests that need root and a kernel with BPF, and waiting for a condition.

Owns no fixture of a single module but the one Elasticsearch server for all; never starts the monitor.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import compiled  # makes the directory that the processes which share the tests share, before they begin

if TYPE_CHECKING:
    from tests.elasticsearch.server import Server

__all__ = ["compiled"]
ROOT = Path(__file__).resolve().parent.parent
SWITCH = "EBPF_MONITOR_KERNEL_TESTS"
FOLDER_MARKS = {"kernel": ("root", "kernel"), "service": ("root", "service"), "bench": ("root", "bench")}
TOGETHER = {"bench/test_ship.py": "elasticsearch", "elasticsearch": "elasticsearch", "kernels": "kernels", "bench": "bench",
            "kernel/test_quiet.py": "clock", "kernel/test_profiles.py": "clock"}  # fmt: skip
"""Files and folders whose tests go to the same one of the processes that share the tests: they share a server or a kernel's
package, each would count what the others do, or what one does to the host's clock makes the other's files suspect."""
ROOT_TESTS = ("kernel", "kernels", "elasticsearch", "bench", "service")
"""Folders in which tests may need root: `make test` looks for them nowhere else."""
SLOW = ("bench", "elasticsearch", "kernels", "kernel/test_profiles.py", "kernel/test_quiet.py", "kernel/test_refusals.py", "kernel/test_lanes.py",
        "kernel/test_startup.py", "test_answers.py", "test_ahead.py")  # fmt: skip
"""Files and folders of few tests that take long: they come first, so that none of them runs last and alone."""

# A shell's background job ignores SIGINT, and so would every program that these tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the first example of a compiled function pays for its compilation. In CI the same examples each time.
hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("here"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@functools.cache
def missing_for_kernel_tests() -> str:
    """What this host lacks for the tests marked `root`, as a sentence; empty when they can run."""
    if os.geteuid() != 0:
        return "needs root"
    if importlib.util.find_spec("bcc") is None:
        return "needs BCC's Python module (python3-bpfcc, linked by make setup)"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs a kernel with BTF (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)"
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    held = int(effective.split()[1], 16)
    cap_sys_admin, cap_perfmon, cap_bpf = 1 << 21, 1 << 38, 1 << 39
    if not held & cap_sys_admin and held & (cap_perfmon | cap_bpf) != cap_perfmon | cap_bpf:
        return "needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    """Refuses an unknown value of the switch: a typing error must not turn tests off."""
    if os.environ.get(SWITCH, "") not in ("", "0", "1"):
        raise pytest.UsageError(f"{SWITCH} is {os.environ[SWITCH]!r}: allowed are 1 (must run), 0 (skip), or unset")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of tests/kernel and others by their folder, so that none can be forgotten."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests"):
            for mark in FOLDER_MARKS.get(item.path.relative_to(ROOT / "tests").parts[0], ()):
                item.add_marker(mark)
            if "kernel" in item.keywords and (turn := takes_turns(item.path)):
                item.add_marker(turn)
            if "root" in item.keywords and item.path.relative_to(ROOT / "tests").parts[0] not in ROOT_TESTS:
                raise pytest.UsageError(f"{item.nodeid} needs root: make test looks for such tests only in {ROOT_TESTS}")
    items.sort(key=lambda item: not item.nodeid.startswith(tuple(f"tests/{place}" for place in SLOW)))


@functools.cache
def takes_turns(path: Path) -> str:
    """The mark of a file that waits for its turn: `alone` or `paced` (tests/kernel/harness.py), "" for others."""
    text = path.read_text()
    return next((turn for turn in ("alone", "paced") if f"with {turn}():" in text), "")


@pytest.hookimpl(optionalhook=True)  # xdist is not everywhere: not in the kernels that are booted
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file, or of a folder in TOGETHER, go to one process. xdist's own groups (3.8) do not work with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0]
            below = path.partition("/")[2]
            return TOGETHER.get(below) or TOGETHER.get(below.split("/")[0]) or path

    config.option.loadscopereorder = False  # it would begin with what has many tests
    return Together(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """-n auto: two processes more than CPUs, since a test that starts a monitor also waits for it."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Applies the three states of the switch to the tests marked `root`."""
    if item.get_closest_marker("root") is None:
        return
    state = os.environ.get(SWITCH, "")
    if state == "0":
        pytest.skip(f"{SWITCH}=0")
    missing = missing_for_kernel_tests()
    if missing and state == "1":
        pytest.fail(f"{SWITCH}=1, but {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[Server]:
    """A running server, started once for all tests. A test that stops or kills it starts it again."""
    from tests.elasticsearch.server import Server  # only where it is asked for: its client is not everywhere

    server = Server.make()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory for a log, with the mode that the monitor gives it."""
    path = tmp_path / "events"
    path.mkdir(mode=0o750)
    return path


@pytest.fixture(scope="session")
def repository() -> Path:
    """The directory of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, seconds=10.0, what="")`: returns when condition() is true, fails at the deadline."""

    def wait(condition: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what or condition}")
            time.sleep(0.005)

    return wait
