"""Deliveries that somebody asks for: a span of the log again, and the dead letters once more.

Owns these two; the running shipper may go on beside them, for each has a lock and files of its own.
"""

from __future__ import annotations

import datetime
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from monitor.config_keys import Config
from monitor.ship import bulk, compare, state
from monitor.ship.batches import Batch, Selection
from monitor.ship.checkpoint import Checkpoint
from monitor.ship.deadletters import RETRY_NAME, DeadLetters, Letter, letters, take
from monitor.ship.runner import Control, Lock, Runner, ShipError
from monitor.ship.shipper import Hooks
from monitor.sinks.elasticsearch import Connection, EsError

_DIRECTORY = "backfill"


def _rfc3339(time_ns: int | None) -> bytes:
    if time_ns is None:
        return b""
    whole = datetime.datetime.fromtimestamp(time_ns // 1_000_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_ns % 1_000_000_000:09d}Z".encode()


def backfill(
    config: Config,
    ship_dir: Path,
    hooks: Hooks,
    control: Control,
    *,
    since_ns: int | None,
    until_ns: int | None,
    profile: str | None,
) -> Counter[str]:
    """Sends the lines of a span of time that a profile selects; what is in the index already stays. Raises ShipError."""
    directory = ship_dir / _DIRECTORY
    directory.mkdir(mode=0o750, exist_ok=True)
    lock = Lock(directory, "backfill.lock")
    for path in directory.glob("checkpoint"):
        path.unlink()  # each back-fill begins with the oldest line
    wanted = Selection.of(profile or config.es_config.profile, _rfc3339(since_ns), _rfc3339(until_ns))
    runner = Runner(config, directory, hooks, control, wanted=wanted)
    runner.once()
    found = Checkpoint(directory)
    counts = sum(found.state.counts.values(), Counter[str]())
    found.close()
    lock.release()
    shutil.rmtree(directory) if not counts["dead_letter"] else None
    return counts


def retry(
    config: Config, ship_dir: Path, connect: Callable[[], Connection], say: Callable[[str], None]
) -> tuple[int, int]:
    """Sends the dead letters again: (delivered, still dead). Raises ShipError; then they are kept for the next attempt."""
    lock = Lock(ship_dir, "retry.lock")
    path = take(ship_dir)
    if path is None:
        lock.release()
        return 0, 0
    delivered: Counter[str] = Counter()
    dead: list[Letter] = []
    try:
        connection = connect()
        for group in _groups(letters(path), config.es_config.batch_size):
            _again(connection, group, delivered, dead)
    except EsError as error:
        raise ShipError(f"{error} (the letters are in {RETRY_NAME}, and are taken from there the next time)") from None
    _keep(ship_dir, dead)
    told = state.read_resent(ship_dir)
    for epoch, count in delivered.items():
        told[epoch] = told.get(epoch, 0) + count
    state.write(ship_dir / state.RESENT_NAME, dict(told))
    path.unlink()
    lock.release()
    say(f"{sum(delivered.values())} dead letters were delivered, {len(dead)} remain")
    return sum(delivered.values()), len(dead)


def _keep(ship_dir: Path, dead: list[Letter]) -> None:
    try:
        DeadLetters(ship_dir).add(dead)
    except OSError as error:
        raise ShipError(f"cannot write dead-letter.jsonl: {error.strerror}; the letters are in {RETRY_NAME}") from None


def _groups(found: Iterator[Letter], size: int) -> Iterator[list[Letter]]:
    """Up to `size` letters of one index."""
    while group := list(islice(found, size)):
        for index in sorted({letter.index for letter in group}):
            yield [letter for letter in group if letter.index == index]


def _again(connection: Connection, group: list[Letter], delivered: Counter[str], dead: list[Letter]) -> None:
    dead += [letter for letter in group if not letter.identity]
    group = [letter for letter in group if letter.identity]
    if not group:
        return
    batch = Batch(group[0].index, [letter.identity.encode() for letter in group], [letter.line for letter in group])
    reply = connection.perform(
        "POST", bulk.path(batch.index), bulk.body(batch.ids, batch.lines), bulk.HEADERS,
        most_bytes=bulk.most_reply_bytes(len(group)),
    )  # fmt: skip
    verdict = bulk.judge(batch, reply)
    if verdict.too_large and len(group) > 1:
        _again(connection, group[: len(group) // 2], delivered, dead)
        _again(connection, group[len(group) // 2 :], delivered, dead)
        return
    if verdict.too_large:
        dead += group
        return
    if verdict.trouble is not None:
        raise ShipError(verdict.trouble.text)
    for place in verdict.created:
        delivered[group[place].identity[9:25]] += 1
    for one in verdict.rejected:
        dead.append(replace(group[one.place], status=one.status, kind=one.kind, reason=one.reason))
    taken = [group[place] for place in verdict.taken]
    stored = compare.fetch(connection, batch.index, [letter.identity for letter in taken]) if taken else {}
    for letter in taken:
        # Without the right to read: an attempt that was cut off may have delivered it, unless it was a conflict before.
        ours = letter.kind != "conflict" if stored is None else compare.equal(letter.line, stored.get(letter.identity))
        if ours:
            delivered[letter.identity[9:25]] += 1
        else:
            dead.append(letter)
