"""Which fields the documents of an event can carry, by what they are about.

Derived from the catalogue; the mapping, the reference and the tests of documents all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable

from monitor import events
from monitor.model import EventType, Field, Shown


def _members(fields: Iterable[Field]) -> tuple[Shown, ...]:
    return tuple(Shown(member.path, member.es, member.doc) for member in fields if member.path)


def groups(kind: EventType) -> dict[str, tuple[Shown, ...]]:
    """The document fields that this event can carry, by what they are about; "own" are the event's own."""
    if kind.lane == "made" and not kind.blobs:
        return {"every document": events.COMMON, "own": kind.shown}
    control = kind.lane != "bulk"
    record = (events.CONTROL if control else events.BULK).fields
    shared = {member.name for member in events.TASK.fields}
    shared |= {"ts", "cpu", "ino", "dev", "mode"}  # events.COMMON, KERNEL_SHOWN and FILE_SHOWN have them
    lane = _members(member for member in record if member.name not in shared)
    task = _members(member for member in events.TASK.fields if control or not member.path.startswith("ebpf.login."))
    if (
        control
        and kind.object != "socket"
        and not {"path", "program"} & set(kind.blobs)
        and kind.name != "kernel_io_uring"
    ):
        lane = tuple(shown for shown in lane if shown.path != "ebpf.fd")
    found = {
        "every document": events.COMMON,
        "kernel events": (*lane, *events.KERNEL_SHOWN),
        "process": (*task, *events.TASK_SHOWN),
    }
    if kind.object == "socket":
        found["socket"] = events.SOCKET_SHOWN
    elif kind.object == "file":
        claims_only = control and "path" not in kind.blobs and kind.name != "process_exec"
        found["file"] = events.CLAIM_SHOWN if claims_only else events.FILE_SHOWN
    blobs = tuple(events.BLOB[name] for name in kind.blobs if name in ("directory", "args"))
    if kind.lane == "made":  # of a process, without an act
        found["kernel events"] = tuple(shown for shown in events.KERNEL_SHOWN if shown.path == "ebpf.raw")
    found["own"] = (
        *_members(kind.fields),
        *(Shown(blob.path, blob.es, blob.doc) for blob in blobs),
        *kind.shown,
        *(events.BULK_SHOWN if not control else ()),
    )
    absent = events.ABSENT.get(kind.name, ())
    return {title: tuple(shown for shown in members if shown.path not in absent) for title, members in found.items()}


def paths(kind: EventType) -> dict[str, str]:
    """Every document field that this event can carry, with its Elasticsearch type."""
    found: dict[str, str] = {}
    for members in groups(kind).values():
        for shown in members:
            if found.setdefault(shown.path, shown.es) != shown.es:
                raise ValueError(f"{kind.name}: {shown.path} is declared as {found[shown.path]} and as {shown.es}")
    return found


def all_paths() -> dict[str, str]:
    """Every field of any event with its Elasticsearch type. Raises ValueError when two declarations disagree."""
    found: dict[str, str] = {}
    for kind in events.EVENTS:
        for path, es in paths(kind).items():
            if found.setdefault(path, es) != es:
                raise ValueError(f"{path} is declared as {found[path]} and, for {kind.name}, as {es}")
    return found
