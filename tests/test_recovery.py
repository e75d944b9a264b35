"""What the next reader makes of the commit page and the log, whenever the one before it died."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import recovery
from monitor.kernel import rings
from monitor.ledger import CpuState, Ledger, State
from monitor.log import Log
from monitor.mirror import Mirror
from monitor.order import Order
from monitor.pipeline import Counts
from tests import loglines
from tests.fakes import FakeCapture

EPOCH = 0xA1B2C3D4E5F60718
LINE = b'{"x":1}\n'


class Reader:
    """The part of a monitor that announces and appends, over a capture that outlives it."""

    def __init__(self, capture: FakeCapture, directory: Path) -> None:
        self.capture = capture
        self.log = Log(directory, sync_bytes=1 << 30, sync_interval_ms=60_000)
        self.state, self.previous = recovery.recover(capture, self.log, Mirror(capture.memory()))
        self.log.open()
        self.order = Order(capture)
        for cpu, row in enumerate(self.state.cpus):
            self.order.cpus[cpu, 0], self.order.cpus[cpu, 2] = row.position, row.expected
        self.ledger = Ledger(capture.accounts, self.state.cpus, Counts())
        self.sequence = 1

    def announce(self, lines: int, length: int | None = None) -> None:
        """Takes 64 bytes and one event of CPU 0 for each line, and announces them."""
        self.order.cpus[0, 0] += 64 * lines
        self.order.cpus[0, 2] += lines
        self.again(lines, length)

    def again(self, lines: int, length: int | None = None) -> None:
        """Announces the batch as it is."""
        length = len(LINE) * lines if length is None else length
        after = State(sequence=self.sequence + lines)
        recovery.announce(self.capture, self.log, self.ledger, self.order.cpus, EPOCH, length, after)

    def write(self, lines: int) -> None:
        """A batch that reaches the log."""
        self.announce(lines)
        self.log.append(LINE * lines, self.sequence + lines - 1)
        self.sequence += lines
        self.capture.commit.mark_done()

    def position(self) -> tuple[int, int]:
        """Where it goes on: ring position and expected sequence of CPU 0."""
        return self.state.cpus[0].position, self.state.cpus[0].expected


@pytest.fixture
def capture() -> FakeCapture:
    return FakeCapture()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def first(capture: FakeCapture, directory: Path) -> Iterator[Reader]:
    reader = Reader(capture, directory)
    yield reader
    reader.log.close()


def _next(capture: FakeCapture, directory: Path) -> Reader:
    reader = Reader(capture, directory)
    reader.log.close()
    return reader


def test_a_batch_in_the_log_stands_and_one_that_is_not_is_read_again(
    first: Reader, capture: FakeCapture, directory: Path
) -> None:
    first.write(3)
    assert _next(capture, directory).position() == (192, 3)
    first.announce(2)
    assert _next(capture, directory).position() == (192, 3)


def test_a_batch_that_was_taken_back_stays_so_when_the_next_reader_dies_before_its_first_batch(
    first: Reader, capture: FakeCapture, directory: Path
) -> None:
    first.write(3)
    first.announce(2)
    for _ in range(3):
        later = _next(capture, directory)
        assert later.position() == (192, 3)
        assert later.previous is not None
        assert (later.previous.epoch, later.previous.sequence) == (EPOCH, 3)
        assert capture.accounts[0, rings.TAIL] == 192


@pytest.mark.parametrize("attempts", [2, 3, 4])
def test_a_batch_that_is_announced_at_each_attempt_to_write_it_is_still_read_again(
    first: Reader, capture: FakeCapture, directory: Path, attempts: int
) -> None:
    first.write(3)
    first.announce(2)
    for _ in range(attempts - 1):
        first.again(2)
    for _ in range(2):
        assert _next(capture, directory).position() == (192, 3)


def test_the_very_first_batch_not_written_leaves_a_fresh_state(
    first: Reader, capture: FakeCapture, directory: Path
) -> None:
    first.announce(2)
    first.again(2)
    for _ in range(2):
        later = _next(capture, directory)
        assert later.previous is None
        assert [(cpu.position, cpu.expected) for cpu in later.state.cpus] == [(0, 0)] * capture.shape.cpus
        later.ledger.balance()


def test_a_batch_that_was_given_up_is_not_read_again(first: Reader, capture: FakeCapture, directory: Path) -> None:
    first.write(3)
    first.announce(2)
    first.again(0, 0)  # given up: its place is passed, its numbers are not
    later = _next(capture, directory)
    assert later.position() == (320, 5)
    assert later.previous is not None
    assert later.previous.sequence == 3


def test_an_announcement_of_an_odd_page_is_never_an_index_error() -> None:
    assert State.from_words([0] * 4096).cpus == []
    assert CpuState().counters


BOOT = "5b6f2c8e-1d3a-4c57-9e80-112233445566"
ENDS = {
    "in its middle": ([loglines.start(boot=BOOT)], True),
    "in order": ([loglines.start(boot=BOOT), loglines.stop(2)], False),
    "in another boot": ([loglines.start(boot="another")], False),
    "nowhere": ([], False),
    "with no document": ([loglines.start(boot=BOOT), b"[]\n"], False),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_log_says_whether_the_run_of_this_boot_was_cut_off(tmp_path: Path, how: str) -> None:
    lines, expected = ENDS[how]
    loglines.write(tmp_path, lines)
    assert recovery.cut_off(tmp_path, BOOT) is expected
    assert recovery.cut_off(tmp_path / "missing", BOOT) is False
