"""What one test's monitor compiled, for the next one's: the compiler (3 s of CPU) runs once for each shape of the programs.

The monitor checks such a file as it does its own; tests of the cache itself (tests/kernel/test_startup.py) do not use this.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

_PLACE = "EBPF_MONITOR_TESTS_COMPILED"
"""the environment variable by which the processes that share the tests know the directory"""
if _PLACE not in os.environ:
    os.environ[_PLACE] = tempfile.mkdtemp(prefix="ebpf-monitor-compiled-")
    atexit.register(shutil.rmtree, os.environ[_PLACE], ignore_errors=True)
_KEPT = Path(os.environ[_PLACE])


def lend(output_dir: Path) -> None:
    """Puts what is kept into a monitor's cache before it starts."""
    cache = output_dir / "cache"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _KEPT.glob("*.bpf"):
        shutil.copy2(path, cache)


def keep(output_dir: Path) -> None:
    """Keeps what a monitor that has started compiled."""
    for path in (output_dir / "cache").glob("*.bpf"):
        kept = _KEPT / path.name
        with contextlib.suppress(FileNotFoundError):
            if not kept.exists():
                shutil.copy2(path, whole := kept.with_suffix(f".{os.getpid()}"))
                whole.rename(kept)  # another process may be lending it
