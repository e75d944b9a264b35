"""A compressed log with damaged bytes: what is damaged hides only itself, is told once, and costs nobody much time."""

from __future__ import annotations

import gzip
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from monitor import frames, reader, retention
from monitor.answers import Answers
from monitor.compressor import Compressor
from monitor.frames import HEADER, Frames, is_framed
from monitor.logfiles import LogFile, Problem, files, tail_offset
from monitor.search import Filter, Search, last_time
from monitor.ship import place
from monitor.ship.batches import Batcher, Limits, Selection
from monitor.ship.tail import Block, Damage, Tail
from monitor.verify import check
from tests.loglines import EPOCH, run
from tests.test_log import new_log
from tests.test_reader import Follower

TRAILER = 32
COUNT, EACH = 7, 4
BATCHES = [run(COUNT * EACH)[at : at + EACH] for at in range(0, COUNT * EACH, EACH)]


@dataclass(frozen=True)
class Made:
    """A log's bytes: of the file, and where in them each frame with its trailer begins; behind the last, the end."""

    content: bytes
    starts: list[int]


@pytest.fixture(scope="module")
def made() -> Made:
    return of_batches(BATCHES)


def of_batches(batches: list[list[bytes]]) -> Made:
    compressor, content, starts, begin = Compressor(1), HEADER, [len(HEADER)], 0
    for batch in batches:
        lines = b"".join(batch)
        content += compressor.data(memoryview(lines), begin)
        compressor.forget()
        begin += len(lines)
        starts.append(len(content))
    compressor.close()
    return Made(content, starts)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_GROWTH_S", 0.0)


@pytest.fixture(params=["as it is", "in small steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file read as a large one is: by many blocks, and by trailers that are looked for here and there."""
    if request.param != "as it is":
        monkeypatch.setattr(frames, "_NEAR", 64)
        monkeypatch.setattr(frames, "_BLOCK", 90)


# ---- kinds of damage: (the file's bytes, the frames that are hidden, the first and last damaged byte) ------------------

Damaged = tuple[bytes, range, int, int]


def over(made: Made, first: int, last: int, begin: int, end: int, new: Callable[[bytes], bytes]) -> Damaged:
    content, start = made.content, made.starts[first]
    return content[:begin] + new(content[begin:end]) + content[end:], range(first, last), start, made.starts[last] - 1


def flipped(data: bytes) -> bytes:
    return bytes(byte ^ 0x40 for byte in data)


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def noise(data: bytes) -> bytes:
    return random.Random(len(data)).randbytes(len(data))


def in_a_frame(made: Made, number: int) -> Iterator[Damaged]:
    begin, end = made.starts[number], made.starts[number + 1] - TRAILER
    for at in (begin + 4, (begin + end) // 2, end - 1):
        yield over(made, number, number + 1, at, at + 1, flipped)


def the_magic_of_a_frame(made: Made, number: int) -> Iterator[Damaged]:
    yield over(made, number, number + 1, made.starts[number], made.starts[number] + 4, zeros)


def in_a_trailer(made: Made, number: int) -> Iterator[Damaged]:
    end = made.starts[number + 1]
    for at in range(end - TRAILER + number % 4, end, 4):
        yield over(made, number, number + 1, at, at + 1, flipped)


def over_some_frames(made: Made, number: int) -> Iterator[Damaged]:
    last = min(number + 3, COUNT - 1)
    begin, end = made.starts[number] + 7, made.starts[last] - 9
    yield over(made, number, last, begin, end, noise)
    yield over(made, number, last, begin, end, zeros)
    yield over(made, number, last, made.starts[number], made.starts[last], zeros)


def a_byte_in_each_of_some_frames(made: Made, number: int) -> Iterator[Damaged]:
    last, content = min(number + 3, COUNT - 1), bytearray(made.content)
    for one in range(number, last):
        content[made.starts[one] + 20] ^= 1
    yield bytes(content), range(number, last), made.starts[number], made.starts[last] - 1


def cut_out(made: Made, number: int) -> Iterator[Damaged]:
    """The piece, from one place in a frame to another; the rest of what it was cut from is damaged."""
    last = min(number + 2, COUNT - 1)
    start, end, until = made.starts[number], made.starts[last], made.starts[number + 1]
    for begin, after in ((start, end), (start, until), (start + 20, end), (until - 12, until), (start + 9, until - TRAILER), (start, end - 40)):
        content = made.content[:begin] + made.content[after:]
        hidden = range(number, last if after > until else number + 1)
        yield content, hidden, start, made.starts[hidden.stop] - (after - begin) - 1


KINDS = (in_a_frame, the_magic_of_a_frame, in_a_trailer, over_some_frames, a_byte_in_each_of_some_frames, cut_out)
MIDDLE = [pytest.param(kind, number, id=f"{kind.__name__}-{number}") for kind in KINDS for number in range(COUNT - 1)]


# ---- who reads ---------------------------------------------------------------------------------------------------------


def live(directory: Path) -> Path:
    return directory / "events.jsonl.zst"


def lines_of(hidden: range) -> list[bytes]:
    return [line for number, batch in enumerate(BATCHES) if number not in hidden for line in batch]


def by_reader(directory: Path) -> tuple[list[bytes], list[str]]:
    problems: list[Problem] = []
    found = [line.raw + b"\n" for line in reader.lines(directory, on_problem=problems.append) if not line.torn]
    return found, list(map(str, problems))


def by_follower(directory: Path) -> tuple[list[bytes], list[str]]:
    problems: list[Problem] = []
    found = reader.lines(directory, True, lambda: True, on_problem=problems.append)
    return [line.raw + b"\n" for line in found], list(map(str, problems))


def by_search(directory: Path, size: int = 64 << 10, processes: int = 1) -> tuple[list[bytes], list[str]]:
    problems: list[Problem] = []
    answers = Answers(Search(directory, Filter(), problems.append), None, size, processes)
    return b"".join(answers.all()).splitlines(True), list(map(str, problems))


def by_pieces(directory: Path) -> tuple[list[bytes], list[str]]:
    return by_search(directory, 500)


def by_last(directory: Path) -> tuple[list[bytes], list[str]]:
    """`tail -f`: all the last lines, and then what comes."""
    problems: list[Problem] = []
    search = Search(directory, Filter(), problems.append)
    found, where = search.last(COUNT * EACH)
    found += search.follow(where, lambda: True)
    return [one.raw + b"\n" for one in found], list(map(str, problems))


def by_shipper(directory: Path) -> tuple[list[bytes], list[str]]:
    os.utime(live(directory), (1, 1))
    tail, found, told = Tail(directory), b"", list[str]()
    while (one := tail.next()) is not None:
        if isinstance(one, Block):
            found += one.data
        else:
            told.append(f"{one.file.path}, byte {one.offset}: {one.reason}")
    tail.close()
    return found.splitlines(True), told


READERS = (by_reader, by_follower, by_search, by_pieces, by_last, by_shipper)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize(("kind", "number"), MIDDLE)
def test_what_is_damaged_hides_only_itself_and_is_told_once(
    directory: Path, made: Made, kind: Callable[[Made, int], Iterator[Damaged]], number: int
) -> None:
    for content, hidden, first, last in kind(made, number):
        live(directory).write_bytes(content)
        before = sum(len(line) for batch in BATCHES[: hidden.start] for line in batch)
        missing = sum(len(line) for one in hidden for line in BATCHES[one])
        where = f"bytes {first} to {last}" if last >= first else f"before byte {first}"
        told = f"{live(directory)}, byte {before}: damaged: {where} of the file: {missing:,} bytes of lines are missing"
        for read in READERS:
            assert read(directory) == (lines_of(hidden), [told]), read.__name__


@pytest.mark.parametrize(("kind", "number"), MIDDLE[::2])
def test_verify_finds_the_damage_and_the_numbers_that_are_missing(
    directory: Path, made: Made, kind: Callable[[Made, int], Iterator[Damaged]], number: int
) -> None:
    for content, hidden, _, _ in kind(made, number):
        live(directory).write_bytes(content)
        report = check(directory)
        assert report.lines == len(lines_of(hidden))
        assert dict(report.counts) == ({"damaged": 1} if hidden.start == 0 else {"damaged": 1, "hole": 1})
        if hidden.start:
            text = f"{len(hidden) * EACH} numbers, {hidden.start * EACH + 1} to {hidden.stop * EACH}, missing"
            assert text in report.text()


@pytest.mark.parametrize(("kind", "number"), MIDDLE[1::2])
def test_delivery_goes_on_behind_it_and_accounts_for_what_is_missing(
    directory: Path, made: Made, kind: Callable[[Made, int], Iterator[Damaged]], number: int
) -> None:
    for content, hidden, _, _ in kind(made, number):
        live(directory).write_bytes(content)
        os.utime(live(directory), (1, 1))
        tail = Tail(directory)
        batcher = Batcher("i", "day", Selection(), Limits(1000, 1 << 20), (EPOCH, 0))
        while (one := tail.next()) is not None:
            batcher.damage(one) if isinstance(one, Damage) else batcher.add(one)
        tail.close()
        batcher.flush()
        batches = list(batcher.ready)
        assert b"".join(line for batch in batches for line in batch.lines) == b"".join(lines_of(hidden))
        (gone,) = (one for batch in batches for one in batch.removed)
        assert (gone.epoch, gone.first, gone.last) == (EPOCH, hidden.start * EACH + 1, hidden.stop * EACH)
        assert "damaged" in gone.reason


@pytest.mark.parametrize("processes", [1, 2])
def test_pieces_of_a_search_tell_it_once_by_however_many_they_are_read(directory: Path, made: Made, processes: int) -> None:
    for size in (300, 1000, 3000):
        for kind in KINDS:
            content, hidden, _, _ = next(kind(made, 3))
            live(directory).write_bytes(content)
            found, told = by_search(directory, size, processes)
            assert (found, len(told)) == (lines_of(hidden), 1), (size, kind.__name__)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("number", range(COUNT))
def test_foreign_bytes_and_repeated_frames_between_frames_hide_nothing_and_are_told(directory: Path, made: Made, number: int) -> None:
    at, content = made.starts[number], made.content
    again = content[made.starts[max(0, number - 2)] : at]
    for foreign in (b"\0" * 50, b"not ours", frames._MARK + bytes(range(20)), frames._MARK * 9, again if number else b"x"):
        live(directory).write_bytes(content[:at] + foreign + content[at:])
        told = f"damaged: bytes {at} to {at + len(foreign) - 1} of the file: no line is missing"
        for read in READERS:
            found, problems = read(directory)
            assert found == lines_of(range(0)), read.__name__
            if foreign != again or read is not by_pieces:  # a piece may begin behind a repeated frame, which is as good to it
                assert [one.endswith(told) for one in problems] == [True], (read.__name__, problems)


@pytest.mark.parametrize("number", range(1, COUNT - 1))
def test_a_later_frame_at_an_earlier_place_hides_nothing_else(directory: Path, made: Made, number: int) -> None:
    later = made.content[made.starts[COUNT - 1] : made.starts[COUNT]]
    at, end = made.starts[number], made.starts[number + 1]
    for until, hidden in ((at, range(0)), (end, range(number, number + 1))):
        live(directory).write_bytes(made.content[:at] + later + made.content[until:])
        for read in (by_reader, by_follower, by_search, by_shipper):
            found, problems = read(directory)
            assert (found, len(problems)) == (lines_of(hidden), 1), read.__name__


@pytest.mark.parametrize("bytes_gone", [1, 16, 60, 4096])
def test_the_header_and_what_follows_it_may_be_gone(directory: Path, bytes_gone: int) -> None:
    made = of_batches([[line] for line in run(300)])
    live(directory).write_bytes(bytes(bytes_gone) + made.content[bytes_gone:])
    kept = next(number for number, start in enumerate(made.starts) if start >= bytes_gone or start == len(HEADER) >= bytes_gone)
    for read in (by_reader, by_follower, by_search, by_shipper):
        found, problems = read(directory)
        assert found == run(300)[kept:], read.__name__
        assert [f"damaged: bytes 0 to {made.starts[kept] - 1} of the file" in one for one in problems] == [True]


def test_damage_at_several_places_is_told_at_each(directory: Path) -> None:
    lines = run(400)
    made = of_batches([[line] for line in lines])
    content, hidden = bytearray(made.content), range(3, 400, 20)
    for number in hidden:
        content[made.starts[number] + 30] ^= 8
    live(directory).write_bytes(content)
    left = [line for number, line in enumerate(lines) if number not in hidden]
    for read in (by_reader, by_follower, by_search, by_pieces, by_shipper):
        found, told = read(directory)
        assert (found, len(told)) == (left, len(hidden)), read.__name__


# ---- the last frame ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [in_a_frame, the_magic_of_a_frame, in_a_trailer])
def test_in_the_last_frame_it_is_a_torn_end_which_readers_wait_for_and_the_writer_cuts(
    directory: Path, made: Made, kind: Callable[[Made, int], Iterator[Damaged]]
) -> None:
    torn = made.starts[-1] - made.starts[-2]
    for content, hidden, _, _ in kind(made, COUNT - 1):
        live(directory).write_bytes(content)
        found, problems = by_reader(directory)
        assert (found, len(problems)) == (lines_of(hidden), 1)
        assert problems[0].endswith(f": {torn} bytes of a frame that is torn")
        for read in (by_follower, by_search, by_shipper):
            assert read(directory) == (lines_of(hidden), []), read.__name__
        log = new_log(directory, zstd_level=1)
        assert log.open() == torn
        log.close()
        assert live(directory).read_bytes() == made.content[: made.starts[-2]]


# ---- while it is written, followed and delivered -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 2])
def test_the_writer_goes_on_in_it_and_who_follows_reads_on(directory: Path, made: Made, number: int) -> None:
    content, hidden, _, _ = next(over_some_frames(made, number))
    live(directory).write_bytes(content)
    live(directory).chmod(0o640)
    log = new_log(directory, zstd_level=1)
    assert log.open() == 0
    follower = Follower(directory)
    follower.wait_lines(len(lines_of(hidden)))
    more = run(COUNT * EACH + 9)[COUNT * EACH :]
    for sequence, line in enumerate(more, COUNT * EACH + 1):
        log.append(line, sequence)
    follower.wait_lines(len(lines_of(hidden)) + len(more))
    assert [line.raw + b"\n" for line in follower.end()] == lines_of(hidden) + more
    assert len(follower.problems) == 1
    assert log.sync_now()
    tail = Tail(directory)
    blocks = [one.data for one in iter(tail.next, None) if isinstance(one, Block)]
    assert b"".join(blocks) == b"".join(lines_of(hidden) + more), "the durable point is known by the same first line"
    tail.close()
    log.close()


def test_what_was_read_before_it_was_damaged_is_not_told_and_not_read_again(directory: Path, made: Made) -> None:
    live(directory).write_bytes(made.content)
    follower = Follower(directory)
    follower.wait_lines(COUNT * EACH)
    for number in (COUNT - 2, 0):
        with live(directory).open("r+b") as file:
            file.seek(made.starts[number])
            file.write(bytes(made.starts[number + 1] - made.starts[number]))
        follower.look_again()
    assert [line.raw + b"\n" for line in follower.end()] == lines_of(range(0))
    assert follower.problems == []


def test_the_first_frame_is_damaged_beneath_a_writer_and_a_new_shipper_keeps_to_the_durable_point(directory: Path) -> None:
    lines = run(40)
    log = new_log(directory, zstd_level=1, sync_interval_ms=60_000)
    log.epoch = EPOCH
    log.open()
    for sequence, line in enumerate(lines[:20], 1):
        log.append(line, sequence)
    assert log.sync_now()
    with live(directory).open("r+b") as file:
        file.seek(len(HEADER))
        file.write(bytes(40))
    log.append(lines[20], 21)  # not durable
    tail = Tail(directory)
    found = list(iter(tail.next, None))
    assert [type(one) for one in found] == [Damage, Block]
    assert b"".join(one.data for one in found if isinstance(one, Block)) == b"".join(lines[1:20])
    assert log.sync_now()
    block = tail.next()
    assert isinstance(block, Block)
    assert block.data == lines[20]
    tail.close()
    log.close()


@pytest.mark.parametrize("done", [1, EACH, 2 * EACH, 2 * EACH + 1, 3 * EACH, 3 * EACH + 1, 5 * EACH - 1, COUNT * EACH])
def test_delivery_begins_behind_the_line_that_is_done_also_where_that_is_damaged_now(directory: Path, made: Made, done: int) -> None:
    for content, hidden, _, _ in over_some_frames(made, 2):
        live(directory).write_bytes(content)
        os.utime(live(directory), (1, 1))
        offset = sum(map(len, run(COUNT * EACH)[:done]))
        (file,) = files(directory)
        for file_id, hint in ((file.file_id, offset), (None, 0)):
            found = place.find(directory, (EPOCH, done), file_id, hint)
            assert (found.problem, found.missing) == ("", (done - 1) // EACH in hidden)
            tail, data = Tail(directory, found.file, found.offset), b""
            while (one := tail.next()) is not None:
                data += one.data if isinstance(one, Block) else b""
            tail.close()
            assert data == b"".join(line for line in lines_of(hidden) if line in run(COUNT * EACH)[done:])


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("number", range(COUNT - 1))
def test_the_ends_of_a_damaged_file_and_places_in_it_are_known(directory: Path, made: Made, number: int) -> None:
    content, hidden, _, _ = next(over_some_frames(made, number))
    live(directory).write_bytes(content)
    (file,) = files(directory)
    every, left = b"".join(run(COUNT * EACH)), lines_of(hidden)
    first = next(one for one in range(COUNT) if one not in hidden) * EACH + 1
    assert (file.first, file.last, file.size, file.started) == ((EPOCH, first), (EPOCH, COUNT * EACH), len(every), True)
    assert retention.extent(file) == (retention.Range(EPOCH, first, COUNT * EACH),)
    assert last_time(file)
    for count in range(1, len(left) + 1):
        assert tail_offset(file, count) == every.index(left[-count]), count
    with live(directory).open("rb") as opened:
        for line in left:
            assert Frames(opened.fileno()).pread(len(line), every.index(line)) == line
            assert Frames(opened.fileno()).before(len(line), every.index(line) + len(line)) == (every.index(line), line)


# ---- a hostile or random file ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("steps")
def test_whatever_happens_to_the_bytes_every_reader_comes_to_an_end_with_lines_that_were_written(directory: Path, made: Made) -> None:
    chance, known = random.Random(11), set(lines_of(range(0)))
    for _ in range(150):
        content = bytearray(made.content)
        for _ in range(chance.randrange(1, 5)):
            at, length = chance.randrange(len(content)), chance.choice((1, 4, 40, 400))
            act = chance.randrange(4)
            piece = bytes(content[at : at + length])
            if act == 0:
                content[at : at + length] = chance.randbytes(len(piece))
            elif act == 1:
                del content[at : at + length]
            elif act == 2:
                content[at:at] = chance.choice((chance.randbytes(length), frames._MARK, bytes(length)))
            else:
                to = chance.randrange(len(content))
                content[to : to + length] = piece
        live(directory).write_bytes(content)
        if not is_framed_file(directory):
            continue
        every = [read(directory)[0] for read in READERS]
        assert all(set(found) <= known and found == every[0] for found in every)


def is_framed_file(directory: Path) -> bool:
    with live(directory).open("rb") as file:
        return is_framed(file.fileno())


def trailer(frame: int, lines: int, until: int) -> bytes:
    return frames._MARK + struct.pack("<IIIQ", frame, lines, 7, until)


def crafted(frame: bytes, lines: int, until: int) -> bytes:
    return frame + frames._MARK + struct.pack("<IIIQ", len(frame), lines, frames._check_sum(frame, lines, until), until)


def bomb(length: int) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(bytes(length))


def hostile(made: Made) -> Iterator[tuple[str, bytes]]:
    """What is put between the first and the second frame."""
    size = 1 << 20
    yield "noise", random.Random(1).randbytes(8 * size)
    yield "zeros", bytes(8 * size)
    yield "marks", frames._MARK * (size // 12)
    dense = frames.ZSTD_MAGIC + b"".join(trailer(at, 9, 1 << 40) for at in range(4, size, TRAILER))
    yield "trailers of one long frame", dense
    pairs = b"".join(frames.ZSTD_MAGIC + trailer(4 + 36 * (at // 2), 9, 9 + at) for at in range(size // 36))
    yield "trailers of frames in one another", pairs
    yield "magics", frames.ZSTD_MAGIC * (size // 4)
    yield "frames of nothing", crafted(zstandard.compress(b""), 0, 9) * (size // 64)
    yield "a frame that grows without end", crafted(bomb(1 << 30), 100, 1 << 20)
    yield "a frame of more than there is memory for", crafted(frames.ZSTD_MAGIC + b"\xe0" + b"\xff" * 8 + bytes(50), 100, 1 << 20)
    yield "a place far away", crafted(zstandard.compress(b"x\n"), 2, 1 << 60)


HOSTILE = [name for name, _ in hostile(of_batches([[b"x\n"]]))]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_middle_costs_a_few_seconds_and_ends(directory: Path, made: Made, name: str) -> None:
    middle = next(content for one, content in hostile(made) if one == name)
    live(directory).write_bytes(made.content[: made.starts[1]] + middle + made.content[made.starts[1] :])
    begun = time.process_time()
    for read in READERS:
        found, problems = read(directory)
        assert (found, len(problems)) == (lines_of(range(0)), 1), read.__name__
    assert time.process_time() - begun < 30


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_end_is_not_looked_through_again_and_again(directory: Path, made: Made, name: str) -> None:
    live(directory).write_bytes(made.content + next(content for one, content in hostile(made) if one == name))
    begun = time.process_time()
    follower = Follower(directory)
    follower.wait_lines(COUNT * EACH)
    for _ in range(20):
        follower.look_again()
    assert [line.raw + b"\n" for line in follower.end()][: COUNT * EACH] == lines_of(range(0))
    assert time.process_time() - begun < 20


def test_many_frames_that_zstd_does_not_know_are_stepped_over(directory: Path, made: Made) -> None:
    odd = b"".join(crafted(frames.ZSTD_MAGIC + b"\x20\x09" + bytes(20), 9, 10_000 + 9 * at) for at in range(1, 5000))
    content, at = made.content, made.starts[3]
    far = crafted(frames.ZSTD_MAGIC + b"\x20\x09" + bytes(20), 9, 1 << 60)
    for new in (content + far, content[:at] + odd, content[: len(HEADER)] + odd, content[:at] + odd + content[at:]):
        live(directory).write_bytes(new)
        begun = time.process_time()
        for read in READERS:
            assert set(read(directory)[0]) <= set(lines_of(range(0)))
        (file,) = files(directory)
        assert tail_offset(file, 3) >= 0
        assert time.process_time() - begun < 20


def test_a_large_file_of_small_frames_is_cut_into_pieces_and_read_in_time_that_grows_with_it(directory: Path) -> None:
    def seconds(count: int) -> float:
        lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"y" * 200) for number in range(count)]
        live(directory).write_bytes(of_batches([[line] for line in lines]).content)
        begun = time.process_time()
        assert by_search(directory, 16 << 10) == (lines, [])
        return time.process_time() - begun

    few, many = seconds(2000), seconds(16_000)
    assert many < 8 * few * 3, "from trailer to trailer for each piece, it was eight times that"


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_what_others_compressed_is_not_taken_for_a_log_of_frames(directory: Path, suffix: str) -> None:
    data = b"".join(run(30))
    path = directory / f"events.jsonl.1{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".gz" else zstandard.compress(data))
    (file,) = files(directory)
    assert isinstance(file, LogFile)
    assert (file.framed, file.compression) == (False, suffix)
    assert by_reader(directory) == (run(30), [])
