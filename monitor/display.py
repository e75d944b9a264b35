"""What `run` shows while it captures: compact lines on standard output, or one line of progress on a terminal.

Owns the bounded queue between the collector and a screen that may be slow; it never makes the collector wait.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

from monitor.compact import Compact
from monitor.status import losses

QUEUE_BYTES = 4 << 20
"""Lines that wait for the screen; what comes on top is not shown, and counted."""

_PIPE_BUF = 4096  # POLLOUT on a pipe promises that so much does not block (pipe(7))
_CPU_SHARE = 0.25  # of one CPU at most: the interpreter's lock is the collector's too
_SLICE_LINES = 32
_CLOSE_S = 2.0
_SEQUENCE = re.compile(rb'"sequence":(\d+)')


def count_lines(batch: bytes) -> int:
    """Lines of a batch, by the first and last event.sequence: counting newlines costs 0.5 ns for each byte."""
    first = _SEQUENCE.search(batch)
    last = _SEQUENCE.search(batch, batch.rfind(b"\n", 0, -1) + 1)
    if first is None or last is None:
        return batch.count(b"\n")
    return int(last[1]) - int(first[1]) + 1


class Printer:
    """Renders committed batches and writes them to the descriptor `output` in a thread of its own.

    `gone` is called once, in that thread, when the reader of `output` went away.
    """

    def __init__(self, output: int, compact: Compact, gone: Callable[[], None], limit: int = QUEUE_BYTES) -> None:
        self._output, self._compact, self._gone, self._limit = output, compact, gone, limit
        self._queue: collections.deque[bytes | int] = collections.deque()  # an int: so many lines are left out here
        self._pending = 0
        self._wake = threading.Condition()
        self._closing: float | None = None
        self._broken = False
        self._window = (time.monotonic(), 0.0)
        self.hidden = 0
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()

    def put(self, batch: bytes) -> None:
        """Takes a batch of whole lines, as much of it as there is room for. Never waits for the output."""
        with self._wake:
            if self._broken:
                return
            room = max(0, self._limit - self._pending)
            kept = batch if len(batch) <= room else batch[: batch.rfind(b"\n", 0, room) + 1]
            left = len(kept) != len(batch)
            if kept:
                self._queue.append(kept)
                self._pending += len(kept)
            if left:
                lines = count_lines(batch[len(kept) :])
                self.hidden += lines
                if self._queue and isinstance(self._queue[-1], int):
                    self._queue[-1] += lines
                else:
                    self._queue.append(lines)
            self._wake.notify()

    def close(self) -> int:
        """Shows what waits, for two seconds at most; how many lines of it could not be shown."""
        with self._wake:
            self._closing = time.monotonic() + _CLOSE_S
            self._wake.notify()
        self._thread.join(_CLOSE_S + 0.5)
        with self._wake:
            return 0 if self._broken else sum(one if isinstance(one, int) else count_lines(one) for one in self._queue)

    # ---- the thread ----
    def _run(self) -> None:
        while (entry := self._next()) is not None:
            for text in self._texts(entry):
                if not self._write(text):
                    return
            with self._wake:
                self._queue.popleft()
                self._pending -= len(entry) if isinstance(entry, bytes) else 0

    def _next(self) -> bytes | int | None:
        with self._wake:
            while not self._queue:
                if self._closing is not None:
                    return None
                self._wake.wait()
            return self._queue[0]

    def _texts(self, entry: bytes | int) -> Iterator[bytes]:
        if isinstance(entry, int):
            yield _encoded(self._compact.notice(f"{entry:,} lines are not shown here; all are in the log"))
            return
        lines = entry.split(b"\n")
        lines.pop()
        for start in range(0, len(lines), _SLICE_LINES):
            yield _encoded("".join(map(self._compact.raw, lines[start : start + _SLICE_LINES])))
            self._rest()

    def _rest(self) -> None:
        """Sleeps as long as this thread has used more than its share of a CPU."""
        began, used = self._window
        now, cpu = time.monotonic(), time.thread_time()
        ahead = (cpu - used) / _CPU_SHARE - (now - began)
        if now - began > 1:
            self._window = (now, cpu)
        if ahead > 0.01 and self._closing is None:
            with self._wake:
                self._wake.wait_for(lambda: self._closing is not None, min(ahead, 0.5))

    def _write(self, text: bytes) -> bool:
        """Writes all of it as the output takes it. False: the reader is gone, or there is no time left."""
        poll = select.poll()
        poll.register(self._output, select.POLLOUT)
        at = 0
        while at < len(text):
            if self._closing is not None and time.monotonic() > self._closing:
                return False
            try:
                if poll.poll(100):
                    at += os.write(self._output, text[at : at + _PIPE_BUF])
            except BlockingIOError:
                continue
            except OSError:
                with self._wake:
                    self._broken = True
                    self._queue.clear()
                self._gone()
                return False
        return True


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


class Screen:
    """What `run` gives to the monitor as say, show and tick; a context manager around the run.

    `errors` gets messages, and on a terminal the line of progress; `output` is the descriptor for compact lines, None
    for none.
    """

    def __init__(
        self, errors: TextIO | None, *, where: str, output: int | None = None, compact: Compact | None = None
    ) -> None:
        self._errors, self._where = errors, where
        self._printer = None if output is None else Printer(output, compact or Compact(), self._reader_gone)
        self._interactive = errors is not None and errors.isatty()
        self._terminal = self._interactive and output is None
        self._before: dict[str, Any] | None = None
        self._progress = False

    @property
    def show(self) -> Callable[[bytes], None] | None:
        """For batches of committed lines."""
        return None if self._printer is None else self._printer.put

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        left = 0 if self._printer is None else self._printer.close()
        if left:
            self.say(f"{left:,} lines were not shown: standard output does not take them; all are in the log")

    def say(self, message: str) -> None:
        """One message to the person, above the line of progress."""
        self._clear()
        self._put(message + "\n")

    def tick(self, status: dict[str, Any]) -> None:
        """Called each second with the monitor's status."""
        before, self._before = self._before, status
        if before is None:
            end = "; Ctrl-C ends it" if self._interactive else ""
            self.say(f"recording as process {status['pid']}; {self._where}{end}")
        elif self._terminal:
            self._put(f"\r{progress(before, status)[: self._columns() - 1]}\x1b[K")
            self._progress = True

    def _columns(self) -> int:
        found = 0
        with contextlib.suppress(OSError, ValueError):  # no terminal after all: the usual width will do
            found = os.get_terminal_size(self._errors.fileno()).columns if self._errors else 0
        return found or 80

    def _clear(self) -> None:
        if self._progress:
            self._put("\r\x1b[K")
            self._progress = False

    def _put(self, text: str) -> None:
        if self._errors is None:
            return
        try:
            self._errors.write(text)
            self._errors.flush()
        except (OSError, ValueError):
            self._errors = None  # nobody reads messages any more: the log goes on

    def _reader_gone(self) -> None:
        """As `tail | head`: whoever reads has seen enough, so the run ends in order."""
        os.kill(os.getpid(), signal.SIGTERM)


def progress(before: dict[str, Any], now: dict[str, Any]) -> str:
    """One line on how it goes, from two statuses."""
    seconds = max(now["time"] - before["time"], 1e-3)
    rate = (now["sequence"] - before["sequence"]) / seconds
    waiting = max(0, now["ledger"]["in_flight"])
    durable = max(0, now["sequence"] - now["durable_sequence"])
    return (
        f"{rate:,.0f} events/s, {now['sequence']:,} logged, {losses(now['ledger'])['total']:,} lost, lag {waiting:,}, "
        f"to sync {durable:,}, rings {100 * now['ring_fill']:.0f} %"
    )
