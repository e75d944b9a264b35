"""Pinned captures: finding, adopting, building and removing them below `pin_dir`.

Owns the directory on bpffs; never reads what the rings hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
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


_TRIED = {
    # r0 = bpf_get_current_task_btf(); r1 = r0; r0 = bpf_task_pt_regs(r1); r0 = 0; exit
    "task_pt_regs": "85000000 9e000000 bf010000 00000000 85000000 af000000 b7000000 00000000 95000000 00000000",
    # r0 = 0; may_goto +1; goto -2; exit
    "may_goto": "b7000000 00000000 e5000100 00000000 0500feff 00000000 95000000 00000000",
}
"""programs that load where the kernel has the feature"""
_TRIED_AS = bpf.PROG_TYPE_RAW_TRACEPOINT


def features(btf: Btf) -> dict[str, bool]:
    """What this kernel takes, found by trying: name to yes or no."""
    found = {
        "rdonly_cast": btf.func_id("bpf_rdonly_cast") is not None,
        "io_uring_tracepoints": uring.offsets(btf) is not None,
    }
    try:
        os.close(bpf.map_create(27, 0, 0, 4096, 0, "probe"))
        found["ringbuf"] = True
    except bpf.BpfError:
        found["ringbuf"] = False
    for name, code in _TRIED.items():
        try:
            os.close(bpf.prog_load(bytes.fromhex(code), name="probe", prog_type=_TRIED_AS, explain=False))
            found[name] = True
        except bpf.BpfError:
            found[name] = False
    return found


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
    loader.build(loader.obtain(made, cache), directory, btf)
    return Capture(directory, made), False
