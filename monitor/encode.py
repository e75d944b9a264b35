"""The plain encoder: from an event's decoded values to its document and its line.

Owns the order and the rendering of a document's fields; what it writes is the measure for the compiled encoder, whose
templates it makes. Never reads a ring and never keeps state between events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from monitor import __version__, events, tables
from monitor.clock import rfc3339
from monitor.enrich import HostFacts, event_id
from monitor.model import SCHEMA, EventType, Field

ECS_VERSION = "9.4.0"
NO_SYSCALL = 0xFFFF
OPERATIONS_AT = 1024
"""Numbers of `ebpf.syscall`: 64-bit calls, 32-bit calls from 512, operations of io_uring from here."""
_EINPROGRESS = 115

Document = dict[str, Any]
Render = Callable[[Field, Any], Any]


@dataclass
class Names:
    """The document parts that name an object or a process: sections of their own, and members of `ebpf`."""

    sections: Document = field(default_factory=dict)
    ebpf: Document = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    action: str = ""
    """`event.action` of this act, where its kind has several words"""


@dataclass(frozen=True)
class Origin:
    """What every document of an epoch says of its host and agent."""

    host: HostFacts
    epoch: str
    tags: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def sections(self) -> Document:
        """The members `ecs`, `agent` and `host`, then `tags` and `labels` if there are any, in the order of the line."""
        host = self.host
        own: Document = {"tags": list(self.tags)} if self.tags else {}
        if self.labels:
            own["labels"] = dict(self.labels)
        return {
            "ecs": {"version": ECS_VERSION},
            "agent": {"id": host.agent_id, "type": "ebpf-monitor", "version": __version__},
            "host": {"id": host.id, "name": host.name, "boot": {"id": host.boot_id}, "os": {"type": "linux"}},
            **own,
        }

    def event_id(self, sequence: int) -> str:
        """`event.id` of a line of this epoch."""
        return event_id(self.host.agent_id, self.epoch, sequence)


def device(value: int) -> str:
    """The kernel's dev_t (12 bits major, 20 bits minor) as "major:minor"."""
    return f"{value >> 20}:{value & 0xFFFFF}"


def kernel_device(st_dev: int) -> int:
    """The kernel's dev_t of a device number that stat(2) gives, which has another layout."""
    return os.major(st_dev) << 20 | os.minor(st_dev)


def mode(value: int) -> str:
    """Permission bits as four octal digits, as ECS shows `file.mode`."""
    return f"{value & 0o7777:04o}"


def open_flags(value: int) -> str:
    """Open flags by name, joined by "|"."""
    return "|".join(tables.open_flags(value))


def syscall(number: int, compat: bool = False) -> str:
    """A syscall's name; 32-bit calls by their own table."""
    return tables.syscall_name(number, compat=compat)


FORMS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "text": str,
    "device": device,
    "mode": mode,
    "open_flags": open_flags,
    "close_reason": lambda number: events.CLOSE_REASONS[number],
}


def render(member: Field, value: Any) -> Any:
    """The JSON value that the document shows for a member's raw value."""
    return FORMS[member.form](value)


def put(document: Document, path: str, value: Any) -> None:
    """Sets `path` ("ebpf.close.reason") below `document`, making the objects on the way."""
    *parents, leaf = path.split(".")
    for name in parents:
        document = document.setdefault(name, {})
    document[leaf] = value


def event_section(
    kind: EventType, *, failed: bool, created: bool, identity: Any, sequence: Any, pending: bool = False
) -> Document:
    """The ECS `event` object. `pending`: the call returned before the outcome was known."""
    made = kind.lane == "made"
    types, action = (kind.failure_types if failed else kind.types), kind.action
    if created and not failed:
        types, action = ("creation",), "creation"
    section: Document = {
        "kind": "metric" if kind.name == "monitor_heartbeat" else "event",
        "module": "ebpf_monitor",
        "dataset": kind.dataset,
        "category": [kind.category],
        "type": list(types),
        "action": action,
    }
    if not made:
        section["outcome"] = "failure" if failed else "unknown" if pending else "success"
    return section | {"id": identity, "sequence": sequence}


def document(
    origin: Origin,
    kind: EventType,
    values: Mapping[str, Any],
    time: Any,
    sequence: Any,
    *,
    names: Names,
    task: Document,
    identity: Any = None,
    extra: Document | None = None,
    show: Render = render,
) -> Document:
    """One kernel event's document.

    `values` are the record's members plus `cpu`; `time` is the wall time in ns (or what stands for it in a template);
    `names` and `task` are the parts that name the object and the process; `extra` are further members of `ebpf`.
    """
    kf = values["kf"]
    pending = bool(kf & events.PENDING) or (kind.name == "socket_connect" and values["ret"] == -_EINPROGRESS)
    failed = not pending and _is_failure(kind, values["ret"])
    found: Document = {"@timestamp": time if isinstance(time, str) else rfc3339(time)} | origin.sections()
    found["event"] = event_section(
        kind,
        failed=failed,
        created=bool(kf & events.CREATED),
        pending=pending,
        sequence=sequence,
        identity=origin.event_id(sequence) if identity is None else identity,
    )
    if failed:
        found["error"] = {"code": show(_ERROR, values["ret"])}
    ebpf: Document = {"event": kind.name, "schema": SCHEMA, "timestamp_ns": show(_INT, values["ts"])}
    if kf & events.QUIET:
        ebpf["quiet"] = True
    if values["cpu"] >= 0:  # -1: totals that the reader reports itself
        ebpf["cpu"] = show(_INT, values["cpu"])
    nr = values["nr"]
    if nr != NO_SYSCALL:
        ebpf["syscall"] = show(
            _SYSCALL, nr | (512 if kf & events.COMPAT else 0) | (OPERATIONS_AT if kf & events.URING else 0)
        )
    ebpf["ret"] = show(_INT, values["ret"])
    if values["fd"] != -1:
        ebpf["fd"] = show(_INT, values["fd"])
    if failed:
        ebpf["errno"] = show(_ERRNO, values["ret"])
    holder: Document = {"ebpf": ebpf}
    for member in kind.fields:
        if member.path:
            put(holder, member.path, show(member, values[member.name]))
    ebpf |= (extra or {}) | names.ebpf
    if names.action:
        found["event"]["action"] = names.action
    if names.raw:
        ebpf["raw"] = names.raw
    return found | {"ebpf": ebpf} | names.sections | task


_INT = Field("int", "s64")
_SYSCALL = Field("nr", "u16", form="syscall")
_ERROR = Field("error", "s64", form="error")
_ERRNO = Field("errno", "s64", form="errno")
FORMS["syscall"] = lambda number: (
    tables.operation_name(number & 255) if number & OPERATIONS_AT else syscall(number & 511, bool(number & 512))
)
FORMS["error"] = lambda ret: tables.errno_name(-ret)
FORMS["errno"] = lambda ret: -ret


def _is_failure(kind: EventType, ret: Any) -> bool:
    return isinstance(ret, int) and ret < 0 and kind.name != "process_exit"


def made(origin: Origin, kind: EventType, time_ns: int, boot_ns: int, sequence: int, members: Document) -> Document:
    """A document of the monitor itself; `members` are its members of `ebpf`."""
    found: Document = {"@timestamp": rfc3339(time_ns)} | origin.sections()
    found["event"] = event_section(
        kind, failed=False, created=False, identity=origin.event_id(sequence), sequence=sequence
    )
    found["ebpf"] = {"event": kind.name, "schema": SCHEMA, "timestamp_ns": boot_ns} | members
    return found


def line(found: Document) -> bytes:
    """The document as one line of the log."""
    return orjson.dumps(found) + b"\n"
