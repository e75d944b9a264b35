"""Lines that were removed from the log before they were delivered: owns `<output_dir>/ship/removed.jsonl`.

The shipper appends one record for each range; the collector reads them and makes a monitor_loss of each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from monitor.ship.batches import Removed
from monitor.ship.deadletters import append

NAME = "removed.jsonl"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_MOST_BYTES = 4 << 20


def records(directory: Path, after: int) -> list[tuple[int, Removed]]:
    """(number, range) of the records with a number above `after`, in order. Raises OSError."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            file.seek(size - _MOST_BYTES)
            file.readline()
        found = [one for line in file if line.endswith(b"\n") and (one := _decoded(line)) is not None]
    return [one for one in found if one[0] > after]


def _decoded(line: bytes) -> tuple[int, Removed] | None:
    try:
        about: dict[str, Any] = orjson.loads(line)
        return int(about["number"]), Removed(
            str(about["epoch"]), int(about["first"]), int(about["last"]), str(about["reason"])
        )
    except (ValueError, KeyError, TypeError):
        return None


class RemovedLines:
    """The file as its writer has it. `told`: number of the last record that the checkpoint knows of."""

    def __init__(self, directory: Path, told: int) -> None:
        self._path = directory / NAME
        there = records(directory, 0)
        self._number = max([told, *(number for number, _ in there)])
        self._ahead = {one: number for number, one in there if number > told}

    def add(self, ranges: list[Removed]) -> int:
        """Appends durably what is not there yet; the number of the last record. Raises OSError."""
        fresh = [one for one in ranges if one not in self._ahead]
        if not fresh:
            return self._number
        text = b""
        for number, one in enumerate(fresh, self._number + 1):
            text += orjson.dumps({"number": number, **vars(one)}) + b"\n"
        descriptor = os.open(self._path, _FLAGS, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                text = b"\n" + text
            append(descriptor, size, text)
        finally:
            os.close(descriptor)
        self._number += len(fresh)
        return self._number
