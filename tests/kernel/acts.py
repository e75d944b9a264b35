"""Known acts: scripts of raw system calls that a small static C program performs, and nothing else.

Owns the actor's C text, its script format and the compilation of C strings; never looks at what a monitor recorded.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

AT_FDCWD = -100
_BASE = 0x20000000  # below 4 GiB: pointers also fit the 32-bit entry point
_SIZE = 16 << 20
_OP = struct.Struct("<q6q8Bqqqqq")
_DATA_AT = 6 << 20
_WAIT, _JUMP, _SPAWN, _SET = -1, -2, -3, -6
_NUMBER, _RESULT = 0, 1
_NAMES = {95: "EOPNOTSUPP"}  # where two names share a number, the one in the kernel's sources
UNSENT = -9999
"""What `Call.ret` is before the call was made."""

ACTOR = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#define BASE 0x20000000ul
#define SIZE (16ul << 20)
/* steps that are no system call: acts.py has the same numbers */
struct op { long nr, arg[6]; unsigned char kind[8]; long compat, repeat, ret, before, after; };
static long raw(long n, long a, long b, long c, long d, long e, long f) {
  long r; register long r10 asm("r10") = d; register long r8 asm("r8") = e; register long r9 asm("r9") = f;
  asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return r;
}
static long compat(long n, long a, long b, long c, long d, long e) {
  int r;
  asm volatile("int $0x80" : "=a"(r) : "a"((int)n), "b"((int)a), "c"((int)b), "d"((int)c), "S"((int)d), "D"((int)e)
               : "r8", "r9", "r10", "r11", "memory");
  return r;
}
/* the call makes a process, which ends with `code` at once, by exit_group or by a signal, and touches nothing on the stack */
static long spawn(long n, long a, long b, long code, long last) {
  long r; register long r10 asm("r10") = 0; register long r8 asm("r8") = 0;
  asm volatile("syscall\n test %%rax, %%rax\n jnz 1f\n mov %[code], %%rdi\n mov %[last], %%rax\n syscall\n ud2\n1:"
               : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(0l), "r"(r10), "r"(r8), [code] "r"(code), [last] "r"(last)
               : "rcx", "r11", "memory");
  return r;
}
static long now(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec * 1000000000l + t.tv_nsec; }
static long results[65536];
int main(int argc, char **argv) {
  long pc = argc > 2 ? atol(argv[2]) : 0, quiet = argc > 3, i, j;
  if (mmap((void *)BASE, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, atoi(argv[1]), 0) != (void *)BASE) return 99;
  long count = *(long *)BASE; struct op *ops = (struct op *)(BASE + 64);
  for (i = pc; i < count; i++) {
    struct op *o = &ops[i]; long a[6], r = 0, t = now();
    for (j = 0; j < 6; j++) a[j] = o->kind[j] == 1 ? results[o->arg[j]] : o->arg[j];
    if (o->nr == -1) while (!*(volatile long *)a[0]) { struct timespec t = {0, 200000}; nanosleep(&t, 0); }
    else if (o->nr == -2) { if (a[0] == a[1]) i = a[2] - 1; continue; }
    else if (o->nr == -3) r = spawn(a[0], a[1], a[2], a[3], a[4]);
    else if (o->nr == -6) { *(volatile long *)a[0] = a[1]; continue; }
    else for (j = 0; j < o->repeat; j++)
      r = o->compat ? compat(o->nr, a[0], a[1], a[2], a[3], a[4]) : raw(o->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    results[i] = r;
    if (!r && (o->nr == 56 || o->nr == 57 || o->nr == 435)) quiet = 1;   /* a child's results are its own */
    if (!quiet) { o->before = t; o->after = now(); o->ret = r; }
  }
  raw(231, 0, 0, 0, 0, 0, 0);
}
"""

_NEWER = {"memfd_secret": 447, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466}
"""calls that the C library's headers may not have yet: one number in every table (asm-generic/unistd.h)"""
NOOP = "int main(void) { return 0; }"


@functools.cache
def _numbers(header: str) -> dict[str, int]:
    text = Path(f"/usr/include/x86_64-linux-gnu/asm/{header}").read_text()
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}


def number(name: str, *, compat: bool = False) -> int:
    """A system call's number by the C library's headers."""
    return _NEWER.get(name) or _numbers("unistd_32.h" if compat else "unistd_64.h")[name]


def compile_c(directory: Path, name: str, text: str, *flags: str) -> Path:
    """The static program made of a C text, compiled once."""
    program = directory / name
    if not program.exists():
        source = directory / f"{name}.c"
        source.write_text(text)
        subprocess.run(["gcc", "-O1", "-w", "-static", "-pthread", *flags, "-o", program, source], check=True)
    return program


@dataclass(frozen=True)
class Call:
    """One step of a script; its result once the script has run."""

    script: Script = field(repr=False)
    index: int
    name: str

    def _word(self, at: int) -> int:
        return int(_OP.unpack_from(self.script.memory, 64 + self.index * _OP.size)[at])

    @property
    def ret(self) -> int:
        """What the call returned: -errno for a failure."""
        return self._word(17)

    @property
    def before(self) -> int:
        """CLOCK_REALTIME in ns just before the call."""
        return self._word(18)

    @property
    def after(self) -> int:
        """CLOCK_REALTIME in ns just after it."""
        return self._word(19)

    @property
    def error(self) -> str | None:
        """The error's name, None for success."""
        return _NAMES.get(-self.ret) or errno.errorcode[-self.ret] if -4096 < self.ret < 0 else None


class Script:
    """Raw system calls to be made in this order by one process; memory that it shares with the test."""

    def __init__(self, actor: Path) -> None:
        self.actor = actor
        self.fd = os.memfd_create("script", 0)
        os.ftruncate(self.fd, _SIZE)
        self.memory = mmap.mmap(self.fd, _SIZE)
        self.calls: list[Call] = []
        self._next = _DATA_AT
        self._statuses: dict[int, int] = {}
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None

    # ---- memory ----
    def room(self, size: int) -> int:
        """The address of `size` zero bytes."""
        at = self._next
        self._next += (size + 15) & ~15
        assert self._next <= _SIZE
        return _BASE + at

    def data(self, content: bytes) -> int:
        """The address of these bytes."""
        address = self.room(len(content))
        self.memory[address - _BASE : address - _BASE + len(content)] = content
        return address

    def text(self, content: str | bytes | Path) -> int:
        """The address of a string with its NUL."""
        return self.data(os.fsencode(content) + b"\0")

    def words(self, *values: int) -> int:
        """The address of 64-bit words."""
        return self.data(struct.pack(f"<{len(values)}q", *values))

    def strings(self, content: Sequence[str | bytes | Path]) -> int:
        """The address of a NULL-terminated vector of strings, as execve takes it."""
        return self.words(*(self.text(one) for one in content), 0)

    def vector(self, *sizes: int) -> int:
        """The address of an iovec of buffers of these sizes."""
        return self.words(*(word for size in sizes for word in (self.room(size), size)))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the shared memory."""
        return self.memory[address - _BASE : address - _BASE + size]

    def message(self, size: int, name: int = 0, name_bytes: int = 0) -> int:
        """The address of a struct mmsghdr (its start is the msghdr) with one buffer."""
        return self.words(name, name_bytes, self.vector(size), 1, 0, 0, 0, 0)

    def address(self, family: int, where: str | bytes = "", port: int = 0) -> tuple[int, int]:
        """Address and length of a struct sockaddr."""
        if family == socket.AF_INET:
            raw = struct.pack("<H", family) + struct.pack(">H", port) + socket.inet_pton(family, str(where)) + bytes(8)
        elif family == socket.AF_INET6:
            raw = (
                struct.pack("<H", family)
                + struct.pack(">HI", port, 0)
                + socket.inet_pton(family, str(where))
                + bytes(4)
            )
        else:
            name = os.fsencode(where)
            raw = struct.pack("<H", family) + (name if name[:1] == b"\0" else name + b"\0")
        return self.data(raw), len(raw)

    # ---- steps ----
    def _add(self, nr: int, args: Sequence[int | Call], name: str, repeat: int = 1, compat: bool = False) -> Call:
        index = len(self.calls)
        values = [arg.index if isinstance(arg, Call) else arg for arg in args] + [0] * (6 - len(args))
        kinds = [_RESULT if isinstance(arg, Call) else _NUMBER for arg in args] + [0] * (8 - len(args))
        _OP.pack_into(self.memory, 64 + index * _OP.size, nr, *values, *kinds, int(compat), repeat, UNSENT, 0, 0)
        self.calls.append(Call(self, index, name))
        assert 64 + (index + 1) * _OP.size < _DATA_AT
        struct.pack_into("<q", self.memory, 0, len(self.calls))
        return self.calls[-1]

    def call(self, name: str, *args: int | Call, repeat: int = 1) -> Call:
        """A system call; an argument may be an earlier call's result. The last result of a repeated one counts."""
        return self._add(number(name), args, name, repeat)

    def call32(self, name: str, *args: int | Call) -> Call:
        """The same through the 32-bit entry point."""
        return self._add(number(name, compat=True), args, name, 1, True)

    def spawn(self, name: str, *args: int, code: int = 0) -> Call:
        """A process made by `name`, which ends at once with this exit code."""
        return self._add(_SPAWN, [number(name), *args, *[0] * (2 - len(args)), code, number("exit_group")], name)

    def wait(self, word: int) -> None:
        """Until the 64-bit word at this address is not 0 (the test sets it with `let`)."""
        self._add(_WAIT, [word], "wait")

    def tell(self, word: int) -> None:
        """Sets the word at this address to 1, which the test waits for with `told`."""
        self._add(_SET, [word, 1], "tell")

    def begin_child(self, name: str = "fork", *args: int) -> tuple[Call, int]:
        """Forks; what follows up to `end_child` is done by the child alone."""
        made = self.call(name, *args)
        child_at = len(self.calls) + 2
        self._add(_JUMP, [made, 0, child_at], "jump")
        parent_jump = self._add(_JUMP, [0, 0, 0], "jump").index
        return made, parent_jump

    def end_child(self, made: tuple[Call, int], code: int = 0) -> Call:
        """The child ends with `code`; the parent goes on with the next step. Returns the fork."""
        self.call("exit_group", code)
        _OP.pack_into(
            self.memory, 64 + made[1] * _OP.size, _JUMP, 0, 0, len(self.calls), 0, 0, 0, *[0] * 8, 0, 1, UNSENT, 0, 0
        )
        return made[0]

    def exec_again(self) -> Call:
        """The actor becomes a new program, the actor again, and goes on with the next step; earlier results are lost to it."""
        again = self.strings(["actor", str(self.fd), str(len(self.calls) + 1)])
        return self.call("execve", self.text(self.actor), again, self.words(0))

    def reap(self, made: Call) -> Call:
        """wait4 for a child; its status with `status`."""
        where = self.room(8)
        found = self.call("wait4", made, where, 0, 0)
        self._statuses[found.index] = where
        return found

    def status(self, reaped: Call) -> int:
        """The wait status that `reap` got."""
        return int(struct.unpack("<i", self.read(self._statuses[reaped.index], 4))[0])

    def stat(self, descriptor: int | Call) -> int:
        """fstat of a descriptor; `stated` reads it after the run."""
        where = self.room(144)
        self.call("fstat", descriptor, where)
        return where

    def stated(self, where: int) -> tuple[str, str, str]:
        """(inode, device as major:minor, permission bits in octal) as documents have them."""
        device, inode, _, mode = struct.unpack_from("<QQQI", self.read(where, 144))
        return str(inode), f"{os.major(device)}:{os.minor(device)}", f"{mode & 0o7777:04o}"

    # ---- the run ----
    def let(self, word: int) -> None:
        """Lets a script that waits for `word` go on."""
        struct.pack_into("<q", self.memory, word - _BASE, 1)

    def told(self, word: int) -> bool:
        """Did the script reach `tell(word)`?"""
        return bool(struct.unpack("<q", self.read(word, 8))[0])

    def start(self, cwd: Path | None = None, program: Path | None = None) -> int:
        """Starts the actor; its pid."""
        self.process = subprocess.Popen(
            [program or self.actor, str(self.fd)], pass_fds=[self.fd], cwd=cwd, stdin=subprocess.DEVNULL
        )
        self.pid = self.process.pid
        return self.pid

    def finish(self, expected: int = 0, seconds: float = 30) -> int:
        """Waits for the actor's end and checks its exit status; its pid."""
        assert self.process is not None
        got = self.process.wait(seconds)
        assert got == expected, f"actor ended with {got}" + (f" ({signal.Signals(-got).name})" if got < 0 else "")
        return self.pid

    def run(self, cwd: Path | None = None, program: Path | None = None) -> int:
        """`start` and `finish`; the actor's pid."""
        self.start(cwd, program)
        return self.finish()

    def close(self) -> None:
        """Ends an actor that still runs; frees the shared memory."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.memory.close()
        os.close(self.fd)
