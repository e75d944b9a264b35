"""The catalogue's events: what the monitor says of itself.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.model import EventType, Shown

MONITORS: tuple[EventType, ...] = (
    EventType(64, "monitor_start", "made", "The monitor began a log epoch.", "host", ("start",), "start", trigger="systemctl start ebpf-monitor", shown=(
        Shown("ebpf.previous.epoch", "keyword", "the log epoch before"),
        Shown("ebpf.previous.sequence", "long", "its last sequence number that is in the log"),
        Shown("ebpf.monitor.adopted", "boolean", "capture had gone on without a reader and was taken over"),
        Shown("ebpf.monitor.kernel", "keyword", "kernel release"),
        Shown("ebpf.monitor.layout", "keyword", "digest of the record layouts and programs"),
        Shown("ebpf.monitor.profile", "keyword", "capture profile"),
        Shown("ebpf.monitor.config_digest", "keyword", "digest of the effective configuration, without secrets"),
        Shown("ebpf.monitor.hooks", "keyword", "hooks that are attached"),
        Shown("ebpf.monitor.name_sources", "keyword", "event and where a call by name gets its name on this kernel: hook, or caller for the caller's word"),
        Shown("ebpf.monitor.features", "keyword", "kernel features in use"),
        Shown("ebpf.monitor.control_lane", "keyword", "kernel buffer of the control lane: ringbuf or perf"),
        Shown("ebpf.monitor.missing", "keyword", "kernel features that are not there, by name"),
        Shown("ebpf.monitor.events", "keyword", "events that are recorded"),
        Shown("ebpf.monitor.processes", "long", "processes found by the scan at start"))),
    EventType(65, "monitor_stop", "made", "The monitor ended a log epoch in order.", "host", ("end",), "stop", trigger="systemctl stop ebpf-monitor", shown=(
        Shown("ebpf.monitor.reason", "keyword", "signal or duration"),)),
    EventType(66, "monitor_loss", "made", "Events were lost, or detail was given up.", "configuration", ("info",), "loss", trigger="a full ring", shown=(
        Shown("ebpf.loss.class", "keyword", "process, file, socket, log, or unknown"),
        Shown("ebpf.loss.cpu", "long", "CPU"),
        Shown("ebpf.loss.count", "long", "events lost; 0: detail only"),
        Shown("ebpf.loss.first", "long", "first per-CPU sequence of the gap; expired: first event.sequence"),
        Shown("ebpf.loss.last", "long", "last one"),
        Shown("ebpf.loss.exact", "boolean", "false: at least so many (with reason layout or preempted: at most); absent: exact"),
        Shown("ebpf.loss.reason", "keyword", "why; expired: removed by log_min_free before they were shipped; preempted: programs that did not run, as another thread was preempted in one on that CPU"),
        Shown("ebpf.loss.epoch", "keyword", "epoch of the loss if it is an earlier one"),
        Shown("ebpf.loss.level", "long", "degraded: 1 reads and writes fold, 2 only a session's first is logged; 0 restored"))),
    EventType(67, "monitor_config", "made", "The configuration or the host's clock changed.", "configuration", ("change",), "config",
              trigger="mv events.jsonl OTHER", shown=(
        Shown("ebpf.config.old", "keyword", "digest before, without secrets"),
        Shown("ebpf.config.new", "keyword", "digest after"),
        Shown("ebpf.config.keys", "keyword", "keys that changed, secrets too; never a value"),
        Shown("ebpf.config.refused", "keyword", "why changed configuration files were not taken: the one before is still in effect"),
        Shown("ebpf.log.notice", "keyword", "what happened to the log file"),
        Shown("ebpf.clock.step_ns", "long", "step of the wall clock"))),
    EventType(69, "monitor_tamper", "made", "Somebody interfered with the monitor or its capture.", "configuration", ("change",), "tamper",
              trigger="rm PIN_DIR/*/link_sys_exit", shown=(
        Shown("ebpf.tamper.kind", "keyword", "pin_removed, pin_replaced, program_removed, configuration_changed, monitor_stopped, monitor_killed"),
        Shown("ebpf.tamper.object", "keyword", "the pin, map or process"),
        Shown("ebpf.tamper.repaired", "boolean", "it was put right"),
        Shown("ebpf.tamper.paused_ms", "long", "so long the monitor had not looked"),
        Shown("ebpf.tamper.by.event", "keyword", "the last event of the kind that does this: who made it probably did it"),
        Shown("ebpf.tamper.by.pid", "long", "its process"),
        Shown("ebpf.tamper.by.entity_id", "keyword", "its process"),
        Shown("ebpf.tamper.by.name", "keyword", "base name of its program"),
        Shown("ebpf.tamper.by.executable", "keyword", "path of its program"),
        Shown("ebpf.tamper.by.user.id", "keyword", "its user"))),
    EventType(68, "monitor_heartbeat", "made", "The ledger, each minute.", "configuration", ("info",), "heartbeat", trigger="a minute passes", shown=(
        *(Shown("ebpf.ledger." + name, "long", doc) for name, doc in (
            ("kernel_seen", "submitted + refused + suppressed"), ("submitted", "events that the kernel put into a ring"),
            ("received", "events taken out of the rings"), ("in_flight", "events in the rings"),
            ("died", "events in buffers that could not be recovered"), ("made", "documents of the monitor itself"),
            ("logged", "lines in the log"), ("quarantined", "events that could not be decoded"),
            ("folded", "reads and writes that stand in totals only"), ("torn", "lines cut after a crash"),
            ("redacted", "lines in which secrets were masked"),
            ("refused.ring_full", "no room in a bulk ring"), ("refused.control_full", "no room in the control ring"),
            ("refused.preempted", "at most: programs that did not run, as another thread was preempted in one on that CPU"),
            ("suppressed.self", "acts of the monitor"), ("suppressed.profile", "left out by the profile"),
            ("suppressed.quiet", "quiet objects left out by the profile"), ("suppressed.exclusions", "left out by own rules"),
            ("filtered", "dropped by a rule"), ("unwritten", "could not be written to the log"),
            ("expired", "lines removed by log_min_free before they were shipped"),
            ("created", "delivered: documents that Elasticsearch made"), ("duplicate", "delivered before, by an earlier attempt"),
            ("dead_letter", "rejected by Elasticsearch, kept in dead-letter.jsonl"),
            ("conflict", "the part of dead_letter whose id belongs to another document"),
            ("withheld", "left out by es_config.profile"), ("lag", "not delivered yet"))),
        Shown("ebpf.exclusions.name", "keyword", "an own rule"), Shown("ebpf.exclusions.count", "long", "acts that it has left out"),
        Shown("ebpf.hash.known", "long", "processes whose program's hash was known at once"), Shown("ebpf.hash.computed", "long", "files that were read for it"),
        *(Shown("ebpf.hash.skipped." + name, "long", "processes without a hash: " + doc) for name, doc in (
            ("too_large", "the file is larger than hash_max_bytes"), ("remote", "a network or FUSE file system, which may hang"),
            ("gone", "neither the process nor its path led to that version any more"), ("changed", "it changed while it was read"),
            ("unreadable", "it could not be opened or read"), ("busy", "too many waited"))),
    )),
)
