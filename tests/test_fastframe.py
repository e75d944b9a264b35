"""Frames that are written with what the compiled pass noted: they decode to the lines whatever was noted, and the notes pay."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import compressor, fastbits, fastframe, pipeline
from monitor.compressor import Compressor, Sealer
from monitor.fastframe import MOST
from tests import fakes, scenes
from tests.acts import Acts
from tests.fakes import Bench

LINE = b'{"@timestamp":"2026-11-22T16:52:01.%09dZ","event":{"id":"a1b2c3d4-00112233aabbccdd-%012x"},"file":{"path":"/srv/data/%s"}}\n'


def lines(count: int, seed: int = 1) -> bytes:
    choose = random.Random(seed)
    return b"".join(LINE % (n * 1777, n, choose.choice((b"a", b"bb", b"passwd", b"x" * 200))) for n in range(count))


def decoded(frame: bytes) -> bytes:
    """What another implementation makes of one frame, its content size checked."""
    reader = zstandard.ZstdDecompressor().decompressobj()
    found = reader.decompress(frame)
    assert reader.eof
    assert not reader.unused_data
    assert zstandard.frame_content_size(frame) == len(found)
    return found


def sealed(data: bytes, notes: list[tuple[int, int]] | None = None, sealer: Sealer | None = None) -> bytes:
    sealer = sealer or Sealer()
    noted = (notes or [])[: len(sealer.notes) - 1]
    sealer.notes[0] = len(noted)
    sealer.notes[1 : 1 + len(noted)] = [at | distance << 32 for at, distance in noted]
    return sealer.frame(memoryview(data), 0, len(data))


# ---- the sequences alone ---------------------------------------------------------------------------------------------


def block(content: bytes, kind: int, last: bool, size: int) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + content


def framed(history: list[tuple[int, bytes]], literals: bytes, sequences: list[tuple[int, int, int]]) -> bytes:
    """A frame: blocks of one byte many times or of bytes as they are, then one with these sequences (offset values)."""
    words = np.array([ll | (ml - 3) << 18 | value << 36 for ll, ml, value in sequences], np.int64)
    out = np.zeros(len(sequences) * 12 + 64, np.uint8)
    bits = out[: fastbits.put_bits(out, 0, words, len(words))].tobytes()
    count = len(sequences)
    number = bytes([count]) if count < 128 else bytes([128 + (count >> 8), count & 255])
    body = (3 << 2 | len(literals) << 4).to_bytes(3, "little") + literals + number + b"\0" + bits
    found = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3])  # no content size; a window of 2 GB
    for times, content in history:
        found += block(content, 1, False, times) if times else block(content, 0, False, len(content))
    return found + block(body, 2, True, len(body))


def expanded(history: bytes, literals: bytes, sequences: list[tuple[int, int, int]]) -> bytes:
    """What a decoder makes of it, by the words of the format."""
    found, taken, recent = bytearray(history), 0, [1, 4, 8]
    for ll, ml, value in sequences:
        found += literals[taken : taken + ll]
        taken += ll
        if value > 3:
            recent = [value - 3, recent[0], recent[1]]
        else:
            index = value - 1 + (ll == 0)
            distance = recent[0] - 1 if index == 3 else recent[index]
            del recent[min(index, 2)]
            recent.insert(0, distance)
        source = bytes(found[len(found) - recent[0] :][:ml])
        found += (source * (ml // len(source) + 1))[:ml]
    return bytes(found + literals[taken:])


def near(edges: list[int], most: int) -> st.SearchStrategy[int]:
    """Numbers at and around the places where the codes begin."""
    return st.builds(lambda edge, by: max(0, min(most, edge + by)), st.sampled_from(edges), st.integers(-2, 2))


LENGTHS = [*range(66), 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
HISTORY = random.Random(5).randbytes(MOST)


@given(
    st.lists(
        st.tuples(near(LENGTHS, MOST), near([3 + n for n in (*LENGTHS, 96)], MOST), near([1 << n for n in range(1, 18)], MOST)),
        min_size=1,
        max_size=300,
    ),
    st.integers(0, 2**32),
)
@settings(max_examples=150)
def test_sequences_decode_to_what_they_say(chosen: list[tuple[int, int, int]], seed: int) -> None:
    sequences, size, longest = [], 0, 0
    recent_zero = True  # the distance of a "1 less than the last" must not be 0: the first of a frame is 1
    for ll, ml, value in chosen:
        ml = max(3, ml)
        if size + ll + ml > MOST - 8:
            ll, ml = ll % 60, 3 + ml % 60
        if size + ll + ml > MOST - 8:
            break
        value = max(1, value)
        if value == 3 and (ll == 0 or recent_zero):
            value = 7
        recent_zero = recent_zero and value <= 3
        sequences.append((ll, ml, value))
        size, longest = size + ll + ml, longest + ll
    literals = random.Random(seed).randbytes(longest + 5)
    frame = framed([(0, HISTORY)], literals, sequences)
    decode = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    assert decode.decompress(frame) == expanded(HISTORY, literals, sequences)


def test_the_farthest_distance_decodes() -> None:
    history = [(0, HISTORY), *[(MOST, bytes([n & 255])) for n in range(fastframe.FARTHEST // MOST)]]
    whole = b"".join(content * (times or 1) for times, content in history)
    sequences = [(1, 100, fastbits.LONGEST_OFFSET - 40), (0, 50, fastbits.LONGEST_OFFSET - (1 << 25)), (0, 3, 1)]
    decode = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    assert decode.decompress(framed(history, b"xyz", sequences)) == expanded(whole, b"xyz", sequences)


# ---- frames ----------------------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"abcdefgh", b"0123456789" * 5, b"x" * 200, bytes(300)]),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 60)).map(lambda found: found[0] * found[1]),
)


@given(
    st.lists(PIECES, max_size=60).map(b"".join),
    st.lists(st.tuples(st.integers(0, 6000), st.one_of(st.integers(0, 300), st.integers(-5, 2**30))), max_size=80),
    st.booleans(),
)
@settings(max_examples=300)
def test_whatever_is_noted_a_frame_decodes_to_the_lines(
    data: bytes, notes: list[tuple[int, int]], in_order: bool
) -> None:
    """So a note that is wrong costs bytes and never a line: none needs to be taken back when a place gets another content."""
    data = data + data[: len(data) // 2] + bytes(70)
    assert decoded(sealed(data, sorted(notes) if in_order else notes)) == data


@pytest.mark.parametrize(
    "size", [0, 1, 7, 8, 63, 64, 65, MOST - 1, MOST, MOST + 1, 2 * MOST - 1, 2 * MOST, 3 * MOST + 5, 1 << 20, 20 << 20]
)
@pytest.mark.parametrize("distance", [None, 8, 9, 1117])
def test_sizes_around_a_blocks_limit(size: int, distance: int | None) -> None:
    data = lines(size // 150 + 10)[:size]
    if distance is not None:
        data = (data[:distance] * (size // distance + 1))[:size]
    assert decoded(sealed(data, [(0, distance or 0), (distance or 0, distance or 0)])) == data


def test_what_cannot_be_compressed_stays_within_the_room() -> None:
    """Random bytes; and matches of 8 bytes each behind a literal or none, more of which fit in no block."""
    data = random.Random(3).randbytes(300_000)
    frame = sealed(data, [(n, 500) for n in range(0, 300_000, 50)])
    assert decoded(frame) == data
    assert len(frame) < len(data) + 32
    for gap in (b"", b"!", b"?!"):
        choose = random.Random(4)
        words = [choose.randbytes(8) for _ in range(3000)]
        data = b"".join(words) + b"".join(choose.choice(words) + gap for _ in range(40_000))
        sealer = Sealer()
        assert decoded(sealed(data, [], sealer)) == data
        at, notes = len(words) * 8, []
        while at + 8 < len(data):
            notes.append((at, at - data.find(data[at : at + 8])))
            at += 8 + len(gap)
        sealer.notes = np.zeros(len(notes) + 1, np.int64)
        frame = sealed(data, notes, sealer)
        assert decoded(frame) == data
        assert len(frame) < len(data)


@pytest.mark.parametrize("length", [*range(100, 300), 1024, 1087])
def test_all_of_a_piece_that_repeats_is_one_match(length: int) -> None:
    """Wherever its end lies among the 64 bytes that are compared at once; nothing is left to the table."""
    choose = random.Random(length)
    piece, between = choose.randbytes(length), choose.randbytes(9)
    sealer = Sealer()
    frame = sealed(piece + between + piece + bytes(64), [(length + 9, length + 9), (2 * length + 9, 0)], sealer)
    assert decoded(frame) == piece + between + piece + bytes(64)
    assert int(sealer._runs[0]) == length + 9 | length << 17 | (length + 9) << 35
    assert sealer._runs[1] == 0


# ---- streams ---------------------------------------------------------------------------------------------------------


class Stream:
    """A bench whose batches are compressed as the log does it, beside what they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.bench, self.sealer = Bench(), Sealer()
        self.compressor = Compressor(1, self.sealer)
        self.plain, self.compressed, self.frames, self.lines = b"", b"", 0, 0
        self.bench.pipeline.ahead = self.compressor.ahead
        self.bench.pipeline.note(self.sealer.notes)

    def batch(self, *, fails: bool = False, between: Callable[[], None] = lambda: None) -> None:
        """What lies in the rings, a batch after the other; the first is written twice or, if it `fails`, given up."""
        order, made = self.bench.order, self.bench.pipeline
        done = False
        while not done:
            order.look()
            done = made.fill()
            between()
            order.take_gaps()
            announced = self.compressor.length(made.batch)
            data = self.compressor.data(made.batch, 0)
            assert len(data) == announced
            assert self.compressor.data(made.batch, 0) == data
            if fails:
                made.dropped()
                fails = False
                continue
            self.plain += made.batch
            self.compressed += data
            self.frames += data.count(zstandard.FRAME_HEADER)
            self.lines += made.lines
            self.compressor.forget()
            made.committed()

    def check(self) -> None:
        """All frames, one behind the other, are the lines."""
        reader = zstandard.ZstdDecompressor().stream_reader(self.compressed, read_across_frames=True)
        assert reader.read() == self.plain


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_a_random_stream_is_the_same_lines_compressed(seed: int) -> None:
    stream, choose = Stream(), random.Random(seed)
    kernel, made = stream.bench.kernel, stream.bench.pipeline
    acts = Acts(kernel, choose)

    def between() -> None:
        for _ in range(choose.choice((0, 0, 1, 20))):
            made.make("monitor_loss", {"loss": {"class": "file", "count": choose.randrange(10**6)}})

    for _ in range(12):
        for _ in range(choose.choice((1, 30, 200))):
            acts.one()
        made.mirror.report(choose.randrange(3), [choose.randrange(9), choose.randrange(4096), 1, 1])
        stream.batch(fails=choose.random() < 0.2, between=between)
        if choose.random() < 0.1:
            made.rename(choose.choice((fakes.ORIGIN, fakes.LABELLED)))
    stream.check()


def steady(stream: Stream, count: int, files: int) -> None:
    """Reads of so many files, which all become others after each 400 lines."""
    kernel = stream.bench.kernel
    scenes.process(kernel)
    for number in range(count):
        if number % 400 == 0:
            stream.batch()
            for key in range(files):
                kernel.file(0, key, b"/srv/data/%d/" % number + b"n" * key)
                kernel.session(0, key=key, session=key, generation=number + 1)
        kernel.bulk(0, "file_read", ret=16, fd=3, session=number % files, generation=number // 400 * 400 + 1)
    stream.batch()
    stream.check()


def test_definitions_replaced_and_sessions_reused_over_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_CHUNK", 60_000)
    monkeypatch.setattr(compressor, "CHUNK_BYTES", 40_000)
    stream = Stream()
    steady(stream, 3000, files=7)
    assert stream.frames > 30


@pytest.mark.parametrize(("files", "most"), [(1, 27), (5, 32)])
def test_a_line_takes_few_bytes_and_few_notes(files: int, most: int) -> None:
    stream, noted = Stream(), list[int]()
    frame = stream.sealer.frame

    def look(batch: memoryview, begin: int, end: int) -> bytes:
        noted.append(int(stream.sealer.notes[0]))
        made = frame(batch, begin, end)
        assert stream.sealer.notes[0] == 0, "all are used"
        return made

    stream.sealer.frame = look  # type: ignore[method-assign]
    steady(stream, 2000, files)
    assert len(stream.compressed) / stream.lines < most
    assert 0 < sum(noted) < 3 * stream.lines


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_the_zstd_program_reads_it(count: int) -> None:
    command = [shutil.which("zstd") or pytest.skip("no zstd program here"), "-dc"]
    found = subprocess.run(command, input=sealed(lines(count)), capture_output=True, check=True)
    assert found.stdout == lines(count)


def digest(seed: int) -> list[bytes]:
    """Frames of a stream, and of lines without notes: the same compiled and interpreted."""
    stream = Stream()
    acts = Acts(stream.bench.kernel, random.Random(seed))
    for _ in range(150):
        acts.one()
    stream.batch()
    return [stream.compressed, sealed(lines(300))]
