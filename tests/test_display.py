"""What run shows: all lines while the screen keeps up, a number for the rest, and never a wait for the collector."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monitor import display
from monitor.compact import Compact
from monitor.display import Printer, Screen, count_lines, progress
from tests import loglines


class Pipe:
    """A pipe whose reading end is ours."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.gone = threading.Event()

    def printer(self, limit: int = display.QUEUE_BYTES) -> Printer:
        return Printer(self.writer, Compact(), self.gone.set, limit)

    def read_all(self) -> list[str]:
        """Everything until the writing end is closed."""
        os.close(self.writer)
        self.writer = -1
        return self.rows()

    def rows(self) -> list[str]:
        """What the pipe gives until its writing end is closed by somebody."""
        with open(self.reader, "rb", closefd=False) as opened:
            return opened.read().decode().splitlines()

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe()
    yield found
    found.close()


def batch(first: int, last: int) -> bytes:
    return b"".join(loglines.line(number, path=f"/file/{number}") for number in range(first, last + 1))


def paths(rows: list[str]) -> list[int]:
    return [int(found[1]) for row in rows if (found := re.search(r" /file/(\d+) ", row))]


def hidden(rows: list[str]) -> int:
    return sum(
        int(found[1].replace(",", "")) for row in rows if (found := re.search(r"-- ([\d,]+) lines are not shown", row))
    )


@pytest.mark.parametrize(("first", "last"), [(1, 1), (5, 9), (1, 300)])
def test_lines_are_counted_by_their_numbers(first: int, last: int) -> None:
    assert count_lines(batch(first, last)) == last - first + 1


def test_lines_without_numbers_are_counted_too() -> None:
    assert count_lines(b"a\nb\nc\n") == 3
    assert count_lines(b"") == 0


def test_all_lines_are_shown_in_order_when_the_screen_keeps_up(pipe: Pipe) -> None:
    printer = pipe.printer()
    for first in range(1, 200, 10):
        printer.put(batch(first, first + 9))
    assert printer.close() == 0
    assert paths(pipe.read_all()) == list(range(1, 201))


def test_what_does_not_fit_is_left_out_and_counted_exactly(pipe: Pipe) -> None:
    """Nobody reads while the lines come: shown and not shown are all of them, and the collector never waited."""
    printer = pipe.printer(limit=300_000)
    slowest = 0.0
    for first in range(1, 4001, 100):
        piece = batch(first, first + 99)
        began = time.monotonic()
        printer.put(piece)
        slowest = max(slowest, time.monotonic() - began)
    assert printer.hidden > 0
    result: list[int] = []
    closing = threading.Thread(target=lambda: result.append(printer.close()))
    rows: list[str] = []
    reading = threading.Thread(target=lambda: rows.extend(pipe.rows()))
    reading.start()
    closing.start()
    closing.join(10)
    os.close(pipe.writer)
    pipe.writer = -1
    reading.join(10)
    shown = paths(rows)
    assert shown == sorted(shown)
    assert len(shown) + hidden(rows) + result[0] == 4000
    assert slowest < 0.5


def test_screen_that_takes_nothing_at_all_does_not_hold_up_the_end(pipe: Pipe) -> None:
    printer = pipe.printer()
    printer.put(batch(1, 2000))
    began = time.monotonic()
    assert printer.close() > 0
    assert time.monotonic() - began < display._CLOSE_S + 2


def test_reader_that_goes_away_is_noticed_once_and_later_lines_are_ignored(pipe: Pipe) -> None:
    printer = pipe.printer()
    os.close(pipe.reader)
    pipe.reader = -1
    printer.put(batch(1, 10))
    assert pipe.gone.wait(5)
    printer.put(batch(11, 20))
    assert printer.close() == 0


def test_display_uses_only_its_share_of_a_cpu(pipe: Pipe) -> None:
    """With lines without end it rests: otherwise it would take the interpreter's lock from the collector."""
    printer, stop = pipe.printer(), threading.Event()
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(pipe.reader, 1 << 16), b"")])
    reader.start()
    piece = batch(1, 1000)
    used: list[float] = []
    rest = printer._rest
    printer._rest = lambda: (used.append(time.thread_time()), rest())[1]  # type: ignore[method-assign]
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        printer.put(piece)
        stop.wait(0.01)
    share = (used[-1] - used[0]) / 1.5
    printer.close()
    os.close(pipe.writer)
    pipe.writer = -1
    reader.join(5)
    assert share < 2 * display._CPU_SHARE


# ---- messages and progress -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def status(sequence: int, time_s: float, **changes: Any) -> dict[str, Any]:
    ledger = {"in_flight": 4, "refused": {"ring_full": 2, "control_full": 1}, "unwritten": 5}
    return {
        "pid": 42,
        "sequence": sequence,
        "durable_sequence": sequence - 10,
        "time": time_s,
        "ring_fill": 0.031,
        "ledger": ledger,
    } | changes


def test_progress_says_rate_loss_lag_and_fill() -> None:
    text = progress(status(1000, 10.0), status(4000, 12.0))
    assert text == "1,500 events/s, 4,000 logged, 8 lost, lag 4, to sync 10, rings 3 %"


def test_progress_is_rewritten_in_place_and_makes_room_for_messages() -> None:
    errors = Terminal()
    with Screen(errors, where="log in /x") as screen:
        screen.tick(status(10, 1.0))
        screen.tick(status(20, 2.0))
        screen.tick(status(30, 3.0))
        screen.say("rotated")
        screen.tick(status(40, 4.0))
    text = errors.getvalue()
    assert text.startswith("recording as process 42; log in /x; Ctrl-C ends it\n\r10 events/s")
    assert text.count("\n") == 2, "only the two messages end a line"
    assert "\r\x1b[Krotated\n" in text
    assert text.endswith("\r\x1b[K"), "nothing of it stays"


def test_no_progress_without_a_terminal() -> None:
    errors = io.StringIO()
    with Screen(errors, where="log in /x") as screen:
        for second in range(5):
            screen.tick(status(10 * second, float(second)))
    assert errors.getvalue() == "recording as process 42; log in /x\n"


@pytest.mark.parametrize("errors", [None, Terminal()])
def test_closed_standard_error_does_not_end_the_run(errors: Terminal | None) -> None:
    if errors is not None:
        errors.close()
    with Screen(errors, where="x") as screen:
        screen.say("hello")
        for second in range(3):
            screen.tick(status(1, float(second)))


def test_screen_without_output_shows_nothing() -> None:
    assert Screen(None, where="x").show is None


def test_lines_that_could_not_be_shown_are_told_at_the_end(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(display, "_CLOSE_S", 0.1)
    errors = io.StringIO()
    with Screen(errors, where="x", output=pipe.writer) as screen:
        assert screen.show is not None
        screen.show(batch(1, 3000))
    assert re.search(r"[\d,]+ lines were not shown: standard output does not take them", errors.getvalue())
