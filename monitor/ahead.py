"""Where the compiled pass comes from: a module made ahead of time (scripts/compile_ahead.py), else numba at run time.

Owns that choice. With the module neither numba nor LLVM is in the process, and it needs no memory that can be written and
executed: 0.5 s less at each start and 100 MB less. Its file carries the digest of the sources that it was made of, so one that
is older than they are is never found. NUMBA_DISABLE_JIT=1 takes neither: the same functions as plain Python.
EBPF_MONITOR_JIT=1 takes numba although there is a module (tests).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import machinery, util
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

SOURCES = ("ahead.py", "fast*.py", "model.py", "events/*.py")
"""What the compiled pass is made of, below this directory: its functions, and the catalogue that their constants come from."""


def file_name() -> str:
    """The module's name on disk, beside this file, for the sources as they are."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for source in sorted(Path(__file__).parent.glob(pattern)):
            digest.update(source.read_bytes())
    return f"_fastpath.{digest.hexdigest()[:16]}{machinery.EXTENSION_SUFFIXES[0]}"


def _module() -> ModuleType | None:
    if any(os.environ.get(name, "0") != "0" for name in ("NUMBA_DISABLE_JIT", "EBPF_MONITOR_JIT")):
        return None
    path = Path(__file__).with_name(file_name())
    spec = util.spec_from_file_location("monitor._fastpath", path)
    if not path.exists() or spec is None or spec.loader is None:
        return None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = _module()
"""The module, or None."""


PLAIN = True
"""The functions are plain Python: a hundred times slower."""
if MODULE is None and util.find_spec("numba"):
    import numba

    PLAIN = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]
COMPILED = MODULE is not None or not PLAIN
"""The entries are compiled, by one of the two."""


def njit(*, nogil: bool, cache: bool) -> Callable[[F], F]:
    """numba's, or one that leaves a function as it is."""
    if PLAIN:
        return lambda function: function
    # Without numba's own memory management: nothing here allocates, and the atomic counting of references to the arrays at
    # each call took more than half of the pass (780 -> 310 ns for a line). All in one function: an array is seven words for each
    # call to push, and a record took some 300 of them (0.67 times the pass, same lines, interleaved).
    untyped: Any = numba.njit
    decorator: Callable[[F], F] = untyped(nogil=nogil, cache=cache, _nrt=False, forceinline=True)
    return decorator


def compiled(entry: Any, name: str = "") -> Any:
    """An entry of the compiled code: as `njit` has made it, or the module's of the same `name`."""
    return entry if MODULE is None else getattr(MODULE, name or entry.__name__)
