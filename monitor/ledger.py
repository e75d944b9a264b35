"""The ledger: what the kernel counted against what reached the log, and the loss records that say the difference.

Owns the equations of DESIGN section 6 and the words that survive a killed reader; never reads a ring and never writes a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monitor.kernel import rings
from monitor.kernel.rings import CLASSES, Words
from monitor.model import SCHEMA
from monitor.order import Gap
from monitor.pipeline import Counts

_CPU_WORDS, _CPUS_AT, _EXCLUDED_AT, _SKIPPED_AT = 16, 64, 48, 47
_COUNTERS = (
    *range(rings.REFUSED_RING, rings.REFUSED_RING + 3),
    *range(rings.REFUSED_CONTROL, rings.REFUSED_CONTROL + 3),
    rings.SELF,
    rings.PROFILE,
    rings.QUIET,
    rings.FOLDED,
    rings.SWITCHES,
)
_REASONS = ("ring_full", "control_full")


@dataclass
class CpuState:
    """One CPU at the end of a batch: ring position, next expected sequence, the kernel's counters that are accounted for."""

    position: int = 0
    expected: int = 0
    counters: list[int] = field(default_factory=lambda: [0] * len(_COUNTERS))


@dataclass
class State:
    """What the commit page holds: the batch that was announced and everything that is true once it is in the log."""

    device: int = 0
    inode: int = 0
    offset: int = 0
    length: int = 0
    epoch: int = 0
    sequence: int = 1
    counts: Counts = field(default_factory=Counts)
    cpus: list[CpuState] = field(default_factory=list)
    excluded: list[int] = field(default_factory=lambda: [0] * rings.EXCLUSIONS)
    """what each own rule's place has counted, of all CPUs together"""
    skipped: int = 0
    """runs that the kernel skipped, as far as records have told them"""

    def words(self) -> list[int]:
        """As 64-bit words for the commit page."""
        epoch = self.epoch - (1 << 64) if self.epoch >> 63 else self.epoch
        head = [
            SCHEMA,
            self.device,
            self.inode,
            self.offset,
            self.length,
            epoch,
            self.sequence,
            len(self.cpus),
            *vars(self.counts).values(),
        ]
        found = [*head, *[0] * (_SKIPPED_AT - len(head)), self.skipped, *self.excluded]
        found += [0] * (_CPUS_AT - len(found))
        for cpu in self.cpus:
            row = [cpu.position, cpu.expected, *cpu.counters]
            found += row + [0] * (_CPU_WORDS - len(row))
        return found

    @classmethod
    def from_words(cls, words: list[int]) -> State:
        """The inverse of `words`."""
        _, device, inode, offset, length, epoch, sequence, cpus, *rest = words[:_CPUS_AT]
        counts = Counts(*rest[: len(vars(Counts()))])
        rows = [words[_CPUS_AT + _CPU_WORDS * i :][:_CPU_WORDS] for i in range(cpus)]
        return cls(
            device,
            inode,
            offset,
            length,
            epoch & (1 << 64) - 1,
            sequence,
            counts,
            [CpuState(row[0], row[1], row[2 : 2 + len(_COUNTERS)]) for row in rows],
            words[_EXCLUDED_AT : _EXCLUDED_AT + rings.EXCLUSIONS],
            words[_SKIPPED_AT],
        )


def unwritten(lines: int, reason: str, epoch: str) -> dict[str, Any]:
    """Members of the monitor_loss document for lines that could not be written; `reason` is the errno's name."""
    return {"loss": {"class": "log", "cpu": 0, "count": lines, "reason": reason, "epoch": epoch}}


def is_unwritten(members: dict[str, Any]) -> bool:
    """Whether a loss record is one of `unwritten`."""
    return members["loss"]["class"] == "log" and "first" not in members["loss"]


def expired(epoch: str, first: int, last: int, reason: str) -> dict[str, Any]:
    """`ebpf.loss` for lines that were removed from the log before they were delivered; `last` 0: nobody knows how far."""
    known = last >= first
    loss = {"class": "log", "count": last - first + 1 if known else 0, "first": first, "last": last if known else first}
    loss |= {"reason": "expired" if reason == "removed" else "damaged", "epoch": epoch}
    return loss if known else loss | {"exact": False}


def retold(untold: list[dict[str, Any]], lines: int, reason: str, epoch: str) -> list[dict[str, Any]]:
    """The loss records to make after a batch of `lines` lines was given up, which would have had the records `untold`:
    those again, and one for the lines of all such batches with the same reason."""
    totals = {(reason, epoch): lines}
    for loss in (members["loss"] for members in untold if is_unwritten(members)):
        totals[loss["reason"], loss["epoch"]] = totals.get((loss["reason"], loss["epoch"]), 0) + loss["count"]
    kept = [members for members in untold if not is_unwritten(members)]
    return kept + [unwritten(count, *key) for key, count in totals.items()]


class Ledger:
    """Counts of one log epoch. `base` is the state that the epoch began with, `accounts` the kernel's own counters."""

    def __init__(
        self,
        accounts: Words,
        base: list[CpuState],
        counts: Counts,
        *,
        dies: bool = False,
        excluded: list[int] | None = None,
        names: list[str] | None = None,
        skipped: int = 0,
    ) -> None:
        """`dies`: the control lane's buffers are the reader's own and die with it. `excluded`: what the own rules' places had
        counted before this epoch; `names`: whose they are, "" for nobody's. `skipped`: runs that earlier epochs have told."""
        self._accounts = accounts
        self._base = base
        self._told = [list(cpu.counters[:6]) for cpu in base]
        self.counts = counts
        self._places = [""] * rings.EXCLUSIONS if names is None else names
        self._begun = [0] * rings.EXCLUSIONS if excluded is None else excluded
        self._excluded: dict[str, int] = {}
        self.skipped = self._skipped_before = skipped
        self._levels = [0] * len(base)
        self._switches = [cpu.counters[-1] for cpu in base]
        self._died = 0
        self._unexplained = "died" if dies else "undecodable"

    def counters(self, cpu: int) -> list[int]:
        """The kernel's counters of one CPU that a state keeps; refusals and pressure as far as records have told them."""
        now = [int(self._accounts[cpu, at]) for at in _COUNTERS]
        return [*self._told[cpu], *now[6:-1], self._switches[cpu]]

    def excluded(self) -> list[int]:
        """What each own rule's place has counted, of all CPUs together."""
        return [int(self._accounts[:, rings.EXCLUDED + place].sum()) for place in range(rings.EXCLUSIONS)]

    def rename(self, names: list[str]) -> None:
        """The own rules' places belong to these names now; what was counted until here stays with the names before."""
        self._excluded, self._begun = self.exclusions(), self.excluded()
        self._places = names + [""] * (rings.EXCLUSIONS - len(names))

    def exclusions(self) -> dict[str, int]:
        """What each own rule has left out in this epoch; those that hold, and those that have counted."""
        found = dict(self._excluded)
        for name, begun, now in zip(self._places, self._begun, self.excluded(), strict=True):
            if name or now > begun:
                found[name] = found.get(name, 0) + now - begun
        return found

    def _since(self, at: int, index: int) -> int:
        return sum(int(self._accounts[cpu, at]) - base.counters[index] for cpu, base in enumerate(self._base))

    def balance(self) -> dict[str, Any]:
        """The ledger, by DESIGN's names. `balanced` says whether the equations hold."""
        refused = {
            name: sum(self._since(_COUNTERS[3 * lane + i], 3 * lane + i) for i in range(3))
            for lane, name in enumerate(_REASONS)
        }
        suppressed = {name: self._since(_COUNTERS[6 + i], 6 + i) for i, name in enumerate(("self", "profile", "quiet"))}
        suppressed["exclusions"] = sum(self.exclusions().values())
        numbered = sum(int(self._accounts[cpu, rings.SEQ]) - base.expected for cpu, base in enumerate(self._base))
        submitted = numbered - sum(refused.values())
        refused["preempted"] = self.skipped - self._skipped_before  # such runs took no number
        counts = self.counts
        in_flight = submitted - counts.received - self._died
        right = counts.logged + counts.quarantined + counts.unwritten
        return {
            "kernel_seen": submitted + sum(refused.values()) + sum(suppressed.values()),
            "submitted": submitted,
            "refused": refused,
            "suppressed": suppressed,
            "received": counts.received,
            "in_flight": in_flight,
            "died": self._died,
            "made": counts.made,
            "logged": counts.logged,
            "filtered": 0,
            "quarantined": counts.quarantined,
            "unwritten": counts.unwritten,
            "torn": counts.torn,
            "expired": counts.expired,
            "redacted": counts.redacted,
            "folded": self._since(rings.FOLDED, 9),
            "balanced": in_flight >= 0 and counts.received + counts.made == right,
        }

    def losses(self, gaps: list[Gap], epoch: str) -> list[dict[str, Any]]:
        """Members of the monitor_loss documents for these gaps: one for each CPU, class and reason.

        The count is the number of missing sequence numbers; the kernel's refusal counters say of which class they were.
        """
        found = []
        for cpu in sorted({gap.cpu for gap in gaps}):
            mine = [gap for gap in gaps if gap.cpu == cpu]
            left = sum(gap.count for gap in mine)
            place = {"cpu": cpu, "first": mine[0].first, "last": mine[-1].last}
            for index in range(6):
                told, now = self._told[cpu][index], int(self._accounts[cpu, _COUNTERS[index]])
                count = min(now - told, left)
                if count > 0:
                    self._told[cpu][index] += count
                    left -= count
                    found.append(
                        {
                            "loss": {
                                "class": CLASSES[index % 3],
                                **place,
                                "count": count,
                                "reason": _REASONS[index // 3],
                                "epoch": epoch,
                            }
                        }
                    )
            if left:
                self._died += left
                found.append(
                    {"loss": {"class": "unknown", **place, "count": left, "reason": self._unexplained, "epoch": epoch}}
                )
        return found

    def preempted(self, skipped: int, epoch: str) -> list[dict[str, Any]]:
        """Members of a monitor_loss when there are more `skipped` runs than were told. Not each would have been an event."""
        count, self.skipped = skipped - self.skipped, max(skipped, self.skipped)
        loss = {"class": "unknown", "cpu": 0, "count": count, "reason": "preempted", "epoch": epoch, "exact": False}
        return [{"loss": loss}] if count > 0 else []

    def degraded(self) -> list[dict[str, Any]]:
        """Members of a monitor_loss for each CPU whose pressure level changed: detail given up, nothing lost.

        Pressure that came and went since the last call is two of them.
        """
        found = []
        for cpu, told in enumerate(self._levels):
            level, switches = int(self._accounts[cpu, rings.LEVEL]), int(self._accounts[cpu, rings.SWITCHES])
            rose = switches != self._switches[cpu]
            if rose or (level and level != told):
                found.append(self._pressure(cpu, "degraded", max(level, 1)))
            if not level and (rose or told):
                found.append(self._pressure(cpu, "restored", 0))
            self._levels[cpu], self._switches[cpu] = level, switches
        return found

    def _pressure(self, cpu: int, reason: str, level: int) -> dict[str, Any]:
        seq = int(self._accounts[cpu, rings.SEQ])
        place = {"class": "file", "cpu": cpu, "first": seq, "last": seq, "count": 0}
        return {"loss": {**place, "reason": reason, "level": level}}
