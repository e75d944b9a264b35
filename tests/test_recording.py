"""Recordings: what a look leaves in the file, also when it found nothing."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from monitor import decode, events, recording, replay
from monitor.fastpath import POS
from monitor.recording import BULK, CPU, FOUND, LOOK, MIRROR, Recorder
from tests.acts import Acts
from tests.fakes import ORIGIN, Bench


def test_each_look_is_in_the_file_with_its_cut_and_its_clock(tmp_path: Path) -> None:
    # What waited for the cut is let out by a look that finds nothing new, at the time of the clock as it is then.
    bench, path = Bench(), tmp_path / "recording"
    recorder = Recorder(path, {}, bench.capture, bench.order.cpus)
    recorder.found(b"process")
    recorder.look(10, 500, bench.order.cpus, [])
    recorder.look(20, 591, bench.order.cpus, [])
    recorder.close()
    header, frames = recording.read(path)
    every = list(frames)
    assert header["ebpf-monitor-recording"] == 3
    assert [frame.kind for frame in every] == [MIRROR, *[CPU] * len(bench.order.cpus), FOUND, LOOK, LOOK]
    looks = [
        (frame.position, int.from_bytes(frame.data, "little", signed=True)) for frame in every if frame.kind == LOOK
    ]
    assert looks == [(10, 500), (20, 591)]


def before(raw: bytes) -> bytes:
    """A record as version 2 had it: common part of 56 bytes, units of 64."""
    kind = int.from_bytes(raw[:2], "little")
    event = events.EVENT_BY_ID.get(kind)
    if event is None and kind != events.DEF_SESSION:
        old = raw
    else:
        values = decode.session(raw) if event is None else decode.bulk(raw, 0).values
        key = values["key"] % (1 << 64)
        numbers = (values["tid"], values["ts"], values["seq"], key, values["ret"], values["nr"], values["kf"] & ~events.WIDE, values["fd"])
        old = struct.pack("<HHIQQQqHHiII", kind, 0, *numbers, values["session"], values["generation"])
        if event is not None:
            own = [values[field.name] for field in event.fields if field.name not in ("key", "extra")]
            own += [values["extra"] % (1 << 32)] if "extra" in values else []
            old += struct.pack(f"<{len(own)}Q", *own) + (b"" if event.name.endswith("_close") else raw[decode.ADDRESS_AT :])
    old += bytes(-len(old) % 64)
    return old[:2] + (len(old) // 64).to_bytes(2, "little") + old[4:]


def lines_of(path: Path, scratch: Path) -> bytes:
    scratch.mkdir()
    return b"".join(replay.replay(path, scratch))


def test_a_recording_of_the_version_before_gives_the_same_lines(tmp_path: Path) -> None:
    bench, path, old = Bench(), tmp_path / "recording", tmp_path / "old"
    recorder = Recorder(path, replay.about(ORIGIN), bench.capture, bench.order.cpus)
    acts = Acts(bench.kernel, random.Random(5))
    for _ in range(40):  # the rings go round several times
        for _ in range(200):
            acts.one()
        bench.order.look()
        recorder.look(1 << 62, 7, bench.order.cpus, [])
        bench.drain()
    recorder.close()
    assert int(bench.order.cpus[0, POS]) > 2 * bench.capture.shape.ring
    header, frames = recording.read(path)
    with old.open("wb") as file:
        file.write(json.dumps(header | {"ebpf-monitor-recording": 2}).encode() + b"\n")
        for frame in frames:
            data, at, made = frame.data, 0, b""
            while frame.kind == BULK and at < len(data):
                size = 8 * int.from_bytes(data[at + 2 : at + 4], "little")
                made += before(data[at : at + size])
                at += size
            data = made if frame.kind == BULK else data
            file.write(struct.pack("<BIqI", frame.kind, frame.number, frame.position, len(data)) + data)
    lines = lines_of(path, tmp_path / "one")
    assert lines.count(b"\n") > 1000
    assert lines_of(old, tmp_path / "two") == lines
