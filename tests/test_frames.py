"""The compressed log: frames torn anywhere, foreign bytes, places in it; written, followed, searched, verified and delivered."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import ahead, frames, reader, retention
from monitor.compressor import Compressor
from monitor.durable import read_durable
from monitor.frames import HEADER, Frames, Unreadable
from monitor.log import Log
from monitor.logfiles import files, tail_offset
from monitor.reader import Problem
from monitor.search import Filter, Search, last_time
from monitor.ship import place
from monitor.ship.tail import Block, Tail
from monitor.verify import check
from tests import loglines
from tests.test_log import EPOCH, document, new_log, notice
from tests.test_reader import Follower

LINES = b"".join(document(n, padding=n % 50) for n in range(1, 4001))


@pytest.fixture(params=[1, 3], ids=["own", "libzstd"])
def log(directory: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    made = new_log(directory, zstd_level=request.param)
    assert (made.notes is not None) == (request.param == 1 and ahead.COMPILED)
    made.open()
    yield made
    made.close()


def live(directory: Path) -> Path:
    return directory / "events.jsonl.zst"


def written(directory: Path, batches: list[bytes]) -> bytes:
    """A compressed log of these batches; the file's bytes."""
    log = new_log(directory, zstd_level=1)
    log.open()
    for number, batch in enumerate(batches, 1):
        log.append(batch, number)
    assert log.close()
    return live(directory).read_bytes()


def plain(directory: Path) -> tuple[bytes, list[Problem]]:
    problems: list[Problem] = []
    found = b"".join(line.raw + b"\n" for line in reader.lines(directory, on_problem=problems.append))
    return found, problems


def test_any_tool_for_zstd_reads_it(directory: Path) -> None:
    written(directory, [document(1), document(2) + document(3)])
    command = [shutil.which("zstd") or pytest.skip("no zstd program here"), "-dc", live(directory)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"".join(map(document, (1, 2, 3)))


def test_torn_at_every_byte_what_is_whole_is_read_and_the_next_start_cuts_the_rest(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_GROWTH_S", 0.0)
    batches = [document(1), document(2) + document(3), document(4)]
    content = written(directory, batches)
    ends = [len(HEADER)]
    for number in range(1, 4):
        shutil.rmtree(directory)
        directory.mkdir(mode=0o750)
        ends.append(len(written(directory, batches[:number])))
    assert ends[-1] == len(content)
    for cut in range(len(content)):
        live(directory).write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends[1:])
        end = max((end for end in (0, *ends) if end <= cut), default=0)
        found, problems = plain(directory)
        assert found == b"".join(batches[:whole]), cut
        assert [problem.reason for problem in problems] == (
            [f"{cut - end} bytes of a frame that is torn"] if cut != end else []
        )
        log = new_log(directory, zstd_level=1)
        assert log.open() == cut - end, cut
        log.append(document(9), 9)
        log.close()
        assert plain(directory) == (b"".join(batches[:whole]) + document(9), []), cut


def test_zeroed_or_damaged_bytes_at_the_end_are_cut_and_in_the_middle_are_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_GROWTH_S", 0.0)
    first = written(directory, [document(1)])
    shutil.rmtree(directory)
    directory.mkdir(mode=0o750)
    content = written(directory, [document(1), document(2), document(3)])
    live(directory).write_bytes(content[:-40] + bytes(8) + content[-32:])  # a page that never reached the disk
    log = new_log(directory, zstd_level=1)
    assert log.open() > 0
    log.close()
    assert plain(directory) == (document(1) + document(2), [])
    live(directory).write_bytes(content[: len(first) + 12] + bytes(4) + content[len(first) + 16 :])
    found, problems = plain(directory)
    assert found == document(1) + document(3)
    assert [problem.reason[:8] for problem in problems] == ["damaged:"]


def test_a_place_in_it_is_found_as_in_a_plain_file(directory: Path) -> None:
    chance = random.Random(7)
    batches, at = [], 0
    while at < len(LINES):
        end = LINES.index(b"\n", min(len(LINES) - 1, at + chance.choice((10, 3000, 90_000)))) + 1
        batches.append(LINES[at:end])
        at = end
    content = written(directory, batches)
    assert len(content) < len(LINES) // 4
    with live(directory).open("rb") as file:
        there = Frames(file.fileno())
        assert (there.size(), there.whole_end()) == (len(LINES), len(content))
        for _ in range(300):
            offset, size = chance.randrange(len(LINES) + 10), chance.choice((1, 500, 100_000))
            assert there.pread(size, offset) == LINES[offset : offset + size]
    (file,) = files(directory)
    assert (file.first, file.last, file.size, file.compression) == ((EPOCH, 1), (EPOCH, 4000), len(LINES), "")
    last = LINES.rindex(b"\n", 0, -1) + 1
    assert tail_offset(file, 1) == last
    assert tail_offset(file, 5000) == 0
    assert last_time(file) == "2026-11-22T16:52:01.000004000Z"
    assert retention.extent(file) == (retention.Range(EPOCH, 1, 4000),)


def test_a_batch_compressed_while_it_grows_is_the_same_batch(directory: Path, log: Log) -> None:
    batch = memoryview(LINES * 20)
    ends = list(range(0, len(batch), len(LINES)))[1:]
    log.append(document(1), 1)
    for end in ends:
        log.ahead(batch[:end])
    announced = log.length(batch)
    before = log.position().offset
    log.append(batch, 2)
    assert log.position().offset - before == announced
    log.ahead(memoryview(LINES))  # of a batch that is given up
    log.ahead(memoryview(b""))
    log.append(document(2), 3)
    assert log.sync_now()
    assert plain(directory) == (document(1) + LINES * 20 + document(2), [])
    point = read_durable(directory)
    assert point is not None
    assert point.offset == len(document(1) + LINES * 20 + document(2)), "the durable point counts bytes of lines"


@pytest.mark.parametrize("level", [1, 3])
def test_lines_longer_than_a_chunk_are_whole(level: int) -> None:
    compressor = Compressor(level)
    batch = memoryview(b"x" * (3 << 20) + b"\n" + b"y\n" * 100)
    length = compressor.length(batch)
    assert len(compressor.data(batch, 0)) == length
    compressor.close()


def test_foreign_bytes_are_cut_and_told_and_reading_does_not_stop_at_them(directory: Path, log: Log) -> None:
    log.append(document(1), 1)
    log.poll()
    with live(directory).open("ab") as other:
        other.write(b"not ours")
    with live(directory).open("rb") as file:
        assert Frames(file.fileno()).pread(1000, 0) == document(1)
    assert "written to" in notice(log, "written to")
    log.append(document(2), 2)
    assert plain(directory) == (document(1) + document(2), [])
    os.truncate(live(directory), len(HEADER) + 5)
    assert "truncated" in notice(log, "truncated")
    log.append(document(3), 3)
    assert plain(directory) == (document(3), [])


@pytest.mark.parametrize("content", [b"\x28\xb5\x2f\xfdanother archive", b'{"plain": "lines"}\n' * 3])
def test_a_file_of_another_form_under_its_name_is_kept_under_another(directory: Path, content: bytes) -> None:
    live(directory).write_bytes(content)
    live(directory).chmod(0o640)
    log = new_log(directory, zstd_level=1)
    log.open()
    log.append(document(1), 1)
    assert "another form" in notice(log, "another form")
    log.close()
    (aside,) = (path for path in directory.glob("events.jsonl.zst-*"))
    assert aside.read_bytes() == content


def test_a_file_of_the_form_before_is_put_aside_and_read_as_an_archive(directory: Path) -> None:
    content = written(directory, [document(1), document(2) + document(3)])
    live(directory).write_bytes(HEADER[:-4] + b"\1\0\0\0" + content[len(HEADER) :])
    log = new_log(directory, zstd_level=1)
    log.open()
    log.append(document(4), 4)
    assert log.close()
    assert plain(directory) == (b"".join(map(document, (1, 2, 3, 4))), [])


def test_the_form_changes_with_a_start_and_the_order_of_lines_stays(directory: Path) -> None:
    for number, level in enumerate((None, 1, None, 1), 1):
        log = new_log(directory, zstd_level=level)
        log.open()
        log.append(document(number), number)
        log.close()
        assert (live(directory).exists(), (directory / "events.jsonl").exists()) == (level == 1, level is None)
    assert plain(directory) == (b"".join(map(document, (1, 2, 3, 4))), [])
    assert sum(file.live for file in files(directory)) == 1


def test_rotated_by_size_and_by_others_each_line_is_followed_once(directory: Path) -> None:
    log = new_log(directory, zstd_level=1, rotate_bytes=4096, rotate_keep=1000)
    log.open()
    follower, chance = Follower(directory), random.Random(3)
    number = 0
    for turn in range(120):
        count = chance.randrange(1, 60)
        log.append(b"".join(document(number + n, padding=20) for n in range(1, count + 1)), number + count)
        number += count
        log._next_poll = 0.0
        log.poll()
        if turn == 60:
            live(directory).rename(directory / "events.jsonl.zst-20261122-1")
            log.reopen()
    follower.wait_lines(number)
    found = follower.end()
    log.close()
    assert [line.raw + b"\n" for line in found] == [document(n, padding=20) for n in range(1, number + 1)]
    assert follower.problems == []
    assert len(list(directory.glob("events.jsonl.*.zst"))) > 3


def test_a_follower_sees_lines_as_they_are_written_and_what_is_taken_back(directory: Path, log: Log) -> None:
    follower = Follower(directory)
    log.append(document(1), 1)
    follower.wait_lines(1)
    before = live(directory).stat().st_size
    log.append(document(2), 2)
    follower.wait_lines(2)
    follower.look_again()
    with live(directory).open("r+b") as file:
        file.truncate(before)
    notice(log, "truncated")
    log.append(document(2, padding=9), 2)
    follower.wait_lines(3)
    assert [line.raw + b"\n" for line in follower.end()] == [document(1), document(2), document(2, padding=9)]
    assert ["taken back" in problem.reason for problem in follower.problems] == [True]


def test_a_failed_write_leaves_whole_frames(directory: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(document(1), 1)
    write = os.write

    def half(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(fd, memoryview(data)[: len(data) // 2])

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "injected")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(Exception, match="ENOSPC"):
        log.append(document(2), 2)
    monkeypatch.setattr(os, "write", write)
    log.append(document(2), 2)
    assert plain(directory) == (document(1) + document(2), [])


def test_it_is_searched_followed_and_verified_like_plain_lines(directory: Path) -> None:
    lines = [loglines.line(n, path=f"/etc/{n}") for n in range(1, 201)]
    log = new_log(directory, zstd_level=1)
    log.open()
    for at in range(0, 200, 20):
        log.append(b"".join(lines[at : at + 20]), at + 20)
    problems: list[Problem] = []
    search = Search(directory, Filter(paths=("/etc/1?7",)), problems.append)
    assert [found.raw + b"\n" for piece in search.pieces(4096) for found in search.of(piece)] == [lines[n - 1] for n in range(107, 198, 10)]
    taken, where = Search(directory, Filter(), problems.append).last(3)
    assert [found.raw + b"\n" for found in taken] == lines[-3:]
    stop = threading.Event()
    following = Search(directory, Filter(), problems.append).follow(where, stop.is_set)
    more = loglines.line(201)
    log.append(more, 201)
    assert next(following).raw + b"\n" == more
    stop.set()
    log.close()
    report = check(directory)
    assert (report.lines, dict(report.counts), problems) == (201, {}, [])
    with live(directory).open("ab") as file:
        file.write(b"\x28\xb5\x2f\xfdtorn")
    assert dict(check(directory).counts) == {"damaged": 1}


@pytest.mark.parametrize("done", [None, 1, 19, 20, 21, 150, 200])
def test_delivery_goes_on_at_a_place_inside_and_reads_no_further_than_is_durable(
    directory: Path, done: int | None
) -> None:
    lines = [document(n) for n in range(1, 201)]
    written(directory, [b"".join(lines[at : at + 20]) for at in range(0, 200, 20)])
    offset = len(b"".join(lines[:done]))
    (file,) = files(directory)
    found = place.find(directory, (EPOCH, done) if done else None, file.file_id, offset)
    searched = place.find(directory, (EPOCH, done) if done else None, None, 0)
    assert (found.offset, found.end) == (offset if done else 0, (EPOCH, 200))
    assert (searched.offset, searched.end) == (found.offset, found.end)
    log = new_log(directory, zstd_level=1, sync_interval_ms=60_000)
    log.open()
    log.append(document(201), 201)  # not durable
    tail = Tail(directory, found.file, found.offset)
    taken = b""
    while (block := tail.next()) is not None:
        assert isinstance(block, Block)
        taken += block.data
    assert taken == b"".join(lines[done or 0 :])
    assert log.sync_now()
    block = tail.next()
    assert isinstance(block, Block)
    assert block.data == document(201)
    tail.close()
    log.close()


def test_a_single_bit_that_changed_is_told(directory: Path) -> None:
    """zstd itself would decompress some of them without a word."""
    content = bytearray(written(directory, [document(1), document(2)]))
    second = content.index(frames.ZSTD_MAGIC, len(HEADER) + 10)
    for at in range(len(HEADER), second - 32):
        content[at] ^= 4
        live(directory).write_bytes(content)
        with live(directory).open("rb") as file:
            there = Frames(file.fileno())
            for offset in (0, len(document(1)) - 1):
                with pytest.raises(Unreadable, match="damaged"):
                    there.pread(10, offset)
        content[at] ^= 4


def test_a_mark_that_is_none_deceives_nobody(directory: Path) -> None:
    """Names are whatever a program wants: here a trailer stands among the lines, as zstd leaves it where it saves nothing."""
    false = frames._MARK + bytes(range(20))
    content = written(directory, [document(1), document(2)])
    for tail in (false, false * 3, content[-32:], content[len(HEADER) :][-32:] * 2):
        live(directory).write_bytes(content + tail)
        with live(directory).open("rb") as file:
            assert Frames(file.fileno()).whole_end() == len(content)


def test_a_trailer_that_is_missing_is_told(directory: Path) -> None:
    content = written(directory, [document(n) for n in range(1, 10)])
    second = content.index(frames.ZSTD_MAGIC, len(HEADER) + 10)
    live(directory).write_bytes(content[:second] + bytes(32) + content[second:])
    with live(directory).open("rb") as file:
        there = Frames(file.fileno())
        assert there.pread(1 << 20, 0) == document(1), "what is before it is read"
        with pytest.raises(Unreadable, match="damaged"):
            there.pread(1, len(document(1)))


