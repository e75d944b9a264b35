"""The running monitor: signals, the first documents, the loop, the drain at the end.

Owns the order of start and stop and the rhythm of the loop; the work is done by the stages it calls.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from monitor import config as configuration
from monitor import decode, events, procfs, recovery
from monitor.config_keys import Config
from monitor.encode import Document
from monitor.enrich import HostFactsError
from monitor.fastpath import CUT
from monitor.instance import EXIT_OK, StartError, resident_bytes, write_file
from monitor.kernel import BccMissing, loader, rings
from monitor.kernel.compile import CompileError
from monitor.kernel.control import ControlError
from monitor.kernel.probes import ProbeError
from monitor.kernel.selftest import SelfTestError
from monitor.ledger import State, expired, is_unwritten, retold, unwritten
from monitor.log import LogError
from monitor.notify import Notifier, Progress, Service
from monitor.retention import Going
from monitor.ship.state import on_heartbeat
from monitor.startup import Options
from monitor.status import losses
from monitor.steering import Steered

_GIVE_UP_AT = 0.75
_CALM_LINES, _CALM_S = 64, 0.1
_FLOOD = 100_000_000  # bytes a second: more than one CPU can write into a ring
DRAIN_S = 30  # half of the service's TimeoutStopSec=
_STATUS_S = 2.5  # a status that says the same is written so often, far below status.STALE_S


@dataclass
class Monitor(Steered):
    """One run of the monitor: `start`, then `loop` until stopped, then `stop`."""

    stopping: str = ""
    reopen: bool = False
    lines_taken: int = 0
    log_problem: str = ""
    handing_over: bool = False
    """a successor follows at once: the kernel goes on recording"""
    service: Service = field(init=False)
    whole: bool = True
    """everything that was seen is encoded"""
    _untold: list[Document] = field(default_factory=list)  # members of the loss records in the present batch
    _notices: list[str] = field(default_factory=list)
    _status_problem: str = ""
    _shown: dict[str, Any] = field(default_factory=lambda: {"time": 0.0})
    _room_problem: str = ""
    _going: list[Going] = field(default_factory=list)  # recorded in the present batch, and not removed yet
    _expired: list[Going] = field(default_factory=list)  # removed, and not recorded yet

    def __post_init__(self) -> None:
        super().__post_init__()
        longest_pause = self.config.commit_interval_ms / 1000
        self.service = Service(Notifier(os.environ), longest_pause)

    @property
    def keeps_capture(self) -> bool:
        """The programs stay attached when this run ends."""
        return self.config.keep_capture or self.handing_over

    def start(self) -> None:
        """Everything up to the loop. Raises StartError."""
        self.open()
        self._first_documents()
        if self.delivery is not None:
            self.delivery.start()

    def _first_documents(self) -> None:
        scanned = self.capture.scan()
        about: Document = {
            "adopted": self.adopted,
            "kernel": platform.release(),
            "layout": self.capture.directory.name,
            "profile": self.config.profile,
            "config_digest": configuration.digest(self.config),
            "hooks": sorted(self.shape.hooks.values()),
            "features": self.features,
            "missing": self.missing,
            "name_sources": sorted(f"{name}: {source}" for name, source in self.shape.name_sources.items()),
            "control_lane": "perf" if self.shape.perf else "ringbuf",
            "events": [kind.name for kind in events.EVENTS if not self.shape.off(kind, self.config.profile)],
            "processes": len(scanned),
        }
        members: Document = {"monitor": about}
        if self.previous is not None:
            members["previous"] = {"epoch": f"{self.previous.epoch:016x}", "sequence": self.previous.sequence}
        elif self.durable is not None:
            members["previous"] = {"epoch": self.durable.epoch, "sequence": self.durable.sequence}
        self.pipeline.make("monitor_start", members)
        if self.unwritten_before and self.previous is not None:
            self._loss(unwritten(self.unwritten_before, "unwritten", f"{self.previous.epoch:016x}"))
        for name, left in self.abandoned:
            loss = {"class": "unknown", "cpu": 0, "count": left, "reason": "layout", "epoch": name, "exact": False}
            self._loss({"loss": loss})
        self._inventory(scanned)
        self.changed_since_last_run()
        self._commit()

    def _inventory(self, scanned: list[bytes]) -> None:
        """The processes that are there already, but those that an adopted capture has told of."""
        scanned.sort(key=lambda raw: int(decode.control(raw).values["start"]))  # those who started others come first
        for raw in scanned if self.options.record else ():
            self.recorder.found(raw)
        if self.adopted:
            for raw in scanned:
                self.pipeline.remember(raw)
            return
        limit = self.config.args_limit_bytes
        arguments = {process.pid: process for process in procfs.scan(max_args_bytes=limit)}
        for raw in scanned:
            values = decode.control(raw).values
            known = arguments.get(values["tgid"])
            same = known is not None and procfs.same_start(values["start"], known.start_ticks)
            given = list(known.args) if known is not None and same else []
            original = known.args_bytes if known is not None and same and known.args_truncated else 0
            masked = self.redactor.arguments(given, cut=original > 0) if self.redactor else None
            block = b"".join(argument + b"\0" for argument in masked or given)
            raw = self.hasher.record(raw) if self.hasher is not None else raw
            self.pipeline.found(raw, block, original, redacted=masked is not None)
            if not self.pipeline.room:
                self._commit()

    # ---- the loop ----
    def loop(self) -> None:
        """Until a signal or the duration ends it."""
        next_second = started = time.monotonic()
        next_beat = started + self.config.heartbeat_interval_s
        next_totals = started + self.config.fold_interval_s
        self.begin_to_follow()
        if self.options.ready_file:
            write_file(self.options.ready_file, f"{os.getpid()}\n".encode())
        while not self.stopping:
            busy = self.turn()
            now = time.monotonic()
            self._tell_service(now)
            self.follow(now)
            if now >= next_second:
                next_second = now + 1.0
                self._each_second()
            if now >= next_beat:
                next_beat = now + self.config.heartbeat_interval_s
                told = on_heartbeat(self.config.output_dir / "ship", f"{self.epoch:016x}", self.ledger.balance())
                self.pipeline.make("monitor_heartbeat", {"ledger": told} | self.beside_ledger())
            if now >= next_totals:
                next_totals = now + self.config.fold_interval_s
                self.pipeline.report_open()
            if self.options.duration is not None and now - started >= self.options.duration:
                self.stopping = "duration"
            if not busy:
                time.sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next look. A batch costs about 0.5 ms whatever is in it: on a calm host there are fewer of
        them, but not so few that a flood could fill more than half a ring meanwhile."""
        usual = self.config.poll_interval_ms / 1000
        if self.lines_taken >= _CALM_LINES:
            return usual
        return max(usual, min(_CALM_S, min(self.shape.ring, self.shape.control) / 2 / _FLOOD))

    def turn(self) -> bool:
        """One look at the rings and what follows from it. True: there is more right now."""
        self._reopen()
        if self.order.settled():
            self.beside()
            if not self.pipeline.lines:
                self.lines_taken = 0
                return False
        self.order.look()
        whole = self.whole = self.pipeline.fill()
        if whole:
            self.order.close_gaps()
            self.order.settle()
        for members in self.ledger.losses(self.order.take_gaps(), f"{self.epoch:016x}"):
            self._loss(members)
        self.beside()
        self.lines_taken = self.pipeline.lines
        if self.pipeline.lines:  # else nothing is freed: a reader that is killed now reads those definitions again
            self._commit()
        elif self.pipeline.progress:  # definitions only, and many
            self._announce(0)
            self.pipeline.committed()
            self.capture.commit.mark_done()
        return not whole

    def _commit(self) -> None:
        """Brings the batch into the log. A log that cannot be written is tried again until the rings press."""
        batch = self.pipeline.batch
        while True:
            self._announce(self.log.length(batch))
            try:
                self.log.append(batch, self.pipeline.last_sequence)
            except LogError as error:
                if not self.log_problem:
                    self.voice.error(f"cannot write the log: {error}; trying again")
                self.log_problem = str(error)
                if self.capture.fill() > _GIVE_UP_AT or self.stopping:
                    self._drop(error.reason)
                    return
                self._without_log()
                continue
            break
        if self.log_problem:
            self.voice.error("the log is written again")
            self.log_problem = ""
        if self.options.show is not None:
            self.options.show(bytes(batch))
        self.pipeline.committed()
        self.pipeline.counts.untold = 0
        self.capture.commit.mark_done()
        self._untold.clear()

    def _without_log(self) -> None:
        """A moment while the log cannot be written: what is done to its file is noticed, and the status stays fresh."""
        time.sleep(0.1)
        self._reopen()
        self._notices += self.log.poll()
        self.retention.remove(self._going)  # their record waits in the batch
        self._going = []
        self._expired += self.retention.remove(self.retention.look(self.config.log_min_free))  # recorded once it can be
        self._write_status()
        self._tell_service(time.monotonic())

    def _loss(self, members: Document) -> None:
        """A loss record. One in a batch that cannot be written is made again."""
        self._untold.append(members)
        self.pipeline.make("monitor_loss", members)

    def _drop(self, reason: str) -> None:
        """Gives the batch up. The losses that it would have told are told with it."""
        lines = self.pipeline.lines
        again, self._untold = retold(self._untold, lines, reason, f"{self.epoch:016x}"), []
        self.pipeline.counts.untold = sum(one["loss"]["count"] for one in again if is_unwritten(one))
        self._announce(0)
        self.pipeline.dropped()
        self.capture.commit.mark_done()
        self.voice.error(f"{lines} lines could not be written: {reason}")
        for members in again:
            self._loss(members)

    def _announce(self, length: int) -> None:
        counts = replace(self.pipeline.counts, untold=0) if length else self.pipeline.counts
        after = State(sequence=self.pipeline.sequence + (self.pipeline.lines if length else 0), counts=counts)
        recovery.announce(self.capture, self.log, self.ledger, self.order.cpus, self.epoch, length, after)

    def _reopen(self) -> None:
        """After SIGHUP. Between batches the commit page then names the new file; a batch that waits is announced anew."""
        if not self.reopen:
            return
        self.reopen = False
        self.service.reloading()
        if self.follower is not None:
            self.follower.again()
        if self.delivery is not None:
            self.delivery.reload()
        try:
            self.log.reopen()
        except LogError as error:
            self.voice.error(f"cannot reopen the log: {error}")
            return
        finally:
            self.service.reloaded()
        self.voice.debug("the log was reopened")
        if not self.log_problem:
            self._announce(0)
            self.capture.commit.mark_done()

    def _each_second(self) -> None:
        step = self.clock.sample()
        if step is not None:
            self.settled.step(round(time.time()), round(time.time() - step / 1e9))
            self.pipeline.make("monitor_config", {"clock": {"step_ns": step}})
        self.configure()
        for members in (*self.skipped(), *self.ledger.degraded()):
            self._loss(members)
        self._keep_room()
        self._deliver()
        self.guard()
        notices, self._notices = [*self._notices, *self.log.poll()], []
        for notice in notices:
            self.voice.warning(notice)
            self.pipeline.make("monitor_config", {"log": {"notice": notice}})
        self._write_status()
        if self.options.tick is not None:
            self.options.tick(self.status())

    def _deliver(self) -> None:
        """Looks after the shipper; what it found removed before it was delivered is a loss record, once it is in the log."""
        if self.delivery is None:
            return
        self.delivery.told()  # of the second before: committed since
        self.delivery.poll()
        for one in self.delivery.removed():
            self._loss({"loss": expired(one.epoch, one.first, one.last, one.reason)})

    def _record_expired(self, going: list[Going]) -> None:
        """A loss record for each range that went, or goes now, before it was shipped."""
        for one in (*self._expired, *going):
            for lost in one.unshipped:
                self.pipeline.counts.expired += lost.last - lost.first + 1
                self._loss({"loss": lost.loss})
                if self.delivery is not None:
                    self.delivery.recorded(lost.epoch, lost.first, lost.last)
            self._notices.append(one.sentence)
        self._expired = []

    def _keep_room(self) -> None:
        """Below log_min_free rotated files go: what was not shipped is recorded first, then they are removed."""
        self._going = self.retention.look(self.config.log_min_free)
        self._record_expired(self._going)
        if self._going:
            self._commit()
        self.retention.remove(self._going)
        self._going = []
        if self.retention.problem != self._room_problem:
            self._room_problem = self.retention.problem
            self._notices += [self._room_problem] if self._room_problem else []

    def status(self) -> dict[str, Any]:
        """What `status --json` prints."""
        oldest = int(self.capture.accounts[:, rings.SEQ].sum())
        ledger = self.ledger.balance()
        if self.delivery is not None:
            ledger |= self.delivery.shipped_side(f"{self.epoch:016x}", ledger["logged"])
        return {
            "pid": os.getpid(), "epoch": f"{self.epoch:016x}",
            "sequence": self.pipeline.sequence - 1,
            "durable_sequence": self.log.durable_sequence,
            "events_numbered": oldest,
            "ring_fill": round(self.capture.fill(), 4),
            "bytes_written": self.log.bytes_written,
            "sync_failures": self.log.sync_failures,
            "log_problem": self.log_problem,
            "config_problem": self.config_problem,
            "profile": self.config.profile,
            "events_dir": str(self.config.events_dir), "log": self.config.log_name,
            "output_dir": str(self.config.output_dir),
            "storage_type": self.config.storage_type,
            "adopted": self.adopted,
            "time": time.time(),
            "off": self.off(),
            "cpu_seconds": round(time.process_time(), 3),
            "resident_bytes": resident_bytes(),
            "ledger": ledger,
            "hash": self.hasher.status() if self.hasher is not None else None,
            "exclusions": self.excluded(),
        }

    def off(self) -> dict[str, str]:
        """Events that are not recorded, and why."""
        found = {kind.name: self.shape.off(kind, self.config.profile) for kind in events.EVENTS}
        return {name: why for name, why in found.items() if why}

    def _tell_service(self, now: float) -> None:
        """What the service manager wants to know, when it is due."""
        if not self.service.due(now):
            return
        seen = Progress(
            cut=int(self.order.state[CUT]),
            received=self.pipeline.counts.received,
            idle=self.whole,
            logged=self.pipeline.sequence - 1,
            durable=self.log.durable_sequence,
            told=bool(self.log_problem) or self.log.sync_failing,
        )
        self.service.turn(now, seen, self._status_line(seen))

    def _status_line(self, seen: Progress) -> str:
        lost = losses(self.ledger.balance())["total"]
        line = f"{seen.logged:,} lines logged, {lost:,} events lost, rings {100 * self.capture.fill():.0f} % full"
        return f"The log cannot be written: {self.log_problem}; {line}" if self.log_problem else line

    def _write_status(self) -> None:
        target = self.config.run_dir / "status.json"
        fresh, problem = target.with_suffix(".new"), ""
        shown = self.status()
        if shown | {"time": 0} == self._shown | {"time": 0} and 0 <= shown["time"] - self._shown["time"] < _STATUS_S:
            return
        self._shown = shown
        try:
            write_file(fresh, orjson.dumps(shown))
            fresh.replace(target)
        except OSError as error:  # a full disk: capture goes on
            problem = f"cannot write {target}: {error.strerror}"
        if problem != self._status_problem:
            self._status_problem = problem
            self.voice.warning(problem or f"{target} is written again")

    # ---- stop ----
    def stop(self) -> None:
        """Detaches (unless capture is kept), takes what is left in the rings, writes monitor_stop, closes."""
        self.service.stopping("Taking what is left in the rings")
        self.let_go()
        if not self.keeps_capture:
            loader.detach(self.capture.directory)
        stays = not self._drain() or self.keeps_capture  # what was not taken in time waits for the next start
        for members in self.skipped():
            self._loss(members)
        self.last_hashes()
        self._record_expired([])  # what went while the log could not be written, less than a second ago
        self.pipeline.make("monitor_stop", {"monitor": {"reason": self.stopping or "stop"}})
        self._commit()
        if self.follower is not None:
            self.follower.close()
        self.log.sync_now()
        self._write_status()
        self.log.close()
        if self.delivery is not None:
            self.delivery.stop()
        if self.options.record:
            self.recorder.close()
        self.capture.close()
        if not stays:
            loader.remove(self.capture.directory)
            with contextlib.suppress(OSError):  # another capture may be pinned there
                self.config.pin_dir.rmdir()
        self.lock.release()
        late = f"; the rings are not empty after {DRAIN_S} s: the next start takes the rest" if stays else ""
        left = "; the kernel goes on recording" if self.keeps_capture else late
        self.voice.info(f"stopped ({self.stopping or 'stop'}): {self.pipeline.sequence - 1:,} lines logged{left}")

    def _drain(self) -> bool:
        """Takes what is in the rings: all of it? Programs may run for some milliseconds after they were detached."""
        deadline, quiet, numbered = time.monotonic() + DRAIN_S, 0, -1
        asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        while quiet < 3 and time.monotonic() < deadline:
            more = self.turn()
            if self.keeps_capture:  # what comes from now on is the next reader's
                if not more and int(self.order.state[CUT]) > asked:
                    return True
                more = True
            more = more or self.order.pending
            now = int(self.capture.accounts[:, rings.SEQ].sum())
            quiet = 0 if more or now != numbered else quiet + 1
            numbered = now
            if not more:
                time.sleep(0.01)
        return quiet == 3


def run(config: Config, options: Options) -> int:
    """Runs the monitor until it is stopped; the exit status. Raises StartError."""
    monitor = Monitor(config, options)

    def on_stop(number: int, _frame: object) -> None:
        monitor.stopping = monitor.stopping or signal.Signals(number).name

    def on_hand_over(number: int, _frame: object) -> None:
        monitor.handing_over = True
        monitor.stopping = signal.Signals(number).name  # SIGTERM follows at once, and may be handled within this handler

    def on_hangup(_number: int, _frame: object) -> None:
        monitor.reopen = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)
    signal.signal(signal.SIGUSR1, on_hand_over)
    signal.signal(signal.SIGHUP, on_hangup)
    signal.signal(signal.SIGCONT, lambda *_: monitor.continued())
    try:
        monitor.start()
        monitor.loop()
        monitor.stop()
    except (
        HostFactsError,
        LogError,
        ProbeError,
        BccMissing,
        CompileError,
        ControlError,
        SelfTestError,
        OSError,
    ) as error:
        raise StartError(str(error)) from error
    except StartError:
        raise
    except Exception as error:  # a defect: one sentence for the user; what is pinned goes on, the next start continues
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise StartError(
            f"internal error: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        ) from error
    return EXIT_OK
