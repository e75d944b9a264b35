"""A capture without a kernel: plain memory in the shape of the pinned maps, and a writer that fills it as the probes do.

Owns the bytes that tests of the stages read; never loads a program and never opens a file. A test composes
`Bench()`, lets `bench.kernel` write records, takes `bench.lines()`.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from monitor import events, fastpath, templates
from monitor.clock import WallClock
from monitor.encode import Origin
from monitor.enrich import HostFacts, UserNames
from monitor.kernel import rings
from monitor.kernel.compile import SLACK, Shape
from monitor.kernel.rings import ACCOUNT_WORDS, Capture, CommitPage
from monitor.ledger import CpuState, Ledger
from monitor.model import Layout
from monitor.naming import Tasks
from monitor.order import Order
from monitor.pipeline import Counts, Pipeline

templates.build = functools.cache(templates.build)  # 45 ms for each of some thousand benches, of which most are of one origin
HOST = HostFacts(
    "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "machine-id", "web1", "5b6f2c8e-1d3a-4c57-9e80-112233445566", "a1b2c3d4"
)
EPOCH = "00112233aabbccdd"
ORIGIN = Origin(HOST, EPOCH)
LABELLED = Origin(HOST, EPOCH, ("dmz", '"7000000000000000001'), (("site", "\ue0000\ue001é,\\"), ("role", "web")))
"""Of a host whose configuration has tags and labels, with what stands for something in a template."""
BOOT_NS = 81_234_567_890_123
"""Kernel time of the first record of a test, CLOCK_BOOTTIME ns."""
WALL_NS = 1_795_366_321_123_456_789
"""The wall time at BOOT_NS: 2026-11-22T16:52:01.123456789Z."""
NOBODY = 0xFFFFFFFF
NO_SLOT = 0xFFFFFFFF
SHAPE = Shape(
    cpus=2,
    ring=65536,
    sent=512,
    tasks=512,
    sessions=256,
    control=1 << 20,
    perf=False,
    casts=True,
    task_regs=True,
    commit=4 << 20,
)


def clock() -> WallClock:
    """A wall clock that stands still: BOOT_NS is WALL_NS."""
    return WallClock(lambda: WALL_NS, lambda: BOOT_NS)


class Users(UserNames):
    """Names of three users and groups, without a passwd file."""

    names: Mapping[int, str] = {0: "root", 33: "www-data", 1000: "eve"}

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent/passwd"), Path("/nonexistent/group"))

    def user(self, uid: int) -> str | None:
        """See UserNames."""
        return self.names.get(uid)

    def group(self, gid: int) -> str | None:
        """See UserNames."""
        return self.names.get(gid)


def tasks() -> Tasks:
    """Naming of processes on HOST with the names of Users."""
    return Tasks(HOST, Users())


# ---- records as the probes write them --------------------------------------------------------------------------------


def pack(layout: Layout, values: Mapping[str, Any]) -> bytes:
    """The bytes of a layout; members that `values` does not name are 0. KeyError for a name that it does not have."""
    unknown = set(values) - {member.name for member in layout.fields}
    if unknown:
        raise KeyError(f"{layout.name} has no {sorted(unknown)}")
    packed = [values.get(member.name, b"" if "[" in member.ctype else 0) for member in layout.fields]
    return layout.struct.pack(*packed)


def spelled(path: bytes) -> bytes:
    """A path as the kernel's names: leaf first, each with its NUL."""
    return b"".join(part + b"\0" for part in reversed(path.split(b"/")) if part)


def facts(**changes: Any) -> dict[str, Any]:
    """Task facts (events.TASK): thread 101 of process 100, a bash of root."""
    return {
        "start": 5_000_000_001,
        "parent_start": 1,
        "cgroup": 77,
        "exe_key": 0,
        "tgid": 100,
        "tid": 101,
        "exec_id": 1,
        "ppid": 1,
        "uid": 0,
        "euid": 0,
        "gid": 0,
        "egid": 0,
        "login_uid": NOBODY,
        "login_session": NOBODY,
        "comm": b"bash",
    } | changes


def context(**members: Any) -> bytes:
    """The blob `context`: session and process group 300 of a process that leads both, as far as nothing else is said."""
    known = {"session": 300, "session_start": 7_000_000_001, "group": 300, "group_start": 7_000_000_001}
    return pack(events.CONTEXT, dict.fromkeys(events.CONTEXT.names, 0) | {"peer": bytes(16)} | known | members)


def lineage(*keys: tuple[int, int]) -> bytes:
    """The blob `ancestors`: (pid, start), nearest first."""
    return b"".join(pack(events.ANCESTOR, {"tgid": pid, "start": start}) for pid, start in keys)


def blob(name: str, content: bytes) -> bytes:
    """One variable part of a control record."""
    raw = struct.pack("<II", events.BLOB[name].kind, len(content)) + content
    return raw + bytes(-len(raw) % 8)


def control(name: str, blobs: Mapping[str, bytes] | Sequence[tuple[str, bytes]] = (), **members: Any) -> bytes:
    """A control record. Members of the task come from `facts`; `fd` is -1, `nr` 0, everything else 0."""
    pairs = blobs.items() if isinstance(blobs, Mapping) else blobs
    tail = b"".join(blob(kind, content) for kind, content in pairs)
    values = {"type": events.EVENT[name].id, "ts": BOOT_NS, "fd": -1} | facts() | members
    return pack(events.CONTROL, {"length": events.CONTROL.size + len(tail)} | values) + tail


def _units(raw: bytes) -> bytes:
    """Padded to whole units of 8 bytes, with their number in the record's head."""
    raw += bytes(-len(raw) % 8)
    return raw[:2] + struct.pack("<H", len(raw) // 8) + raw[4:]


def bulk(name: str, tail: bytes = b"", **members: Any) -> bytes:
    """A bulk record; `tail` stands at byte 64, as a claimed name and an address do."""
    kind = events.EVENT[name]
    values = {"type": kind.id, "tid": 101, "ts": BOOT_NS, "session": NO_SLOT} | members
    layout, kf, ret = events.bulk_layout(kind), values.get("kf", 0), values.get("ret", 0)
    if events.EXTRA in kind.fields and not -(1 << 31) <= ret < 1 << 31:  # as put_event in bpf/file.c
        low = (ret + (1 << 31)) % (1 << 32) - (1 << 31)
        kf |= events.WIDE
        values |= {"ret": low, "kf": kf, "extra": values.get("extra", 0) | (ret - low) % (1 << 64)}
    if "key" not in layout.names:  # a close: its session says what it is about
        values.pop("key", None)
    raw = pack(layout, values | {"seq": values.get("seq", 0) & 0xFFFFFFFF})
    if tail or kf & events.CLAIMED:
        raw += bytes(64 - len(raw)) + tail
    elif events.EXTRA in kind.fields and not kf & (events.WIDE | events.BEGIN | events.UNNAMED):
        raw = raw[: events.BULK.size]
    return _units(raw)


def session_definition(**members: Any) -> bytes:
    """A record that says what a session's slot stands for."""
    values = {"type": events.DEF_SESSION, "tid": 101, "ts": BOOT_NS} | members
    return _units(pack(events.SESSION_DEFINITION, values | {"seq": values.get("seq", 0) & 0xFFFFFFFF}))


def task_definition(about: Mapping[str, Any], cgroup: bytes = b"", **members: Any) -> bytes:
    """A record that says who a thread is. `cgroup` is the cgroup's path."""
    names = spelled(cgroup)
    values = {"type": events.DEF_TASK, "tid": about["tid"], "ts": BOOT_NS, "cgroup_bytes": len(names)}
    values |= {"t_" + key: value for key, value in about.items()} | members
    return _units(pack(events.TASK_DEFINITION, values) + names)


def file_definition(key: int, names: bytes, **members: Any) -> bytes:
    """A record that says what a path key stands for. `names` as `spelled` gives them."""
    values = {
        "type": events.DEF_FILE,
        "ts": BOOT_NS,
        "key": key,
        "ino": 1234,
        "dev": 8 << 20 | 1,
        "mode": 0o100644,
        "bytes": len(names),
    } | members
    return _units(pack(events.FILE_DEFINITION, values) + names)


def socket_definition(key: int = 0, local_name: bytes = b"", remote_name: bytes = b"", **members: Any) -> bytes:
    """A record (or, cut to its length, a blob) that says what a socket key stands for: TCP over IPv4 by default."""
    values = {
        "type": events.DEF_SOCKET,
        "ts": BOOT_NS,
        "key": key,
        "ino": 4321,
        "family": 2,
        "kind": 1,
        "protocol": 6,
        "local_bytes": len(local_name),
        "remote_bytes": len(remote_name),
    } | members
    return _units(pack(events.SOCKET_DEFINITION, values) + local_name + remote_name)


def sockaddr(address: str | bytes, port: int = 0) -> bytes:
    """A sockaddr: an IPv4 or IPv6 address as text, a Unix name as bytes."""
    if isinstance(address, bytes):
        return struct.pack("<H", 1) + address
    where = ipaddress.ip_address(address)
    if where.version == 4:
        return struct.pack("<H", 2) + struct.pack(">H", port) + where.packed + bytes(8)
    return struct.pack("<H", 10) + struct.pack(">HI", port, 0) + where.packed + bytes(4)


# ---- the capture -----------------------------------------------------------------------------------------------------


class ListLane:
    """A control lane (monitor.kernel.control.ControlLane) whose ring is a list. `room` records fit unreleased."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.records: list[bytes] = []
        self.room = room
        self.released = 0
        self.hidden = 0
        self._next = 0

    def complete(self) -> bool:
        """See ControlLane. `hidden` records stand behind one that is still being written."""
        return not self.hidden

    def submit(self, raw: bytes) -> bool:
        """What a program does. False: no room, the record is refused."""
        if len(self.records) - self.released >= self.room:
            return False
        self.records.append(raw)
        return True

    def read(self, limit: int) -> list[bytes]:
        """See ControlLane."""
        found = self.records[self._next : min(self._next + limit, len(self.records) - self.hidden)]
        self._next += len(found)
        return found

    def position(self) -> int:
        """See ControlLane."""
        return self._next

    def release(self, position: int) -> None:
        """See ControlLane. Raises ValueError like the real one."""
        if not self.released <= position <= self._next:
            raise ValueError(f"position {position} is not in {self.released}..{self._next}")
        self.released = position

    def fill(self) -> float:
        """See ControlLane."""
        return (len(self.records) - self.released) / self.room

    def reopen(self) -> ListLane:
        """The lane as the next reader sees it: from what was released on."""
        found = ListLane(self.room)
        found.records, found.released, found._next = self.records, self.released, self.released
        return found

    def close(self) -> None:
        """See ControlLane."""


class FakeCapture(Capture):
    """`Capture` over plain numpy memory. `now` is the time that `cut` takes for the present: far away unless set."""

    def __init__(self, shape: Shape = SHAPE, lane: ListLane | None = None) -> None:
        self.shape = shape
        self.directory = Path("/nonexistent")
        self.accounts = np.zeros((shape.cpus, ACCOUNT_WORDS), np.int64)
        self.rings = np.zeros((shape.cpus, shape.ring + SLACK), np.uint8)
        self.mirror = np.zeros(-(-shape.mirror_bytes // 4096) * 4096, np.uint8)
        self.sessions = np.zeros((shape.sessions, 10), np.int64)
        self.commit = CommitPage(np.zeros(shape.commit, np.uint8))
        self.list_lane = ListLane() if lane is None else lane
        self.lane = self.list_lane
        self.now = 1 << 62

    def cut(self, now: int) -> int:
        """See Capture; at the time `self.now`."""
        return super().cut(self.now)

    def close(self) -> None:
        """See Capture."""

    def reopen(self) -> FakeCapture:
        """What the next reader opens after this one was killed: the same memory."""
        found = FakeCapture.__new__(FakeCapture)
        found.__dict__.update(self.__dict__)
        found.list_lane = self.list_lane.reopen()
        found.lane = found.list_lane
        return found


class FakeKernel:
    """Writes into a FakeCapture what the probes would: numbers events, refuses what finds no room, counts it.

    Each method advances `now` by `step` ns unless `ts` is given. What was written is the caller's to remember; `refused`
    counts what was not, by CPU. A definition that finds no room makes the event after it refused, as in the kernel.
    """

    def __init__(self, capture: FakeCapture) -> None:
        self.capture = capture
        self.now = BOOT_NS
        self.step = 1000
        self.refused = [0] * capture.shape.cpus
        self.generation = 0

    def _time(self, members: dict[str, Any]) -> None:
        if "ts" not in members:
            members["ts"] = self.now
            self.now += self.step

    def _number(self, cpu: int) -> int:
        account = self.capture.accounts[cpu]
        account[rings.SEQ] += 1
        return int(account[rings.SEQ]) - 1

    def _room(self, cpu: int, need: int, keep: int) -> bool:
        account, ring = self.capture.accounts[cpu], self.capture.shape.ring
        return int(account[rings.HEAD] - account[rings.TAIL]) + need <= ring - keep

    def _push(self, cpu: int, raw: bytes, need: int = 0) -> bool:
        account, ring = self.capture.accounts[cpu], self.capture.shape.ring
        if not self._room(cpu, max(len(raw), need), ring // 20):
            return False
        at = int(account[rings.HEAD]) & (ring - 1)
        self.capture.rings[cpu, at : at + len(raw)] = np.frombuffer(raw, np.uint8)  # across the end: into the slack
        account[rings.HEAD] += len(raw)
        return True

    def refuse(self, cpu: int, kind: str = "file", *, lane: str = "ring") -> None:
        """An event that finds no room. `kind` is one of rings.CLASSES, `lane` "ring" or "control"."""
        first = rings.REFUSED_RING if lane == "ring" else rings.REFUSED_CONTROL
        self._number(cpu)
        self.capture.accounts[cpu, first + rings.CLASSES.index(kind)] += 1
        self.refused[cpu] += 1

    def _define(self, cpu: int, raw: bytes) -> bool:
        found = self._push(cpu, raw)
        self.capture.accounts[cpu, rings.DEFINED if found else rings.UNDEFINABLE] += 1
        return found

    def _next(self, cpu: int) -> int:
        return int(self.capture.accounts[cpu, rings.SEQ])

    def task(self, cpu: int, about: Mapping[str, Any] | None = None, cgroup: bytes = b"", **members: Any) -> bool:
        """Defines a thread on a CPU."""
        self._time(members)
        return self._define(cpu, task_definition(about or facts(), cgroup, seq=self._next(cpu), **members))

    def file(self, cpu: int, key: int, path: bytes, **members: Any) -> bool:
        """Defines a file on a CPU."""
        self._time(members)
        return self._define(cpu, file_definition(key, spelled(path), seq=self._next(cpu), **members))

    def socket(self, cpu: int, key: int, local_name: bytes = b"", remote_name: bytes = b"", **members: Any) -> bool:
        """Defines a socket on a CPU."""
        self._time(members)
        return self._define(cpu, socket_definition(key, local_name, remote_name, seq=self._next(cpu), **members))

    def session(self, cpu: int, **members: Any) -> bool:
        """Defines a session without an event."""
        self._time(members)
        return self._define(cpu, session_definition(seq=self._next(cpu), **members))

    def bulk(self, cpu: int, name: str, tail: bytes = b"", **members: Any) -> bool:
        """A bulk event; False: refused and counted."""
        self._time(members)
        kind = "socket" if name.startswith("socket") else "file"
        account = self.capture.accounts[cpu]
        if account[rings.UNDEFINABLE]:
            account[rings.UNDEFINABLE] = 0
            self.refuse(cpu, kind)
            return False
        if not self._push(cpu, bulk(name, tail, seq=self._next(cpu), **members)):
            self.refuse(cpu, kind)
            return False
        self._number(cpu)
        return True

    def control(
        self, cpu: int, name: str, blobs: Mapping[str, bytes] | Sequence[tuple[str, bytes]] = (), **members: Any
    ) -> bool:
        """A control event; False: refused and counted."""
        self._time(members)
        if not self.capture.list_lane.submit(control(name, blobs, cpu=cpu, seq=self._next(cpu), **members)):
            self.refuse(cpu, name.split("_", 1)[0], lane="control")
            return False
        self._number(cpu)
        self.capture.accounts[cpu, rings.SUBMITTED_CONTROL] += 1
        return True

    def fresh_generation(self) -> int:
        """A generation that no session had yet."""
        self.generation += 2
        return self.generation + 1


@dataclass
class Bench:
    """A capture, its writer, and the stages that read it, from the first record on."""

    capture: FakeCapture = field(default_factory=FakeCapture)
    pipeline: Pipeline = field(init=False)
    kernel: FakeKernel = field(init=False)
    order: Order = field(init=False)
    ledger: Ledger = field(init=False)
    losses: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kernel = FakeKernel(self.capture)
        self.order = Order(self.capture)
        self.pipeline = Pipeline(self.order, ORIGIN, tasks(), clock(), Counts())
        base = [CpuState() for _ in range(self.capture.shape.cpus)]
        self.ledger = Ledger(self.capture.accounts, base, self.pipeline.counts)

    def batch(self) -> bytes:
        """One turn of the monitor's loop: what lies in the rings becomes lines, which count as written.

        The loop leaves a turn out when all is settled: each test checks on the way that nothing is missed by that.
        """
        nothing, made = self.order.settled(), self.pipeline.lines
        self.order.look()
        if self.pipeline.fill():
            self.order.close_gaps()
            self.order.settle()
        missed = self.pipeline.lines - made or int(self.order.state[fastpath.GAPS]) or self.order.pending
        assert not (nothing and missed), "settled, and yet something was there"
        for members in self.ledger.losses(self.order.take_gaps(), EPOCH):
            self.losses.append(members["loss"])
            self.pipeline.make("monitor_loss", members)
        found = bytes(self.pipeline.batch)
        self.pipeline.committed()
        return found

    def drain(self) -> bytes:
        """Batches until nothing is left."""
        found = []
        while True:
            found.append(self.batch())
            if not found[-1] and not self.order.pending:
                return b"".join(found)

    def documents(self) -> list[dict[str, Any]]:
        """The lines of `drain`, parsed; each is one valid JSON object."""
        return documents(self.drain())


def documents(batch: bytes) -> list[dict[str, Any]]:
    """The documents of whole lines. Every line ends with a newline and holds one JSON object."""
    assert not batch or batch.endswith(b"\n")
    found = [orjson.loads(line) for line in batch.split(b"\n")[:-1]]
    assert all(isinstance(one, dict) for one in found)
    return found


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path, value) of every leaf of a document; what is below `ebpf.raw` or `labels` counts as that one leaf."""
    for name, value in document.items():
        path = prefix + name
        if isinstance(value, Mapping) and path not in ("ebpf.raw", "labels"):
            yield from leaves(value, path + ".")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for one in value:
                yield from leaves(one, path + ".")
        else:
            yield path, value
