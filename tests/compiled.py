"""What one test's monitor compiled, for the next one's: the compiler (6 s of CPU) runs once for each shape of the programs.

The monitor checks such a file as it does its own; tests of the cache itself (tests/kernel/test_startup.py) do not use this.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from pathlib import Path

_KEPT = Path(tempfile.mkdtemp(prefix="ebpf-monitor-compiled-"))
atexit.register(shutil.rmtree, _KEPT, ignore_errors=True)


def lend(output_dir: Path) -> None:
    """Puts what is kept into a monitor's cache before it starts."""
    cache = output_dir / "cache"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _KEPT.iterdir():
        shutil.copy2(path, cache)


def keep(output_dir: Path) -> None:
    """Keeps what a monitor that has started compiled."""
    for path in (output_dir / "cache").glob("*.bpf"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(path, _KEPT)
