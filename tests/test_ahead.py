"""The compiled pass made ahead of time: the same bytes as numba's, without numba, and in no memory both written and executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITH_MODULE = "import sys, monitor; monitor.__path__.append(sys.argv.pop(1)); from monitor import ahead, fastpath; "
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: prctl(2), what MemoryDenyWriteExecute= is on Linux 6.3 and later
DENY = "import ctypes; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the module, compiled as the package has it."""
    directory = tmp_path_factory.mktemp("ahead")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/compile_ahead.py", directory],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory


def denies_execution() -> bool:
    """Whether this kernel can take from a process the right to make memory executable."""
    return subprocess.run([sys.executable, "-c", DENY], check=False, stderr=subprocess.DEVNULL).returncode == 0


def python(directory: Path, text: str, **environment: str) -> str:
    """Runs Python lines in a process that has the module; what they print."""
    done = subprocess.run(
        [sys.executable, "-c", WITH_MODULE + text, directory], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_module_takes_the_place_of_numba(module: Path) -> None:
    assert python(module, "print(ahead.MODULE is not None, 'numba' in sys.modules)") == "True False\n"
    plain = python(module, "print(ahead.MODULE, fastpath.run.__name__)", NUMBA_DISABLE_JIT="1")
    assert plain == "None run\n"


@pytest.mark.slow
def test_the_module_passes_every_test_of_the_compiled_pass_and_makes_no_memory_executable(module: Path) -> None:
    """numba does: it cannot even be imported so, which is why the package has the module."""
    tests = ["tests/test_fastpath.py", "tests/test_pipeline.py", "tests/test_goldens.py", "-k", "not jit_off"]
    text = f"import pytest; assert ahead.MODULE; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{tests}]))"
    if not denies_execution():
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert " passed" in python(module, DENY + text)
    numba = subprocess.run([sys.executable, "-c", DENY + "import numba"], capture_output=True, text=True, check=False)
    assert "cannot allocate executable memory" in numba.stderr
