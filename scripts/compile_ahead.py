"""Compiles the entries of monitor/fast*.py ahead of time: python scripts/compile_ahead.py DIRECTORY  writes _fastpath.*.so there.

The types are those that the pipeline itself passes: one is composed over empty rings, and its first call is looked at. Needs a
C compiler. The code is for every x86-64 processor of the last ten years (x86-64-v2), not for the one that builds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

TARGETS = {"x86_64": "x86-64-v2"}
os.environ["EBPF_MONITOR_JIT"] = "1"  # numba's functions, whatever lies there
# numba.pycc tries a C++ compiler too and never uses it: a machine with gcc alone must do.
os.environ["CXX"] = "cc -x c"


def looked(module: Any, name: str, answer: int, act: Any) -> list[Any]:
    """The arguments of the first call of `module`'s compiled function `name` in `act`."""
    seen: list[Any] = []

    def look(*arguments: Any) -> int:
        seen.extend(arguments)
        return answer

    compiled = getattr(module, name)
    setattr(module, name, look)
    act()
    setattr(module, name, compiled)
    return seen


def passed(notes: Any = None) -> list[Any]:
    """The arguments of the pipeline's first call of the compiled pass; `notes`: where it notes what repeats."""
    from monitor import fastpath, replay
    from monitor.clock import WallClock
    from monitor.encode import Origin
    from monitor.enrich import HostFacts, UserNames
    from monitor.kernel import compile
    from monitor.naming import Tasks
    from monitor.order import Order
    from monitor.pipeline import Pipeline

    made = compile.shape(1, 1 << 20, 4096, perf=False, casts=True, task_regs=True)
    order = Order(replay.ReplayCapture(made))
    host = HostFacts("0" * 32, "boot", "build", "0" * 32, "0" * 8)
    pipeline = Pipeline(order, Origin(host, "0" * 16), Tasks(host, UserNames()), WallClock())
    order.look()
    if notes is None:
        return looked(fastpath, "run", fastpath.FULL, pipeline.fill)
    pipeline.note(notes)
    return looked(fastpath, "run_noted", fastpath.FULL, pipeline.fill)


def entries() -> dict[str, tuple[Any, list[Any]]]:
    """The module's functions by name, each with arguments as it gets them."""
    from monitor import fastframe, fastpath
    from monitor.compressor import Sealer

    sealer = Sealer()
    sealed = looked(fastframe, "seal", 0, lambda: sealer.frame(memoryview(b"\n"), 0, 1))
    return {
        "run": (fastpath.run, passed()),
        "run_noted": (fastpath.run_noted, passed(sealer.notes)),
        "seal": (fastframe.seal, sealed),
    }


def main() -> int:
    """Composes, looks, compiles; modules made of older sources go."""
    directory = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as cache:  # numba's own does not notice a change of monitor/ahead.py
        os.environ["NUMBA_CACHE_DIR"] = cache
        compile_into(directory)
    return 0


def compile_into(directory: Path) -> None:
    """The module, in this directory."""
    warnings.simplefilter("ignore")  # numba.pycc: in maintenance, and the only one of its kind
    import platform

    from numba import int64, typeof
    from numba.pycc import CC

    from monitor import ahead

    compiler = CC("_fastpath")
    compiler.output_dir = str(directory)
    compiler.output_file = ahead.file_name()
    compiler.use_nrt = False  # as monitor/ahead.py has it for the functions that run calls
    compiler.target_cpu = TARGETS.get(platform.machine(), "generic")
    for name, (function, arguments) in entries().items():
        compiler.export(name, int64(*(typeof(argument) for argument in arguments)))(function.py_func)
    compiler.compile()
    for old in directory.glob("_fastpath.*"):
        if old.name != ahead.file_name():
            old.unlink()


if __name__ == "__main__":
    sys.exit(main())
