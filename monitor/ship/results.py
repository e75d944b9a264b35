"""What became of each document of a bulk: delivered, delivered before, somebody else's id, rejected, to be sent again.

Owns the evidence for a taken id, and when rejections stop the delivery; never sends a bulk and never waits.
"""

from __future__ import annotations

from collections.abc import Callable

from monitor.ship import bulk, compare
from monitor.ship.backoff import Breaker
from monitor.ship.batches import Batch, Position
from monitor.ship.bulk import Trouble, Verdict
from monitor.ship.deadletters import DeadLetters, Letter
from monitor.ship.indices import trouble_of
from monitor.sinks.elasticsearch import Connection, EsError, Reply

GO_ON = "Repair that, or let them pass into dead-letter.jsonl: reload the shipper (SIGHUP)"
_CONFLICTS = 10_000


class Horizon:
    """How far an earlier process may have sent, as seen by one that walks on from `done`."""

    def __init__(self, place: Position | None, done: Position | None) -> None:
        self._place = place
        self._reached = place is not None and done is not None and done[0] == place[0]

    def covers(self, epoch: str, sequence: int) -> bool:
        """Whether this line is not behind the horizon. Lines must be asked for in order."""
        if self._place is None:
            return False
        if epoch == self._place[0]:
            self._reached = True
            return sequence <= self._place[1]
        return not self._reached  # an epoch before the horizon's, or one behind it


class Results:
    """Judges the answers of one shipper. `let_pass`: rejected documents become dead letters once more, however many."""

    def __init__(self, letters: DeadLetters, connect: Callable[[], Connection], say: Callable[[str], None]) -> None:
        self._letters, self._connect, self._say = letters, connect, say
        self._breaker = Breaker()
        self._conflicts_in_row = 0
        self.sent_before = self.sent_unknown = Horizon(None, None)
        self.let_pass = False

    def judged(self, batch: Batch, reply: Reply) -> Verdict:
        """What the answer to `batch` means, after the batch's counts and the dead letters were brought up to it.

        What is to be sent again stands in `again`; `too_large`: nothing was decided, the batch must be halved.
        """
        verdict = bulk.judge(batch, reply)
        if verdict.too_large and len(batch.ids) > 1:
            return verdict
        if verdict.too_large:
            one = bulk.Rejected(0, 413, "content_too_large", "the server takes no request of this size")
            verdict = Verdict(rejected=[one])
        self._resolve(batch, verdict)
        self._reject(batch, verdict)
        if verdict.created:
            batch.counts[batch.epoch, "created"] += len(verdict.created)
        return verdict

    def _resolve(self, batch: Batch, verdict: Verdict) -> None:
        """Tells the ids that are taken by our own earlier sending from those that somebody else took."""
        if not verdict.taken:
            self._conflicts_in_row = 0 if verdict.created else self._conflicts_in_row
            return
        epoch, duplicates, doubtful = batch.epoch, 0, []
        for at in verdict.taken:
            if batch.sent or self.sent_before.covers(epoch, int(batch.ids[at][26:], 16)):
                duplicates += 1
            else:
                doubtful.append(at)
        conflicts: list[int] = []
        if doubtful:
            try:
                stored = compare.fetch(self._connect(), batch.index, [batch.ids[at].decode() for at in doubtful])
            except EsError as error:
                verdict.again += doubtful
                verdict.trouble = trouble_of(error)
                stored, doubtful = None, []
            for at in doubtful:
                identity, line = batch.ids[at].decode(), batch.lines[at]
                if stored is None:  # not permitted to read
                    ours = self.sent_unknown.covers(epoch, int(batch.ids[at][26:], 16))
                elif identity not in stored:  # gone again meanwhile
                    verdict.again.append(at)
                    continue
                else:
                    ours = compare.equal(line, stored[identity])
                if ours:
                    duplicates += 1
                else:
                    conflicts.append(at)
        if duplicates:
            batch.counts[epoch, "duplicate"] += duplicates
        if conflicts:
            self._conflict(batch, verdict, conflicts)

    def _conflict(self, batch: Batch, verdict: Verdict, places: list[int]) -> None:
        reason = "the id belongs to another document: it was taken on purpose, or two copies of this host run"
        found = [Letter(batch.ids[at].decode(), batch.index, 409, "conflict", reason, batch.lines[at]) for at in places]
        self._conflicts_in_row += len(places)
        if self._conflicts_in_row >= _CONFLICTS and not self.let_pass:
            text = f"{_CONFLICTS} documents in a row have an id that another document has: does a copy of this host run? {GO_ON}"
            verdict.trouble = Trouble("rejections", text, wait=False)
            verdict.again += places
            return
        if not self._letter(batch, verdict, found, places):
            return
        if not batch.counts[batch.epoch, "conflict"] and self._conflicts_in_row <= len(places):
            self._say(
                f"{len(places)} documents in {batch.index} have an id that another document has; see dead-letter.jsonl"
            )
        batch.counts[batch.epoch, "conflict"] += len(places)

    def _reject(self, batch: Batch, verdict: Verdict) -> None:
        """Dead letters, unless rejections have become the rule."""
        rejected = verdict.rejected
        accepted = len(verdict.created) + len(verdict.taken)
        if not rejected and not accepted:
            return
        too_many = self._breaker.add(accepted, len(rejected))
        if too_many and self.let_pass:
            self._breaker.reset()
            self.let_pass = too_many = False
        if not rejected:
            return
        last = rejected[-1]
        if too_many:
            why = f"{last.status} {last.kind}: {last.reason[:300]}"
            text = f"the server rejects documents as a rule, the last with {why}. {GO_ON}"
            verdict.trouble = Trouble("rejections", text, wait=False)
            verdict.again += [one.place for one in rejected]
            return
        found = [
            Letter(batch.ids[one.place].decode(), batch.index, one.status, one.kind, one.reason, batch.lines[one.place])
            for one in rejected
        ]
        if self._letter(batch, verdict, found, [one.place for one in rejected]):
            self._say(f"the server rejects {len(found)} documents ({last.status} {last.kind}); see dead-letter.jsonl")

    def _letter(self, batch: Batch, verdict: Verdict, found: list[Letter], places: list[int]) -> bool:
        try:
            self._letters.add(found)
        except OSError as error:
            verdict.again += places
            verdict.trouble = Trouble("dead_letters", f"cannot write dead-letter.jsonl: {error.strerror}", wait=False)
            return False
        batch.counts[batch.epoch, "dead_letter"] += len(found)
        return True
