"""The compiled pass against the plain encoder: the same bytes, whatever the rings hold, compiled and interpreted."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import clock, events, fastpath, fastrecords, pipeline
from monitor.encode import Origin
from tests import fakes, scenes, test_fastframe
from tests.acts import Acts
from tests.fakes import BOOT_NS, Bench

ROOT = Path(__file__).resolve().parent.parent
BULK = [kind.name for kind in events.EVENTS if kind.lane == "bulk"]


def plain_run(state: Any, cpus: Any, *arrays: Any) -> int:
    """`fastpath.run` as a model: the order of records, and every record to the plain encoder."""
    words, mask = arrays[1], int(arrays[7][4])
    heads = []
    for cpu in range(len(cpus)):
        if cpus[cpu, fastpath.POS] < cpus[cpu, fastpath.HEAD]:
            at = (int(cpus[cpu, fastpath.POS]) & mask) >> 3
            ahead_by = (int(words[cpu, at + 2]) - int(cpus[cpu, fastpath.EXPECTED]) + (1 << 31)) % (1 << 32) - (1 << 31)
            number = int(cpus[cpu, fastpath.EXPECTED]) + ahead_by
            heads.append((int(words[cpu, at + 1]), cpu, number, int(words[cpu, at]) & 0xFFFF))
    limit = tuple(int(x) for x in state[[fastpath.LIMIT_TS, fastpath.LIMIT_CPU, fastpath.LIMIT_SEQ]])
    if not heads or min(heads)[0] >= state[fastpath.CUT]:
        return fastpath.DONE if limit[0] >= state[fastpath.CUT] else fastpath.LIMIT
    ts, cpu, seq, kind = min(heads)
    state[fastpath.CPU] = cpu
    if (ts, cpu, seq) > limit or ((ts, cpu, seq) == limit and kind >= 16):
        return fastpath.LIMIT
    return fastpath.DEFINITION if kind in (events.DEF_TASK, events.DEF_FILE, events.DEF_SOCKET) else fastpath.SLOW


@contextmanager
def plainly() -> Iterator[None]:
    """Everything through the plain encoder."""
    compiled = pipeline.fastpath.run
    pipeline.fastpath.run = plain_run
    try:
        yield
    finally:
        pipeline.fastpath.run = compiled


def written(seed: int, rounds: int = 4, each: int = 120, *, plain: bool = False) -> bytes:
    """What a random stream becomes; between the batches totals of some sessions are reported."""
    bench, choose = Bench(), random.Random(seed)
    acts, found = Acts(bench.kernel, choose), []
    for _ in range(rounds):
        for _ in range(each):
            acts.one()
        for slot in (0, 1, 2):
            bench.pipeline.mirror.report(slot, [choose.randrange(9), choose.randrange(4096), 1, 1])
        with plainly() if plain else nullcontext():
            found.append(bench.drain())
    return b"".join(found)


def both(build: Any, origin: Origin = fakes.ORIGIN) -> tuple[bytes, bytes, int]:
    """(compiled, plain, records that the compiled pass handed back) of one stream; `build(kernel)` writes it."""
    fast, slow = Bench(), Bench()
    for bench in (fast, slow):
        bench.pipeline.rename(origin)
    handed = 0
    original = fast.pipeline._slow

    def count() -> None:
        nonlocal handed
        handed += 1
        original()

    fast.pipeline._slow = count  # type: ignore[method-assign]
    build(fast.kernel)
    build(slow.kernel)
    with plainly():
        plain = slow.drain()
    return fast.drain(), plain, handed


@given(seed=st.integers(0, 2**32))
@settings(max_examples=int(os.environ.get("EBPF_MONITOR_STREAMS", "25")))
def test_compiled_and_plain_encoder_write_equal_bytes(seed: int) -> None:
    assert written(seed) == written(seed, plain=True)


@pytest.mark.parametrize("name", [name for name in scenes.SCENES if events.EVENT[name.split(".")[0]].lane == "bulk"])
def test_both_write_the_golden(name: str) -> None:
    compiled, plain, _ = both(scenes.SCENES[name], fakes.LABELLED if name.endswith(".labels") else fakes.ORIGIN)
    assert compiled == plain
    shown = orjson.loads((ROOT / "tests" / "goldens" / f"{name}.json").read_bytes())
    assert orjson.loads(compiled.splitlines()[-1]) == shown


@pytest.mark.parametrize("name", [name for name in scenes.SCENES if name.split(".")[0] in BULK])
def test_tags_and_labels_stand_in_each_line_and_both_encoders_agree(name: str) -> None:
    compiled, plain, _ = both(scenes.SCENES[name], fakes.LABELLED)
    assert compiled == plain
    for line in compiled.splitlines():
        found = orjson.loads(line)
        assert (found["tags"], found["labels"]) == (list(fakes.LABELLED.tags), dict(fakes.LABELLED.labels))


VARIANTS: dict[str, dict[str, Any]] = {
    "success": {},
    "failure": {"ret": -5},
    "no_call": {"nr": 0xFFFF},
    "compat": {"kf": events.COMPAT, "nr": 3},
    "unnamed": {"kf": events.UNNAMED, "session": 0xFFFFFFFF},
    "begin": {"kf": events.BEGIN, "session": 9, "generation": 11},
    "failed_begin": {"kf": events.BEGIN, "session": 9, "generation": 11, "ret": -11},
    **{f"reason_{reason}": {"reason": number} for number, reason in enumerate(events.CLOSE_REASONS)},
    **{
        f"unnamed_{reason}": {"kf": events.UNNAMED, "session": 0xFFFFFFFF, "reason": number}
        for number, reason in enumerate(events.CLOSE_REASONS)
    },
}


@pytest.mark.parametrize("name", BULK)
def test_every_event_in_every_variant_is_written_without_python(name: str) -> None:
    closes = name.endswith("_close")
    # an open that failed has no object: claimed and unnamed ones are below; no session begins with a close
    impossible = "begin" if closes else "fail" if name == "file_open" else "-"
    variants = {key: one for key, one in VARIANTS.items() if impossible not in key}

    def build(kernel: fakes.FakeKernel) -> None:
        scenes.process(kernel)
        if name.startswith("socket"):
            kernel.socket(0, scenes.FILE, local=scenes.LOOPBACK, local_port=1, remote=scenes.REMOTE, remote_port=2)
        else:
            kernel.file(0, scenes.FILE, b"/srv/file")
        for variant in variants.values():
            kernel.session(0, key=scenes.FILE, session=1, generation=7)
            members = {"ret": 17, "nr": 0, "fd": 3, "session": 1, "generation": 7, "key": scenes.FILE, "tid": 101}
            members |= {"read_count": 5, "read_bytes": 10**12, "write_count": 2, "write_bytes": 9} if closes else {}
            kernel.bulk(
                0, name, **(members | {key: value for key, value in variant.items() if key != "reason" or closes})
            )

    compiled, plain, handed = both(build)
    for variant, one, other in zip(variants, compiled.splitlines(), plain.splitlines(), strict=True):
        assert one == other, (variant, one[:200], other[:200])
    assert handed == 0


def opens(kernel: fakes.FakeKernel, claim: bytes, kf: int, base: bytes = b"/srv/data", **members: Any) -> None:
    scenes.process(kernel)
    kernel.file(0, scenes.WORK, base, mode=scenes.DIRECTORY_FLAGS)
    kernel.bulk(
        0,
        "file_open",
        claim,
        **({"ret": -2, "nr": 257, "fd": -1, "kf": kf, "session": len(claim), "key": scenes.WORK} | members),
    )


@pytest.mark.parametrize("claim", [b"/nowhere/x", b"x", b"sub/x", b"../x", b"x" * 4000, b"/" + b"y" * 255])
@pytest.mark.parametrize("base", [b"/srv/data", b"/"])
def test_a_clean_claim_is_written_without_python(claim: bytes, base: bytes) -> None:
    kf = events.CLAIMED if claim.startswith(b"/") else events.CLAIMED | events.RELATIVE
    compiled, plain, handed = both(lambda kernel: opens(kernel, claim, kf, base))
    assert compiled == plain
    assert handed == 0
    absolute = claim if claim.startswith(b"/") else base.rstrip(b"/") + b"/" + claim
    assert orjson.loads(compiled)["file"]["path"].encode() == absolute


@pytest.mark.parametrize(
    "flags", [0, 1, 2, 3, 0o102, 0o1101, 0o100000, 0o2400000, 0o4010000, 0o20000000, 0o37777777, 1 << 31, 1 << 40]
)
def test_open_flags_are_the_same_names(flags: int) -> None:
    compiled, plain, _ = both(lambda kernel: (scenes.process(kernel), scenes.opened(kernel, oflags=flags)))
    assert compiled == plain


def test_totals_are_less_what_was_reported() -> None:
    def build(bench: Bench) -> bytes:
        scenes.process(bench.kernel)
        scenes.opened(bench.kernel)
        first = bench.drain()
        bench.pipeline.mirror.report(1, [3, 300, 2, 20])
        bench.kernel.bulk(
            0,
            "file_close",
            fd=3,
            session=1,
            generation=7,
            read_count=10,
            read_bytes=1000,
            write_count=2,
            write_bytes=20,
        )
        return first + bench.drain()

    compiled = build(Bench())
    with plainly():
        assert build(Bench()) == compiled
    closed = fakes.documents(compiled)[-1]["ebpf"]
    assert (closed["read"], closed["write"]) == ({"count": 7, "bytes": 700}, {"count": 0, "bytes": 0})


def test_interval_totals_add_up_with_the_close() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    scenes.opened(bench.kernel)
    bench.drain()
    table, moved = bench.capture.sessions, []
    for read in (4096, 8192, 8192):
        table[1] = 0
        table[1, [0, 3, 5, 7]] = 100 << 32 | 3, read, read >> 12, 7 << 32
        bench.pipeline.report_open()
        moved += fakes.documents(bench.batch())
    bench.kernel.bulk(0, "file_close", fd=3, session=1, generation=7, read_count=5, read_bytes=20000)
    moved += bench.documents()
    assert [one["ebpf"]["close"]["reason"] for one in moved] == ["interval", "interval", "close"]
    assert sum(one["ebpf"]["read"]["bytes"] for one in moved) == 20000
    assert sum(one["ebpf"]["read"]["count"] for one in moved) == 5


def test_records_across_the_rings_end_are_read_from_the_slack() -> None:
    bench, crossed, lines = Bench(), 0, 0
    ring = bench.capture.shape.ring
    scenes.process(bench.kernel)
    while crossed < 3:
        for size in (1, 100, 4000):
            before = int(bench.capture.accounts[0, 0]) & (ring - 1)
            name = b"/" + b"n" * size
            assert bench.kernel.bulk(0, "file_open", name, ret=-2, fd=-1, kf=events.CLAIMED, session=len(name))
            crossed += before + 64 + size > ring
            found = bench.documents()
            lines += len(found)
            assert found[0]["file"]["path"].encode() == name
    assert lines == bench.pipeline.counts.logged


def test_two_cpus_are_merged_by_time_then_cpu_then_sequence() -> None:
    bench, choose = Bench(), random.Random(7)
    for cpu in (0, 1):
        bench.kernel.task(cpu, ts=BOOT_NS)
    times = [BOOT_NS + 1, BOOT_NS + 1]
    wanted = []
    for number in range(400):
        cpu = choose.randrange(2)
        times[cpu] += choose.choice((0, 0, 1, 5))
        wanted.append((times[cpu], cpu, number))
        bench.kernel.bulk(cpu, "file_read", ret=number, fd=3, kf=events.UNNAMED, ts=times[cpu])
    found = [(one["ebpf"]["timestamp_ns"], one["ebpf"]["cpu"], one["ebpf"]["ret"]) for one in bench.documents()]
    assert found == sorted(wanted)


def test_a_record_that_was_logged_before_is_not_written_again() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    for number in range(3):
        bench.kernel.bulk(0, "file_read", ret=number, fd=3, kf=events.UNNAMED)
    bench.order.cpus[0, fastpath.EXPECTED] = 2
    assert [one["ebpf"]["ret"] for one in bench.documents()] == [2]


@given(st.integers(0, 253402300799))
def test_second_is_the_calendars(seconds: int) -> None:
    out = np.zeros(32, np.uint8)
    fastpath.put_second(out, seconds)
    if seconds * 10**9 <= clock.MAX_TIME_NS:
        assert out[:20].tobytes().decode() == clock.rfc3339(seconds * 10**9)[:20]


@given(st.integers(-(2**62), 2**62))
def test_numbers_are_decimal(value: int) -> None:
    out = np.zeros(32, np.uint8)
    end = fastpath.put_number(out, 0, value)
    assert out[:end].tobytes() == str(value).encode()


@given(st.integers(0, 10**9 - 1))
def test_fractions_have_nine_digits(value: int) -> None:
    out = np.zeros(16, np.uint8)
    assert fastpath.put_nine(out, 1, value) == 10
    assert out[1:10].tobytes() == b"%09d" % value


@pytest.mark.parametrize("power", range(19))
def test_numbers_on_both_sides_of_each_power_of_ten_are_decimal(power: int) -> None:
    for value in (10**power - 1, 10**power, 10**power + 1):
        out = np.zeros(32, np.uint8)
        end = fastpath.put_number(out, 0, value)
        assert out[:end].tobytes() == str(value).encode()


@given(st.integers(0, 2**48 - 1))
def test_ids_are_twelve_hex_digits(value: int) -> None:
    out = np.zeros(16, np.uint8)
    assert fastpath.put_hex12(out, 1, value) == 13
    assert out[1:13].tobytes() == f"{value:012x}".encode()


def test_the_same_bytes_with_the_jit_off() -> None:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    code = "import tests.test_fastpath as t; print(t.digests())"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(digests())


def digests() -> list[str]:
    """Of what the random streams of four seeds and each bulk scene become, and of frames."""
    streams = [written(seed, rounds=2) for seed in range(4)]
    streams += [
        both(scene)[0] for name, scene in scenes.SCENES.items() if events.EVENT[name.split(".")[0]].lane == "bulk"
    ]
    streams += test_fastframe.digest(7)
    return [hashlib.sha256(stream).hexdigest() for stream in streams]


def test_the_words_of_a_record_are_where_the_catalogue_has_them() -> None:
    bulk, close = events.BULK.offsets(), events.bulk_layout(events.EVENT["file_close"]).offsets()
    assert (bulk["ts"], bulk["seq"], bulk["ret"], bulk["nr"]) == tuple(
        8 * at for at in (fastrecords.TS, fastrecords.SEQ_GENERATION, fastrecords.RET_FD, fastrecords.CALL_SESSION)
    )
    assert (bulk["generation"], bulk["fd"], bulk["session"]) == (bulk["seq"] + 4, bulk["ret"] + 4, bulk["nr"] + 4)
    assert close["reason"] == 8 * fastrecords.REASON
    assert events.SESSION_DEFINITION.offsets()["key"] == 8 * fastrecords.KEY
    assert events.RECORD.offsets()["key"] == 8 * fastrecords.DEFINITION_KEY
