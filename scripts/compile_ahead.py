"""Compiles monitor/fastpath.py ahead of time:  python scripts/compile_ahead.py DIRECTORY  writes _fastpath.*.so there.

The types are those that the pipeline itself passes: one is composed over empty rings and run once by numba. Needs a C
compiler. The code is for every x86-64 processor of the last ten years (x86-64-v2), not for the one that builds.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

TARGETS = {"x86_64": "x86-64-v2"}


def main() -> int:
    """Composes, runs once, compiles."""
    directory = Path(sys.argv[1]).resolve()
    warnings.simplefilter("ignore")  # numba.pycc: in maintenance, and the only one of its kind
    import platform

    from numba.pycc import CC

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
    pipeline.fill()
    (signature,) = fastpath.run.signatures
    compiler = CC("_fastpath")
    compiler.output_dir = str(directory)
    compiler.use_nrt = False  # as monitor/ahead.py has it for the functions that run calls
    compiler.target_cpu = TARGETS.get(platform.machine(), "generic")
    compiler.export("run", signature)(fastpath.run.py_func)
    compiler.compile()
    return 0


if __name__ == "__main__":
    sys.exit(main())
