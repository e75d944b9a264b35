"""How a run of the monitor begins: the lock, the capture (adopted or loaded), the log, recovery, and the stages over them.

Owns the order of the start up to attached probes; the first documents and the loop are monitor/app.py.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from monitor import delivery, describe, events, exclusions, recording, recovery, replay
from monitor.clock import WallClock
from monitor.config import Sources
from monitor.config_keys import Config
from monitor.decode import DecodeError
from monitor.delivery import Delivery
from monitor.durable import read_durable
from monitor.encode import Origin
from monitor.enrich import HostFacts, UserNames
from monitor.fastpath import EXPECTED, POS
from monitor.hashing import Hasher
from monitor.instance import Lock, StartError, check_capabilities
from monitor.kernel import bpf, compile, loader, pins, probes, selftest, uring
from monitor.kernel.btf import Btf
from monitor.kernel.compile import Shape
from monitor.kernel.rings import KernelConfig
from monitor.ledger import Ledger, State
from monitor.log import Log, LogError
from monitor.mirror import Mirror
from monitor.naming import Tasks
from monitor.order import Order
from monitor.pipeline import Counts, Pipeline
from monitor.quiet import Settled
from monitor.redact import Redactor
from monitor.retention import Retention
from monitor.tamper import Guard, Watch, Witness
from monitor.voice import Voice


@dataclass
class Options:
    """What the command line adds to the configuration."""

    duration: float | None = None
    ready_file: Path | None = None
    record: Path | None = None
    say: Callable[[str], None] = print
    show: Callable[[bytes], None] | None = None
    tick: Callable[[dict[str, Any]], None] | None = None
    sources: Sources | None = None
    """the files that the configuration came from: their changes are followed"""
    deliver: bool = False
    """start the shipper as a child"""


@dataclass
class Startup:
    """The parts of one run of the monitor: made by `open`, from then on as they are."""

    config: Config
    options: Options
    epoch: int = field(default_factory=lambda: secrets.randbits(64) | 1)
    abandoned: list[tuple[str, int]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    voice: Voice = field(init=False)
    hasher: Hasher | None = None
    delivery: Delivery | None = None
    watch: Watch | None = None
    """over what was pinned and attached; None before that"""
    waiting: dict[str, str] = field(default_factory=dict)
    """own rules that match nothing for now, and why"""
    _configured: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.voice = Voice(self.options.say, self.config.log_level)

    def open(self) -> None:
        """Everything up to the first document. Raises StartError."""
        check_capabilities()
        if self.options.deliver:
            self.delivery = Delivery(self.config, self.voice.warning)
        self.lock = Lock(self.config.run_dir)
        self.host, self.clock = HostFacts.read(), WallClock()
        told = pins.ensure_bpffs(self.config.pin_dir)
        if told:
            self.voice.info(told)
        self.lock.claim(self.config.pin_dir)
        btf = Btf()  # a pass over 6 MB of types takes 80 ms: one for all who ask
        self.shape = self._shape(btf)
        self._open_capture(btf)
        self.log = Log(
            self.config.events_dir,
            sync_bytes=self.config.commit_bytes,
            sync_interval_ms=self.config.commit_interval_ms,
            rotate_bytes=self.config.rotate_bytes,
            rotate_keep=self.config.rotate_keep,
            zstd_level=self.config.log_compression_level if self.config.log_compression == "zstd" else None,
            group=self.delivery.user.gid if self.delivery is not None else None,
        )
        self.retention = Retention(self.config.events_dir, lambda: delivery.place(self.config.output_dir))
        mirror = Mirror(self.capture.memory())
        state, self.previous = recovery.recover(self.capture, self.log, mirror)
        self.durable = read_durable(self.config.events_dir)
        try:
            torn = self.log.open()
            self.log.epoch = f"{self.epoch:016x}"
            self._compose(state, int(torn > 0))
            selftest.check(self.capture)
        except (LogError, selftest.SelfTestError, DecodeError) as error:
            if not (self.adopted and isinstance(error, LogError)):  # else its rings are for a start that finds a log
                loader.remove(self.capture.directory)
            raise StartError(str(error)) from error
        self.configure()
        loader.attach(self.capture.directory)
        self._remove_others()
        self._watch(self.lock.before)

    def _watch(self, before: int) -> None:
        """`before`: process id of the monitor before this one, if it did not end in order."""
        guard = Guard(self.capture, self.shape.jumps)
        self.watch = Watch(guard, Witness(self.config.pin_dir, {os.getpid(), before}))
        self.pipeline.witness = self.watch.witness.note
        if before and (self.adopted or recovery.cut_off(self.config.events_dir, self.host.boot_id)):
            self.watch.ended_before(before)

    def guard(self) -> None:
        """Each second: what somebody did to the capture or to this process is put right and told."""
        for members in self.watch.look() if self.watch is not None else ():
            self.voice.warning(f"somebody interfered: {members['kind']}, {members['object']}")
            self.pipeline.make("monitor_tamper", {"tamper": members})

    def continued(self) -> None:
        """SIGCONT: the process was stopped, or somebody says so."""
        if self.watch is not None:
            self.watch.continued = True

    def let_go(self) -> None:
        """The pins alone hold the programs from here on."""
        if self.watch is not None:
            self.watch.guard.close()

    def _shape(self, btf: Btf) -> Shape:
        if lacking := pins.lacking():
            told = "; ".join(f"{name}: {answer}" for name, answer in lacking.items())
            raise StartError(f"Linux {platform.release()} lacks what the programs cannot do without: {told}")
        found = pins.features(btf)
        wanted = self.config.control_lane
        perf = wanted == "perf" or (wanted == "auto" and not found["ringbuf"])
        self.missing = [name for name, there in found.items() if not there]
        self.features = [name for name, there in found.items() if there]
        casts = found["rdonly_cast"] and not os.environ.get("EBPF_MONITOR_NO_CASTS")
        return compile.shape(
            bpf.possible_cpus(),
            self.config.ring_bytes,
            self.config.control_ring_bytes,
            perf=perf,
            casts=casts,
            task_regs=found["task_pt_regs"],
            may_goto=found["may_goto"],
            optional=pins.optional_hooks(btf),
            uring=found["io_uring_tracepoints"],
            preempted=pins.preempted(btf) or bool(os.environ.get("EBPF_MONITOR_PREEMPTED")),
        )

    def _open_capture(self, btf: Btf) -> None:
        """Adopts or builds the capture. Hooks that promised to work and do not are gone without: said, and in monitor_start."""
        try:
            self._adopt_or_build(btf)
        except (compile.CompileError, probes.ProbeError, OSError) as error:
            if not self.shape.optional:
                raise StartError(f"cannot load the programs: {error}") from error
            self.voice.warning(f"this kernel takes no program for its optional hooks, going on without them: {error}")
            self.shape = replace(self.shape, optional=())
            try:
                self._adopt_or_build(btf)
            except (compile.CompileError, probes.ProbeError, OSError) as second:
                raise StartError(f"cannot load the programs: {second}") from second

    def _adopt_or_build(self, btf: Btf) -> None:
        self.capture, self.adopted = pins.open_capture(
            self.config.pin_dir, self.shape, btf, self.config.output_dir / "cache"
        )

    def _remove_others(self) -> None:
        """Captures of other layouts go when this one records, so that no moment is unseen. What came in the moment in which
        both recorded is in the log, and in the count of the loss as well."""
        for other in pins.others(self.config.pin_dir, self.capture.directory):
            left = recovery.unread(other)
            self.voice.warning(
                f"removing the capture of another layout: {other.name}; {left} events in it were not logged"
            )
            self.abandoned += [(other.name, left)] if left else []
            loader.remove(other)

    def _compose(self, state: State, torn: int) -> None:
        order = Order(self.capture)
        for cpu, row in enumerate(state.cpus):
            order.cpus[cpu, POS], order.cpus[cpu, EXPECTED] = row.position, row.expected
        counts = Counts(torn=torn)
        self.unwritten_before = state.counts.untold
        self.users = UserNames()
        origin = self._origin()
        self.pipeline = Pipeline(order, origin, Tasks(self.host, self.users), self.clock, counts)
        self.pipeline.ahead = self.log.ahead
        if self.log.notes is not None:
            self.pipeline.note(self.log.notes)
        self.ledger = Ledger(
            self.capture.accounts,
            state.cpus,
            counts,
            dies=self.shape.perf,
            excluded=state.excluded,
            names=self.capture.exclusion_names(),
            skipped=state.skipped,
        )
        self.order = order
        self._screen()
        self.settled = Settled(self.capture.calm, self.config.quiet_age_s)
        if self.options.record:
            self._record(origin)

    def _screen(self) -> None:
        """What a control record goes through before anything else sees it: secrets are masked, a known hash is added."""
        self.redactor = Redactor(self.config.redact_patterns) if self.config.redact else None
        if self.hasher is not None and (not self.config.hash or self.hasher.max_bytes != self.config.hash_max_bytes):
            self.hasher.close()
            self.hasher = None
        if self.hasher is None and self.config.hash:
            self.hasher = Hasher(self.config.hash_max_bytes)
        steps = [one.record for one in (self.redactor, self.hasher) if one is not None]

        def screen(raw: bytes) -> bytes:
            for step in steps:
                raw = step(raw)
            return raw

        self.order.screen = screen

    def beside(self) -> None:
        """What each turn looks at beside the rings: hashes that came late, file systems that were mounted."""
        while self.hasher is not None and self.pipeline.room and (answer := self.hasher.answer()) is not None:
            self.pipeline.hashed(answer)
        if self.settled.stirred:
            self.settled.look()

    def last_hashes(self) -> None:
        """A moment for those who still wait; then the thread ends."""
        if self.hasher is not None:
            self.hasher.wait(1.0)
            self.beside()
            self.hasher.close()

    def excluded(self) -> dict[str, dict[str, Any]]:
        """What each own rule has left out in this run, and why one matches nothing for now."""
        found: dict[str, dict[str, Any]] = {name: {"count": count} for name, count in self.ledger.exclusions().items()}
        for name, reason in self.waiting.items():
            found[name]["waiting"] = reason
        return found

    def skipped(self) -> list[dict[str, Any]]:
        """Members of the loss record of what the kernel did not run since the last one; [] when there is nothing to tell."""
        return self.ledger.preempted(self.capture.skipped(), f"{self.epoch:016x}")

    def beside_ledger(self) -> dict[str, Any]:
        """What a heartbeat says beside the ledger."""
        found: dict[str, Any] = {"hash": self.hasher.status()} if self.hasher is not None else {}
        counts = self.ledger.exclusions()
        if counts:
            found["exclusions"] = [{"name": name, "count": count} for name, count in counts.items()]
        return found

    def _origin(self) -> Origin:
        return Origin(self.host, f"{self.epoch:016x}", self.config.tags, self.config.labels)

    def reconfigure(self, wanted: Config) -> None:
        """Takes another configuration, of which only live keys differ. Cannot fail."""
        before, self.config, self.voice.level = self.config, wanted, wanted.log_level
        self.log.adjust(
            sync_bytes=wanted.commit_bytes,
            sync_interval_ms=wanted.commit_interval_ms,
            rotate_bytes=wanted.rotate_bytes,
            rotate_keep=wanted.rotate_keep,
        )
        if (wanted.tags, wanted.labels) != (before.tags, before.labels):
            self.pipeline.rename(self._origin())
        self._screen()
        if self.delivery is not None and (wanted.es_config, wanted.log_level) != (before.es_config, before.log_level):
            self.delivery.configure(wanted)
        self._configured = ()
        self.configure()

    def _record(self, origin: Origin) -> None:
        try:
            recorder = recording.Recorder(
                cast(Path, self.options.record), replay.about(origin), self.capture, self.order.cpus
            )
        except OSError as error:
            raise StartError(f"cannot record to {self.options.record}: {error.strerror}") from error
        self.order.tap = lambda cut, cpus, raws: recorder.look(cut, self.clock.offset_ns, cpus, raws)
        self.recorder = recorder

    def configure(self) -> None:
        """Tells the programs what holds now; each second: sensitive paths may be replaced, the wall clock may step."""
        self.settled.quiet_age_s = self.config.quiet_age_s
        self.settled.look()
        sensitive = [found for path in self.config.sensitive_paths if (found := describe.stat_identity(str(path)))]
        rules, waiting = exclusions.resolved(self.config.exclusions)
        self._say_waiting(waiting)
        now = (tuple(sensitive), self.clock.offset_ns // 1_000_000_000, rules)
        if now == self._configured:
            return
        self._configured = now
        wanted = KernelConfig(
            self.config.fold and self.config.profile != "trace",
            self.config.profile in events.LEAVES_OUT_QUIET,
            self.config.quiet_age_s,
            self.config.args_limit_bytes,
            (selftest.own_identity(self.capture),),
            self.clock.offset_ns,
            tuple(sensitive),
            self.config.exec_environment,
            rules,
        )
        operations = uring.calls(self.config.profile) if self.shape.uring else {}
        self.capture.configure(wanted, probes.calls(self.config.profile) | operations)
        self.ledger.rename([rule.name for rule in rules])

    def _say_waiting(self, waiting: dict[str, str]) -> None:
        """Own rules that match nothing for now: said once for each reason."""
        for name, reason in waiting.items():
            if self.waiting.get(name) != reason:
                self.voice.warning(f"exclusion {name} leaves nothing out: {reason}")
        self.waiting = waiting
