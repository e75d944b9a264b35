"""Log files back into lines: owns the facts about reader.py and logfiles.py, with real files and real writers."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import zstandard

from monitor.log import Log
from monitor.logfiles import look
from monitor.reader import (
    MAX_LINE_BYTES,
    Document,
    Line,
    LogFile,
    Problem,
    ReaderError,
    documents,
    files,
    lines,
    tail_offset,
)

EPOCHS = ["e000000000000001", "a000000000000002", "c000000000000003", "0000000000000004"]
DEADLINE_S = 20.0


def document(sequence: int, epoch: str = EPOCHS[0], *, previous: str | None = None, padding: int = 0) -> bytes:
    """One line as the monitor writes it, in the parts that the reader looks at."""
    fields: dict[str, object] = {
        "@timestamp": f"2026-11-22T16:52:01.{sequence % 10**9:09d}Z",
        "event": {"id": f"a1b2c3d4-{epoch}-{sequence:012x}", "sequence": sequence},
        "ebpf": {"previous": {"epoch": previous, "sequence": 1}} if previous else {},
        "padding": "x" * padding,
    }
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def run(first: int, last: int, epoch: str = EPOCHS[0], previous: str | None = None) -> bytes:
    return b"".join(document(n, epoch, previous=previous if n == 1 else None) for n in range(first, last + 1))


def numbers(found: list[Line]) -> list[int]:
    return [orjson.loads(line.raw)["event"]["sequence"] for line in found]


def names(directory: Path) -> list[str]:
    return [file.path.name for file in files(directory)]


class Follower:
    """A thread that follows a directory and keeps what it sees."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.lines: list[Line] = []
        self.problems: list[Problem] = []
        self.idle = threading.Event()
        self._ending = threading.Event()
        self._source = lines(
            directory, True, self._stop, on_problem=self.problems.append, **options  # type: ignore[arg-type]
        )  # fmt: skip
        self._thread = threading.Thread(target=lambda: self.lines.extend(iter(self._one, None)))
        self._thread.start()

    def _one(self) -> Line | None:
        return next(self._source, None)

    def _stop(self) -> bool:
        self.idle.set()
        return self._ending.is_set()

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"the follower has {len(self.lines)} lines, {self.problems}"
            time.sleep(0.002)

    def wait_lines(self, count: int) -> None:
        self.wait(lambda: len(self.lines) >= count)

    def look_again(self) -> None:
        """Wait until it has begun two more looks at the file: what was there before this call has been seen."""
        for _ in range(2):
            self.idle.clear()
            assert self.idle.wait(DEADLINE_S)

    def end(self) -> list[Line]:
        self._ending.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.lines


@pytest.fixture
def live(directory: Path) -> Path:
    return directory / "events.jsonl"


@pytest.fixture
def follow(directory: Path) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(**options: object) -> Follower:
        started.append(Follower(directory, **options))
        return started[-1]

    yield start
    for follower in started:
        follower.end()


# ---- lines


def test_lines_come_with_their_offset_and_without_newline(directory: Path, live: Path) -> None:
    live.write_bytes(b"one\n\ntwo\r\nthree \x85 \xe2\x80\xa8 end\n")
    found = list(lines(directory))
    assert [(line.offset, line.raw, line.torn) for line in found] == [
        (0, b"one", False), (4, b"", False), (5, b"two\r", False), (10, b"three \x85 \xe2\x80\xa8 end", False),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_longer_than_a_block_and_across_blocks_are_whole(directory: Path, suffix: str) -> None:
    chance = random.Random(3)
    content = [chance.randbytes(size).replace(b"\n", b" ") for size in (0, 1, 3 << 20, 5, 1 << 20, (1 << 20) - 1, 77)]
    path = directory / f"events.jsonl{suffix}"
    path.write_bytes(compress(suffix, b"\n".join(content) + b"\n"))
    found = list(lines(directory))
    assert [line.raw for line in found] == content
    assert [line.offset for line in found] == list(itertools.accumulate((len(c) + 1 for c in content[:-1]), initial=0))


def compress(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, 1)
    if suffix == ".zst":  # several frames, as one per group commit
        cut = data.find(b"\n", len(data) // 2) + 1
        return b"".join(zstandard.compress(part) for part in (data[:cut], data[cut:]))
    return data


def test_a_torn_last_line_is_marked(directory: Path, live: Path) -> None:
    live.write_bytes(document(1) + b'{"half')
    found = list(lines(directory))
    assert (found[1].raw, found[1].torn, found[1].offset) == (b'{"half', True, len(document(1)))


@pytest.mark.parametrize("following", [False, True])
def test_an_endless_line_is_skipped_told_and_costs_no_memory(directory: Path, live: Path, following: bool) -> None:
    with live.open("wb") as file:
        file.write(document(1))
        file.write(b"y" * (2 * MAX_LINE_BYTES + 12345))
        file.write(b"\n" + document(2) + document(3))
    problems: list[Problem] = []
    found = list(lines(directory, following, lambda: True, on_problem=problems.append))
    assert numbers(found) == [1, 2, 3]
    assert [line.offset for line in found] == [0, live.stat().st_size - 2 * len(document(2)),
                                               live.stat().st_size - len(document(2))]  # fmt: skip
    assert "skipped" in str(problems[0])
    assert len(problems) == 1


def test_documents_give_a_problem_for_each_bad_line_and_go_on(directory: Path, live: Path) -> None:
    bad = [b"not json", b"[1]", b"\x00\x00", b"\xff{}", b"", b"[" * 100_000, b'{"a": 1e999999}x']
    live.write_bytes(document(1) + b"\n".join(bad) + b"\n" + document(2) + b'{"half')
    found = list(documents(directory))
    assert [type(item) for item in found] == [Document, *[Problem] * len(bad), Document, Problem]
    assert [item.fields["event"]["sequence"] for item in found if isinstance(item, Document)] == [1, 2]
    last = found[-1]
    assert isinstance(last, Problem)
    assert "torn" in last.reason
    assert str(live) in str(last)


def test_only_files_of_the_log_are_read(directory: Path, live: Path) -> None:
    live.write_bytes(document(1))
    for name in ("durable", "dead-letter.jsonl", "events.json", "events.jsonlx", "xevents.jsonl"):
        (directory / name).write_bytes(document(9))
    assert names(directory) == ["events.jsonl"]


@pytest.mark.parametrize("following", [False, True])
def test_links_and_devices_are_not_followed(directory: Path, live: Path, tmp_path: Path, following: bool) -> None:
    (tmp_path / "secret").write_bytes(b"secret\n")
    live.write_bytes(document(5))
    (directory / "events.jsonl.1").symlink_to(tmp_path / "secret")
    os.mkfifo(directory / "events.jsonl.2")
    (directory / "events.jsonl.3").mkdir()
    assert numbers(list(lines(directory, following, lambda: True))) == [5]


def test_a_missing_directory_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="cannot list the log directory: No such file"):
        list(lines(tmp_path / "nowhere"))


# ---- order and identity


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_numbered_and_dated_names_come_in_the_order_of_writing(directory: Path, live: Path, suffix: str) -> None:
    parts = {"events.jsonl-20261120": (1, 5), "events.jsonl-20261121-1": (6, 9), "events.jsonl.2": (10, 11),
             "events.jsonl.1": (12, 12)}  # fmt: skip
    for index, (name, (first, last)) in enumerate(parts.items()):
        (directory / (name + suffix)).write_bytes(compress(suffix, run(first, last)))
        os.utime(directory / (name + suffix), (10**9 - index, 10**9 - index))  # times that lie
    live.write_bytes(run(13, 14))
    assert names(directory) == [*(name + suffix for name in parts), "events.jsonl"]
    assert numbers(list(lines(directory))) == list(range(1, 15))


def test_epochs_follow_their_chain_when_the_clock_and_the_names_lie(directory: Path) -> None:
    one, two, three, four = EPOCHS
    contents = {
        "events.jsonl.4": run(1, 50, three, two),
        "events.jsonl.3": run(1, 60, two, one),
        "events.jsonl.1": run(1, 70, one),
        "events.jsonl.2": run(51, 60, three) + run(1, 40, four, three),  # the fourth run begins inside a file
        "events.jsonl": run(41, 45, four),
    }
    order = ["events.jsonl.1", "events.jsonl.3", "events.jsonl.4", "events.jsonl.2", "events.jsonl"]
    for number, (name, content) in enumerate(contents.items()):
        (directory / name).write_bytes(content)
        os.utime(directory / name, (number, number))
    assert names(directory) == order


def test_a_chain_in_a_circle_is_read_once(directory: Path) -> None:
    (directory / "events.jsonl.1").write_bytes(run(1, 2, EPOCHS[0], EPOCHS[1]))
    (directory / "events.jsonl").write_bytes(run(1, 2, EPOCHS[1], EPOCHS[0]))
    assert len(list(lines(directory))) == 4


def test_files_without_a_parsable_first_line_stand_by_their_time(directory: Path, live: Path) -> None:
    for seconds, name, content in [(100, "events.jsonl.3", run(1, 2)), (200, "events.jsonl.2", b"garbage\n"),
                                   (300, "events.jsonl.1", run(3, 4)), (150, "events.jsonl", b"")]:  # fmt: skip
        (directory / name).write_bytes(content)
        os.utime(directory / name, (seconds, seconds))
    assert names(directory) == ["events.jsonl.3", "events.jsonl.2", "events.jsonl.1", "events.jsonl"]


def test_a_rotation_during_the_listing_hides_no_file(
    directory: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.write_bytes(run(1, 2))

    def rotating_look(path: Path) -> LogFile | None:
        if not (directory / "events.jsonl.1").exists():
            live.rename(directory / "events.jsonl.1")
            live.write_bytes(run(3, 4))
        return look(path)

    monkeypatch.setattr("monitor.logfiles.look", rotating_look)
    assert names(directory) == ["events.jsonl.1", "events.jsonl"]


def test_a_half_done_compression_is_not_read_twice(directory: Path, live: Path) -> None:
    content = run(1, 500)
    (directory / "events.jsonl.1").write_bytes(content)
    (directory / "events.jsonl.1.gz").write_bytes(gzip.compress(content)[:900])
    live.write_bytes(run(501, 502))
    assert numbers(list(lines(directory))) == list(range(1, 503))


@pytest.mark.parametrize("following", [False, True])
def test_a_damaged_archive_is_told_and_the_rest_is_read(directory: Path, live: Path, following: bool) -> None:
    content = run(1, 3000)
    (directory / "events.jsonl.1.gz").write_bytes(gzip.compress(content)[:-2000])
    live.write_bytes(run(3001, 3002))
    with pytest.raises(ReaderError, match=r"events\.jsonl\.1\.gz.*damaged"):
        list(lines(directory, following, lambda: True))
    problems: list[Problem] = []
    found = [x for x in lines(directory, following, lambda: True, on_problem=problems.append) if not x.torn]
    whole = len(found) - 2
    assert numbers(found) == [*range(1, whole + 1), 3001, 3002]
    assert 0 < whole < 3000
    assert "damaged" in problems[0].reason


@pytest.mark.parametrize("suffix", [".zst", ".xz"])
@pytest.mark.parametrize("following", [False, True])
def test_what_cannot_be_decompressed_names_what_is_missing(
    directory: Path, live: Path, following: bool, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (directory / f"events.jsonl.1{suffix}").write_bytes(compress(suffix, run(1, 2)))
    live.write_bytes(run(3, 4))
    words = {".zst": "package zstandard", ".xz": r"compressed as \.xz"}[suffix]
    with pytest.raises(ReaderError, match=words):
        list(lines(directory, following, lambda: True))
    found = list(documents(directory, following, lambda: True))
    assert sorted(type(item).__name__ for item in found) == ["Document", "Document", "Problem"]


def test_reading_can_start_at_a_place(directory: Path, live: Path) -> None:
    (directory / "events.jsonl.2").write_bytes(run(1, 3))
    (directory / "events.jsonl.1.gz").write_bytes(gzip.compress(run(4, 6)))
    live.write_bytes(run(7, 9))
    middle = files(directory)[1]
    offset = len(document(4)) + len(document(5))
    assert numbers(list(lines(directory, start=middle, offset=offset))) == [6, 7, 8, 9]
    assert numbers(list(lines(directory, True, lambda: True, start=middle, offset=offset))) == [6, 7, 8, 9]
    (directory / "events.jsonl.1.gz").unlink()
    with pytest.raises(ReaderError, match="not in the log directory any more"):
        list(lines(directory, start=middle))
    assert numbers(list(lines(directory, start=middle, on_problem=lambda _: None))) == [7, 8, 9]


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11])
def test_tail_offset_is_where_the_last_lines_begin(directory: Path, live: Path, count: int) -> None:
    content = b"".join(document(n, padding=300_000) for n in range(1, 11))
    live.write_bytes(content + b"torn")
    offset = tail_offset(files(directory)[0], count)
    assert content[offset:].count(b"\n") == min(count, 10)
    assert offset == 0 or content[offset - 1 : offset] == b"\n"


def test_a_file_renamed_after_the_listing_is_still_read(directory: Path, live: Path) -> None:
    (directory / "events.jsonl.1").write_bytes(run(1, 2))
    live.write_bytes(run(3, 4))
    walk = lines(directory)
    found = [next(walk)]
    (directory / "events.jsonl.1").rename(directory / "events.jsonl.2")
    live.rename(directory / "events.jsonl.1")
    live.write_bytes(run(5, 6))
    assert numbers(found + list(walk)) == [1, 2, 3, 4]


# ---- following


def test_follow_waits_for_the_first_file_and_delivers_what_is_written(
    directory: Path, live: Path, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    live.write_bytes(document(1))
    follower.wait_lines(1)
    with live.open("ab") as file:
        file.write(document(2))
    follower.wait_lines(2)
    assert numbers(follower.end()) == [1, 2]
    assert follower.lines[1].file.file_id == f"a1b2c3d4-{EPOCHS[0]}-000000000001"


def test_follow_holds_a_torn_last_line_back(live: Path, follow: Callable[..., Follower]) -> None:
    line = document(2)
    live.write_bytes(document(1) + line[:20])
    follower = follow()
    follower.wait_lines(1)
    follower.look_again()
    assert len(follower.lines) == 1
    with live.open("ab") as file:
        file.write(line[20:] + line[:5])
    follower.wait_lines(2)
    assert [(line.raw + b"\n", line.torn) for line in follower.end()] == [(document(1), False), (line, False)]


def test_follow_stays_with_the_old_file_until_the_writer_leaves_it(
    directory: Path, live: Path, follow: Callable[..., Follower]
) -> None:
    """logrotate with `create`: the new file is there, and the writer has not had its signal."""
    writer = live.open("ab", buffering=0)
    writer.write(run(1, 2))
    follower = follow()
    follower.wait_lines(2)
    live.rename(directory / "events.jsonl-20261122")
    live.touch()
    follower.look_again()
    writer.write(document(3))
    follower.wait_lines(3)
    writer.write(b'{"torn')
    writer.close()
    live.write_bytes(document(4))
    follower.wait_lines(5)
    found = follower.end()
    assert [line.torn for line in found] == [False, False, False, True, False]
    assert numbers([line for line in found if not line.torn]) == [1, 2, 3, 4]


def test_follow_catches_up_over_several_rotations_also_compressed_ones(
    directory: Path, live: Path, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    live.write_bytes(run(1, 2))
    follower = follow()
    follower.wait_lines(2)
    held = threading.Event()
    monkeypatch.setattr("monitor.reader.time.sleep", lambda _: held.wait(DEADLINE_S))  # it sleeps through all of it
    follower.idle.clear()
    follower.idle.wait(0.3)
    with live.open("ab") as file:
        file.write(document(3))
    live.rename(directory / "events.jsonl.4")
    (directory / "events.jsonl.3.gz").write_bytes(gzip.compress(run(4, 6)))
    (directory / "events.jsonl.2").write_bytes(run(7, 8))
    (directory / "events.jsonl.1.zst").write_bytes(zstandard.compress(run(9, 9)))
    live.write_bytes(run(10, 11))
    monkeypatch.undo()
    held.set()
    follower.wait_lines(11)
    assert numbers(follower.end()) == list(range(1, 12))
    assert follower.problems == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_follow_reads_the_copy_that_copytruncate_left(
    directory: Path, live: Path, follow: Callable[..., Follower], suffix: str
) -> None:
    live.write_bytes(run(1, 3))
    follower = follow()
    follower.wait_lines(3)
    # Lines 4 to 6 reach the follower only through the copy; the file then grows past its old size at once.
    copy = directory / f"events.jsonl.1{suffix}"
    copy.write_bytes(compress(suffix, run(1, 6)))
    new = directory / "other"
    new.write_bytes(run(7, 90))
    with live.open("r+b") as file:
        file.write(new.read_bytes())
    follower.wait_lines(90)
    assert numbers(follower.end()) == list(range(1, 91))
    assert follower.problems == []


def test_follow_goes_on_after_a_truncation_without_a_copy_and_tells_it(
    live: Path, follow: Callable[..., Follower]
) -> None:
    live.write_bytes(run(1, 5))
    follower = follow()
    follower.wait_lines(5)
    os.truncate(live, 0)
    follower.wait(lambda: follower.problems)
    with live.open("ab") as file:
        file.write(run(6, 7))
    follower.wait_lines(7)
    assert numbers(follower.end()) == list(range(1, 8))
    assert [problem.reason for problem in follower.problems] == [
        "was truncated by another program: lines may be missing here"
    ]


@pytest.mark.parametrize("kept", [0, 1, 40])
@pytest.mark.parametrize("again", [1, 9, 200])
def test_follow_repeats_and_misses_nothing_when_the_writer_takes_a_batch_back(
    live: Path, follow: Callable[..., Follower], kept: int, again: int
) -> None:
    """A batch that failed or was cut after a crash: its numbers come again, in other lines, of any length."""
    first = run(1, 5)
    taken = b"".join(document(n, EPOCHS[1], padding=n) for n in range(6, 100))
    live.write_bytes(first + taken)
    follower = follow()
    follower.wait_lines(99)
    stays = b"".join(document(n, EPOCHS[1], padding=n) for n in range(6, 6 + kept))
    new = b"".join(document(n, EPOCHS[2], padding=70) for n in range(1, 1 + again))
    with live.open("r+b") as file:  # one write and a cut: the follower may see both or only the first
        file.seek(len(first + stays))
        file.write(new)
        file.truncate()
    follower.wait_lines(99 + again)
    found = follower.end()
    assert b"".join(line.raw + b"\n" for line in found[99:]) == new
    assert "taken back" in follower.problems[0].reason


def test_a_follower_sees_each_line_once_while_the_log_rotates_by_size(
    directory: Path, follow: Callable[..., Follower]
) -> None:
    log = Log(directory, sync_bytes=1 << 20, sync_interval_ms=5, rotate_bytes=100_000, rotate_keep=500)
    log.epoch = EPOCHS[0]
    log.open()
    follower = follow()
    sequence = rotations = 0
    chance = random.Random(11)
    while rotations < 12:
        count = chance.randrange(1, 400)
        log.append(b"".join(document(sequence + n, padding=n) for n in range(1, count + 1)), sequence + count)
        sequence += count
        if chance.random() < 0.3:
            log._next_poll = 0.0  # rotate more often than four times a second
        rotations += sum("rotated" in text for text in log.poll())
    log.close()
    follower.wait_lines(sequence)
    assert numbers(follower.end()) == list(range(1, sequence + 1))
    assert follower.problems == []
    assert numbers(list(lines(directory))) == list(range(1, sequence + 1))
    assert len(files(directory)) >= 12


def test_a_follower_survives_a_writer_that_restarts_and_a_rotator_beside_it(
    directory: Path, live: Path, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    expected: list[tuple[str, int]] = []
    previous = None
    for run_number in range(8):
        epoch = f"{random.Random(run_number).getrandbits(64):016x}"
        log = Log(directory, sync_bytes=1 << 16, sync_interval_ms=5)
        log.open()
        for sequence in range(1, 200):
            log.append(document(sequence, epoch, previous=previous if sequence == 1 else None), sequence)
            expected.append((epoch, sequence))
            if sequence % 90 == 0:
                live.rename(directory / f"events.jsonl-{len(expected)}")
                if run_number % 2:
                    live.touch(mode=0o640)
            if sequence % 90 == 2 and sequence > 90:  # a little later, as a signal comes
                log.reopen()
        log.close()
        previous = epoch
    follower.wait_lines(len(expected))
    seen = [tuple(orjson.loads(line.raw)["event"]["id"].split("-")[1:]) for line in follower.end()]
    assert [(epoch, int(number, 16)) for epoch, number in seen] == expected
    assert follower.problems == []


def test_a_follower_of_a_directory_that_is_removed_ends_in_a_sentence_or_waits(
    directory: Path, live: Path, follow: Callable[..., Follower]
) -> None:
    live.write_bytes(run(1, 2))
    follower = follow()
    follower.wait_lines(2)
    shutil.rmtree(directory)
    follower.look_again()
    directory.mkdir()
    live.write_bytes(run(3, 4))
    follower.wait_lines(4)
    assert numbers(follower.end()) == [1, 2, 3, 4]
