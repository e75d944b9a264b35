"""Which file systems are settled, and which times are doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monitor import quiet
from monitor.kernel import rings
from monitor.quiet import Mount, Settled

ROOT = Path("/").stat().st_dev
ROOT_LINE = f"27 1 {ROOT >> 8 & 0xFFF}:{ROOT & 0xFF} / / rw,relatime - ext4 /dev/vda rw\n".encode()
AGE = 100


def test_mountinfo_is_read() -> None:
    text = ROOT_LINE + (
        rb"36 35 98:0 /mnt1 /mnt\0402 rw,nosuid master:1 - ext3 /dev/root rw,errors=continue" + b"\n"
        b"37 35 0:45 / /run/x rw shared:9 - fuse.sshfs joe@host rw\n" + b"garbage\n\n1 2 x:y / / rw - ext4 d rw\n"
    )
    found = quiet.mounts(text)
    assert found[1:] == [Mount(98 << 20, b"/mnt 2", "ext3", True), Mount(45, b"/run/x", "fuse.sshfs", False)]
    assert found[0].point == b"/"


class Bench:
    """A Settled over plain memory and a mountinfo of our own."""

    def __init__(self, path: Path) -> None:
        self.calm = np.zeros(rings.CALM_BYTES // 8, np.int64)
        self.file = path / "mountinfo"
        self.file.write_bytes(ROOT_LINE)
        self.settled = Settled(self.calm, AGE, self.file)

    def devices(self, now: float) -> list[int]:
        self.settled.look(now)
        return [int(one) for one in self.calm[rings.DEVICES :].view("u4") if one]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.settled.close()


def test_what_is_there_at_the_start_counts_at_once_and_what_comes_later_after_the_age(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = (ROOT >> 8 & 0xFFF) << 20 | ROOT & 0xFF
    assert bench.devices(1000) == [root]
    monkeypatch.setattr(bench.settled, "_watches", lambda *_: True)
    bench.file.write_bytes(
        ROOT_LINE
        + b"40 27 7:0 / /mnt rw - ext4 /dev/loop0 rw\n41 27 0:50 / /f rw - fuse f rw\n42 27 8:1 / /u rw,nosuid - ext4 u rw\n"
    )
    bench.calm[rings.CHANGES] += 1
    assert bench.settled.stirred
    assert bench.devices(1001) == [root]
    assert not bench.settled.stirred
    assert bench.devices(1000 + AGE) == [root]
    assert bench.devices(1002 + AGE) == [root, 7 << 20]
    bench.file.write_bytes(ROOT_LINE)
    bench.calm[rings.CHANGES] += 1
    assert bench.devices(1003 + AGE) == [root]


def test_a_point_that_shows_another_file_system_is_not_taken(bench: Bench) -> None:
    bench.file.write_bytes(b"27 1 7:77 / / rw - ext4 /dev/loop77 rw\n")
    assert bench.devices(1) == []


def test_a_file_system_whose_watch_has_ended_is_forgotten(bench: Bench) -> None:
    root = (ROOT >> 8 & 0xFFF) << 20 | ROOT & 0xFF
    assert bench.devices(1) == [root]
    (number,) = bench.settled._watched
    bench.settled._libc.inotify_rm_watch(bench.settled._watch, number)  # IN_IGNORED, as behind IN_UNMOUNT
    assert bench.devices(2) == []


def test_a_set_clock_leaves_a_range_that_only_grows(bench: Bench) -> None:
    bench.settled.step(5000, 9000)
    assert list(bench.calm[rings.SUSPECT_FROM : rings.SUSPECT_TO + 1]) == [5000 - AGE - 2, 9002]
    bench.settled.step(9500, 9400)
    assert list(bench.calm[rings.SUSPECT_FROM : rings.SUSPECT_TO + 1]) == [5000 - AGE - 2, 9502]


def test_closed_nothing_is_settled(bench: Bench) -> None:
    assert bench.devices(1)
    bench.settled.close()
    assert not bench.calm[rings.DEVICES :].any()
