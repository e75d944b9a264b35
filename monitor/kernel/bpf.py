"""Owns the bpf(2) system call: load, attach, pin, map access, and the two instruction marks BCC cannot express.

It never compiles, never keeps a descriptor and never chooses a path: every descriptor it returns belongs to the caller.
The layouts are those of union bpf_attr and struct bpf_*_info in the kernel's include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy
    import numpy.typing as npt

# enum bpf_prog_type, enum bpf_attach_type and enum bpf_map_type, as far as the monitor uses them
PROG_TYPE_RAW_TRACEPOINT: Final = 17
PROG_TYPE_TRACING: Final = 26
ATTACH_TRACE_RAW_TP: Final = 23
ATTACH_TRACE_FENTRY: Final = 24
ATTACH_TRACE_ITER: Final = 28  # with PROG_TYPE_TRACING: "tp_btf", a raw tracepoint with typed arguments
MAP_TYPE_HASH: Final = 1
MAP_TYPE_ARRAY: Final = 2
MAP_TYPE_PROG_ARRAY: Final = 3
MAP_TYPE_PERF_EVENT_ARRAY: Final = 4
MAP_TYPE_PERCPU_HASH: Final = 5
MAP_TYPE_PERCPU_ARRAY: Final = 6
MAP_TYPE_RINGBUF: Final = 27
MAP_FLAG_MMAPABLE: Final = 1 << 10
LINK_TYPE_RAW_TRACEPOINT: Final = 1
LINK_TYPE_TRACING: Final = 2

CAST_MARK: Final = 0x7FFF0001
LOW_MARK: Final = 0x7FFF0002

_LOG_BYTES: Final = (1 << 24) - 1  # the most that kernels before 5.2 take; a log that is longer gives ENOSPC
_LOG_TAIL: Final = 20
_LOAD_ATTEMPTS: Final = 5  # the verifier gives up with EAGAIN when a signal comes; libbpf tries as often
_NAME_BYTES: Final = 15  # BPF_OBJ_NAME_LEN without the NUL
_INSN_BYTES: Final = 8
_PER_CPU_TYPES: Final = frozenset((MAP_TYPE_PERCPU_HASH, MAP_TYPE_PERCPU_ARRAY, 10, 21))  # LRU hash, cgroup storage
_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}

_MAP_CREATE_ATTR: Final = struct.Struct("=IIIIIII16s")
_MAP_ELEMENT_ATTR: Final = struct.Struct("=IIQQQ")
_PROG_LOAD_ATTR: Final = struct.Struct("=IIQQIIQII16sIIIIQIIQII")
_OBJ_ATTR: Final = struct.Struct("=QII")
_INFO_ATTR: Final = struct.Struct("=IIQ")
_RAW_TRACEPOINT_ATTR: Final = struct.Struct("=QII")
_INSN: Final = struct.Struct("=BBhi")  # opcode, src << 4 | dst, offset, immediate; little endian hosts


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    LINK_CREATE = 28
    ENABLE_STATS = 32
    ITER_CREATE = 33


class BpfError(OSError):
    """A bpf(2) command, or the mmap of a map, that the kernel refused.

    `command` is its name ("BPF_PROG_LOAD"), `subject` what it was about, `log` the last lines of the verifier's log
    (empty unless a program was refused). The text is one line and ends with the verifier's reason if there is one.
    """

    def __init__(self, command: str, number: int, subject: str = "", log: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.command = command
        self.subject = subject
        self.log = log

    def __str__(self) -> str:
        subject = f"({self.subject})" if self.subject else ""
        # the very last line is the verifier's statistics
        reasons = [line for line in self.log.splitlines() if line.strip() and not line.startswith("processed ")]
        reason = f": {reasons[-1].strip()}" if reasons else ""
        return f"{self.command}{subject}: {self.strerror} (errno {self.errno}){reason}"


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info; sizes in bytes, `max_entries` of a ring buffer is its size in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """struct bpf_prog_info. None: this kernel does not tell.

    `run_time_ns` and `run_cnt` (5.1) move only while `enable_stats` holds; `recursion_misses` (5.12) are runs the
    kernel skipped because the program was already running on that CPU; `verified_insns` (5.16) is what the verifier
    walked, of at most 1,000,000.
    """

    type: int
    id: int
    name: str
    tag: str
    run_time_ns: int | None
    run_cnt: int | None
    recursion_misses: int | None
    verified_insns: int | None


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """struct bpf_link_info; `tracepoint` is the tracepoint's name, None for other kinds of link."""

    type: int
    id: int
    prog_id: int
    tracepoint: str | None


def _load_libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
    return libc


_libc: Final = _load_libc()


def _bpf(command: Command, attr: bytes, subject: str = "") -> int:
    return _bpf_in_place(command, ctypes.create_string_buffer(attr, len(attr)), subject)


def _bpf_in_place(command: Command, attr: ctypes.Array[ctypes.c_char], subject: str) -> int:
    """bpf(2) with an attr the kernel may write to. Descriptors it returns are O_CLOEXEC, the kernel makes them so."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise BpfError(f"BPF_{command.name}", errno.ENOSYS, subject)
    result: int = _libc.syscall(number, int(command), attr, len(attr))
    if result < 0:
        raise BpfError(f"BPF_{command.name}", ctypes.get_errno(), subject)
    return result


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


# -- programs ---------------------------------------------------------------------------------------------------------


def patch(insns: bytes, *, cast_func_id: int | None) -> bytes:
    """Turn the two marks that BCC's compiler can emit into the instructions it cannot.

    `call 0x7fff0001` becomes the kfunc call of bpf_rdonly_cast (source register BPF_PSEUDO_KFUNC_CALL, the immediate is
    `cast_func_id`, the BTF number of the function; the verifier makes a register move of it, so the cast is free).
    `rN += 0x7fff0002` becomes `wN = wN`: the low 32 bits of a typed pointer as a plain number, since the verifier
    forbids arithmetic on such pointers. Other instructions stay as they are.

    Raises ValueError if `insns` is not whole instructions, or has casts while `cast_func_id` is None (Linux < 6.2).
    """
    if len(insns) % _INSN_BYTES:
        raise ValueError(f"{len(insns)} bytes are not whole BPF instructions of {_INSN_BYTES}")
    call, add_immediate, move32, pseudo_kfunc_call = 0x85, 0x07, 0xBC, 2
    patched = bytearray(insns)
    for at in range(0, len(insns), _INSN_BYTES):
        opcode, registers, _offset, immediate = _INSN.unpack_from(insns, at)
        if opcode == call and immediate == CAST_MARK:
            if not cast_func_id:
                raise ValueError(f"instruction {at // _INSN_BYTES} is a cast, this kernel has no bpf_rdonly_cast")
            _INSN.pack_into(patched, at, call, pseudo_kfunc_call << 4, 0, cast_func_id)
        elif opcode == add_immediate and immediate == LOW_MARK:
            target = registers & 0x0F
            _INSN.pack_into(patched, at, move32, target << 4 | target, 0, 0)
    return bytes(patched)


def prog_load(
    insns: bytes,
    *,
    name: str,
    prog_type: int,
    expected_attach_type: int = 0,
    attach_btf_id: int = 0,
    license: str = "GPL",
    log: bool = False,
    explain: bool = True,
) -> int:
    """Load a program, return its descriptor.

    `attach_btf_id` is the typedef `btf_trace_<tracepoint>` for tp_btf. A refused program is loaded once more with a log
    buffer, and the BpfError carries the log's end; `log` asks for every state the verifier walked (level 2) there. Without
    `explain` the first refusal is all: for programs that only try what a kernel takes.
    """
    buffers = (ctypes.create_string_buffer(insns, len(insns)), ctypes.create_string_buffer(license.encode()))

    def load(log_level: int, log_buffer: ctypes.Array[ctypes.c_char] | None) -> int:
        attr = _PROG_LOAD_ATTR.pack(
            prog_type,
            len(insns) // _INSN_BYTES,
            *map(ctypes.addressof, buffers),
            log_level,
            len(log_buffer) if log_buffer else 0,
            ctypes.addressof(log_buffer) if log_buffer else 0,
            0,  # kern_version
            0,  # prog_flags
            name.encode("ascii")[:_NAME_BYTES],
            0,  # prog_ifindex
            expected_attach_type,
            *(0,) * 7,  # prog_btf_fd to line_info_cnt: no BTF of our own
            attach_btf_id,
        )
        attempts = _LOAD_ATTEMPTS
        while True:
            try:
                return _bpf(Command.PROG_LOAD, attr, name)
            except BpfError as error:
                attempts -= 1
                if error.errno != errno.EAGAIN or not attempts:
                    raise

    try:
        return load(0, None)
    except BpfError as first:
        if not explain:
            raise
        log_buffer = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return load(2 if log else 1, log_buffer)
        except BpfError as second:
            # ENOSPC: the program is bad and its log too long for the buffer; the first reason is the true one
            reason = first if second.errno == errno.ENOSPC else second
            lines = log_buffer.value.decode("ascii", "replace").splitlines()
            raise BpfError(reason.command, reason.errno or 0, name, "\n".join(lines[-_LOG_TAIL:])) from None


def raw_tracepoint_open(prog_fd: int, name: str | None) -> int:
    """Attach a program to the raw tracepoint `name`; None for tp_btf, which named its own at load. Returns the link:
    closing it detaches, unless it is pinned."""
    buffer = None if name is None else ctypes.create_string_buffer(name.encode("ascii"))
    attr = _RAW_TRACEPOINT_ATTR.pack(0 if buffer is None else ctypes.addressof(buffer), prog_fd, 0)
    return _bpf(Command.RAW_TRACEPOINT_OPEN, attr, name or "tp_btf")


def prog_test_run(fd: int, context: bytes) -> int:
    """Run a raw tracepoint program once on behalf of the caller with `context` as its arguments (u64s); its return value."""
    held = ctypes.create_string_buffer(context, len(context))
    attr = ctypes.create_string_buffer(
        struct.pack("<IIIIQQIIIIQQII", fd, 0, 0, 0, 0, 0, 0, 0, len(context), 0, ctypes.addressof(held), 0, 0, 0), 80
    )
    _bpf_in_place(Command.PROG_TEST_RUN, attr, "")
    return int.from_bytes(attr.raw[4:8], "little", signed=True)


def iterate(fd: int) -> int:
    """A descriptor from which the output of an iterator program is read, once, to its end."""
    link = _bpf(Command.LINK_CREATE, struct.pack("<IIIIQI", fd, 0, ATTACH_TRACE_ITER, 0, 0, 0))
    try:
        return _bpf(Command.ITER_CREATE, struct.pack("<II", link, 0))
    finally:
        os.close(link)


def enable_stats() -> int:
    """Have the kernel time every BPF program (Linux 5.8), until the returned descriptor is closed."""
    return _bpf(Command.ENABLE_STATS, struct.pack("=I", 0))  # BPF_STATS_RUN_TIME


# -- maps -------------------------------------------------------------------------------------------------------------


def map_create(map_type: int, key_size: int, value_size: int, max_entries: int, flags: int, name: str) -> int:
    """Make a map, return its descriptor. A ring buffer has sizes 0 and its bytes, pages to a power of 2, as entries."""
    label = name.encode("ascii")[:_NAME_BYTES]
    attr = _MAP_CREATE_ATTR.pack(map_type, key_size, value_size, max_entries, flags, 0, 0, label)
    return _bpf(Command.MAP_CREATE, attr, name)


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set one element. Raises ValueError if key or value do not have the map's sizes, see `map_lookup`."""
    _element(Command.MAP_UPDATE_ELEM, fd, key, ctypes.create_string_buffer(value, len(value)))


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes:
    """The value at `key`. A per-CPU map has one for each possible CPU, each rounded up to 8 bytes, and `value_size`
    means them all. Raises BpfError with ENOENT if there is no such key, ValueError if the sizes are not the map's:
    the kernel writes as much as the map says, whatever we allotted."""
    value = ctypes.create_string_buffer(value_size)
    _element(Command.MAP_LOOKUP_ELEM, fd, key, value)
    return value.raw


def map_delete(fd: int, key: bytes) -> None:
    """Remove one element. Raises BpfError with ENOENT if there is none, EINVAL for arrays, which keep theirs."""
    _element(Command.MAP_DELETE_ELEM, fd, key, None)


def _element(command: Command, fd: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
    info = map_info(fd)
    if len(key) != info.key_size:
        raise ValueError(f"map {info.name!r} has keys of {info.key_size} bytes, not {len(key)}")
    whole = info.value_size
    if info.type in _PER_CPU_TYPES:
        whole = (info.value_size + 7) // 8 * 8 * possible_cpus()
    if value is not None and len(value) != whole:
        raise ValueError(f"map {info.name!r} has values of {whole} bytes, not {len(value)}")
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_at = 0 if value is None else ctypes.addressof(value)
    _bpf(command, _MAP_ELEMENT_ATTR.pack(fd, 0, ctypes.addressof(key_buffer), value_at, 0), info.name)


def possible_cpus() -> int:
    """How many CPUs the kernel can ever have: the number of values in a per-CPU element."""
    last = Path("/sys/devices/system/cpu/possible").read_text("ascii").strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def online_cpus() -> set[int]:
    """The CPUs that run at the moment."""
    found: set[int] = set()
    for part in Path("/sys/devices/system/cpu/online").read_text("ascii").strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def map_array(fd: int, size: int, *, writable: bool = True) -> npt.NDArray[numpy.uint8]:
    """The first `size` bytes of an array map made with MAP_FLAG_MMAPABLE, shared with the kernel: no copy, no syscall.

    The mapping lives as long as the returned array or a view of it, also after `fd` is closed. Raises BpfError with
    command "mmap" if the map is smaller or cannot be mapped.
    """
    from numpy import frombuffer, uint8  # the compiling children do without

    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
    except OSError as error:
        raise BpfError("mmap", error.errno or 0, f"descriptor {fd}, {size} bytes") from None
    return frombuffer(mapping, dtype=uint8)


# -- pins and what the kernel tells ----------------------------------------------------------------------------------


def obj_pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Give a program, map or link a name in a mounted bpffs; it then outlives its process. Raises BpfError, with
    EEXIST if the name is taken and EPERM if `path` is not in a bpffs."""
    _object(Command.OBJ_PIN, path, fd)


def obj_get(path: str | os.PathLike[str]) -> int:
    """Descriptor of what is pinned at `path`. The kind is not checked here: *_info refuses another one."""
    return _object(Command.OBJ_GET, path, 0)


def _object(command: Command, path: str | os.PathLike[str], fd: int) -> int:
    buffer = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(command, _OBJ_ATTR.pack(ctypes.addressof(buffer), fd, 0), os.fspath(path))


def _info(fd: int, kind: str, size: int, preset: bytes = b"") -> tuple[bytes, int]:
    """(struct bpf_<kind>_info, bytes of it that this kernel knows). The layout depends on what `fd` is, so that is
    asked first: a pin of another program may be anything."""
    try:
        target = str(Path(f"/proc/self/fd/{fd}").readlink())
    except FileNotFoundError:
        raise BpfError("BPF_OBJ_GET_INFO_BY_FD", errno.EBADF, f"descriptor {fd}") from None
    if target.replace("-", "_").strip("[]") != f"anon_inode:bpf_{kind}":
        raise BpfError("BPF_OBJ_GET_INFO_BY_FD", errno.EINVAL, f"descriptor {fd} is {target}, not a BPF {kind}")
    buffer = ctypes.create_string_buffer(preset, size)
    attr = ctypes.create_string_buffer(_INFO_ATTR.pack(fd, size, ctypes.addressof(buffer)), _INFO_ATTR.size)
    _bpf_in_place(Command.OBJ_GET_INFO_BY_FD, attr, f"descriptor {fd}")
    return buffer.raw, _INFO_ATTR.unpack(attr.raw)[1]


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map. Raises BpfError with EINVAL if `fd` is not a map's."""
    raw, _known = _info(fd, "map", 40)
    kind, map_id, key_size, value_size, max_entries, flags = struct.unpack_from("=IIIIII", raw)
    return MapInfo(kind, map_id, key_size, value_size, max_entries, flags, _text(raw[24:40]))


def prog_info(fd: int) -> ProgInfo:
    """What the kernel says of a program. Raises BpfError with EINVAL if `fd` is not a program's."""
    raw, known = _info(fd, "prog", 220)

    def number(layout: str, offset: int) -> int | None:
        if known < offset + struct.calcsize(layout):
            return None
        value: int = struct.unpack_from(layout, raw, offset)[0]
        return value

    kind, prog_id, tag = struct.unpack_from("=II8s", raw)
    return ProgInfo(
        type=kind,
        id=prog_id,
        name=_text(raw[64:80]),
        tag=tag.hex(),
        run_time_ns=number("=Q", 192),
        run_cnt=number("=Q", 200),
        recursion_misses=number("=Q", 208),
        verified_insns=number("=I", 216),
    )


def link_info(fd: int) -> LinkInfo:
    """What the kernel says of a link. Raises BpfError with EINVAL if `fd` is not a link's."""
    name = ctypes.create_string_buffer(128)
    # in: where the tracepoint's name may be written; other kinds of link overwrite these bytes with their own
    raw, _known = _info(fd, "link", 32, struct.pack("=IIIIQII", 0, 0, 0, 0, ctypes.addressof(name), len(name), 0))
    kind, link_id, prog_id = struct.unpack_from("=III", raw)
    return LinkInfo(kind, link_id, prog_id, _text(name.value) if kind == LINK_TYPE_RAW_TRACEPOINT else None)
