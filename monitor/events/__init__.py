"""The catalogue: every event with its fields, blobs, probe, documentation and trigger; a module for each family.

The only place that knows an event's fields; holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.files import FILES
from monitor.events.kernel import KERNEL
from monitor.events.monitors import MONITORS
from monitor.events.processes import PROCESSES
from monitor.events.records import *
from monitor.events.shown import *
from monitor.events.sockets import SOCKETS
from monitor.events.uring import URING_EVENTS
from monitor.model import EventType, Layout

EVENTS: tuple[EventType, ...] = (*PROCESSES, *FILES, *SOCKETS, *KERNEL, *URING_EVENTS, *MONITORS)
EVENT = {event.name: event for event in EVENTS}
EVENT_BY_ID = {event.id: event for event in EVENTS}


LEAVES_OUT_QUIET = frozenset({"standard"})
"""Profiles without what is done to quiet objects (`ebpf.quiet`); which events a profile has at all says `EventType.profiles`."""


def bulk_layout(event: EventType) -> Layout:
    """The whole record of a bulk event: the common part and its own members."""
    return Layout(f"{event.name}_event", (*BULK.fields, *event.fields))


ABSENT: dict[str, tuple[str, ...]] = {
    "process_exit": ("ebpf.syscall", "error.code", "ebpf.errno"),
}
"""Fields of the lane that an event never has: an exit is seen outside of calls and cannot fail."""

ALIASES: dict[str, str] = {
    "timestamp_ns": "ebpf.timestamp_ns", "datetime": "@timestamp", "pid": "process.pid", "ppid": "process.parent.pid", "uid": "user.id",
    "comm": "process.thread.name", "syscall": "ebpf.syscall", "filename": "file.path", "fd": "ebpf.fd", "ret": "ebpf.ret",
    "error_code": "ebpf.errno", "dest_ip": "destination.ip", "dest_ipv6": "destination.ip", "dest_port": "destination.port",
    "sa_family": "ebpf.socket.family", "count": "ebpf.ret", "bytes_rw": "ebpf.ret",
}
"""Flat names of the original tool and the fields that searches by them reach. `count` was the length asked for, which is not
recorded: the length transferred stands in."""
