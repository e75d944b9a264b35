"""The kernel side as a reader sees it: pinned maps opened and mapped, accounts, positions, the commit page.

Owns the memory that the programs and the reader share; never interprets a record.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.events import CONTROL
from monitor.kernel import bpf, compile
from monitor.kernel.compile import SCRATCH, SLACK, Shape
from monitor.kernel.control import ControlLane, PerfLane, RingBufLane

Words = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

# words of struct account (bpf/common.h)
HEAD, SEQ, BUSY, FOLDED, LEVEL, UNDEFINABLE, SUBMITTED_CONTROL = range(7)
TAIL = 8
REFUSED_RING, REFUSED_CONTROL = 16, 20
SELF, PROFILE, QUIET, DEFINED, UNSTABLE, SWITCHES = range(24, 30)
NESTED = 31
EXCLUDED, EXCLUSIONS = 32, 8
ACCOUNT_WORDS = 40
# words of struct calm (bpf/quiet.h); behind them the devices, 32 bits each
CHANGES, SEEN, SUSPECT_FROM, SUSPECT_TO, TAI_OFFSET, DEVICES = range(6)
KNOWN_FILE_SYSTEMS = 32
CALM_BYTES = 8 * DEVICES + 4 * KNOWN_FILE_SYSTEMS
CLASSES = ("process", "file", "socket")

CALLS = 2048
"""rows of `calls`: two tables of system calls, then the operations of io_uring"""
_JOURNAL_AT = 1 << 19
_STUCK_NS = 1_000_000_000
_SLOT_WORDS = 16640  # 1,036 CPUs
_CONFIG = struct.Struct("<4I4I4Qq8I8I16QII704sQQ")
_EXCLUSION = struct.Struct("<4Q6I32s")
_EXCLUSIONS_AT = _CONFIG.size - 16 - EXCLUSIONS * _EXCLUSION.size  # two words before: how many hold, and the turn


@dataclass(frozen=True)
class Exclusion:
    """An own rule as the programs take it (struct exclusion of bpf/common.h); `selects` and `events` are bits."""

    name: str
    selects: int
    events: int
    executable: tuple[int, int] = (0, 0)
    """(inode, kernel device number), as of `directory`"""
    directory: tuple[int, int] = (0, 0)
    magic: int = 0
    cgroup: int = 0
    device: int = 0
    uid: int = 0

    def pack(self) -> bytes:
        """struct exclusion."""
        words = (self.executable[0], self.directory[0], self.magic, self.cgroup)
        halves = (self.executable[1], self.directory[1], self.device, self.uid, self.selects, self.events)
        return _EXCLUSION.pack(*words, *halves, self.name.encode())


@dataclass(frozen=True)
class KernelConfig:
    """What the programs read at each call; written at start and when it changes."""

    fold: bool
    leave_out_quiet: bool
    quiet_age: int
    args_limit: int
    own: tuple[tuple[int, int], ...]
    """(process id, start time in CLOCK_BOOTTIME ns) of the monitor and its children, at most 4"""
    wall_offset: int
    sensitive: tuple[tuple[int, int], ...]
    """(inode, kernel device number), at most 8"""
    environment: tuple[str, ...] = ()
    """names of environment variables that an exec tells, at most 4, each of at most 15 bytes"""
    exclusions: tuple[Exclusion, ...] = ()
    """own rules, at most EXCLUSIONS"""

    def _variables(self) -> tuple[int, ...]:
        """16 bytes of "NAME=" and a mask of those that count, four words for each of four: unused ones repeat the first."""
        found: list[int] = []
        for name in (self.environment + self.environment[:1] * 4)[:4]:
            text = f"{name}=".encode()
            found += struct.unpack("<4Q", text.ljust(16, b"\0") + (b"\xff" * len(text)).ljust(16, b"\0"))
        return tuple(found) or (0,) * 16

    def pack(self, seed: int, turn: int = 0) -> bytes:
        """struct config of bpf/common.h."""
        own = [*self.own, *((0, 0),) * (4 - len(self.own))]
        kept = [*self.sensitive, *((0, 0),) * (8 - len(self.sensitive))]
        return _CONFIG.pack(
            self.fold,
            self.leave_out_quiet,
            self.quiet_age,
            self.args_limit,
            *(pid for pid, _ in own),
            *(at for _, at in own),
            self.wall_offset,
            *(ino & 0xFFFFFFFF for ino, _ in kept),
            *(dev for _, dev in kept),
            *self._variables(),
            len(self.exclusions),
            turn,
            b"".join(one.pack() for one in self.exclusions),
            seed,
            zlib.crc32(repr((kept, [one.directory for one in self.exclusions])).encode()) << 8,
        )


class CommitPage:
    """State of the reader that must survive it, in two slots of which one is valid: a switch is one store of 8 bytes.

    Word 0 is the number of the announced batch, its lowest bit says which slot is valid; word 1 the number of the last one
    that is done. The journal of the mirror's old contents stands behind the slots.
    """

    def __init__(self, memory: Bytes) -> None:
        words = memory.view(np.int64)
        self._words = words
        self.journal_bytes = memory[_JOURNAL_AT:]

    def _slot(self, turn: int) -> int:
        return 8 + (turn & 1) * _SLOT_WORDS

    def read(self) -> list[int]:
        """The valid slot's words."""
        start = self._slot(self.turn)
        return [int(x) for x in self._words[start : start + _SLOT_WORDS]]

    def read_before(self) -> list[int]:
        """The slot that was valid before."""
        start = self._slot(self.turn - 1)
        return [int(x) for x in self._words[start : start + _SLOT_WORDS]]

    @property
    def turn(self) -> int:
        """Number of the announced batch; 0: nothing was ever announced."""
        return int(self._words[0])

    @property
    def done(self) -> int:
        """Number of the last batch that was marked as done: the journal holds changes of the one after it."""
        return int(self._words[1])

    def mark_done(self) -> None:
        """The announced batch is in the log, or was given up; the journal is about the next one from here on."""
        self._words[1] = self._words[0]

    @property
    def used(self) -> bool:
        """True once something was announced."""
        return self.turn > 0

    def withdraw(self) -> None:
        """The announced batch did not come into the log: what was true before it is valid again, and stays so.

        A reader that is killed in here leaves either the announcement, which its follower judges, or the state before.
        """
        before = self.read_before()
        self._words[1] = self.turn + 1  # first: the copy is done with from the moment that it is valid
        self.write(before)

    def write(self, values: list[int]) -> None:
        """Announces `values`. Raises ValueError when they do not fit."""
        if len(values) > _SLOT_WORDS:
            raise ValueError(f"{len(values)} words do not fit into {_SLOT_WORDS}")
        start = self._slot(self.turn + 1)
        self._words[start : start + len(values)] = values
        self._words[0] = self.turn + 1


class Capture:
    """One set of pinned maps, opened. Everything a reader does with the kernel goes through here."""

    def __init__(self, directory: Path, made: Shape) -> None:
        self.directory, self.shape = directory, made
        self._descriptors = {name: bpf.obj_get(directory / f"map_{name}") for name in compile.MAPS}
        self.accounts: Words = (
            self._map("accounts", made.cpus * ACCOUNT_WORDS * 8).view(np.int64).reshape(made.cpus, ACCOUNT_WORDS)
        )
        stride = made.ring + SLACK
        self.rings: Bytes = self._map("rings", made.cpus * stride).reshape(made.cpus, stride)
        self.mirror: Bytes = self._map("mirror", -(-made.mirror_bytes // 4096) * 4096)
        self.sessions: Words = self._map("sessions", made.sessions * 80).view(np.int64).reshape(made.sessions, 10)
        self.commit = CommitPage(self._map("commit", made.commit))
        self._config = self._map("config", 4096)
        self.calm: Words = self._map("calm", 4096)[:CALM_BYTES].view(np.int64)
        self._calls = self._map("calls", 8 * CALLS).view(np.int64)
        self._answer = self._map("answer", -(-(SCRATCH + CONTROL.size) // 4096) * 4096)
        self._whoami = bpf.obj_get(directory / "prog_whoami")
        self._turn = int.from_bytes(os.urandom(4), "little")
        self._written: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
        self.lane = self._open_lane()

    def _map(self, name: str, size: int) -> Bytes:
        return bpf.map_array(self._descriptors[name], size)

    def _open_lane(self) -> ControlLane:
        if self.shape.perf:
            return PerfLane(self._descriptors["control"], bpf.online_cpus, max(1, self.shape.control // 4096))
        return RingBufLane(self._descriptors["control"])

    def configure(self, wanted: KernelConfig, calls: dict[int, int]) -> None:
        """Writes the programs' configuration and the table of traced calls. The seed of the path keys stays."""
        seed_at = _CONFIG.size - 16
        seed = (
            int.from_bytes(self._config[seed_at : seed_at + 8].tobytes(), "little")
            or int.from_bytes(os.urandom(8), "little") | 1
        )
        self._turn = self._turn + 1 & 0xFFFFFFFF
        self._written = {
            "config": (self._config[: _CONFIG.size], np.frombuffer(wanted.pack(seed, self._turn), np.uint8)),
            # mmapable arrays round each value up to 8 bytes
            "calls": (self._calls, np.array([calls.get(index, 0) for index in range(CALLS)], np.uint64).view(np.int64)),
        }
        self.restore()

    def restore(self) -> list[str]:
        """Writes what `configure` wrote where it is not there any more; the names of these maps."""
        changed = [name for name, (there, wanted) in self._written.items() if not np.array_equal(there, wanted)]
        for name in changed:
            there, wanted = self._written[name]
            if name == "config":  # no program may take half of a rule for one: none holds until all are written
                holding = slice(_EXCLUSIONS_AT - 8, _EXCLUSIONS_AT - 4)
                there[holding] = 0
                there[: holding.start], there[holding.stop :] = wanted[: holding.start], wanted[holding.stop :]
                there[holding] = wanted[holding]
            else:
                there[:] = wanted
        return changed

    def exclusion_names(self) -> list[str]:
        """Whose own rules the programs count at each place; "" where there is none."""
        words = self._config[_EXCLUSIONS_AT : _EXCLUSIONS_AT + EXCLUSIONS * _EXCLUSION.size].tobytes()
        return [fields[-1].rstrip(b"\0").decode("ascii", "replace") for fields in _EXCLUSION.iter_unpack(words)]

    def cut(self, now: int) -> int:
        """The time below which nothing more can come: no program in flight has an earlier time stamp.

        `now` is CLOCK_BOOTTIME ns read before the call. A program that is between its two stores is waited for.
        """
        cut = now - 20_000  # a store may sit in a CPU's store buffer for much less than this
        busy = self.accounts[:, BUSY].copy()  # one load for each CPU; the copy does not change under the tests below
        for cpu in np.flatnonzero(busy):
            since = int(busy[cpu])
            deadline = time.monotonic() + _STUCK_NS / 1e9
            while since == 1 and time.monotonic() < deadline:
                since = int(self.accounts[cpu, BUSY])
            if (
                since > 1 and now - since < _STUCK_NS
            ):  # else no program can still be at it: order is kept, nothing waits for ever
                cut = min(cut, since)
        return cut

    def fill(self) -> float:
        """How full the fullest ring is, 0..1."""
        used = self.accounts[:, HEAD] - self.accounts[:, TAIL]
        return max(float(used.max()) / self.shape.ring, self.lane.fill())

    def skipped(self) -> int:
        """Runs of programs that did not come about since the capture was made, because another thread had been preempted in
        one on that CPU. Of most kernels 0: they run programs with preemption off."""
        if not self.shape.preempted:
            return 0
        runs = int(self.accounts[:, NESTED].sum())
        for name, hook in self.shape.hooks.items():
            if hook.startswith("tp_btf/"):
                program = bpf.obj_get(self.directory / f"prog_{name}")
                runs += bpf.prog_info(program).recursion_misses or 0
                os.close(program)
        return runs

    def ask(self, descriptor: int) -> bytes:
        """What the probes' own functions read of this process and of an open file: a control record."""
        bpf.prog_test_run(self._whoami, struct.pack("<q", descriptor))
        return self._answer[: int.from_bytes(self._answer[:4].tobytes(), "little")].tobytes()

    def scan(self) -> list[bytes]:
        """A control record of each process that runs now, from the kernel's own objects."""
        program = bpf.obj_get(self.directory / "prog_found")
        try:
            with os.fdopen(bpf.iterate(program), "rb", buffering=0) as output:
                data = output.readall()
        finally:
            os.close(program)
        found, at = [], 0
        while at + 4 <= len(data):
            size = int.from_bytes(data[at : at + 4], "little")
            found.append(data[at : at + max(size, 4)])
            at += max(size, 4)
        return found

    def close(self) -> None:
        """Closes descriptors; what is pinned goes on."""
        self.lane.close()
        os.close(self._whoami)
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def memory(self) -> dict[str, Any]:
        """The arrays that the compiled pass works on."""
        return memory(self.shape, self.rings, self.mirror, self.commit.journal_bytes)


def memory(made: Shape, rings: Bytes, mirror: Bytes, journal: Bytes) -> dict[str, Any]:
    """Rings, mirror and journal as bytes and as words, and where the mirror's tables begin."""
    return {
        "R": rings.view(np.int64),
        "R8": rings,
        "M": mirror.view(np.int64),
        "M8": mirror,
        "J": journal.view(np.int64),
        "J8": journal,
        "where": np.array(made.geometry, np.int64),
    }
