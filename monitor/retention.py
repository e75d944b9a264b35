"""Keeping the disk usable: which rotated log files go when space is short, and which lines go with them.

Owns the choice and the removal; never touches the live file, and never writes a record itself.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.logfiles import LIVE_NAME, LogFile, ReaderError, files, line_identity
from monitor.scan import Scan

Place = tuple[str, int]
"""(epoch, sequence) of a line."""
MOST_FILES = 64
_START = b'"ebpf":{"event":"monitor_start"'
_GOING = "expired-"
_PAUSE_S = 60.0


@dataclass(frozen=True)
class Range:
    """Lines of one epoch, both ends included. Not `exact`: the file is damaged, and only what could be read is counted."""

    epoch: str
    first: int
    last: int
    exact: bool = True

    @property
    def loss(self) -> dict[str, object]:
        """`ebpf.loss` of the monitor_loss document for these lines."""
        count = self.last - self.first + 1
        found = {"class": "log", "count": count, "first": self.first, "last": self.last, "reason": "expired"}
        return found | {"epoch": self.epoch} | ({} if self.exact else {"exact": False})


@dataclass(frozen=True)
class Going:
    """A file that is to go, and those of its lines that nobody has been sent yet."""

    file: LogFile
    unshipped: tuple[Range, ...]

    @property
    def sentence(self) -> str:
        """What happened, for people."""
        lines = sum(one.last - one.first + 1 for one in self.unshipped)
        told = f"{lines} lines that were not shipped" if lines else "all of it was shipped"
        return f"little space left: {self.file.path} was removed ({told})"


def free_percent(directory: Path) -> float:
    """Space that others than root could still use on the directory's file system. Raises OSError."""
    about = os.statvfs(directory)
    return 100 * about.f_bavail / max(about.f_blocks, 1)


def choose(directory: Path, wanted_percent: int, shipped: Place | None) -> list[Going]:
    """The oldest rotated files that must go, claimed, to have `wanted_percent` free; shipped ones are the oldest.

    `shipped`: the last line that was delivered. A file without a line of the monitor stays: it may be anybody's.
    Reads compressed files to their ends: call it beside the loop. Raises OSError, ReaderError.
    """
    about = os.statvfs(directory)
    missing = about.f_frsize * (about.f_blocks * wanted_percent / 100 - about.f_bavail)
    listed = [file for file in files(directory) if file.first is not None]
    at = next((index for index in reversed(range(len(listed))) if _holds(listed[index], shipped)), -1)
    going: list[Going] = []
    for index, file in enumerate(listed):
        if missing <= 0 or file.live or len(going) == MOST_FILES:
            break
        unshipped = () if index < at else tuple(_left(extent(file), shipped if index == at else None))
        claimed = claim(file)
        if claimed is not None:
            missing -= claimed.path.stat().st_blocks * 512
            going.append(Going(claimed, unshipped))
    return going


def _holds(file: LogFile, shipped: Place | None) -> bool:
    """Whether the last delivered line is in this file or, where its epoch goes on in a later one, before it."""
    if shipped is None or file.first is None:
        return False
    epoch, sequence = shipped
    if file.first[0] == epoch:
        return file.first[1] <= sequence
    return any(one.epoch == epoch for one in extent(file)) if file.last is None or file.last[0] == epoch else False


def _left(ranges: tuple[Range, ...], shipped: Place | None) -> Iterator[Range]:
    """What of the ranges lies behind the last delivered line, which is in one of them."""
    epochs = [one.epoch for one in ranges]
    reached = shipped is None or shipped[0] not in epochs
    for one in ranges:
        if shipped is not None and not reached and one.epoch == shipped[0]:
            reached = True
            if shipped[1] < one.last:
                yield Range(one.epoch, max(one.first, shipped[1] + 1), one.last, one.exact)
        elif reached:
            yield one


@functools.lru_cache(maxsize=256)
def extent(file: LogFile) -> tuple[Range, ...]:
    """The lines of a file, epoch by epoch: their numbers are dense, so ends tell them all."""
    if file.first is None:
        return ()
    if file.last is not None and file.last[0] == file.first[0]:
        return (Range(*file.first, file.last[1]),)
    damaged: list[object] = []
    ends: list[tuple[Place, Place]] = []
    for block in Scan(file, damaged.append).blocks():
        for begin, end in _pieces(block):
            first = _place(block[begin : block.index(b"\n", begin)])
            last = _place(
                block[block.rfind(b"\n", begin, end - 1) + 1 if b"\n" in block[begin : end - 1] else begin : end - 1]
            )
            if first is None or last is None:
                damaged.append(file)
                continue
            if ends and ends[-1][0][0] == first[0]:
                first = ends.pop()[0]
            ends.append((first, last))
    return tuple(Range(*first, last[1], not damaged) for first, last in ends)


def _pieces(block: bytes) -> Iterator[tuple[int, int]]:
    """Where the lines of one epoch begin and end within whole lines."""
    begin = 0
    at = block.find(_START)
    while at >= 0:
        line = block.rfind(b"\n", 0, at) + 1
        if line > begin:
            yield begin, line
            begin = line
        at = block.find(_START, at + 1)
    yield begin, len(block)


def _place(line: bytes) -> Place | None:
    identity = line_identity(line)
    return identity[1] if identity else None


def claim(file: LogFile) -> LogFile | None:
    """The file under a name that no rotation takes away any more, but readers still find; None if it is gone already.

    A name can get another content between a look and a rename (a rotation shifts them): what was renamed is looked at.
    """
    for path in (file.path, *(other.path for other in files(file.path.parent) if not other.live)):
        aside = path.with_name(f"{LIVE_NAME}.{_GOING}{file.inode}{file.compression}")
        try:
            if path.stat(follow_symlinks=False).st_ino != file.inode:
                continue
            path.rename(aside)
        except FileNotFoundError:  # rotated or compressed meanwhile
            continue
        about = aside.stat(follow_symlinks=False)
        if (about.st_dev, about.st_ino) == (file.device, file.inode):
            return replace(file, path=aside)
        aside.rename(path)
    return None


class Retention:
    """Finds what must go in a thread of its own, while the loop goes on. `shipped` tells the last delivered line."""

    def __init__(self, directory: Path, shipped: Callable[[], Place | None]) -> None:
        self._directory, self._shipped = directory, shipped
        self._thread: threading.Thread | None = None
        self._found: list[Going] = []
        self._next = 0.0
        self.problem = ""

    def look(self, wanted_percent: int) -> list[Going]:
        """Call each second: what is to go now. `wanted_percent` 0: nothing ever."""
        if self._thread is not None:
            if self._thread.is_alive():
                return []
            self._thread = None
            found, self._found = self._found, []
            if found:
                return found
            self._next = time.monotonic() + _PAUSE_S  # nothing can go: others fill the disk
        if not wanted_percent or time.monotonic() < self._next:
            return []
        try:
            low = free_percent(self._directory) < wanted_percent
        except OSError as error:
            self.problem = f"cannot tell how much space is left for the log: {error.strerror}"
            return []
        if low:
            self._thread = threading.Thread(target=self._choose, args=(wanted_percent,), name="retention", daemon=True)
            self._thread.start()
        else:
            self.problem = ""
        return []

    def _choose(self, wanted_percent: int) -> None:
        try:
            self._found = choose(self._directory, wanted_percent, self._shipped())
            self.problem = "" if self._found else "little space left, and no rotated file that could go"
        except (OSError, ReaderError) as error:
            self.problem = f"little space left, and the log's files cannot be listed: {error}"

    def remove(self, going: list[Going]) -> list[Going]:
        """Removes the files; those that are gone now. What cannot be removed is `problem`."""
        gone = []
        for one in going:
            try:
                one.file.path.unlink(missing_ok=True)
                gone.append(one)
            except OSError as error:
                self.problem = f"{one.file.path} cannot be removed: {error.strerror}"
        return gone
