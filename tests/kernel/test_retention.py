"""A small file system that the log fills, and then somebody else: rotated files go, and the records name exactly their lines."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, compiled, paced, wait_for

MIN_FREE = 30


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=750", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def monitor(tmp_path: Path, small: Path) -> Iterator[MonitorRun]:
    settings = {"profile": "trace", "events_dir": str(small / "events"), "log_min_free": MIN_FREE,
                "rotate_bytes": 2 << 20, "rotate_keep": 1000}  # fmt: skip
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-room-{os.getpid()}", settings, runner=ONLY_OURS)
    with paced():
        yield made
        made.finish()


def _fill(path: Path) -> None:
    """Takes all the space that is left."""
    with open(path, "ab", buffering=0) as full, contextlib.suppress(OSError):  # ENOSPC: it is full
        while True:
            full.write(bytes(1 << 16))


def test_rotated_files_go_oldest_first_with_their_exact_lines_and_a_disk_filled_by_others_is_survived(
    monitor: MonitorRun, small: Path, tmp_path: Path
) -> None:
    monitor.start()
    acts = Acts(compiled(tmp_path), tmp_path / "acts", "mixed", rate=3000)
    wait_for(lambda: monitor.output.count("was removed (") >= 3, what=f"space is made: {monitor.output}")
    about = os.statvfs(small)
    assert about.f_bavail / about.f_blocks > MIN_FREE / 200, "the disk stays usable"
    filler = small / "filler"
    _fill(filler)
    before = monitor.output.count("was removed (")
    wait_for(lambda: monitor.output.count("was removed (") >= before + 3, what=f"what is left goes: {monitor.output}")
    _fill(filler)
    wait_for(lambda: "cannot write the log" in monitor.output, what=f"the disk is full: {monitor.output}")
    assert (small / "events" / "events.jsonl").exists()
    filler.unlink()
    wait_for(lambda: "the log is written again" in monitor.output, what=f"it recovers: {monitor.output}")
    acts.stop()
    ledger = monitor.wait_balanced()
    assert monitor.stop() == 0
    there = [document["event"]["sequence"] for document in monitor.documents()]
    assert there == list(range(there[0], there[-1] + 1)), "what is left is one piece"
    losses = [document["ebpf"]["loss"] for document in monitor.documents(b'"reason":"expired"')]
    assert not [loss for loss in losses if loss.get("exact") is False]
    # Records of what went first may have gone themselves: those that are left end where the log begins.
    ranges = [(loss["first"], loss["last"]) for loss in losses]
    assert ranges[-1][1] == there[0] - 1
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(ranges))
    assert ledger["expired"] == there[0] - 1
    assert ledger["balanced"]
