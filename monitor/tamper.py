"""Is capture still what it was made? Pins that went, tail calls that were taken out, configuration that was changed, a
monitor that was stopped or killed: noticed, put right, and told with what is known of who did it.

Owns the comparison and the repair; never decides what is captured. Holding the links open, it keeps the programs attached
whatever happens to the pins, so that the act itself is recorded.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from monitor.encode import Document, Names
from monitor.kernel import bpf, loader, pins
from monitor.kernel.rings import Capture

_KEPT = 256
_OF_PINS = ("pin_removed", "pin_replaced")
_SIGNALS = {"monitor_killed": ("SIGKILL",), "monitor_stopped": ("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU")}
_REMOVALS = ("file_delete", "file_rename", "file_umount", "file_mount", "file_rmdir")


@dataclass(frozen=True)
class _Act:
    """An act that may have done it: what it was about, and the parts of its document that say who."""

    event: str
    about: str
    target: int
    signal: str
    who: Document


class Witness:
    """Remembers the acts of late that may concern the monitor: on files below `pin_dir`, signals to `pids`, bpf calls."""

    def __init__(self, pin_dir: Path, pids: set[int]) -> None:
        self._pin_dir, self._pids = pin_dir, pids
        self._acts: deque[_Act] = deque(maxlen=_KEPT)

    def note(self, event: str, found: Names, task: Document, extra: Document) -> None:
        """Looks at a control event's parts."""
        target, about = extra.get("target", {}).get("pid", 0), found.sections.get("file", {})
        path = about.get("Ext", {}).get("original", {}).get("path", about.get("path", ""))
        below = event in _REMOVALS and bool(path) and (Path(path) == self._pin_dir or self._concerns(path))
        if below or (event == "process_signal" and target in self._pids) or event == "kernel_bpf":
            process, user = task.get("process", {}), task.get("user", {})
            who = {name: process[name] for name in ("pid", "entity_id", "name", "executable") if name in process}
            who |= {"event": event, "user": {"id": user["id"]}} if "id" in user else {"event": event}
            self._acts.append(_Act(event, path, target, extra.get("signal", {}).get("name", ""), who))

    def _concerns(self, path: str) -> bool:
        mine = str(self._pin_dir)
        return path.startswith(mine + "/") or mine.startswith(path.rstrip("/") + "/")

    def who(self, kind: str, name: str, pid: int = 0) -> Document | None:
        """Who last did what can lead to this kind of tampering: with the pin `name`, with process `pid`, or with bpf.

        An act on the very pin goes before a later one on a directory above it or a mount; it explains one change only.
        """
        acts = [act for act in reversed(self._acts) if self._could_be(act, kind, name, pid)]
        itself = next((act for act in acts if kind in _OF_PINS and act.about.endswith("/" + name)), None)
        if itself is not None:
            self._acts.remove(itself)
            return itself.who
        return acts[0].who if acts else None

    def _could_be(self, act: _Act, kind: str, name: str, pid: int) -> bool:
        if kind in _SIGNALS:
            return act.target == pid and act.signal in _SIGNALS[kind]
        if kind not in _OF_PINS:
            return act.event == "kernel_bpf"
        return act.event in _REMOVALS and (
            act.about.endswith("/" + name) or not act.about.startswith(str(self._pin_dir) + "/")
        )


@dataclass
class Guard:
    """Holds what a capture needs, and compares. `look` each second; `close` before the capture is detached or handed over."""

    capture: Capture
    jumps: dict[str, tuple[str, ...]]
    _held: dict[str, tuple[int, int]] = field(default_factory=dict)  # pin -> descriptor, inode of the pin
    _tails: dict[tuple[str, int], int] = field(default_factory=dict)  # table, index -> number of the program

    def __post_init__(self) -> None:
        for pin in sorted(self.capture.directory.iterdir()):
            self._held[pin.name] = bpf.obj_get(pin), pin.lstat().st_ino
        for table, programs in self.jumps.items():
            for index, name in enumerate(programs):
                held = self._held.get(loader.tail_pin(table, name))
                if held:  # else its pin was removed while no monitor ran
                    self._tails[table, index] = bpf.prog_info(held[0]).id

    def _entry(self, table: str, index: int) -> bytes:
        return bpf.map_lookup(self._held[f"map_{table}"][0], index.to_bytes(4, "little"), 4)

    def look(self) -> list[Document]:
        """What was changed since the last look, each put right: members of `ebpf.tamper`."""
        return [*self._pins(), *self._jumps(), *self._contents()]

    def _pins(self) -> list[Document]:
        found = []
        for name, (descriptor, inode) in self._held.items():
            pin = self.capture.directory / name
            there = pin.lstat().st_ino if os.path.lexists(pin) else 0
            if there != inode:
                kind = "pin_replaced" if there else "pin_removed"
                found.append({"kind": kind, "object": name, "repaired": self._pin(name, descriptor)})
        return found

    def _pin(self, name: str, descriptor: int) -> bool:
        pin = self.capture.directory / name
        try:
            pins.ensure_bpffs(pin)
            self.capture.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            pin.unlink(missing_ok=True)
            bpf.obj_pin(descriptor, pin)
            self._held[name] = descriptor, pin.lstat().st_ino
        except OSError:  # a file system that cannot hold pins was mounted over it, or it is not writable: tried again
            return False
        return True

    def _jumps(self) -> list[Document]:
        found = []
        for (table, index), number in self._tails.items():
            try:
                there = int.from_bytes(self._entry(table, index), "little")
            except bpf.BpfError:
                there = 0
            if there != number:
                repaired, program = True, self.jumps[table][index]
                try:
                    descriptor = self._held[loader.tail_pin(table, program)][0]
                    key = index.to_bytes(4, "little")
                    bpf.map_update(self._held[f"map_{table}"][0], key, descriptor.to_bytes(4, "little"))
                except bpf.BpfError:
                    repaired = False
                found.append({"kind": "program_removed", "object": f"{table}:{program}", "repaired": repaired})
        return found

    def _contents(self) -> list[Document]:
        return [
            {"kind": "configuration_changed", "object": f"map_{name}", "repaired": True}
            for name in self.capture.restore()
        ]

    def close(self) -> None:
        """Lets go: from here on only the pins hold the programs."""
        for descriptor, _ in self._held.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._held.clear()
        self._tails.clear()


@dataclass
class Watch:
    """The guard, the witness, and what is to be told: a second later than it was noticed, when the act was read, too.

    What happened to a pin is told yet a second later if nobody is known to have done it.
    """

    guard: Guard
    witness: Witness
    continued: bool = False
    """set when the process goes on after it was stopped"""
    clock: Callable[[], float] = time.monotonic
    _waiting: list[Document] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)
    _pause: float = 0.0  # seconds between the last two looks

    def ended_before(self, pid: int) -> None:
        """The monitor before this one, process `pid`, did not end in order."""
        self._waiting.append({"kind": "monitor_killed", "object": f"process {pid}", "target": pid, "repaired": True})

    def look(self) -> list[Document]:
        """What is to be told now."""
        told, late = [], []
        for members in self._waiting:
            by = self.witness.who(members["kind"], members["object"], members.get("target", 0))
            if by is None and members["kind"] in _OF_PINS and not members.get("late"):
                late.append(members | {"late": True})
            else:
                shown = {name: value for name, value in members.items() if name not in ("late", "target")}
                told.append(shown | ({"by": by} if by is not None else {}))
        self._waiting = late + self.guard.look()
        continued, self.continued = self.continued, False
        now = self.clock()  # after that: the pause of which it tells lies before
        pause, before, self._last = now - self._last, self._pause, now
        self._pause = pause
        if continued:
            paused = round(max(pause, before) * 1000)  # the signal may be heard of after the first look that follows it
            self._waiting.append(
                {
                    "kind": "monitor_stopped",
                    "object": f"process {os.getpid()}",
                    "target": os.getpid(),
                    "repaired": True,
                    "paused_ms": paused,
                }
            )
        return told
