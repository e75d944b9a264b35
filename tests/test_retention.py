"""Which log files go when space is short, in which order, and that exactly the lines that nobody was sent are named."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from monitor import retention
from monitor.logfiles import LogFile, files
from monitor.retention import Going, Range, Retention, choose, claim, extent

A, B, C = "000000000000000a", "000000000000000b", "000000000000000c"


def line(epoch: str, sequence: int, start: str = "") -> bytes:
    """One document; with `start` (the epoch before) a monitor_start."""
    ebpf: dict[str, object] = {"event": "monitor_start" if sequence == 1 else "file_open"}
    if start:
        ebpf["previous"] = {"epoch": start, "sequence": 1}
    stamp = f"2026-11-28T00:00:{sequence % 60:02}.000000000Z"
    event = {"id": f"00000001-{epoch}-{sequence:012x}", "sequence": sequence}
    return orjson.dumps({"@timestamp": stamp, "event": event, "ebpf": ebpf}) + b"\n"


def write(path: Path, *parts: tuple[str, int, int], before: str = "") -> None:
    """Lines first to last of each epoch, whose first line names the epoch before; compressed by the name's ending."""
    data = b""
    for epoch, first, last in parts:
        for number in range(first, last + 1):
            data += line(epoch, number, before if number == 1 else "")
        before = epoch
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Four files: .3.gz is all of A 1..50; .2 is A 51..60 and B 1..20, a restart; .1 is B 21..99; then the live one."""
    write(tmp_path / "events.jsonl.3.gz", (A, 1, 50))
    write(tmp_path / "events.jsonl.2", (A, 51, 60), (B, 1, 20))
    write(tmp_path / "events.jsonl.1", (B, 21, 99))
    write(tmp_path / "events.jsonl", (B, 100, 120))
    return tmp_path


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A file system of 100 blocks of one byte; each file counts as it does."""
    about = SimpleNamespace(f_bavail=0, f_blocks=1000, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: about)
    return about


def names(going: list[Going]) -> list[tuple[tuple[str, int, int], ...]]:
    return [tuple((one.epoch, one.first, one.last) for one in each.unshipped) for each in going]


def left(log: Path) -> list[str]:
    return [file.path.name for file in files(log)]


def everything(log: Path, shipped: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch) -> list[Going]:
    """What goes when nothing is ever enough."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_blocks=1 << 40, f_frsize=4096))
    return choose(log, 90, shipped)


def test_oldest_go_first_and_the_live_file_never(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = everything(log, None, monkeypatch)
    assert names(going) == [((A, 1, 50),), ((A, 51, 60), (B, 1, 20)), ((B, 21, 99),)]
    assert [one.file.live for one in going] == [False, False, False]


def test_no_more_go_than_are_needed(log: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = 49
    assert names(choose(log, 5, None)) == [((A, 1, 50),)]
    disk.f_bavail = 50
    assert choose(log, 5, None) == []


@pytest.mark.parametrize(
    ("shipped", "lines"),
    [
        ((A, 49), [((A, 50, 50),), ((A, 51, 60), (B, 1, 20)), ((B, 21, 99),)]),
        ((A, 50), [(), ((A, 51, 60), (B, 1, 20)), ((B, 21, 99),)]),
        ((A, 55), [(), ((A, 56, 60), (B, 1, 20)), ((B, 21, 99),)]),
        ((A, 60), [(), ((B, 1, 20),), ((B, 21, 99),)]),
        ((B, 7), [(), ((B, 8, 20),), ((B, 21, 99),)]),
        ((B, 20), [(), (), ((B, 21, 99),)]),
        ((B, 98), [(), (), ((B, 99, 99),)]),
        ((B, 110), [(), (), ()]),
        ((C, 1), [((A, 1, 50),), ((A, 51, 60), (B, 1, 20)), ((B, 21, 99),)]),
    ],
)
def test_only_lines_behind_the_last_delivered_one_are_named(
    log: Path, shipped: tuple[str, int], lines: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(everything(log, shipped, monkeypatch)) == lines


def test_a_checkpoint_within_a_compressed_file_of_two_epochs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "events.jsonl.2.gz", (A, 1, 50), (B, 1, 30))
    write(tmp_path / "events.jsonl.1", (C, 1, 9), before=B)
    write(tmp_path / "events.jsonl", (C, 10, 11))
    assert names(everything(tmp_path, (B, 10), monkeypatch)) == [((B, 11, 30),), ((C, 1, 9),)]


def test_a_file_that_is_not_the_monitor_s_stays(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (log / "events.jsonl.note").write_text("somebody's notes\n")
    (log / "events.jsonl.link").symlink_to("/etc/passwd")
    everything(log, None, monkeypatch)
    assert (log / "events.jsonl.note").read_text() == "somebody's notes\n"
    assert (log / "events.jsonl.link").is_symlink()


def test_a_damaged_archive_names_what_can_be_read_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl.1.gz"
    data = b"".join(line(A, number) for number in range(1, 20_001))
    path.write_bytes(gzip.compress(data)[:-20_000])
    write(tmp_path / "events.jsonl", (A, 20_001, 20_002))
    ((found,),) = [one.unshipped for one in everything(tmp_path, None, monkeypatch)]
    assert (found.epoch, found.first, found.exact) == (A, 1, False)
    assert 1 < found.last < 20_000
    assert found.loss["exact"] is False


def test_what_was_chosen_is_found_under_the_name_that_it_has_now(log: Path) -> None:
    (chosen,) = [file for file in files(log) if file.path.name == "events.jsonl.1"]
    (log / "events.jsonl.2").rename(log / "events.jsonl.4")  # a rotation shifts the names
    (log / "events.jsonl.1").rename(log / "events.jsonl.2")
    write(log / "events.jsonl.1", (C, 1, 5))
    claimed = claim(chosen)
    assert claimed is not None
    assert claimed.path.stat().st_ino == chosen.inode
    assert extent(next(file for file in files(log) if file.path == claimed.path)) == (Range(B, 21, 99),)
    assert (log / "events.jsonl.1").exists()
    assert claim(LogFile(log / "events.jsonl.9", 1, 1, 1, 1)) is None


def test_a_claimed_file_is_still_part_of_the_log(log: Path, disk: SimpleNamespace) -> None:
    (going,) = choose(log, 1, None)
    assert left(log)[0] == going.file.path.name
    assert going.file.path.suffix == ".gz"
    assert names(choose(log, 1, None)) == [((A, 1, 50),)], "a monitor that was killed here finds it again"


def take(kept: Retention, percent: int) -> list[Going]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = kept.look(percent)
        if found:
            return found
        time.sleep(0.01)
    return []


def test_the_loop_gets_what_goes_and_removes_it(log: Path, disk: SimpleNamespace) -> None:
    kept = Retention(log, lambda: (A, 50))
    disk.f_bavail = 49
    going = take(kept, 5)
    assert names(going) == [()]
    assert going[0].sentence.endswith("was removed (all of it was shipped)")
    assert kept.remove(going) == going
    assert left(log) == ["events.jsonl.2", "events.jsonl.1", "events.jsonl"]
    disk.f_bavail = 50
    assert kept.look(5) == []
    disk.f_bavail = 0
    assert kept.look(0) == []
    assert kept._thread is None


def test_a_disk_that_others_fill_is_told_and_not_looked_at_all_the_time(tmp_path: Path, disk: SimpleNamespace) -> None:
    write(tmp_path / "events.jsonl", (A, 1, 2))
    kept = Retention(tmp_path, lambda: None)
    assert kept.look(5) == []
    assert kept._thread is not None
    kept._thread.join()
    assert kept.look(5) == []
    assert "no rotated file that could go" in kept.problem
    assert kept._thread is None
    assert left(tmp_path) == ["events.jsonl"]


def test_a_file_that_cannot_be_removed_is_a_problem_and_no_exception(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path, *, missing_ok: bool) -> None:
        raise OSError(30, "Read-only file system")

    going = everything(log, None, monkeypatch)
    monkeypatch.setattr(Path, "unlink", refuse)
    kept = Retention(log, lambda: None)
    assert kept.remove(going) == []
    assert "Read-only file system" in kept.problem


def test_space_that_cannot_be_told_is_a_problem_until_it_can(
    log: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_: Path) -> float:
        raise OSError(116, "Stale file handle")

    kept, sound = Retention(log, lambda: None), retention.free_percent
    monkeypatch.setattr(retention, "free_percent", stale)
    assert kept.look(5) == []
    assert kept.problem == "cannot tell how much space is left for the log: Stale file handle"
    monkeypatch.setattr(retention, "free_percent", sound)
    disk.f_bavail = 500
    assert kept.look(5) == []
    assert kept.problem == ""


def test_free_space_is_what_others_than_root_can_use(disk: SimpleNamespace, tmp_path: Path) -> None:
    disk.f_bavail = 25
    assert retention.free_percent(tmp_path) == 2.5
