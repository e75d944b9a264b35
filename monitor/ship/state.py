"""What a ship directory says: owns `status.json` (how delivery is doing, written each second) and the ledger's shipped side.

The reading side is for `status` and the collector; it never locks and never changes anything.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from monitor.ship import checkpoint
from monitor.ship.batches import Position

DIRECTORY = "ship"
STATUS_NAME, RESENT_NAME = "status.json", "resent.json"
LEDGER_WORDS = ("created", "duplicate", "dead_letter", "withheld", "expired")
_MOST_BYTES = 1 << 20


def write(path: Path, document: dict[str, Any]) -> None:
    """A small JSON file in place of an older one, 0640. Raises OSError."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, orjson.dumps(document))
    finally:
        os.close(descriptor)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; {} when there is none that can be understood."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        found = orjson.loads(os.read(descriptor, _MOST_BYTES))
    except (ValueError, OSError):
        return {}
    finally:
        os.close(descriptor)
    return found if isinstance(found, dict) else {}


def read_resent(ship_dir: Path) -> dict[str, int]:
    """Dead letters that were delivered later, per epoch."""
    return {epoch: count for epoch, count in read_json(ship_dir / RESENT_NAME).items() if isinstance(count, int)}


@dataclass(frozen=True)
class Shipped:
    """What is known of a delivery. `status`: the last status.json; `counts`: per epoch, the words of the ledger."""

    status: dict[str, Any]
    counts: dict[str, Counter[str]]
    done: Position | None = None

    def ledger(self, epoch: str, logged: int) -> dict[str, int]:
        """The shipped side of an epoch's ledger: `logged` is the sum of it. (`conflict` is a part of dead_letter.)"""
        mine = self.counts.get(epoch, Counter())
        found = {word: mine[word] for word in LEDGER_WORDS}
        return found | {"lag": max(0, logged - sum(found.values())), "conflict": mine["conflict"]}


def read(ship_dir: Path) -> Shipped | None:
    """The state of a ship directory; None when nothing was ever delivered from here, or it cannot be read."""
    try:
        state = checkpoint.read(ship_dir)
    except (OSError, checkpoint.CheckpointError):
        state = None
    status = read_json(ship_dir / STATUS_NAME)
    if state is None and not status:
        return None
    counts = {} if state is None else {epoch: Counter(words) for epoch, words in state.counts.items()}
    for epoch, created in read_resent(ship_dir).items():
        if epoch in counts:
            counts[epoch]["created"] += created
            counts[epoch]["dead_letter"] -= created
    return Shipped(status, counts, state.done if state else None)


def on_heartbeat(ship_dir: Path, epoch: str, ledger: dict[str, Any]) -> dict[str, Any]:
    """The ledger as a heartbeat tells it: with the shipped side, where something is delivered from here."""
    told = {name: value for name, value in ledger.items() if name != "balanced"}
    shipped = read(ship_dir)
    return told if shipped is None else shipped.ledger(epoch, told["logged"]) | told
