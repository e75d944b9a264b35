"""The append side on real file systems, with real faults: owns the facts about log.py and durable.py."""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from monitor import frames
from monitor.durable import DURABLE_BYTES, Durable, decode_durable, encode_durable, read_durable
from monitor.log import Log, LogError, Position

EPOCH = "00112233aabbccdd"
ANNOUNCED = struct.Struct("=QQQQQ")
DEADLINE_S = 20.0


def document(sequence: int, epoch: str = EPOCH, padding: int = 0) -> bytes:
    """One line as the monitor writes it, in the parts that the log and its reader look at."""
    fields = {
        "@timestamp": f"2026-11-22T16:52:01.{sequence % 10**9:09d}Z",
        "event": {"id": f"a1b2c3d4-{epoch}-{sequence:012x}", "sequence": sequence},
        "padding": "x" * padding,
    }
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def sequences(path: Path) -> list[int]:
    return [orjson.loads(line)["event"]["sequence"] for line in path.read_bytes().splitlines()]


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def notice(log: Log, word: str, within_s: float = DEADLINE_S) -> str:
    """Poll, as the collector does, until a notice has this word."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        for text in log.poll():
            if word in text:
                return text
        time.sleep(0.005)
    pytest.fail(f"no notice with {word!r} within {within_s} s")


def new_log(directory: Path, **options: object) -> Log:
    settings: dict[str, object] = {"sync_bytes": 1 << 20, "sync_interval_ms": 10}
    log = Log(directory, **{**settings, **options})  # type: ignore[arg-type]
    log.epoch = EPOCH
    return log


def refuse(fd: int, size: int) -> int:
    raise OSError(errno.EIO, "injected")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = new_log(tmp_path / "events")
    log.open()
    yield log
    log.close()


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "events" / "events.jsonl"


class Disk:
    """A directory whose space ends: a real small tmpfs, or without the right to mount one, a file size limit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mounted = False
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0750", "tmpfs", str(directory)]
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self.reason = "ENOSPC" if self.mounted else "EFBIG"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(self) -> None:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, self._limits[1]))

    def widen(self) -> None:
        if self.mounted:
            self.remount("size=4m")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.directory)], check=True)

    def close(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    directory = tmp_path / "small"
    directory.mkdir(mode=0o750)
    disk = Disk(directory)
    yield disk
    disk.close()


# ---- appending


def test_batches_stand_whole_and_in_order(log: Log, live: Path) -> None:
    log.append(document(1) + document(2), 2)
    log.append(memoryview(document(3)), 3)
    assert live.read_bytes() == document(1) + document(2) + document(3)
    assert log.bytes_written == live.stat().st_size == log.position().offset


def test_position_names_the_file_and_its_end(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    status = live.stat()
    assert log.position() == Position(status.st_dev, status.st_ino, status.st_size)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_fixed_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        log = new_log(tmp_path / "a" / "events", rotate_bytes=1)
        log.open()
        log.append(document(1), 1)
        notice(log, "rotated")
        assert log.sync_now()
        log.close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "a", *(tmp_path / "a").rglob("*")]}
    assert modes == {
        "a": 0o750, "events": 0o750, "events.jsonl": 0o640, "events.jsonl.1": 0o640, "durable": 0o640,
    }  # fmt: skip


def test_short_writes_are_completed(log: Log, live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:7]))
    log.append(document(1) + document(2), 2)
    assert live.read_bytes() == document(1) + document(2)


def test_full_disk_leaves_whole_batches_and_recovers_by_itself(disk: Disk) -> None:
    log = new_log(disk.directory)
    log.open()
    disk.limit()
    kept, sequence, failure = b"", 0, None
    while failure is None:
        batch = b"".join(document(sequence + n, padding=3000) for n in range(1, 20))
        try:
            log.append(batch, sequence + 19)
        except LogError as error:
            failure = error
        else:
            kept, sequence = kept + batch, sequence + 19
    live = disk.directory / "events.jsonl"
    assert (failure.reason, failure.path) == (disk.reason, str(live))
    assert live.read_bytes() == kept
    assert log.position().offset == len(kept) == log.bytes_written
    disk.widen()
    log.append(batch, sequence + 19)
    assert sequences(live) == list(range(1, sequence + 20))
    assert log.sync_now()
    assert log.durable_sequence == sequence + 19
    log.close()


def test_torn_rest_that_could_not_be_cut_is_cut_before_the_next_batch(
    log: Log, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(document(1), 1)
    write, ftruncate = os.write, os.ftruncate
    answers = iter([9])
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: next(answers, 0)]) or refuse(fd, 0))
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(LogError):
        log.append(document(2), 2)
    assert live.read_bytes() == document(1) + document(2)[:9]
    with pytest.raises(LogError) as failure:
        log.append(document(2), 2)
    assert failure.value.reason == "EIO"
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "ftruncate", ftruncate)
    log.append(document(2), 2)
    assert live.read_bytes() == document(1) + document(2)


def test_failed_append_never_lengthens_a_file_that_was_truncated(
    log: Log, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(document(1) * 50, 50)
    os.truncate(live, 0)
    write = os.write
    answers = iter([9])
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: next(answers, 0)]) or refuse(fd, 0))
    with pytest.raises(LogError):
        log.append(document(2), 2)
    assert live.read_bytes() == b""


# ---- opening


def test_torn_last_line_is_cut_and_counted(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir(mode=0o750)
    live = tmp_path / "events" / "events.jsonl"
    torn = b'{"torn": "' + b"y" * 200_000
    live.write_bytes(document(1) + torn)
    log = new_log(tmp_path / "events")
    assert log.open() == len(torn)
    log.close()
    assert live.read_bytes() == document(1)


def test_a_file_without_any_newline_is_all_torn(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"z" * 70_000)
    tmp_path.chmod(0o750)
    log = new_log(tmp_path)
    assert log.open() == 70_000
    log.close()


def _symlink(path: Path) -> None:
    path.with_name("target").write_bytes(b"")
    path.symlink_to("target")


def _hardlink(path: Path) -> None:
    path.write_bytes(b"")
    path.with_name("other").hardlink_to(path)


def _writable(path: Path, mode: int) -> None:
    path.write_bytes(b"")
    path.chmod(mode)


ATTACKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "symlink": (_symlink, "ELOOP", "symbolic link"),
    "dangling symlink": (lambda path: path.symlink_to("nowhere"), "ELOOP", "symbolic link"),
    "hard link": (_hardlink, "EMLINK", "2 names"),
    "directory": (lambda path: path.mkdir(), "EINVAL", "not a regular file"),
    "fifo": (lambda path: os.mkfifo(path), "EINVAL", "not a regular file"),
    "writable by others": (lambda path: _writable(path, 0o646), "EPERM", "others can write"),
    "writable by its group": (lambda path: _writable(path, 0o660), "EPERM", "its group can write"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_planted_file_is_refused_in_words(tmp_path: Path, attack: str) -> None:
    plant, reason, words = ATTACKS[attack]
    tmp_path.chmod(0o750)
    plant(tmp_path / "events.jsonl")
    with pytest.raises(LogError) as failure:
        new_log(tmp_path).open()
    assert failure.value.reason == reason
    assert words in str(failure.value)
    assert str(tmp_path / "events.jsonl") in str(failure.value)


@pytest.mark.parametrize("mode", [0o770, 0o757, 0o1777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(LogError) as failure:
        new_log(tmp_path).open()
    assert failure.value.reason == "EPERM"
    assert "can write it" in str(failure.value)


def test_a_symlinked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "events").symlink_to("real")
    with pytest.raises(LogError) as failure:
        new_log(tmp_path / "events").open()
    assert failure.value.reason == "ELOOP"
    assert "symbolic link" in str(failure.value)


def test_a_file_readable_by_all_is_narrowed(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    _writable(tmp_path / "events.jsonl", 0o644)
    log = new_log(tmp_path)
    log.open()
    log.close()
    assert stat.S_IMODE((tmp_path / "events.jsonl").stat().st_mode) == 0o640


def test_a_place_that_cannot_be_written_says_so_and_works_once_it_can(disk: Disk) -> None:
    if disk.mounted:
        disk.remount("ro")
        reasons = {"EROFS"}
    else:
        disk.directory.chmod(0o550)
        reasons = {"EACCES", "EPERM"}
    log = new_log(disk.directory)
    if disk.mounted or os.geteuid() != 0:
        with pytest.raises(LogError) as failure:
            log.open()
        assert failure.value.reason in reasons
    if disk.mounted:
        disk.remount("rw")
    disk.directory.chmod(0o750)
    assert log.open() == 0
    log.append(document(1), 1)
    log.close()
    assert sequences(disk.directory / "events.jsonl") == [1]


# ---- what others do to the file


def test_a_rename_is_noticed_within_a_second_and_loses_nothing(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    live.rename(live.with_name("events.jsonl-20261122"))
    log.append(document(2), 2)
    notice(log, "renamed", within_s=1.0)
    log.append(document(3), 3)
    assert sequences(live.with_name("events.jsonl-20261122")) == [1, 2]
    assert sequences(live) == [3]


def test_who_renames_the_log_has_time_to_make_the_next_file_himself(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    live.rename(live.with_name("events.jsonl-20261122"))
    log._next_poll = 0.0
    assert log.poll() == []
    assert not live.exists()
    log.append(document(2), 2)
    os.close(os.open(live, os.O_CREAT | os.O_EXCL, 0o640))
    made = live.stat().st_ino
    log._next_poll = 0.0
    assert "was renamed" in log.poll()[0]
    log.append(document(3), 3)
    assert sequences(live.with_name("events.jsonl-20261122")) == [1, 2]
    assert sequences(live) == [3]
    assert live.stat().st_ino == made


def test_a_removal_is_noticed_within_a_second(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    live.unlink()
    assert f"{len(document(1))} bytes" in notice(log, "removed", within_s=1.0)
    log.append(document(2), 2)
    assert sequences(live) == [2]


def test_a_removed_directory_is_made_again(log: Log, live: Path) -> None:
    shutil.rmtree(live.parent)
    notice(log, "removed", within_s=1.0)
    log.append(document(1), 1)
    assert log.sync_now()
    assert read_durable(live.parent) == Durable(EPOCH, 1, f"a1b2c3d4-{EPOCH}-000000000001", len(document(1)))


@pytest.mark.parametrize("regrown", [0, 30])
def test_copytruncate_is_noticed_within_a_second_however_much_was_written_since(
    log: Log, live: Path, regrown: int
) -> None:
    log.append(document(1) * 3, 3)
    os.truncate(live, 0)
    for sequence in range(4, 4 + regrown):
        log.append(document(sequence), sequence)
    notice(log, "truncated", within_s=1.0)
    assert log.position().offset == live.stat().st_size
    log.append(document(99), 99)
    assert sequences(live) == [*range(4, 4 + regrown), 99]
    assert log.sync_now()
    point = read_durable(live.parent)
    assert point is not None
    assert (point.offset, point.file_id) == (
        live.stat().st_size, orjson.loads(live.read_bytes().splitlines()[0])["event"]["id"],
    )  # fmt: skip


def test_foreign_bytes_are_told_and_our_next_line_begins_a_line(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    with live.open("ab") as other:
        other.write(b"not ours")
    notice(log, "written to", within_s=1.0)
    log.append(document(2), 2)
    assert live.read_bytes() == document(1) + b"not ours\n" + document(2)


def test_a_directory_that_became_unusable_is_told_once_and_its_end_too(log: Log, live: Path) -> None:
    live.parent.chmod(0o777)
    live.rename(live.with_name("events.jsonl.1"))
    notice(log, "others can write")
    log.append(document(1), 1)
    for _ in range(3):
        log._next_poll = 0.0
        assert log.poll() == []
    live.parent.chmod(0o750)
    notice(log, "usable again")
    log.append(document(2), 2)
    assert (sequences(live.with_name("events.jsonl.1")), sequences(live)) == ([1], [2])


def test_reopen_loses_and_splits_nothing_under_a_writer(log: Log, live: Path) -> None:
    """The signal arrives between batches, as the collector's loop handles it; another thread is the rotator."""
    rotated: list[Path] = []
    asked, done = threading.Event(), threading.Event()

    def rotate() -> None:
        for number in range(40):
            rotated.append(live.rename(live.with_name(f"events.jsonl-{number:03d}")))
            done.clear()
            asked.set()
            assert done.wait(DEADLINE_S)

    rotator = threading.Thread(target=rotate)
    rotator.start()
    sequence = 0
    while rotator.is_alive():
        batch = b"".join(document(sequence + n, padding=400) for n in range(1, 31))
        sequence += 30
        log.append(batch, sequence)
        if asked.is_set():
            asked.clear()
            log.reopen()
            done.set()
    rotator.join()
    assert [number for path in [*rotated, live] for number in sequences(path)] == list(range(1, sequence + 1))
    assert log.sync_now()
    assert log.durable_sequence == sequence


def test_reopen_of_an_unmoved_file_goes_on_in_it(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    before = log.position()
    log.reopen()
    assert log.position() == before
    log.append(document(2), 2)
    assert sequences(live) == [1, 2]


def test_reopen_that_fails_keeps_the_present_file(log: Log, live: Path) -> None:
    old = live.rename(live.with_name("events.jsonl.1"))
    live.mkdir()
    with pytest.raises(LogError):
        log.reopen()
    log.append(document(1), 1)
    assert sequences(old) == [1]


def test_descriptors_do_not_leak_over_reopens(log: Log, live: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    log.append(document(1), 1)
    assert log.sync_now()
    before = count()
    for number in range(50):
        live.rename(live.with_name(f"events.jsonl-{number}"))
        log.reopen()
        log.append(document(number + 2), number + 2)
    assert log.sync_now()
    wait_for(lambda: count() <= before, "as many descriptors as before")


def test_rotation_keeps_as_many_files_as_asked(tmp_path: Path) -> None:
    log = new_log(tmp_path / "events", rotate_bytes=1, rotate_keep=3)
    log.open()
    texts = []
    for sequence in range(1, 7):
        log.append(document(sequence), sequence)
        texts.append(notice(log, "rotated"))
    log.close()
    content = {path.name: sequences(path) for path in (tmp_path / "events").glob("events.jsonl*")}
    assert content == {"events.jsonl": [], "events.jsonl.1": [6], "events.jsonl.2": [5], "events.jsonl.3": [4]}
    assert "removed" in texts[-1]
    assert "removed" not in texts[0]


# ---- recover


def batch_at(log: Log, first: int, count: int) -> tuple[Position, bytes]:
    return log.position(), b"".join(document(first + n) for n in range(count))


@pytest.mark.parametrize("rename_to", [None, "events.jsonl-20261122", "events.jsonl.1"])
@pytest.mark.parametrize("written", ["all", "all and more", "part", "line", "nothing"])
def test_recover_leaves_a_whole_batch_and_cuts_a_part(tmp_path: Path, written: str, rename_to: str | None) -> None:
    directory = tmp_path / "events"
    log = new_log(directory)
    log.open()
    log.append(document(1), 1)
    position, batch = batch_at(log, 2, 3)
    log.close()
    live = directory / "events.jsonl"
    there = {
        "all": batch, "all and more": batch + b'{"torn', "part": batch[:-5], "line": document(2), "nothing": b"",
    }[written]  # fmt: skip
    with live.open("ab") as crashed:
        crashed.write(there)
    path = live
    if rename_to:
        path = live.rename(live.with_name(rename_to))
        live.write_bytes(b"")
    whole = written.startswith("all")
    assert new_log(directory).recover(position, len(batch)) is whole
    assert path.read_bytes() == document(1) + (batch if whole else b"")


def test_recover_touches_nothing_when_the_file_is_gone_or_changed(tmp_path: Path) -> None:
    directory = tmp_path / "events"
    assert new_log(directory).recover(Position(1, 2, 3), 4) is False
    assert not directory.exists()
    log = new_log(directory)
    log.open()
    log.append(document(1) * 2, 2)
    position = log.position()
    log.close()
    live = directory / "events.jsonl"
    live.write_bytes(document(7) + b"x" * 2 * len(document(1)))  # truncated and written by somebody else
    content = live.read_bytes()
    assert new_log(directory).recover(position, 10) is False
    assert live.read_bytes() == content
    live.write_bytes(document(1))
    assert new_log(directory).recover(position, 10) is False
    assert live.read_bytes() == document(1)


def _append_until_killed(directory: Path, shared: mmap.mmap, seed: int, level: int | None) -> None:
    """The child: announces each batch (two slots, the generation last) and writes it, for ever."""
    chance = random.Random(seed)
    log = new_log(directory, rotate_bytes=300_000 if level else 3 << 20, rotate_keep=1000, zstd_level=level)
    log.open()
    batch = max(ANNOUNCED.unpack_from(shared, 0)[0], ANNOUNCED.unpack_from(shared, ANNOUNCED.size)[0])
    while True:
        batch += 1
        count = chance.choice((1, 10, 300, 3000))
        data = b"".join(b'{"batch":%d,"line":%d,"of":%d}\n' % (batch, n, count) for n in range(count))
        at = log.position()
        slot = (batch % 2) * ANNOUNCED.size
        ANNOUNCED.pack_into(shared, slot, 0, at.device, at.inode, at.offset, log.length(memoryview(data)))
        struct.pack_into("=Q", shared, slot, batch)
        log.append(data, batch)
        log.poll()


def _announced_after(shared: mmap.mmap, batch: int) -> bool:
    return any(ANNOUNCED.unpack_from(shared, slot)[0] > batch for slot in (0, ANNOUNCED.size))


@pytest.mark.parametrize("level", [None, 1], ids=["plain", "zstd"])
def test_fifty_kills_leave_whole_batches_only(tmp_path: Path, level: int | None) -> None:
    directory = tmp_path / "events"
    shared = mmap.mmap(-1, 2 * ANNOUNCED.size)
    chance = random.Random(20261122)
    expected: list[int] = []
    verdicts = []
    for number in range(50):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):  # the child must not return into pytest
                _append_until_killed(directory, shared, number, level)
            os._exit(1)
        before = max(expected, default=0)
        wait_for(functools.partial(_announced_after, shared, before), "the child announced a batch")
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        batch, device, inode, offset, length = max(ANNOUNCED.unpack_from(shared, s) for s in (0, ANNOUNCED.size))
        whole = new_log(directory, zstd_level=level).recover(Position(device, inode, offset), length)
        verdicts.append(whole)
        expected.extend(range(before + 1, batch + 1 if whole else batch))
        if not whole:  # its number is given back, as the collector does
            struct.pack_into("=Q", shared, (batch % 2) * ANNOUNCED.size, 0)
            last = (batch - 1, 0, 0, 0, 0)
            ANNOUNCED.pack_into(shared, ((batch - 1) % 2) * ANNOUNCED.size, *last)
    found: list[tuple[int, int, int]] = []
    for path in directory.glob("events.jsonl*"):
        with path.open("rb") as opened:
            there = frames.view(opened.fileno(), level is not None)
            assert there.whole_end() == path.stat().st_size
            content = there.pread(there.size(), 0)
        assert content == b"" or content.endswith(b"\n")
        found.extend((d["batch"], d["line"], d["of"]) for d in map(orjson.loads, content.splitlines()))
    found.sort()
    assert sorted({batch for batch, _, _ in found}) == expected
    sizes = {batch: of for batch, _, of in found}
    assert found == [(batch, line, sizes[batch]) for batch in expected for line in range(sizes[batch])]
    assert True in verdicts


# ---- group commit


class Fault:
    """An fdatasync that fails on demand, and remembers how far each file was synced."""

    def __init__(self) -> None:
        self.error = 0
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.synced: dict[int, int] = {}

    def __call__(self, fd: int) -> None:
        self.calls += 1
        assert self.gate.wait(DEADLINE_S)
        if self.error:
            raise OSError(self.error, "injected")
        status = os.fstat(fd)
        os.fdatasync(fd)
        self.synced[status.st_ino] = status.st_size


@pytest.fixture
def fault() -> Fault:
    return Fault()


def test_many_appends_share_one_sync(tmp_path: Path, fault: Fault) -> None:
    fault.gate.clear()
    log = new_log(tmp_path / "events", sync_bytes=1, fdatasync=fault)
    log.open()
    started = time.monotonic()
    for sequence in range(1, 1001):
        log.append(document(sequence), sequence)
    assert time.monotonic() - started < 5, "the collector waited for a sync"
    assert log.durable_sequence == 0
    assert read_durable(tmp_path / "events") is None
    fault.gate.set()
    assert log.sync_now()
    assert log.durable_sequence == 1000
    assert fault.calls <= 3
    log.close()


def test_durable_never_runs_ahead_of_what_was_synced(tmp_path: Path, fault: Fault) -> None:
    directory = tmp_path / "events"
    log = new_log(directory, sync_bytes=2000, sync_interval_ms=1, fdatasync=fault, rotate_bytes=100_000)
    log.open()
    ends: dict[tuple[int, int], int] = {}
    chance = random.Random(7)
    for sequence in range(1, 3001):
        fault.error = chance.choice((0, 0, errno.EIO, errno.ENOSPC))
        log.append(document(sequence, padding=100), sequence)
        position = log.position()
        ends[position.inode, position.offset] = sequence
        log.poll()
        point = read_durable(directory)
        if point is None:
            continue
        inode = next(i for (i, offset), last in ends.items() if last == point.sequence and offset == point.offset)
        assert fault.synced[inode] >= point.offset
        assert log.durable_sequence >= point.sequence
    fault.error = 0
    assert log.sync_now()
    assert log.durable_sequence == 3000
    log.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_failed_sync_is_counted_told_retried_and_holds_the_point(tmp_path: Path, fault: Fault, number: int) -> None:
    directory = tmp_path / "events"
    log = new_log(directory, fdatasync=fault)
    log.open()
    log.append(document(1), 1)
    assert log.sync_now()
    fault.error = number
    log.append(document(2), 2)
    wait_for(lambda: log.sync_failures >= 2, "a second failure")
    assert log.sync_failure_reason == errno.errorcode[number]
    assert errno.errorcode[number] in notice(log, "syncing the log fails")
    point = read_durable(directory)
    assert point is not None
    assert (log.durable_sequence, point.sequence) == (1, 1)
    assert log.sync_now() is False
    fault.error = 0
    notice(log, "works again")
    wait_for(lambda: log.durable_sequence == 2, "the point goes on")
    log.close()


def test_after_a_failed_sync_the_bytes_are_written_again(tmp_path: Path, fault: Fault) -> None:
    """Linux calls pages clean after a failed writeback: without writing them again the next sync proves nothing."""
    directory = tmp_path / "events"
    log = new_log(directory, fdatasync=fault)
    log.open()
    fault.error = errno.EIO
    log.append(document(1), 1)
    wait_for(lambda: log.sync_failures, "a failure")
    live = directory / "events.jsonl"
    changed = live.stat().st_mtime_ns
    fault.error = 0
    assert log.sync_now()
    assert live.stat().st_mtime_ns > changed
    assert live.read_bytes() == document(1)
    log.close()


def test_a_new_file_is_durable_only_once_its_directory_entry_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: refuse(fd, 0))
    log = new_log(tmp_path / "events")
    log.open()
    log.append(document(1), 1)
    wait_for(lambda: log.sync_failures >= 2, "failures")
    assert log.durable_sequence == 0
    monkeypatch.setattr(os, "fsync", fsync)
    assert log.sync_now()
    assert log.durable_sequence == 1
    log.close()


def test_the_old_file_is_durable_before_a_point_in_the_new_one(tmp_path: Path, fault: Fault) -> None:
    directory = tmp_path / "events"
    log = new_log(directory, sync_interval_ms=1, fdatasync=fault)
    log.open()
    fault.error = errno.EIO
    log.append(document(1), 1)
    old = log.position().inode
    (directory / "events.jsonl").rename(directory / "events.jsonl.1")
    log.reopen()
    log.append(document(2), 2)
    wait_for(lambda: log.sync_failures >= 3, "failures")
    assert log.durable_sequence == 0
    fault.error = 0
    assert log.sync_now()
    assert list(fault.synced) == [old, log.position().inode]
    point = read_durable(directory)
    assert point == Durable(EPOCH, 2, f"a1b2c3d4-{EPOCH}-000000000002", len(document(2)))
    log.close()


def test_close_makes_the_last_batch_durable_and_says_if_it_could_not(tmp_path: Path, fault: Fault) -> None:
    log = new_log(tmp_path / "events", sync_interval_ms=60_000, fdatasync=fault)
    log.open()
    log.append(document(1), 1)
    assert log.close() is True
    assert fault.calls == 1
    fault.error = errno.EIO
    log = new_log(tmp_path / "events", sync_interval_ms=60_000, fdatasync=fault)
    log.open()
    log.append(document(2), 2)
    assert log.close() is False
    assert log.durable_sequence == 0


def test_the_sync_interval_bounds_how_long_a_line_waits(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    wait_for(lambda: log.durable_sequence == 1, "a sync without being asked")
    wait_for(lambda: read_durable(live.parent) is not None, "a published point")


def test_a_lost_durable_file_is_made_again(log: Log, live: Path) -> None:
    log.append(document(1), 1)
    assert log.sync_now()
    (live.parent / "durable").unlink()
    log.append(document(2), 2)
    assert log.sync_now()
    point = read_durable(live.parent)
    assert point is not None
    assert point.sequence == 2


def test_a_planted_durable_link_is_not_written_through(log: Log, live: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (live.parent / "durable").symlink_to(victim)
    log.append(document(1), 1)
    assert log.sync_now() is False
    assert victim.read_bytes() == b"precious"
    assert log.sync_failure_reason == "ELOOP"


def test_durable_points_have_one_length_and_any_damage_is_seen() -> None:
    point = Durable(EPOCH, (1 << 48) - 1, f"a1b2c3d4-{EPOCH}-ffffffffffff", 1 << 62)
    line = encode_durable(point)
    assert len(line) == len(encode_durable(Durable(EPOCH, 1, None, 0))) == DURABLE_BYTES
    assert decode_durable(line) == point
    other = encode_durable(Durable("ffeeddccbbaa9988", 77, None, 12345))
    for cut in range(1, DURABLE_BYTES):
        torn = line[:cut] + other[cut:]
        assert decode_durable(torn) in (None, point, other and decode_durable(other))
        assert decode_durable(line[:cut]) is None


def test_a_reader_sees_an_old_or_a_new_point_never_a_mixture(tmp_path: Path) -> None:
    log = new_log(tmp_path, sync_bytes=1)
    tmp_path.chmod(0o750)
    log.open()
    seen, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            point = read_durable(tmp_path)
            if point is not None:
                seen.append((point.sequence, point.offset))

    watcher = threading.Thread(target=look)
    watcher.start()
    offsets = {}
    for sequence in range(1, 2001):
        log.append(document(sequence), sequence)
        offsets[sequence] = log.position().offset
    assert log.sync_now()
    stop.set()
    watcher.join()
    log.close()
    assert all(offsets[sequence] == offset for sequence, offset in seen)
    assert seen == sorted(seen)
