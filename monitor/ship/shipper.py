"""The shipper: takes durable lines, delivers each once, keeps the checkpoint.

Owns the order of things: what is said before a bulk goes out, what a result changes, when to try again. At most two
bulks are in flight; results are taken in the order of the log. Nothing here is specific to how it was started.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor.config_keys import EsConfig
from monitor.ship import bulk, place
from monitor.ship.backoff import Backoff
from monitor.ship.batches import Batch, Batcher, Limits, Selection
from monitor.ship.bulk import Trouble
from monitor.ship.checkpoint import Checkpoint, CheckpointError
from monitor.ship.deadletters import DeadLetters, Letter
from monitor.ship.indices import Indices, trouble_of
from monitor.ship.removed import RemovedLines
from monitor.ship.results import Horizon, Results
from monitor.ship.tail import Blocked, Damage, Tail
from monitor.sinks.elasticsearch import Connection, EsError, NoReply, Reply

IN_FLIGHT = 2
MOST_BYTES, LEAST_BYTES = 6 << 20, 64 << 10
GATHER_S = 0.2
POLL_S = 0.05
_RESERVED_BULKS = 16
_CHECKPOINT_S = 0.5
_KNOCK_S = 5.0
_FIRST_TIMEOUT_S, _LAST_TIMEOUT_S = 8.0, 60.0
_SLOW_S, _QUICK_S, _REGROW = 4.0, 1.0, 50

Result = Reply | EsError


@dataclass
class Counts:
    """Of this process."""

    bulks: int = 0
    documents: int = 0
    bytes_sent: int = 0
    retries: int = 0


@dataclass
class Hooks:
    """What the surroundings do for the shipper. `connect` reads the credentials anew; raises CredentialError, EsError."""

    connect: Callable[[], Connection]
    say: Callable[[str], None] = print
    tick: Callable[[], None] = lambda: None
    """called about twenty times a second"""


class Shipper:
    """One delivery of one log directory. `turn` does what can be done now."""

    def __init__(self, events_dir: Path, ship_dir: Path, es: EsConfig, wanted: Selection, hooks: Hooks) -> None:
        """Raises OSError, CheckpointError, Blocked."""
        self._events_dir, self._hooks = events_dir, hooks
        self.checkpoint = Checkpoint(ship_dir)
        self.letters = DeadLetters(ship_dir)
        self._removed = RemovedLines(ship_dir, self.checkpoint.state.removed)
        self.backoff = Backoff()
        self._results = Results(self.letters, self._connected, hooks.say)
        self.counts, self._indices = Counts(), Indices()
        self._connection: Connection | None = None
        self._retired: list[Connection] = []  # a bulk in flight may use them still
        self._threads = concurrent.futures.ThreadPoolExecutor(IN_FLIGHT, "bulk")
        self._flight: deque[tuple[Batch, concurrent.futures.Future[Result], float]] = deque()
        self._queue: deque[Batch] = deque()  # to be sent (again), in order
        self._unsettled: list[Batch] = []  # the same, until those in flight behind them are back
        self._timeout_s, self._smooth = _FIRST_TIMEOUT_S, 0
        self._written_at = self._knocked_at = 0.0
        self._dirty = False
        self.configure(es, wanted)
        self._begin()

    def configure(self, es: EsConfig, wanted: Selection) -> None:
        """A new configuration: holds for what is gathered from now on; the connection is made anew."""
        self._es, self._wanted = es, wanted
        self.limits = Limits(es.batch_size, MOST_BYTES)
        self.reconnect()
        if hasattr(self, "_batcher"):
            self._batcher.configure(es.es_index, es.index_period, wanted, self.limits)

    def reconnect(self) -> None:
        """Credentials are read again, a pause ends, and rejected documents are let through once more (SIGHUP)."""
        self.renew()
        self._results.let_pass = self.backoff.trouble is not None and self.backoff.trouble.check == "rejections"
        self.backoff.retry_at = 0.0

    # ---- where to begin ----

    def _begin(self) -> None:
        state = self.checkpoint.state
        found = place.find(self._events_dir, state.done, state.file_id, state.offset)
        if self.checkpoint.torn:
            self._hooks.say(
                "the checkpoint is damaged: delivery begins with the oldest line; what is there already is found"
            )
        elif found.problem:
            self._hooks.say(f"{found.problem}: delivery begins with the oldest line; what is there already is found")
        if not self.checkpoint.found or found.problem:
            state.unknown, state.done, state.sent, state.counts = found.end, None, None, {}
        elif found.missing:
            state.unknown = found.end
        self._results.sent_before = Horizon(state.sent, state.done)
        self._results.sent_unknown = Horizon(state.unknown, state.done)
        self.letters.resume(state.done)
        self._tail = Tail(self._events_dir, found.file, found.offset)
        self._batcher = Batcher(self._es.es_index, self._es.index_period, self._wanted, self.limits, state.done)

    # ---- the loop ----

    @property
    def idle(self) -> bool:
        """Everything that was durable when it was last looked is delivered."""
        return not self._flight and not self._queue and self._caught_up

    _caught_up = False

    def turn(self) -> bool:
        """One step; False when there was nothing to do and the caller may sleep."""
        self._hooks.tick()
        if self._flight and (self._flight[0][1].done() or len(self._flight) == IN_FLIGHT or self._caught_up):
            concurrent.futures.wait([self._flight[0][1]], POLL_S)
        worked = False
        while self._flight and self._flight[0][1].done():
            batch, future, at = self._flight.popleft()
            self._settle(batch, future.result(), time.monotonic() - at)
            worked = True
        if self.backoff.trouble is None or not self._flight:
            worked |= self._launch()
        self._save(force=False)
        return worked

    def _launch(self) -> bool:
        if self._unsettled or (self.backoff.waiting and not self._knock()):
            return False
        room = 1 if self.backoff.trouble is not None else IN_FLIGHT
        launched = False
        while len(self._flight) < room:
            batch = self._queue.popleft() if self._queue else self._gather()
            if batch is None:
                break
            launched = True
            if not self._send(batch):
                break
        return launched

    def _knock(self) -> bool:
        """Whether a server that could not be reached can be again: asked each 5 s while the next try is far."""
        trouble = self.backoff.trouble
        if trouble is None or not trouble.unreachable or time.monotonic() - self._knocked_at < _KNOCK_S:
            return False
        self._knocked_at = time.monotonic()
        try:
            self._connected().perform("GET", "/", timeout_s=_KNOCK_S)
        except EsError as error:
            return not trouble_of(error).unreachable
        return True

    def _gather(self) -> Batch | None:
        """The next batch that is full or old enough."""
        batcher = self._batcher
        self._caught_up = False
        while not batcher.ready:
            try:
                found = self._tail.next()
            except Blocked as error:
                self._fail(Trouble("log", f"cannot read the log: {error}", wait=False))
                return None
            if found is None:
                self._caught_up = not batcher.pending
                if not batcher.due(GATHER_S):
                    return None
                batcher.flush()
                break
            if isinstance(found, Damage):
                batcher.damage(found)
                self._hooks.say(f"{found.file.path.name}, byte {found.offset}: {found.reason}")
            else:
                batcher.add(found)
        return batcher.ready.popleft() if batcher.ready else None

    @property
    def oldest(self) -> str:
        """@timestamp of the oldest line that is being delivered; "" when none is."""
        waiting = [batch for batch, _, _ in self._flight] + self._unsettled + list(self._queue)
        return next((batch.timestamp for batch in waiting if batch.lines), "")

    def drain(self) -> None:
        """What was gathered goes out at once."""
        self._batcher.flush()

    # ---- sending ----

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._hooks.connect()
            self._indices.forget()
        return self._connection

    def _send(self, batch: Batch) -> bool:
        """Sends a batch; False when it stands in the queue again, for something is in the way."""
        if not batch.ids:
            done: concurrent.futures.Future[Result] = concurrent.futures.Future()
            done.set_result(Reply(200, {}, b'{"errors":false,"items":[]}'))
            self._flight.append((batch, done, time.monotonic()))
            return True
        try:
            connection = self._connected()
            trouble = self._indices.check(connection, batch.index) if self._indices.due(batch.index) else None
            if trouble is None:
                self._reserve(batch)
        except EsError as error:
            trouble = trouble_of(error)
        except CheckpointError as error:
            trouble = Trouble("checkpoint", str(error), wait=False)
        if trouble is not None:
            self._queue.appendleft(batch)
            self._fail(trouble)
            if trouble.check in ("credentials", "permission"):
                self.renew()
            return False
        self._flight.append(
            (batch, self._threads.submit(self._post, connection, batch, self._timeout_s), time.monotonic())
        )
        return True

    def _reserve(self, batch: Batch) -> None:
        """Before a bulk goes out, the checkpoint says that it may have: some bulks ahead, so that not each needs a sync."""
        state, last = self.checkpoint.state, int(batch.ids[-1][26:], 16)
        if state.sent is None or state.sent[0] != batch.epoch or state.sent[1] < last:
            state.sent = batch.epoch, last + _RESERVED_BULKS * self.limits.documents
            self._save(force=True)

    def _post(self, connection: Connection, batch: Batch, timeout_s: float) -> Result:
        try:
            return connection.perform(
                "POST", bulk.path(batch.index), bulk.body(batch.ids, batch.lines), bulk.HEADERS,
                most_bytes=bulk.most_reply_bytes(len(batch.ids)), timeout_s=timeout_s,
            )  # fmt: skip
        except EsError as error:
            return error

    # ---- results ----

    def _fail(self, trouble: Trouble) -> None:
        if self.backoff.fail(trouble):
            self._hooks.say(f"not delivering: {trouble.text}")

    def renew(self) -> None:
        """The credentials may have been repaired: the next try reads them again."""
        if self._connection is not None:
            self._retired.append(self._connection)
        self._connection = None
        self._close_retired()

    def _close_retired(self) -> None:
        while self._retired and not self._flight:
            self._retired.pop().close()

    def _settle(self, batch: Batch, result: Result, seconds: float) -> None:
        """Takes the result of a bulk; what is left of the batch waits until those in flight behind it are back."""
        left = self._judged(batch, result, seconds) if batch.ids else [batch]
        if left == [batch] and not batch.ids and not self._unsettled and self._finish(batch):
            left = []
        self._unsettled += left
        if not self._flight:
            self._queue.extendleft(reversed(self._unsettled))
            self._unsettled = []
        self._close_retired()

    def _judged(self, batch: Batch, result: Result, seconds: float) -> list[Batch]:
        """Counts what became of each document. What is left to do: the batch (without ids: only to be finished), or halves."""
        self.counts.bulks += 1
        if isinstance(result, EsError):
            batch.sent |= isinstance(result, NoReply)
            if result.check == "timeout":
                self._timeout_s = min(_LAST_TIMEOUT_S, 2 * self._timeout_s)
            self._failed(trouble_of(result))
            return [batch]
        verdict = self._results.judged(batch, result)
        if verdict.too_large:
            self.limits.size = max(LEAST_BYTES, batch.size // 2)
            return list(batch.halves())
        self.counts.documents += len(verdict.created)
        batch.sent |= verdict.trouble is not None and (verdict.trouble.check == "foreign_reply" or result.status >= 500)
        batch.keep(sorted(verdict.again))
        if verdict.trouble is not None:
            self._failed(verdict.trouble)
            if verdict.refused:
                self.renew()
        elif not batch.ids:
            self._succeeded(seconds)
        return [batch]

    def _failed(self, trouble: Trouble) -> None:
        self.counts.retries += 1
        self._indices.forget()
        self._fail(trouble)

    def _succeeded(self, seconds: float) -> None:
        took = self.backoff.over()
        if took is not None:
            self._hooks.say(f"delivering again after {took:.0f} s")
        self._timeout_s = _FIRST_TIMEOUT_S
        self._smooth += 1
        if self._smooth % _REGROW == 0:
            self.limits.size = min(MOST_BYTES, 2 * self.limits.size)
        if seconds > _SLOW_S:
            self.limits.documents = max(min(50, self._es.batch_size), self.limits.documents // 2)
        elif seconds < _QUICK_S:
            self.limits.documents = min(self._es.batch_size, 2 * self.limits.documents)

    def _finish(self, batch: Batch) -> bool:
        """A batch of which nothing is left moves the checkpoint; False when what it has to tell cannot be written."""
        try:
            if batch.foreign:
                reason = "not a document of the monitor"
                self.letters.add([Letter("", batch.index, 0, "foreign", reason, line) for line in batch.foreign])
                batch.foreign.clear()
            if batch.removed:
                self.checkpoint.state.removed = self._removed.add(batch.removed)
                for one in batch.removed:
                    count = one.count or "an unknown number of"
                    self._hooks.say(f"{count} lines of epoch {one.epoch} were removed before they were delivered")
                batch.removed.clear()
        except OSError as error:
            self._fail(Trouble("disk", f"cannot write to {error.filename}: {error.strerror}", wait=False))
            return False
        state = self.checkpoint.state
        state.add(batch.counts)
        if batch.end is not None and batch.end[0]:
            state.done = batch.end
            state.file_id, state.offset = batch.file_id, batch.offset
        self._dirty = True
        if self.backoff.trouble is not None and self.backoff.trouble.check in ("disk", "log", "checkpoint"):
            self.backoff.over()
        return True

    # ---- the checkpoint ----

    def _save(self, *, force: bool) -> None:
        """Writes the checkpoint when due. Raises CheckpointError only when forced."""
        if not force and (not self._dirty or time.monotonic() - self._written_at < _CHECKPOINT_S):
            return
        self._written_at = time.monotonic()
        try:
            self.checkpoint.write()
            self._dirty = False
        except CheckpointError:
            if force:
                raise

    def close(self) -> None:
        """Waits for what is in flight, keeps what came of it."""
        deadline = time.monotonic() + _FIRST_TIMEOUT_S
        while self._flight and time.monotonic() < deadline:
            batch, future, at = self._flight[0]
            concurrent.futures.wait([future], 0.2)
            if future.done():
                self._flight.popleft()
                self._settle(batch, future.result(), time.monotonic() - at)
        self._dirty = True
        self._written_at = 0.0
        self._save(force=False)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._tail.close()
        self.checkpoint.close()
        self._flight.clear()
        self.renew()
