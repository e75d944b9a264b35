"""Recordings: what a look leaves in the file, also when it found nothing."""

from __future__ import annotations

from pathlib import Path

from monitor import recording
from monitor.recording import CPU, FOUND, LOOK, MIRROR, Recorder
from tests.fakes import Bench


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
    assert header["ebpf-monitor-recording"] == 2
    assert [frame.kind for frame in every] == [MIRROR, *[CPU] * len(bench.order.cpus), FOUND, LOOK, LOOK]
    looks = [
        (frame.position, int.from_bytes(frame.data, "little", signed=True)) for frame in every if frame.kind == LOOK
    ]
    assert looks == [(10, 500), (20, 591)]
