"""Pinned captures: finding, adopting, building and removing them below `pin_dir`.

Owns the directory on bpffs; never reads what the rings hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from monitor.kernel import bpf, compile, loader, uring
from monitor.kernel.btf import Btf
from monitor.kernel.compile import Shape
from monitor.kernel.rings import Capture

_DIGEST = re.compile("[0-9a-f]{16}")
_BPF_FS_MAGIC = 0xCAFE4A11
_EPERM = 1


def ensure_bpffs(directory: Path) -> str | None:
    """Mounts bpffs on /sys/fs/bpf when `directory` is to lie there and nothing is mounted yet.

    Returns a sentence when it mounted. Raises OSError.
    """
    root = Path("/sys/fs/bpf")
    if root not in (directory, *directory.parents):
        return None
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        if any(line.split(" ")[1:3] == [str(root), "bpf"] for line in mounts):
            return None
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", bytes(root), b"bpf", 0x2 | 0x4 | 0x8, b"mode=700"):  # nosuid, nodev, noexec
        number = ctypes.get_errno()
        raise OSError(
            number, f"cannot mount bpffs on {root}: {os.strerror(number)}; do it by hand: mount -t bpf bpf {root}"
        )
    return f"mounted bpffs on {root}"


# r0 = bpf_get_current_task_btf(); r1 = r0; r0 = bpf_task_pt_regs(r1); r0 = 0; exit
_TASK_REGS = "85000000 9e000000 bf010000 00000000 85000000 af000000 b7000000 00000000 95000000 00000000"
# r0 = 0; may_goto +1; goto -2; exit
_MAY_GOTO = "b7000000 00000000 e5000100 00000000 0500feff 00000000 95000000 00000000"
# r0 = bpf_get_current_task_btf(); r0 = 0; exit
_CURRENT_TASK = "85000000 9e000000 b7000000 00000000 95000000 00000000"
# r0 = 0; r2 = r10; r2 += -8; *(u64 *)r2 = r0; r3 = 1; r0 = cmpxchg_64(r2 + 0, r0, r3); r0 = 0; exit
_CMPXCHG = (
    "b7000000 00000000 bfa20000 00000000 07020000 f8ffffff 7b020000 00000000 "
    "b7030000 01000000 db320000 f1000000 b7000000 00000000 95000000 00000000"
)
_LARGE = 8 << 20


def _load(code: str, *, explain: bool = True) -> None:
    program = bytes.fromhex(code)
    os.close(bpf.prog_load(program, name="probe", prog_type=bpf.PROG_TYPE_RAW_TRACEPOINT, explain=explain))


def _make(kind: int, key_size: int, value_size: int, entries: int, flags: int) -> None:
    os.close(bpf.map_create(kind, key_size, value_size, entries, flags, "probe"))


_NEEDED: dict[str, Callable[[], None]] = {
    # Linux kernel commits 3ca1032ab7ab (helper 158, v5.11), 5ffa25502b5a (BPF_CMPXCHG, v5.12)
    "bpf_get_current_task_btf (Linux 5.11)": partial(_load, _CURRENT_TASK),
    "the instruction BPF_CMPXCHG (Linux 5.12)": partial(_load, _CMPXCHG),
    "map values above 4 MiB (later than 5.10)": partial(_make, bpf.MAP_TYPE_ARRAY, 4, _LARGE, 1, bpf.MAP_FLAG_MMAPABLE),
}
_OPTIONAL: dict[str, Callable[[], None]] = {
    "ringbuf": partial(_make, bpf.MAP_TYPE_RINGBUF, 0, 0, 4096, 0),
    "task_pt_regs": partial(_load, _TASK_REGS, explain=False),
    "may_goto": partial(_load, _MAY_GOTO, explain=False),
}


def lacking() -> dict[str, str]:
    """What the programs cannot do without and this kernel does not take, found by trying: what it is to the kernel's answer."""
    found = {}
    for name, attempt in _NEEDED.items():
        try:
            attempt()
        except bpf.BpfError as error:
            found[name] = str(error)
    return found


def features(btf: Btf) -> dict[str, bool]:
    """What this kernel takes of what can be done without, found by trying: name to yes or no."""
    found = {
        "rdonly_cast": btf.func_id("bpf_rdonly_cast") is not None,
        "task_vma": btf.func_id("bpf_iter_task_vma_new") is not None,
        "task_from_vpid": btf.func_id("bpf_task_from_vpid") is not None,
        "io_uring_tracepoints": uring.offsets(btf) is not None,
    }
    for name, attempt in _OPTIONAL.items():
        try:
            attempt()
            found[name] = True
        except bpf.BpfError:
            found[name] = False
    return found


def preempted(btf: Btf) -> bool:
    """Does the kernel run programs on tracepoints with preemption on? Since Linux 7.0 (commit a46023d5616e, "tracing: Guard
    __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast") this type guards them."""
    return btf.typedef_id("class_srcu_fast_notrace_t") is not None


def optional_hooks(btf: Btf) -> tuple[str, ...]:
    """Those of compile.OPTIONAL_HOOKS that this kernel has and lets one attach to, found by trying with an empty program."""
    return tuple(name for name, hook in compile.OPTIONAL_HOOKS.items() if loader.takes(btf, hook))


def others(pin_dir: Path, keep: Path) -> list[Path]:
    """Captures of other layouts below `pin_dir`; what has not the name of one may be pinned by other programs."""
    if not pin_dir.is_dir():
        return []
    named = [entry for entry in sorted(pin_dir.iterdir()) if _DIGEST.fullmatch(entry.name)]
    return [entry for entry in named if entry.is_dir() and entry != keep]


def open_capture(pin_dir: Path, made: Shape, btf: Btf, cache_dir: Path | None = None) -> tuple[Capture, bool]:
    """The capture of this layout, adopted (True) if its links are still pinned, else built anew.

    One that has lost links keeps its rings and counters: what they hold is read, `attach` brings the links back.
    `cache_dir` keeps what was compiled. Raises CompileError, OSError.
    """
    directory = pin_dir / compile.digest(made)
    if directory.is_dir():
        attached = all((directory / f"link_{name}").exists() for name in made.hooks)
        if attached or all((directory / name).exists() for name in loader.pinned(made)):
            with contextlib.suppress(bpf.BpfError):  # something is missing or is not what it should be: built anew
                return Capture(directory, made), attached
        loader.remove(directory)
    pin_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache = cache_dir / f"{directory.name}.bpf" if cache_dir else None
    loader.build(loader.obtain(made, btf, cache), directory, btf)
    return Capture(directory, made), False
