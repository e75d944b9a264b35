"""The writing side of the compressed log: a batch's lines become frames with their trailers (monitor/frames.py has the form).

Owns where one frame ends and the next begins, and who makes it: at level 1 monitor/fastframe.py, which is told by the compiled
pass what repeats and so takes less than half of the time; else libzstd in a thread beside the one that makes the lines.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import zstandard

from monitor import ahead, fastframe, frames

CHUNK_BYTES = fastframe.WINDOW
"""Lines of one frame: they stay in the processor's cache, and a reader gets them with one read."""
_LINE_BLOCK = 1 << 16
_INLINE_BYTES = 1 << 16  # less than that is compressed before a thread has woken up
_NOTES = 1 << 15  # a line has two, and a chunk a thousand lines; what finds no room is looked up


class Sealer:
    """Makes frames in this thread, with `notes` of what repeats in the batch (fastframe.hint)."""

    def __init__(self) -> None:
        self.notes: npt.NDArray[np.int64] = np.zeros(_NOTES, np.int64)
        self._state = np.zeros(fastframe.STATE, np.int64)
        self._table = np.full(fastframe.TABLE, -1, np.int64)
        self._runs, self._sequences = np.zeros((2, fastframe.SEQUENCES), np.int64)
        self._out = np.zeros(fastframe.room(CHUNK_BYTES + (1 << 16)), np.uint8)

    def frame(self, batch: memoryview, begin: int, end: int) -> bytes:
        """The bytes `begin` to `end` of the batch as one frame."""
        if len(self._out) < fastframe.room(end - begin):
            self._out = np.zeros(fastframe.room(end - begin), np.uint8)
        lines = np.frombuffer(bytearray(batch[:end]) if batch.readonly else batch[:end], np.uint8)
        self._state[fastframe.BEGIN], self._state[fastframe.END] = begin, end
        size = fastframe.seal(lines, self.notes, self._state, self._table, self._runs, self._sequences, self._out)
        return self._out[:size].tobytes()

    def forget(self) -> None:
        """What was noted of the batch is not of the next."""
        self.notes[0] = self._state[fastframe.NOTE] = 0


class Compressor:
    """Makes frames of a batch's lines: `ahead` while the batch grows. `sealer`: who makes them; None: libzstd at `level`."""

    def __init__(self, level: int, sealer: Sealer | None = None) -> None:
        if sealer is None and level == 1 and ahead.COMPILED:
            sealer = Sealer()
        self.sealer = sealer
        # The trailer's check sum is over the compressed bytes, a fiftieth of what zstd's own would be over.
        self._zstd = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        self._thread = ThreadPoolExecutor(1, "log-compress")  # which begins with its first work
        self._waiting: list[tuple[Future[bytes], int]] = []
        self._frames: list[tuple[bytes, int]] = []
        self._done = 0

    def ahead(self, batch: memoryview) -> None:
        """The batch has these lines by now, which stay as they are; an empty one begins another batch."""
        if not batch:
            self.forget()
        elif len(batch) - self._done >= CHUNK_BYTES:
            self._submit(batch)

    def length(self, batch: memoryview) -> int:
        """Bytes that the whole batch takes in the file."""
        rest = batch[self._done :]
        if len(rest) >= _INLINE_BYTES or self._waiting or self.sealer is not None:
            self._submit(batch)
        elif rest:
            self._frames.append((self._zstd.compress(rest), len(rest)))
            self._done = len(batch)
        self._frames += [(future.result(), length) for future, length in self._waiting]
        self._waiting = []
        return sum(len(frame) + frames.TRAILER_BYTES for frame, _ in self._frames)

    def data(self, batch: memoryview, begin: int) -> bytes:
        """The whole batch as it is to stand in a file with `begin` plain bytes before it."""
        self.length(batch)
        pieces = []
        for frame, length in self._frames:
            begin += length
            pieces += [frame, frames.trailer(frame, length, begin)]
        return b"".join(pieces)

    def forget(self) -> None:
        """What comes is another batch."""
        for future, _ in self._waiting:
            future.result()
        self._waiting, self._frames, self._done = [], [], 0
        if self.sealer is not None:
            self.sealer.forget()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _submit(self, batch: memoryview) -> None:
        while len(batch) > self._done:
            begin, end = self._done, len(batch)
            if end - begin > 2 * CHUNK_BYTES:
                end = _line_end(batch, begin + CHUNK_BYTES)
            if self.sealer is not None:
                self._frames.append((self.sealer.frame(batch, begin, end), end - begin))
            else:
                self._waiting.append((self._thread.submit(self._zstd.compress, batch[begin:end]), end - begin))
            self._done = end


def _line_end(batch: memoryview, at: int) -> int:
    """Where the line that has the byte `at` ends."""
    while at < len(batch):
        newline = bytes(batch[at : at + _LINE_BLOCK]).find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += _LINE_BLOCK
    return len(batch)
