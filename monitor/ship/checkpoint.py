"""How far delivery has come, so that a killed shipper goes on where it was: owns `<output_dir>/ship/checkpoint`.

The file has two slots, written in turn, each guarded by a CRC: a crash leaves the old or the new state, and a full disk
does not matter, for nothing grows. It never decides what to send.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from monitor.ship.batches import Position

NAME = "checkpoint"
VERSION = 1
SLOT_BYTES = 16_384
_EPOCHS_KEPT = 32
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
WORDS = ("created", "duplicate", "dead_letter", "withheld", "expired", "torn", "conflict")
"""What becomes of a logged line; conflict is the part of dead_letter whose id belongs to another document."""


class CheckpointError(Exception):
    """The checkpoint cannot be written, or belongs to a version that is not known."""


@dataclass
class State:
    """Everything up to `done` is delivered or accounted for; nothing behind `sent` has ever been sent.

    `unknown`: without a checkpoint, what the log held at that time may have been sent by an earlier shipper. `counts`:
    per epoch the words of WORDS. `file_id` and `offset` only help to find `done` again.
    """

    done: Position | None = None
    sent: Position | None = None
    unknown: Position | None = None
    file_id: str | None = None
    offset: int = 0
    removed: int = 0
    """records of removed lines that were told (removed.jsonl)"""
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, counts: Counter[tuple[str, str]]) -> None:
        """Counts what a batch accounts for."""
        for (epoch, word), count in counts.items():
            self.counts.setdefault(epoch, Counter())[word] += count
        while len(self.counts) > _EPOCHS_KEPT:
            self.counts.pop(next(iter(self.counts)))

    def encoded(self, turn: int) -> bytes:
        """One slot."""
        fields = {
            "version": VERSION, "turn": turn, "done": self.done, "sent": self.sent, "unknown": self.unknown,
            "file_id": self.file_id, "offset": self.offset, "removed": self.removed, "counts": self.counts,
        }  # fmt: skip
        text = orjson.dumps(fields)
        if len(text) + 12 > SLOT_BYTES:
            raise CheckpointError(f"a checkpoint of {len(text)} bytes does not fit")
        return (b"%08x " % zlib.crc32(text) + text).ljust(SLOT_BYTES - 1) + b"\n"


def _decoded(slot: bytes) -> tuple[int, State] | None:
    text = slot[9:].rstrip()
    if slot[:9] != b"%08x " % zlib.crc32(text):
        return None
    try:
        found: dict[str, Any] = orjson.loads(text)
        if found["version"] != VERSION:
            raise CheckpointError(f"the checkpoint has version {found['version']}, this program reads {VERSION}")
        places = {name: tuple(found[name]) if found[name] else None for name in ("done", "sent", "unknown")}
        counts = {epoch: Counter(words) for epoch, words in found["counts"].items()}
        state = State(
            **places, file_id=found["file_id"], offset=found["offset"], removed=found["removed"], counts=counts
        )
        return found["turn"], state
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read(directory: Path) -> State | None:
    """The state in a ship directory; None when there is none that is whole. Raises OSError, CheckpointError."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = _newest(descriptor)
    finally:
        os.close(descriptor)
    return found[1] if found else None


def _newest(descriptor: int) -> tuple[int, State] | None:
    slots = [_decoded(os.pread(descriptor, SLOT_BYTES, slot * SLOT_BYTES)) for slot in (0, 1)]
    return max((slot for slot in slots if slot is not None), key=lambda slot: slot[0], default=None)


class Checkpoint:
    """The file, open for the one shipper of a directory. Raises OSError, CheckpointError."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / NAME, _FLAGS, 0o640)
        found = _newest(self._fd)
        self.found = found is not None
        self.torn = not self.found and os.fstat(self._fd).st_size > 0
        self._turn, self.state = found or (0, State())
        if os.fstat(self._fd).st_size < 2 * SLOT_BYTES:
            os.posix_fallocate(self._fd, 0, 2 * SLOT_BYTES)

    def write(self) -> None:
        """Makes the state durable. Raises CheckpointError with the reason."""
        turn = self._turn + 1
        try:
            slot = self.state.encoded(turn)
            if os.pwrite(self._fd, slot, turn % 2 * SLOT_BYTES) != SLOT_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._fd)
        except OSError as error:
            raise CheckpointError(f"cannot write the checkpoint: {error.strerror}") from None
        self._turn = turn

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
