"""What Kibana shows: saved searches and dashboards, as data. Health first: an empty page must not pass for a quiet host.

Queries are in KQL. A panel whose `needs` the catalogue does not have yet is left out until it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monitor.config_keys import Config

Kind = Literal["table", "bars", "number"]
Operation = Literal["count", "sum", "max", "min", "unique_count"]


@dataclass(frozen=True)
class Metric:
    """One number of a panel: `operation` over `field` ("" counts documents), of those that `query` finds."""

    label: str
    operation: Operation = "count"
    field: str = ""
    query: str = ""


COUNT = Metric("events")
LAST_SEEN, FIRST_SEEN = Metric("last seen", "max", "@timestamp"), Metric("first seen", "min", "@timestamp")


@dataclass(frozen=True)
class Panel:
    """A table of `rows` (fields), bars over time split by the first of them, or one number.

    `by` is the metric that orders rows. `groups` are labelled queries instead of a field.
    """

    title: str
    kind: Kind
    query: str
    rows: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = (COUNT,)
    doc: str = ""
    by: int = 0
    direction: Literal["asc", "desc"] = "desc"
    groups: tuple[tuple[str, str], ...] = ()
    size: int = 10
    width: int = 24
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SavedSearch:
    """A list of documents, newest first."""

    title: str
    query: str
    columns: tuple[str, ...]
    doc: str = ""


@dataclass(frozen=True)
class Dashboard:
    """Panels in rows, then lists of documents."""

    title: str
    doc: str
    panels: tuple[Panel, ...]
    searches: tuple[SavedSearch, ...] = ()


SENSITIVE = " or ".join(f"{path}/*" for path in Config().sensitive_paths)
"""The default `sensitive_paths` as a list of KQL values."""
CHANGED = "event.category: file and event.type: (change or creation or deletion) and event.outcome: success"
OUTBOUND = "ebpf.event: socket_connect and network.direction: egress"
_KERNEL = "event.outcome: *"
_PREFIXES = ("/etc", "/usr", "/var", "/home", "/root", "/tmp", "/run", "/proc", "/sys", "/dev", "/opt", "/srv")

_WHO = ("host.name", "user.name", "process.executable", "process.pid")
PROGRAMS = SavedSearch("programs started", "ebpf.event: process_exec",
                       (*_WHO, "process.command_line", "process.working_directory", "event.outcome"))
CHANGES = SavedSearch("files changed", CHANGED, (*_WHO, "event.action", "file.path"))
CONNECTIONS = SavedSearch("connections", "ebpf.event: (socket_connect or socket_accept)",
                          (*_WHO, "event.action", "source.ip", "source.port", "destination.ip", "destination.port", "error.code"))
FAILED = SavedSearch("failed acts", "event.outcome: failure", (*_WHO, "ebpf.event", "error.code", "file.path", "destination.ip"))
LOST = SavedSearch("losses", "ebpf.event: monitor_loss",
                   ("host.name", "ebpf.loss.class", "ebpf.loss.reason", "ebpf.loss.count", "ebpf.loss.cpu",
                    "ebpf.loss.first", "ebpf.loss.last"), "What was not recorded, where, and why.")
MONITORS = SavedSearch("monitors started, stopped and changed", "ebpf.event: (monitor_start or monitor_stop or monitor_config)",
                       ("host.name", "ebpf.event", "ebpf.monitor.profile", "ebpf.monitor.config_digest", "ebpf.config.keys",
                        "ebpf.log.notice", "ebpf.monitor.reason"))
SEARCHES = (PROGRAMS, CHANGES, CONNECTIONS, FAILED, LOST, MONITORS)

LOSSES = Dashboard(
    "health and losses", "Is every host there, is anything lost, late or refused, and does each run what it should.",
    (
        Panel("Hosts, longest silent first", "table", "host.name: *", ("host.name",),
              (LAST_SEEN, Metric("last heartbeat", "max", "@timestamp", "ebpf.event: monitor_heartbeat"), COUNT),
              direction="asc", size=100,
              doc="A host that records sends a heartbeat each minute. The age of its newest document is the lag of its delivery."),
        Panel("Events lost", "number", "ebpf.event: monitor_loss", metrics=(Metric("lost", "sum", "ebpf.loss.count"),), width=8),
        Panel("Detail given up", "number", "ebpf.event: monitor_loss and ebpf.loss.reason: degraded", width=8,
              doc="Times that a full ring made the kernel fold single reads and writes."),
        Panel("Values too long to be searched", "number", "_ignored: *", width=8,
              doc="Documents with a value beyond the limit of its field: it can be read there, but not searched."),
        Panel("Losses over time by reason", "bars", "ebpf.event: monitor_loss", ("ebpf.loss.reason",),
              (Metric("lost", "sum", "ebpf.loss.count"),)),
        Panel("Losses by host, class and reason", "table", "ebpf.event: monitor_loss",
              ("host.name", "ebpf.loss.class", "ebpf.loss.reason"), (Metric("lost", "sum", "ebpf.loss.count"), LAST_SEEN)),
        Panel("Not written or not readable, by host", "table", "ebpf.event: monitor_heartbeat", ("host.name",), (
            Metric("unwritten", "max", "ebpf.ledger.unwritten"), Metric("quarantined", "max", "ebpf.ledger.quarantined"),
            Metric("torn", "max", "ebpf.ledger.torn"), Metric("died", "max", "ebpf.ledger.died"))),
        Panel("Delivery by host", "table", "ebpf.event: monitor_heartbeat and ebpf.ledger.lag: *", ("host.name",), (
            Metric("lag", "max", "ebpf.ledger.lag"), Metric("dead letters", "max", "ebpf.ledger.dead_letter"),
            Metric("conflicts", "max", "ebpf.ledger.conflict"), Metric("delivered", "max", "ebpf.ledger.created"), LAST_SEEN),
              doc="The worst of the time shown. Lag: lines that are not delivered; conflicts: ids that another document had."),
        Panel("Refused by the kernel, by host", "table", "ebpf.event: monitor_heartbeat", ("host.name",), (
            Metric("bulk ring", "max", "ebpf.ledger.refused.ring_full"),
            Metric("control ring", "max", "ebpf.ledger.refused.control_full"),
            Metric("preempted", "max", "ebpf.ledger.refused.preempted"),
            Metric("seen", "max", "ebpf.ledger.kernel_seen"))),
        Panel("Configuration of each host", "table", "ebpf.event: monitor_start",
              ("host.name", "ebpf.monitor.profile", "ebpf.monitor.config_digest", "agent.version"), (LAST_SEEN,), size=100,
              doc="Hosts that should be alike have the same digest."),
        Panel("Kernel features missing", "table", "ebpf.monitor.missing: *", ("ebpf.monitor.missing", "host.name"), (LAST_SEEN,)),
    ),
    (LOST, MONITORS),
)
OVERVIEW = Dashboard(
    "overview", "How much comes from where, and what of it is noise.",
    (
        Panel("Hosts", "number", _KERNEL, metrics=(Metric("hosts", "unique_count", "host.name"),), width=12),
        Panel("Events", "number", _KERNEL, width=12),
        Panel("Failed acts", "number", "event.outcome: failure", width=12),
        Panel("Programs", "number", "ebpf.event: process_exec",
              metrics=(Metric("programs", "unique_count", "process.executable"),), width=12),
        Panel("Events over time", "bars", _KERNEL, ("ebpf.event",), width=48),
        Panel("Noise by executable", "table", _KERNEL, ("process.executable",), size=20),
        Panel("Noise by event", "table", _KERNEL, ("ebpf.event",), size=30),
        Panel("Noise by path prefix", "table", "file.path: *",
              groups=tuple((prefix, f"file.path: {prefix}/*") for prefix in _PREFIXES)),
        Panel("Failures by error", "table", "event.outcome: failure", ("error.code", "ebpf.event"), size=15),
    ),
    (FAILED,),
)
PROCESSES = Dashboard(
    "processes", "Which programs ran, as whom, and which are new.",
    (
        Panel("Programs over time", "bars", "ebpf.event: process_exec", ("host.name",), width=48),
        Panel("Executables, newest first", "table", "ebpf.event: process_exec and event.outcome: success",
              ("process.executable",), (FIRST_SEEN, COUNT, Metric("hosts", "unique_count", "host.name")), size=50,
              doc="When each executable was first started within the time shown. A longer time tells new from rare."),
        Panel("Programs by user", "table", "ebpf.event: process_exec", ("user.name", "process.executable")),
        Panel("Privileges gained by a program", "table",
              "ebpf.event: process_exec and user.id: 0 and process.real_user.id: * and not process.real_user.id: 0",
              ("process.real_user.id", "process.executable", "host.name")),
        Panel("Credential changes", "table", "ebpf.event: process_credentials",
              ("process.executable", "user.name", "host.name"), needs=("process_credentials",)),
        Panel("Ended by a signal", "table", "ebpf.event: process_exit and ebpf.signal.name: *",
              ("ebpf.signal.name", "process.executable")),
        Panel("Not zero", "table", "ebpf.event: process_exit and process.exit_code > 0",
              ("process.executable", "host.name"), doc="Programs that ended with another exit code than 0."),
        Panel("Run from memory or deleted", "table", "ebpf.event: process_exec and ebpf.path_flags: deleted",
              ("file.path", "host.name", "user.name")),
    ),
    (PROGRAMS,),
)
FILES = Dashboard(
    "files", "Who changed, removed and failed to open what.",
    (
        Panel("Changes over time", "bars", CHANGED, ("event.action",), width=48),
        Panel("Writes to sensitive paths", "table", f"{CHANGED} and file.path: ({SENSITIVE})",
              ("file.path", "process.executable", "user.name"), (COUNT, LAST_SEEN), size=30),
        Panel("Programs that change most", "table", CHANGED, ("process.executable", "user.name"), size=20),
        Panel("Removed", "table", "ebpf.event: file_delete and event.outcome: success", ("process.executable", "file.path")),
        Panel("Opens that failed", "table", "ebpf.event: file_open and event.outcome: failure",
              ("error.code", "process.executable", "file.path"), size=15),
        Panel("Bytes written by program", "table", "ebpf.event: file_close", ("process.executable",),
              (Metric("written", "sum", "ebpf.write.bytes"), Metric("read", "sum", "ebpf.read.bytes"))),
    ),
    (CHANGES,),
)
NETWORK = Dashboard(
    "network", "Which program talked to whom, and who listens.",
    (
        Panel("Connections over time", "bars", "ebpf.event: (socket_connect or socket_accept)", ("network.direction",), width=48),
        Panel("Outbound by process", "table", OUTBOUND, ("process.executable", "destination.ip", "destination.port"),
              (COUNT, LAST_SEEN), size=20),
        Panel("Destinations", "table", OUTBOUND, ("destination.ip", "host.name"), (COUNT, FIRST_SEEN), size=20),
        Panel("Bytes by process", "table", "ebpf.event: socket_close", ("process.executable", "destination.ip"),
              (Metric("sent", "sum", "ebpf.write.bytes"), Metric("received", "sum", "ebpf.read.bytes"))),
        Panel("Who listens", "table", "ebpf.event: socket_listen and event.outcome: success",
              ("source.port", "process.executable", "host.name"), (LAST_SEEN,)),
        Panel("Connections that failed", "table", "ebpf.event: socket_connect and event.outcome: failure",
              ("error.code", "process.executable", "destination.ip")),
        Panel("Accepted from", "table", "ebpf.event: socket_accept", ("destination.ip", "process.executable", "source.port")),
    ),
    (CONNECTIONS,),
)
DASHBOARDS = (LOSSES, OVERVIEW, PROCESSES, FILES, NETWORK)
