"""Where the compiled pass comes from: a module made ahead of time (scripts/compile_ahead.py), else numba at run time.

Owns that choice. With the module neither numba nor LLVM is in the process, and it needs no memory that can be written and
executed. A package has it; a checkout never does, so that it cannot be older than its source. NUMBA_DISABLE_JIT=1
takes neither: the same functions as plain Python.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _module() -> ModuleType | None:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return None
    try:
        return importlib.import_module("monitor._fastpath")
    except ModuleNotFoundError:
        return None


MODULE = _module()
"""The module, or None."""


PLAIN = True
"""The functions are plain Python."""
if MODULE is None:
    import numba

    PLAIN = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]


def njit(*, nogil: bool, cache: bool) -> Callable[[F], F]:
    """numba's, or one that leaves a function as it is."""
    if MODULE is not None:
        return lambda function: function
    # Without numba's own memory management: nothing here allocates, and the atomic counting of references to the arrays at
    # each call took more than half of the pass (780 -> 310 ns for a line).
    untyped: Any = numba.njit
    decorator: Callable[[F], F] = untyped(nogil=nogil, cache=cache, _nrt=False)
    return decorator


def pass_of(entry: Any) -> Any:
    """The entry of the compiled pass: `entry` as `njit` has made it, or the module's."""
    return entry if MODULE is None else MODULE.run
