"""From compiled instructions to pinned maps, programs and links, and back to nothing.

Owns loading, attaching and the cache of what was compiled; never compiles and never reads the rings.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from monitor.kernel import bpf, compile
from monitor.kernel.btf import Btf
from monitor.kernel.compile import MAPS, ON_DEMAND, CompileError, Shape
from monitor.kernel.loops import with_jumps_back, with_may_goto

_LOAD_ADDRESS, _PSEUDO_MAP_FD = 0x18, 1
_CALL, _SET_R0, _CMPXCHG_R0 = 0x85, 0x7FFF0003, 0x7FFF0004
_KFUNCS = {
    0x7FFF0005: "bpf_task_from_vpid",
    0x7FFF0006: "bpf_task_release",
    0x7FFF0008: "bpf_iter_task_vma_new",
    0x7FFF0009: "bpf_iter_task_vma_next",
    0x7FFF000A: "bpf_iter_task_vma_destroy",
    0x7FFF000B: "bpf_preempt_disable",
    0x7FFF000C: "bpf_preempt_enable",
}
"""marked calls of kernel functions: made only where the kernel has them (HAVE_TASK_FROM_PID, HAVE_TASK_VMA, PREEMPTED)"""
_LOADS, _JUMPS = (0, 1, 4, 7), (5, 6)  # instruction classes that write a register; that leave the straight line
_MOVE_R1_TO_R0 = bytes((0xBF, 0x10, 0, 0, 0, 0, 0, 0))
_CMPXCHG = bytes((0xDB, 0x32, 0, 0, 0xF1, 0, 0, 0))  # BPF_ATOMIC | BPF_DW, BPF_CMPXCHG: r0 = cmpxchg(r2, r0, r3)


def pinned(made: Shape) -> tuple[str, ...]:
    """What `build` pins."""
    return (
        *(f"map_{name}" for name in (*MAPS, *made.jumps)),
        *(f"prog_{name}" for name in (*made.hooks, *ON_DEMAND)),
        *(tail_pin(table, name) for table, tails in made.jumps.items() for name in tails),
    )


def tail_pin(table: str, name: str) -> str:
    """Name of the pin of a program that is reached by a tail call through `table`: it is never attached. Pinned because
    only a pin brings its descriptor back to a successor: to ask by the program's number takes CAP_SYS_ADMIN."""
    return f"tail_{table}_{name}"


def obtain(made: Shape, btf: Btf, cache: Path | None) -> dict[str, Any]:
    """What BCC makes of the text for this shape and kernel: from the file `cache` if it is sound, else compiled and kept there.

    The cache's name must carry the digest of text, shape and kernel. Raises CompileError.
    """
    found = _read(cache) if cache else None
    if found is None:
        found = compile.compiled(made, btf)
        if cache:
            with contextlib.suppress(OSError):  # a full or read-only disk: the next start compiles again
                _keep(cache, found)
    return found


def _read(cache: Path) -> dict[str, Any] | None:
    """The cached object; None when there is none or it is not ours alone: then it is made anew."""
    try:
        descriptor = os.open(cache, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            return None
        try:
            found: dict[str, Any] = json.load(file)
        except ValueError:
            return None
    return found if {"maps", "programs", "hooks", "loaded_for", "jumps"} <= found.keys() else None


def _keep(cache: Path, found: dict[str, Any]) -> None:
    cache.parent.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    cache.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = cache.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(found, file)
    for old in cache.parent.glob(f"*{cache.suffix}"):
        old.unlink(missing_ok=True)
    fresh.replace(cache)


def _compare_and_swap(code: bytearray) -> None:
    """Patches the pair of marked calls of `swap_if` (bpf/common.h); r0 must be left alone between them."""
    waiting = False
    for at in range(0, len(code), 8):
        marked = int.from_bytes(code[at + 4 : at + 8], "little") if code[at] == _CALL else 0
        if marked == _SET_R0:
            code[at : at + 8], waiting = _MOVE_R1_TO_R0, True
        elif marked == _CMPXCHG_R0:
            if not waiting:
                raise CompileError("swap_if: the second mark stands without the first")
            code[at : at + 8], waiting = _CMPXCHG, False
        elif waiting and (code[at] & 7 in _JUMPS or (code[at] & 7 in _LOADS and code[at + 1] & 15 == 0)):
            raise CompileError("swap_if: the compiler put something between the marks that may change r0")


def _call_kernel(code: bytearray, btf: Btf) -> None:
    """Patches the marked calls of kernel functions: source register BPF_PSEUDO_KFUNC_CALL, the function's BTF number."""
    for at in range(0, len(code), 8):
        name = _KFUNCS.get(int.from_bytes(code[at + 4 : at + 8], "little")) if code[at] == _CALL else None
        if name is not None:
            code[at : at + 8] = bytes((_CALL, 0x20, 0, 0)) + (btf.func_id(name) or 0).to_bytes(4, "little")


def _linked(code: bytes, maps: list[int], btf: Btf) -> bytes:
    """The instructions with map descriptors for indices and the loader's marks patched."""
    patched = bytearray(bpf.patch(code, cast_func_id=btf.func_id("bpf_rdonly_cast")))
    _compare_and_swap(patched)
    _call_kernel(patched, btf)
    for at in range(0, len(patched), 8):
        if patched[at] == _LOAD_ADDRESS and patched[at + 1] >> 4 == _PSEUDO_MAP_FD:
            index = int.from_bytes(patched[at + 4 : at + 8], "little")
            patched[at + 4 : at + 8] = maps[index].to_bytes(4, "little")
    return with_jumps_back(with_may_goto(bytes(patched)))


def _target(btf: Btf, hook: str) -> int:
    kind, _, name = hook.partition("/")
    found = btf.typedef_id("btf_trace_" + name) if kind == "tp_btf" else btf.func_id(name)
    if not found:
        raise CompileError(f"this kernel has no {hook}")
    return found


_ATTACH = {"tp_btf": bpf.ATTACH_TRACE_RAW_TP, "fentry": bpf.ATTACH_TRACE_FENTRY, "iter": bpf.ATTACH_TRACE_ITER}


def _load(name: str, code: bytes, maps: list[int], btf: Btf, hook: str) -> int:
    linked = _linked(code, maps, btf)
    if name == "whoami":
        return bpf.prog_load(linked, name=name, prog_type=bpf.PROG_TYPE_RAW_TRACEPOINT)
    if name == "found":
        hook = "iter/bpf_iter_task"
    return bpf.prog_load(
        linked,
        name=name[:15],
        prog_type=bpf.PROG_TYPE_TRACING,
        expected_attach_type=_ATTACH[hook.partition("/")[0]],
        attach_btf_id=_target(btf, hook),
    )


_EMPTY = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))  # return 0


def takes(btf: Btf, hook: str) -> bool:
    """May a program be attached there? Tries with one that does nothing."""
    try:
        attach_to, kind = _target(btf, hook), _ATTACH[hook.partition("/")[0]]
        program = bpf.prog_load(
            _EMPTY,
            name="probe",
            prog_type=bpf.PROG_TYPE_TRACING,
            expected_attach_type=kind,
            attach_btf_id=attach_to,
            explain=False,
        )
    except (CompileError, bpf.BpfError):
        return False
    try:
        os.close(bpf.raw_tracepoint_open(program, None))
    except bpf.BpfError:
        return False
    finally:
        os.close(program)
    return True


def build(compiled: dict[str, Any], directory: Path, btf: Btf) -> None:
    """Makes the maps, loads the programs, pins them below `directory`. Programs are not attached yet: `attach` does that once
    the maps are filled. Programs are verified side by side. Raises CompileError, BpfError."""
    maps: list[int] = []
    programs, hooks = {}, compiled["hooks"]
    loaded_for, jumps = compiled["loaded_for"] | hooks, compiled["jumps"]
    try:
        for name, kind, key, value, entries, flags in compiled["maps"]:
            maps.append(bpf.map_create(kind, key, value, entries, flags, name))
        names = [entry[0] for entry in compiled["maps"]]
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            jobs = {
                name: pool.submit(_load, name, base64.b64decode(code), maps, btf, loaded_for.get(name, ""))
                for name, code in compiled["programs"].items()
            }
            programs = {name: job.result() for name, job in jobs.items()}
        for table, tails in jumps.items():
            for index, name in enumerate(tails):
                jump = maps[names.index(table)]
                bpf.map_update(jump, index.to_bytes(4, "little"), programs[name].to_bytes(4, "little"))
        directory.mkdir(mode=0o700, parents=True)
        for name in (*MAPS, *jumps):
            bpf.obj_pin(maps[names.index(name)], directory / f"map_{name}")
        for name in (*hooks, *ON_DEMAND):
            bpf.obj_pin(programs[name], directory / f"prog_{name}")
        for table, tails in jumps.items():
            for name in tails:
                bpf.obj_pin(programs[name], directory / tail_pin(table, name))
    except (bpf.BpfError, OSError):
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        for descriptor in (*maps, *programs.values()):
            os.close(descriptor)


def attach(directory: Path) -> tuple[str, ...]:
    """Attaches every pinned program that has no pinned link yet; the names that were attached."""
    done = []
    for pin in sorted(directory.glob("prog_*")):
        name = pin.name.removeprefix("prog_")
        link = directory / f"link_{name}"
        if name not in ON_DEMAND and not link.exists():
            program = bpf.obj_get(pin)
            descriptor = bpf.raw_tracepoint_open(program, None)
            bpf.obj_pin(descriptor, link)
            os.close(descriptor)
            os.close(program)
            done.append(name)
    return tuple(done)


def detach(directory: Path) -> None:
    """Takes the programs off their hooks; the maps stay."""
    for link in sorted(directory.glob("link_*")):
        link.unlink()


def remove(directory: Path) -> None:
    """Detaches and removes everything that is pinned below `directory`; nothing is left behind."""
    detach(directory)
    shutil.rmtree(directory)
