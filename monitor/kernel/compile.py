"""What is compiled: the C text, its macros and sizes, and the children (compiler.py) that make instructions of it.

Owns how text becomes instructions and map attributes; never loads, attaches or pins (loader.py does).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.kernel import headers, probes, uring
from monitor.kernel.btf import Btf
from monitor.kernel.probes import TAILS
from monitor.model import EventType

SOURCES = (
    "generated/events.h",
    "common.h",
    "path.h",
    "quiet.h",
    "context.h",
    "process.c",
    "file.c",
    "exclude.c",
    "names.c",
    "map.c",
    "hooks.c",
    "privilege.c",
    "kernel.c",
    "socket.c",
    "uring.c",
)
HOOKS = {
    "sys_exit": "sys_exit",
    "sched_process_fork": "sched_process_fork",
    "sched_process_exec": "sched_process_exec",
    "sched_process_exit": "sched_process_exit",
    "signal_generate": "signal_generate",
}
NAME_HOOKS = {
    "file_delete": "path_unlink",
    "file_rename": "path_rename",
    "file_link": "path_link",
    "file_symlink": "path_symlink",
    "file_mkdir": "path_mkdir",
    "file_rmdir": "path_rmdir",
    "file_mode": "path_chmod",
    "file_owner": "path_chown",
    "file_truncate": "path_truncate",
    "file_mount": "sb_mount",
    "file_umount": "sb_umount",
}
"""event by name -> the kernel's hook that has its true name: security_<name>"""
OPTIONAL_HOOKS = {"module_load": "tp_btf/module_load"} | {
    name: f"fentry/security_{name}" for name in NAME_HOOKS.values()
}
"""programs for hooks that not every kernel has, and where they go; pins.features finds out which"""
ON_DEMAND = ("whoami", "found")
URING_MAPS = ("requests", "noted", "fixed_users", "staging", "pending", "by_data", *uring.JUMPS)
PRIVATE_MAPS = (
    "lineage",
    "arguments",
    "kept",
    "module_names",
    "hook_slots",
    "known",
    "sent",
    "verdicts",
    "exited",
    "scratch",
    "jump",
)
MAPS = ("calls", "config", "calm", "accounts", "rings", "sessions", "commit", "mirror", "control", "answer")
FILE_ENTRY, TASK_ENTRY, SESSION_ENTRY = 512, 768, 1280
SLACK = 20480
SCRATCH = 65536 + 17408
_PROGRAM = re.compile(r"^int (\w+)\(.*? \*ctx\) \{(?:[^\n]*|\n.*?^)\}\n", re.MULTILINE | re.DOTALL)
"""a whole program: on one line, or up to the next brace at the beginning of one"""
_FLAGS = (
    "-g0",  # nobody reads debugging information here, and making it takes a quarter of the time
    "-Wno-macro-redefined",
    "-Wno-unused-value",
    "-Wno-address-of-packed-member",
)
_FEWER_PASSES = ("-Xclang", "-disable-llvm-passes")
"""BCC runs LLVM's passes at -O3 itself, over whatever clang's own have left: 0.8 of the compiler's work. But a verifier without
may_goto walks each turn of a loop, and the loops that come out are longer: Linux 6.1 gives up on socket_io, of which it looks
at 207,000 instructions on 6.18 without may_goto, and at 157,000 with clang's passes."""


class CompileError(Exception):
    """The kernel side could not be built or loaded; the text says which program and why."""


def _tracepoints(kind: EventType) -> list[str]:
    """The tracepoints, one of which an event comes from; none for what comes from system calls alone."""
    return [hook for hook in kind.probe.split(", ") if hook.startswith("tp_btf/")]


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
    may_goto: bool = False
    commit: int = 8 << 20
    optional: tuple[str, ...] = ()
    """those of OPTIONAL_HOOKS that this kernel takes"""
    uring: bool = False
    """io_uring's tracepoints and members are there"""
    preempted: bool = False
    """the kernel runs programs on tracepoints with preemption on"""

    @property
    def hooks(self) -> dict[str, str]:
        """Name of each program that is attached, and where: "tp_btf/sys_exit"."""
        found = {name: f"tp_btf/{hook}" for name, hook in HOOKS.items()}
        return found | {name: OPTIONAL_HOOKS[name] for name in self.optional} | (uring.HOOKS if self.uring else {})

    @property
    def jumps(self) -> dict[str, tuple[str, ...]]:
        """Jump table -> the programs in it, which are all for one hook."""
        return {"jump": TAILS} | (uring.JUMPS if self.uring else {})

    @property
    def loaded_for(self) -> dict[str, str]:
        """Program that is reached by a tail call -> the hook it must be loaded for."""
        found = dict.fromkeys(TAILS, "tp_btf/sys_exit")
        return found | (uring.LOADED_FOR if self.uring else {})

    @property
    def undisturbed(self) -> list[str]:
        """Programs that must turn preemption off themselves: all on tracepoints, which share the account of their CPU."""
        places = self.loaded_for | self.hooks
        return [name for name, hook in places.items() if self.preempted and hook.startswith("tp_btf/")]

    @property
    def name_sources(self) -> dict[str, str]:
        """Where a call by name gets its name on this kernel: "hook", or "caller" for the caller's word."""
        return {event: "hook" if hook in self.optional else "caller" for event, hook in NAME_HOOKS.items()} | {
            "file_xattr": "caller"
        }

    def gives(self, kind: EventType) -> bool:
        """Can this kernel give this event: is one of the hooks that it comes from there?"""
        hooks = _tracepoints(kind)
        return not hooks or any(hook in self.hooks.values() for hook in hooks)

    def off(self, kind: EventType, profile: str) -> str:
        """Why this event is not recorded, in a few words; "" when it is."""
        if profile not in kind.profiles:
            return f"profile {profile}"
        return "" if self.gives(kind) else f"not in this kernel: {', '.join(_tracepoints(kind))}"

    @property
    def mirror_bytes(self) -> int:
        """Size of the reader's mirror of the kernel's direct-mapped tables."""
        return self.cpus * (self.sent * FILE_ENTRY + self.tasks * TASK_ENTRY) + self.sessions * SESSION_ENTRY

    @property
    def geometry(self) -> tuple[int, int, int, int, int]:
        """File and task entries per CPU, byte offsets of the task and the session entries in the mirror, ring mask."""
        tasks = self.cpus * self.sent * FILE_ENTRY
        return self.sent, self.tasks, tasks, tasks + self.cpus * self.tasks * TASK_ENTRY, self.ring - 1


def shape(
    cpus: int,
    ring_bytes: int,
    control_bytes: int,
    *,
    perf: bool,
    casts: bool,
    task_regs: bool,
    may_goto: bool = False,
    optional: tuple[str, ...] = (),
    uring: bool = False,
    preempted: bool = False,
) -> Shape:
    """Divides the totals over the CPUs, rounding down to powers of two."""

    def power(value: int, least: int) -> int:
        return max(least, 1 << (max(value, 1).bit_length() - 1))

    return Shape(
        cpus,
        power(ring_bytes // cpus, 65536),
        power(16384 // cpus, 512),
        power(8192 // cpus, 512),
        16384,
        power(control_bytes, 4096),
        perf,
        casts,
        task_regs,
        may_goto=may_goto,
        optional=optional,
        uring=uring,
        preempted=preempted,
    )


def source_directory() -> Path:
    """Where the C files are: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).resolve().parent.parent / "_bpf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "bpf"


def text(wanted: Collection[str] | None = None, undisturbed: Collection[str] = ()) -> str:
    """The C text without the programs that are not `wanted`; None: the whole text. Those of `undisturbed` turn preemption off
    for as long as they run."""
    directory = source_directory()
    whole = "\n".join((directory / name).read_text(encoding="utf-8") for name in SOURCES)
    if wanted is None:
        return whole
    made = _PROGRAM.sub(lambda found: found[0] if found[1] in wanted else "", whole)
    for name in undisturbed:
        made = made.replace(f"\nint {name}(u64 *ctx)", f"\nstatic inline int {name}_body(u64 *ctx)")
        made += f"int {name}(u64 *ctx) {{ preempt_off(); if (!nested()) {name}_body(ctx); preempt_on(); return 0; }}\n"
    return made


def defines(made: Shape, btf: Btf) -> dict[str, int]:
    """Every macro of the C text."""
    found = probes.offsets(btf)
    found |= {
        "NCPU": made.cpus,
        "RING": made.ring,
        "NSENT": made.sent,
        "NTASK": made.tasks,
        "NSESSION": made.sessions,
        "NVERDICT": 4096,
        "NLINEAGE": 16384,
        "NKEPT": 32768,
        "NSLOTS": 256 if set(made.optional) & set(NAME_HOOKS.values()) else 1,
        "NEXITED": 1 if found["HAVE_GROUP_DEAD"] else 4096,
        "MIRROR_PAGES": -(-made.mirror_bytes // 4096),
        "CONTROL_PERF": int(made.perf),
        "CONTROL_PAGES": made.control // 4096,
        "CASTS": int(made.casts),
        "MAY_GOTO": int(made.may_goto),
        "PREEMPTED": int(made.preempted),
        "HAVE_TASK_REGS": int(made.task_regs),
        "LEVELS": 48,
        "NAMES_MAX": 16384,
        "SWEEP": 256,
        "SCRATCH": SCRATCH,
        "PAGE_SIZE": 4096,
    }
    found |= {f"TAIL_{name.upper()}": index for index, name in enumerate(TAILS)}
    found["URING"] = int(made.uring)
    if made.uring:
        found |= uring.defines(btf)
    return found


def digest(made: Shape) -> str:
    """Names what is pinned: 16 hex digits over text, shape and the running kernel."""
    with open("/sys/kernel/notes", "rb") as notes:
        build = notes.read()
    parts = (text(), json.dumps(asdict(made), sort_keys=True), platform.release(), build.hex(), repr(made.jumps))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def value_sizes(made: Shape) -> dict[str, int]:
    """Bytes of a value of the maps whose values the C text does not describe: BCC puts an object with a key and a value of
    each map into the module that it compiles, and with these it took a third of a second to write zeros."""
    return {"rings": made.ring + SLACK, "commit": made.commit}


def compiled(made: Shape, btf: Btf) -> dict[str, Any]:
    """What BCC makes of the text, as plain data: maps by name with their attributes, programs as base64 of instructions. Where an
    instruction loads a map's address, its immediate is the map's index in "maps".

    Made by child processes (compiler.py), so that the compiler's memory is gone afterwards: two, where two CPUs may be used. What
    each does before it makes the first instruction takes 0.5 s of CPU, all instructions take 2 s. Raises CompileError with a
    child's message.
    """
    parts = min(2, len(os.sched_getaffinity(0)))
    programs = sorted({*made.loaded_for, *made.hooks, *ON_DEMAND})
    macros = (f"-D{name}={value}" for name, value in defines(made, btf).items())
    flags = [*macros, *_FLAGS, *(_FEWER_PASSES if made.may_goto else ())]
    maps = (*MAPS, *PRIVATE_MAPS, *(URING_MAPS if made.uring else ()))
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-") as tree:
        headers.write_tree(tree)
        jobs = []
        for part in range(parts):
            wanted = programs[part::parts]
            source = text(wanted, [name for name in made.undisturbed if name in wanted])
            job = {"tree": tree, "text": source, "flags": flags, "maps": maps, "programs": wanted}
            jobs.append(Path(tree, f"job-{part}.json"))
            jobs[-1].write_text(json.dumps(job), encoding="utf-8")
        halves = _in_children(jobs)
    sizes = value_sizes(made)
    for row in halves[0]["maps"]:
        row[3] = sizes.get(row[0], row[3])
    return {
        "maps": halves[0]["maps"],
        "programs": {name: code for half in halves for name, code in half["programs"].items()},
        "hooks": made.hooks,
        "loaded_for": made.loaded_for,
        "jumps": made.jumps,
    }


def _in_children(jobs: list[Path]) -> list[dict[str, Any]]:
    """What a child makes of each job, side by side."""
    command = [sys.executable, "-m", "monitor.kernel.compiler"]
    place = Path(__file__).resolve().parents[2]
    children = [
        subprocess.Popen([*command, str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)
        for job in jobs
    ]
    found = []
    try:
        for child in children:
            output, errors = child.communicate()
            if child.returncode:
                raise CompileError((errors.strip() or f"a compiling child ended with {child.returncode}")[-4000:])
            found.append(json.loads(output))
    finally:
        for child in children:
            child.kill()
            child.communicate()
    return found
