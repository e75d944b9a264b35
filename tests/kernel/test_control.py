"""Both control lanes against one program in the running kernel, and the ring's odd states against a made-up ring."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from monitor.kernel import BccMissing, bpf, control, headers, import_bcc
from monitor.kernel.btf import Btf
from monitor.kernel.control import ControlError, ControlLane, PerfLane, RingBufLane, cut_to_length

BPFFS = Path("/sys/fs/bpf")
ROOT = Path(__file__).resolve().parents[2]
PAGE = mmap.PAGESIZE
MARK = 0x7E57  # no option of prctl(2): it fails with EINVAL, and our program sees its arguments
PRIME = 1009
REGISTERS = {"x86_64": (157, ("di", "si", "dx")), "aarch64": (167, ("regs", "regs", "regs"))}
TEXT = r"""
#define LD(d, p, off) asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(d) : "r"(p), "i"(off))
struct record { u32 length, number; u64 body[63]; };
BPF_PERCPU_ARRAY(scratch, struct record, 1);
BPF_F_TABLE("array", u32, u64, results, 2, BPF_F_MMAPABLE);
#ifdef PERF
BPF_PERF_OUTPUT(control);
#else
BPF_RINGBUF_OUTPUT(control, 1);
#endif
int submit(u64 *ctx) {
    u32 zero = 0, refused;
    u64 regs = ctx[0], mark, number, length;
    if (ctx[1] != NR_PRCTL || bpf_get_current_pid_tgid() >> 32 != SELF) return 0;
    LD(mark, regs, ARG0); LD(number, regs, ARG1); LD(length, regs, ARG2);
    struct record *r = scratch.lookup(&zero);
    if (mark != MARK || !r || length < 8 || length > sizeof(*r)) return 0;
    r->length = length; r->number = number;
    #pragma unroll
    for (int i = 0; i < 63; i++) r->body[i] = number * 0x9E3779B97F4A7C15ULL + i;
#ifdef PERF
    refused = control.perf_submit(ctx, r, length) != 0;
#else
    refused = control.ringbuf_output(r, length, BPF_RB_NO_WAKEUP) != 0;
#endif
    u64 *count = results.lookup(&refused);
    if (count) __sync_fetch_and_add(count, 1);
    return 0;
}
"""


def record(number: int, length: int) -> bytes:
    """What the program submits for prctl(MARK, number, length)."""
    words = ((number * 0x9E3779B97F4A7C15 + word) % 2**64 for word in range(63))
    return struct.pack("=II63Q", length, number, *words)[:length]


def length_of(number: int) -> int:
    """8 to 511 bytes, every remainder of 8 in turn."""
    return 8 + number * 37 % 504


@dataclass
class Source:
    """The attached program: what it was asked to submit, what it says was accepted and refused."""

    map_fd: int
    results: npt.NDArray[np.uint64]
    cpu: int
    submitted: list[bytes] = field(default_factory=list)

    def submit(self, count: int) -> list[bytes]:
        """Have `count` more records submitted; those that the kernel accepted."""
        accepted = []
        for _ in range(count):
            number = len(self.submitted)
            before = self.accepted
            ctypes.CDLL(None).prctl(MARK, number, length_of(number), 0, 0)
            self.submitted.append(record(number, length_of(number)))
            if self.accepted > before:
                accepted.append(self.submitted[-1])
        assert self.accepted + self.refused == len(self.submitted)
        return accepted

    @property
    def accepted(self) -> int:
        return int(self.results[0])

    @property
    def refused(self) -> int:
        return int(self.results[1])


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def compile_text(tree: Path, flags: list[str]) -> Any:
    types, (syscall, arguments) = Btf(), REGISTERS[platform.machine()]
    places = [types.offset("pt_regs", name) for name in arguments]
    if len(set(arguments)) == 1:  # an array
        places = [None if place is None else place + 8 * index for index, place in enumerate(places)]
    flags = [*flags, f"-DSELF={os.getpid()}", f"-DNR_PRCTL={syscall}", f"-DMARK={MARK}"]
    flags += [f"-DARG{index}={place}" for index, place in enumerate(places)]
    headers.write_tree(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCC_KERNEL_SOURCE", str(tree))
        return import_bcc().BPF(text=TEXT, cflags=flags)


def attached(tree: Path, flags: list[str]) -> Iterator[Source]:
    module = compile_text(tree, flags)
    target = Btf().typedef_id("btf_trace_sys_enter")
    assert target is not None
    program = bpf.prog_load(
        module.dump_func(b"submit"),
        name="submit",
        prog_type=bpf.PROG_TYPE_TRACING,
        expected_attach_type=bpf.ATTACH_TRACE_RAW_TP,
        attach_btf_id=target,
    )
    link = bpf.raw_tracepoint_open(program, None)
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # perf keeps order on one CPU only
    yield Source(module["control"].map_fd, bpf.map_array(module["results"].map_fd, 16).view("u8"), min(cpus))
    os.sched_setaffinity(0, cpus)
    os.close(link)
    os.close(program)
    module.cleanup()


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Source]:
    """The program with a ring buffer of one page."""
    yield from attached(tmp_path, [])


@pytest.fixture
def perf(tmp_path: Path) -> Iterator[Source]:
    """The program with a perf event array."""
    yield from attached(tmp_path, ["-DPERF"])


@pytest.fixture(params=["ring", "perf"])
def source(request: pytest.FixtureRequest) -> Source:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Source)
    return made


@pytest.fixture
def lane(source: Source, request: pytest.FixtureRequest) -> Iterator[ControlLane]:
    """Each implementation over one page, empty."""
    made: ControlLane
    if request.node.callspec.params["source"] == "ring":
        made = RingBufLane(source.map_fd)
    else:
        made = PerfLane(source.map_fd, bpf.online_cpus, 1)
    yield made
    made.close()


@pytest.fixture
def pins() -> Iterator[Path]:
    """An empty directory in the bpffs, which is mounted where a fresh machine has not done so."""
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    directory = BPFFS / f"ebpf-monitor-test-{os.getpid()}"
    directory.mkdir(mode=0o700)
    yield directory
    for pin in directory.iterdir():
        pin.unlink()
    directory.rmdir()


# -- what every control lane does -------------------------------------------------------------------------------------


def test_a_prime_number_of_records_comes_out_whole_once_and_in_order(source: Source, lane: ControlLane) -> None:
    read: list[bytes] = []
    while len(source.submitted) < PRIME:
        source.submit(min(5, PRIME - len(source.submitted)))
        read += lane.read(1000)
        lane.release(lane.position())
    assert read == source.submitted
    assert source.accepted == PRIME
    assert {len(raw) % 8 for raw in read} == set(range(8))
    assert sum(map(len, read)) > 50 * PAGE  # the one page was filled many times over
    assert lane.read(1) == []


def test_read_gives_at_most_its_limit_and_the_rest_later(source: Source, lane: ControlLane) -> None:
    accepted = source.submit(7)
    assert lane.read(0) == []
    assert lane.read(3) == accepted[:3]
    assert lane.read(3) == accepted[3:6]
    later = source.submit(2)
    assert lane.read(9) + lane.read(9) == accepted[6:] + later


def test_a_full_ring_refuses_and_what_it_accepted_is_intact(source: Source, lane: ControlLane) -> None:
    accepted = source.submit(61)
    assert source.refused > 30
    assert 0.7 < lane.fill() <= 1
    assert lane.read(1000) == accepted
    lane.release(lane.position())
    assert lane.fill() == 0
    again = source.submit(3)
    assert len(again) == 3
    assert lane.read(1000) == again


def test_fill_rises_with_a_record_and_falls_with_its_release(source: Source, lane: ControlLane) -> None:
    assert lane.fill() == 0
    source.submit(1)
    one = lane.fill()
    source.submit(2)
    assert 0 < one < lane.fill() < 1
    lane.read(1000)
    lane.release(lane.position())
    assert lane.fill() == 0


def test_a_position_that_was_not_read_cannot_be_released(source: Source, lane: ControlLane) -> None:
    source.submit(2)
    lane.read(1)
    with pytest.raises(ValueError, match="is not in"):
        lane.release(lane.position() + 8)
    with pytest.raises(ValueError, match="is not in"):
        lane.release(-8)


def test_a_closed_lane_can_be_closed_again_and_leaves_the_map_open(source: Source, lane: ControlLane) -> None:
    lane.close()
    lane.close()
    assert bpf.map_info(source.map_fd).name == "control"


def test_opening_and_closing_leaves_no_descriptor(source: Source, lane: ControlLane) -> None:
    lane.close()
    before = open_descriptors()
    for _ in range(3):
        if isinstance(lane, PerfLane):
            PerfLane(source.map_fd, lambda: [source.cpu], 1).close()
        else:
            RingBufLane(source.map_fd).close()
    assert open_descriptors() == before


# -- the ring buffer --------------------------------------------------------------------------------------------------


def test_a_read_record_is_not_overwritten_before_its_release(ring: Source) -> None:
    lane = RingBufLane(ring.map_fd)
    first = ring.submit(61)
    assert lane.read(1) == first[:1]
    assert ring.submit(20) == []  # reading alone frees nothing
    lane.release(lane.position())
    assert lane.read(1000) == first[1:]
    lane.close()


def test_an_earlier_position_can_be_released_while_later_records_are_read(ring: Source) -> None:
    lane = RingBufLane(ring.map_fd)
    accepted = ring.submit(5)
    lane.read(2)
    second = lane.position()
    lane.read(2)
    lane.release(second)
    lane.close()
    lane = RingBufLane(ring.map_fd)
    assert lane.position() == second
    assert lane.read(9) == accepted[2:]
    lane.close()


def test_records_a_killed_reader_did_not_release_are_seen_by_the_next(ring: Source, pins: Path) -> None:
    bpf.obj_pin(ring.map_fd, pins / "control")
    accepted = ring.submit(11)
    reader = (
        "import os, signal, sys\nfrom monitor.kernel import bpf\nfrom monitor.kernel.control import RingBufLane\n"
        "lane = RingBufLane(bpf.obj_get(sys.argv[1]))\n"
        "lane.read(4)\nlane.release(lane.position())\nlane.read(3)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", reader, str(pins / "control")], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    fd = bpf.obj_get(pins / "control")
    lane = RingBufLane(fd)
    os.close(fd)
    assert lane.read(1000) == accepted[4:]
    lane.close()


def test_a_map_that_is_no_ring_buffer_is_refused(perf: Source) -> None:
    with pytest.raises(ControlError, match="map 'control' has type 4, a ring buffer is 27"):
        RingBufLane(perf.map_fd)


class MadeUpRing:
    """A file with the memory layout of a ring buffer of one page, whose kernel side is the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 4 * PAGE)
        info = bpf.MapInfo(bpf.MAP_TYPE_RINGBUF, 1, 0, 0, PAGE, 0, "made_up")
        monkeypatch.setattr(bpf, "map_info", lambda _fd: info)

    def write(self, offset: int, layout: str, *values: int) -> None:
        os.pwrite(self.fd, struct.pack(layout, *values), offset)

    def positions(self, consumer: int, producer: int) -> None:
        self.write(0, "=Q", consumer)
        self.write(PAGE, "=Q", producer)

    def place(self, position: int, header: int, payload: bytes = b"") -> None:
        """A record, as the two views of the data in a row show it."""
        for view in (2 * PAGE, 3 * PAGE):
            at = view + position % PAGE
            whole = struct.pack("=II", header, 0) + payload
            os.pwrite(self.fd, whole[: 4 * PAGE - at], at)
        over = position % PAGE + 8 + len(payload) - PAGE
        if over > 0:
            os.pwrite(self.fd, payload[-over:], 2 * PAGE)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUpRing]:
    made = MadeUpRing(monkeypatch)
    yield made
    os.close(made.fd)


def test_reading_stops_at_a_record_being_written_and_leaves_out_a_discarded_one(made_up: MadeUpRing) -> None:
    made_up.place(0, 13, record(1, 13))
    made_up.place(24, 1 << 30 | 9, bytes(9))
    made_up.place(48, 16, record(2, 16))
    made_up.place(72, 1 << 31 | 12, record(3, 12))
    made_up.place(96, 8, record(4, 8))
    made_up.positions(0, 112)
    lane = RingBufLane(made_up.fd)
    assert lane.read(9) == [record(1, 13), record(2, 16)]
    assert lane.position() == 72
    assert lane.read(9) == []
    made_up.place(72, 12, record(3, 12))
    assert lane.read(9) == [record(3, 12), record(4, 8)]
    lane.release(112)
    assert os.pread(made_up.fd, 8, 0) == struct.pack("=Q", 112)
    lane.close()


def test_a_record_around_the_end_of_the_ring_and_positions_beyond_32_bits_are_read(made_up: MadeUpRing) -> None:
    begin = 5 * 2**32 + PAGE - 24
    made_up.place(begin, 300, record(7, 300))
    made_up.positions(begin, begin + 8 + 304)
    lane = RingBufLane(made_up.fd)
    assert lane.read(1) == [record(7, 300)]
    assert lane.fill() == 312 / PAGE
    lane.close()


@pytest.mark.parametrize(("consumer", "producer"), [(8, 0), (4, 64), (0, PAGE + 8)])
def test_positions_that_cannot_be_are_refused(made_up: MadeUpRing, consumer: int, producer: int) -> None:
    made_up.positions(consumer, producer)
    with pytest.raises(ControlError, match=f"'made_up': consumer at {consumer}, producer at {producer}"):
        RingBufLane(made_up.fd)


def test_a_record_that_passes_the_producer_is_named_by_its_byte(made_up: MadeUpRing) -> None:
    made_up.place(0, 8, record(1, 8))
    made_up.place(16, 500, record(2, 500))
    made_up.positions(0, 64)
    lane = RingBufLane(made_up.fd)
    with pytest.raises(ControlError, match="byte 16: a record of 500 bytes passes 64"):
        lane.read(9)
    lane.close()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (struct.pack("=I", 6) + b"ab" + bytes(6), struct.pack("=I", 6) + b"ab"),
        (struct.pack("=I", 8) + b"abcd", struct.pack("=I", 8) + b"abcd"),
        (struct.pack("=I", 9) + b"abcd", struct.pack("=I", 9) + b"abcd"),
        (struct.pack("=I", 3) + b"abcd", struct.pack("=I", 3) + b"abcd"),
        (b"\2\0", b"\2\0"),
        (b"", b""),
    ],
)
def test_a_record_is_cut_to_its_length_unless_that_is_impossible(raw: bytes, expected: bytes) -> None:
    assert cut_to_length(raw) == expected


# -- the perf buffer --------------------------------------------------------------------------------------------------


def test_perf_reports_what_its_ring_lost_once_there_is_room_again(perf: Source) -> None:
    lane = PerfLane(perf.map_fd, lambda: [perf.cpu], 1)
    perf.submit(61)
    lane.read(1000)
    perf.submit(1)
    lane.read(1000)
    assert lane.lost == perf.refused > 0
    lane.close()


def test_a_submit_after_perf_is_closed_is_refused_and_a_new_lane_begins_empty(perf: Source) -> None:
    lane = PerfLane(perf.map_fd, lambda: [perf.cpu], 1)
    assert len(perf.submit(3)) == 3
    lane.close()
    assert perf.submit(2) == []
    lane = PerfLane(perf.map_fd, lambda: [perf.cpu], 1)
    assert lane.read(9) == []
    last = perf.submit(2)
    assert lane.read(9) == last
    lane.close()


def test_a_cpu_that_comes_later_gets_its_perf_ring_and_is_refused_until_then(perf: Source) -> None:
    online: list[int] = []
    lane = PerfLane(perf.map_fd, lambda: online, 1)
    assert perf.submit(2) == []
    assert lane.read(9) == []
    online.append(perf.cpu)
    time.sleep(1)
    assert lane.read(9) == []
    accepted = perf.submit(3)
    assert len(accepted) == 3
    assert lane.read(9) == accepted
    lane.close()


@pytest.mark.parametrize(("cpus", "pages"), [([0, 4095], 1), ([0], 3)])
def test_a_perf_ring_that_cannot_be_opened_is_named_and_leaves_none_open(
    perf: Source, cpus: list[int], pages: int
) -> None:
    before = open_descriptors()
    with pytest.raises(ControlError, match=rf"CPU {cpus[-1]} with {pages} pages"):
        PerfLane(perf.map_fd, lambda: cpus, pages)
    assert open_descriptors() == before


def test_an_older_bcc_without_options_reads_the_same(perf: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    real = import_bcc()
    old = SimpleNamespace(_RAW_CB_TYPE=real.libbcc._RAW_CB_TYPE, _LOST_CB_TYPE=real.libbcc._LOST_CB_TYPE)
    monkeypatch.setattr(control, "import_bcc", lambda: SimpleNamespace(lib=real.lib, libbcc=old))
    lane = PerfLane(perf.map_fd, lambda: [perf.cpu], 1)
    accepted = perf.submit(5)
    assert lane.read(9) == accepted
    lane.close()


# -- BCC itself -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "reason"),
    [(None, "cannot be imported"), (ModuleType("bcc"), "is not the BPF compiler collection")],
)
def test_without_the_real_bcc_the_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch, found: ModuleType | None, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "bcc", found)
    call: Callable[[], object] = import_bcc
    with pytest.raises(BccMissing, match=rf"{reason}.*apt install python3-bpfcc"):
        call()
