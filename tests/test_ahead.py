"""The compiled pass made ahead of time: the same bytes as numba's, without numba, and in no memory both written and executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from monitor import ahead

ROOT = Path(__file__).resolve().parent.parent
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: prctl(2), what MemoryDenyWriteExecute= is on Linux 6.3 and later
DENY = "import ctypes; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "
EQUAL = (
    "import sys, pytest; "
    "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/test_fastpath.py', '-k', 'write_equal_bytes']))"
)


def python(text: str, *words: str, root: Path = ROOT, **environment: str) -> str:
    """Runs Python lines in a process of its own; what they print."""
    done = subprocess.run(
        [sys.executable, "-c", text, *words], cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_make_setup_made_it_of_these_sources_and_numba_stays_out() -> None:
    shown = python(
        "import sys; from monitor import ahead, app; print(ahead.MODULE is not None, 'numba' in sys.modules)"
    )
    assert shown == "True False\n"


def test_numba_and_plain_python_can_be_asked_for() -> None:
    ask = "from monitor import ahead, fastpath; print(ahead.MODULE, ahead.PLAIN, type(fastpath.run).__name__)"
    assert python(ask, EBPF_MONITOR_JIT="1") == "None False CPUDispatcher\n"
    assert python(ask, NUMBA_DISABLE_JIT="1") == "None True function\n"


def test_the_digest_covers_all_that_it_is_made_of() -> None:
    """What monitor/fastpath.py imports of this program, but for the choice itself."""
    ask = (
        "import sys, monitor.fastpath; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('monitor.')))"
    )
    package = ROOT / "monitor"
    made_of = {str(path) for pattern in ahead.SOURCES for path in package.glob(pattern)}
    assert set(python(ask, EBPF_MONITOR_JIT="1").split()) == made_of | {str(package / "ahead.py")}


@pytest.mark.parametrize("name", ["fastpath.py", "events/files.py"])
def test_a_module_of_older_sources_is_not_found(tmp_path: Path, name: str) -> None:
    shutil.copytree(ROOT / "monitor", tmp_path / "monitor", ignore=shutil.ignore_patterns("__pycache__"))
    ask = "from monitor import ahead; print(ahead.__file__, ahead.MODULE is not None)"
    here = tmp_path / "monitor/ahead.py"
    assert python(ask, root=tmp_path) == f"{here} True\n"
    with (tmp_path / "monitor" / name).open("a") as source:
        source.write("# changed\n")
    assert python(ask, root=tmp_path) == f"{here} False\n"


def test_it_makes_no_memory_executable() -> None:
    """numba does: it cannot even be imported so, which is why a hardened service needs the module."""
    if subprocess.run([sys.executable, "-c", DENY], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert "1 passed" in python(DENY + EQUAL, EBPF_MONITOR_STREAMS="5")
    numba = subprocess.run([sys.executable, "-c", DENY + "import numba"], capture_output=True, text=True, check=False)
    assert "cannot allocate executable memory" in numba.stderr


@pytest.mark.slow
def test_numba_writes_the_same_bytes() -> None:
    """Where there is no module: a C compiler is missing, or a source was changed since."""
    assert "1 passed" in python(EQUAL, EBPF_MONITOR_JIT="1", EBPF_MONITOR_STREAMS="5")
