"""Compiles the C text with BCC, loads and attaches the programs and pins all of it; runs as a short-lived child.

Owns how text becomes pinned programs. The compiler's 126 MB leave with the child; whoever reads the rings only opens pins.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.kernel import bpf, headers, import_bcc, probes
from monitor.kernel.btf import Btf

PROG_TYPE_TRACING, PROG_TYPE_RAW_TRACEPOINT, BPF_TRACE_RAW_TP, BPF_TRACE_ITER = 26, 17, 23, 28
SOURCES = ("generated/events.h", "common.h", "path.h", "process.c", "file.c", "socket.c")
HOOKS = {"sys_exit": "sys_exit", "sched_process_fork": "sched_process_fork", "sched_process_exec": "sched_process_exec",
         "sched_process_exit": "sched_process_exit"}
TAILS = ("sys_exit", "define_task", "define_file", "define_socket", "judge", "open_failed", "socket_io", "names",
         "socket_control", "process_failed", "sweep_range")
MAPS = ("calls", "config", "accounts", "rings", "sent", "known", "sessions", "commit", "mirror", "control", "answer")
FILE_ENTRY, TASK_ENTRY, SESSION_ENTRY = 512, 768, 1280
SLACK = 20480
SCRATCH = 65536 + 17408


class CompileError(Exception):
    """The kernel side could not be built or loaded; the text says which program and why."""


@dataclass(frozen=True)
class Shape:
    """Sizes that are compiled in. Bytes and entries are per CPU where the field says so; all are powers of two."""

    cpus: int
    ring: int
    """bytes of ring per CPU"""
    sent: int
    """path keys remembered per CPU"""
    tasks: int
    """tasks remembered per CPU"""
    sessions: int
    control: int
    """bytes of the control ring; of each CPU's perf buffer"""
    perf: bool
    casts: bool
    task_regs: bool
    commit: int = 8 << 20

    @property
    def mirror_bytes(self) -> int:
        """Size of the reader's mirror of the kernel's direct-mapped tables."""
        return self.cpus * (self.sent * FILE_ENTRY + self.tasks * TASK_ENTRY) + self.sessions * SESSION_ENTRY

    @property
    def geometry(self) -> tuple[int, int, int, int, int]:
        """File and task entries per CPU, byte offsets of the task and the session entries in the mirror, ring mask."""
        tasks = self.cpus * self.sent * FILE_ENTRY
        return self.sent, self.tasks, tasks, tasks + self.cpus * self.tasks * TASK_ENTRY, self.ring - 1


def shape(cpus: int, ring_bytes: int, control_bytes: int, *, perf: bool, casts: bool, task_regs: bool) -> Shape:
    """Divides the totals over the CPUs, rounding down to powers of two."""

    def power(value: int, least: int) -> int:
        return max(least, 1 << (max(value, 1).bit_length() - 1))

    return Shape(cpus, power(ring_bytes // cpus, 65536), power(16384 // cpus, 512), power(8192 // cpus, 512), 16384,
                 power(control_bytes, 4096), perf, casts, task_regs)


def source_directory() -> Path:
    """Where the C files are: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).resolve().parent.parent / "_bpf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "bpf"


def text() -> str:
    """The whole C text."""
    directory = source_directory()
    return "\n".join((directory / name).read_text(encoding="utf-8") for name in SOURCES)


def defines(made: Shape, btf: Btf) -> dict[str, int]:
    """Every macro of the C text."""
    found = probes.offsets(btf)
    found |= {"NCPU": made.cpus, "RING": made.ring, "SLACK": SLACK, "NSENT": made.sent, "NTASK": made.tasks,
              "NSESSION": made.sessions, "NVERDICT": 4096, "COMMIT": made.commit, "MIRROR_PAGES": -(-made.mirror_bytes // 4096),
              "CONTROL_PERF": int(made.perf), "CONTROL_PAGES": made.control // 4096, "CASTS": int(made.casts),
              "HAVE_TASK_REGS": int(made.task_regs), "LEVELS": 48, "NAMES_MAX": 16384, "SWEEP": 256, "SCRATCH": SCRATCH,
              "PAGE_SIZE": 4096}
    return found


def digest(made: Shape) -> str:
    """Names what is pinned: 16 hex digits over text, shape and the running kernel."""
    with open("/sys/kernel/notes", "rb") as notes:
        build = notes.read()
    parts = (text(), json.dumps(asdict(made), sort_keys=True), platform.release(), build.hex(), repr(TAILS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def compile_text(made: Shape, btf: Btf) -> Any:
    """The BCC object with maps made and functions compiled. Raises CompileError."""
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-") as tree:
        headers.write_tree(tree)
        os.environ["BCC_KERNEL_SOURCE"] = tree
        bcc = import_bcc()
        flags = [f"-D{name}={value}" for name, value in defines(made, btf).items()]
        try:
            return bcc.BPF(text=text(), cflags=[*flags, "-Wno-macro-redefined", "-Wno-unused-value", "-Wno-address-of-packed-member"])
        except Exception as error:  # BCC raises bare Exception
            raise CompileError(f"BCC could not compile the programs: {error}") from error


def load(module: Any, name: str, hook: str, btf: Btf) -> int:
    """Loads one function as a tp_btf program for `hook`; its descriptor."""
    target = btf.typedef_id("btf_trace_" + hook)
    if not target:
        raise CompileError(f"this kernel has no tracepoint {hook}")
    code = bpf.patch(module.dump_func(name.encode()), cast_func_id=btf.func_id("bpf_rdonly_cast") or 0)
    return bpf.prog_load(code, name=name[:15], prog_type=PROG_TYPE_TRACING, expected_attach_type=BPF_TRACE_RAW_TP, attach_btf_id=target)


def build(made: Shape, directory: Path) -> None:
    """Compiles, loads, pins below `directory`. Programs are not attached yet: `attach` does that once the maps are filled."""
    btf = Btf()
    module = compile_text(made, btf)
    tails = {name: load(module, name, "sys_exit", btf) for name in TAILS}
    jump = module["jump"].map_fd
    for index, name in enumerate(TAILS):
        bpf.map_update(jump, index.to_bytes(4, "little"), tails[name].to_bytes(4, "little"))
    programs = {"sys_exit": tails["sys_exit"]}
    programs |= {name: load(module, name, hook, btf) for name, hook in HOOKS.items() if name != "sys_exit"}
    whoami = bpf.prog_load(bpf.patch(module.dump_func(b"whoami"), cast_func_id=btf.func_id("bpf_rdonly_cast")), name="whoami",
                           prog_type=PROG_TYPE_RAW_TRACEPOINT)
    target = btf.func_id("bpf_iter_task")
    if not target:
        raise CompileError("this kernel has no task iterator (bpf_iter_task)")
    scan = bpf.prog_load(bpf.patch(module.dump_func(b"found"), cast_func_id=btf.func_id("bpf_rdonly_cast")), name="found",
                         prog_type=PROG_TYPE_TRACING, expected_attach_type=BPF_TRACE_ITER, attach_btf_id=target)
    directory.mkdir(mode=0o700, parents=True)
    bpf.obj_pin(scan, directory / "prog_found")
    bpf.obj_pin(whoami, directory / "prog_whoami")
    for name in (*MAPS, "jump"):
        bpf.obj_pin(module[name].map_fd, directory / f"map_{name}")
    for name, descriptor in programs.items():
        bpf.obj_pin(descriptor, directory / f"prog_{name}")


def attach(directory: Path) -> tuple[str, ...]:
    """Attaches every pinned program that has no pinned link yet; the names that were attached."""
    done = []
    for name in HOOKS:
        link = directory / f"link_{name}"
        if not link.exists():
            program = bpf.obj_get(directory / f"prog_{name}")
            descriptor = bpf.raw_tracepoint_open(program, None)
            bpf.obj_pin(descriptor, link)
            os.close(descriptor)
            os.close(program)
            done.append(name)
    return tuple(done)


def remove(directory: Path) -> None:
    """Detaches and removes everything that is pinned below `directory`; nothing is left behind."""
    for link in sorted(directory.glob("link_*")):
        link.unlink()
    shutil.rmtree(directory)


def build_in_child(made: Shape, directory: Path) -> None:
    """`build` in a child process, so that the compiler's memory is gone afterwards. Raises CompileError with its message."""
    order = json.dumps({"shape": asdict(made), "directory": str(directory)})
    child = subprocess.run([sys.executable, "-m", "monitor.kernel.compile"], input=order, capture_output=True, text=True,
                           cwd=Path(__file__).resolve().parents[2], check=False)
    if child.returncode:
        shutil.rmtree(directory, ignore_errors=True)
        raise CompileError((child.stderr.strip() or f"the compiling child ended with {child.returncode}")[-4000:])


def main() -> int:
    """The child: reads an order from standard input."""
    order = json.load(sys.stdin)
    try:
        build(Shape(**order["shape"]), Path(order["directory"]))
    except (CompileError, probes.ProbeError, bpf.BpfError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
