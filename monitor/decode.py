"""Raw records into values: control records with their blobs, bulk records, definitions.

Owns the reading of bytes by the catalogue's layouts; bytes that do not fit are a DecodeError, never a guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from monitor import events
from monitor.model import EventType, Layout

_BLOB_HEADER = struct.Struct("<II")
_BULK = {kind.id: events.bulk_layout(kind) for kind in events.EVENTS if kind.lane == "bulk"}
_KINDS = {blob.kind: blob.name for blob in events.BLOBS}
_DEFINITIONS = {
    events.DEF_TASK: events.TASK_DEFINITION,
    events.DEF_FILE: events.FILE_DEFINITION,
    events.DEF_SOCKET: events.SOCKET_DEFINITION,
}
ADDRESS_AT = 64
_WHOLE = events.BEGIN | events.RELATIVE | events.ADDRESS | events.WIDE | events.UNNAMED
"""A read, write, send or receive with one of these flags has more than the common part."""
_GO_ON = {kind.id for kind in events.EVENTS if events.EXTRA in kind.fields}


class DecodeError(Exception):
    """A record's bytes are not what the catalogue says; the text names the record, the member or byte."""


@dataclass(frozen=True)
class Record:
    """One event as the kernel wrote it. `blobs` by name; of a bulk record the bytes behind the fixed part are "tail"."""

    kind: EventType
    values: dict[str, Any]
    blobs: dict[str, bytes]

    @property
    def order(self) -> tuple[int, int, int]:
        """Its place in the log: time, CPU, sequence."""
        return self.values["ts"], self.values["cpu"], self.values["seq"]


def signed(key: int) -> int:
    """A 64-bit key as the signed number that the mirror uses."""
    return key - (1 << 64) if key >> 63 else key


def _kind(number: int, where: str) -> EventType:
    kind = events.EVENT_BY_ID.get(number)
    if kind is None:
        raise DecodeError(f"{where}: type {number} is not in the catalogue")
    return kind


def _unpack(layout: Layout, raw: bytes | memoryview, where: str) -> dict[str, Any]:
    try:
        return layout.unpack(raw)
    except struct.error as error:
        raise DecodeError(f"{where}: {len(raw)} bytes, {layout.name} needs {layout.size}") from error


def control(raw: bytes) -> Record:
    """A control record. Raises DecodeError."""
    values = _unpack(events.CONTROL, raw, "control record")
    kind = _kind(values["type"], "control record")
    if kind.lane == "bulk" or not kind.blobs:
        raise DecodeError(f"control record: {kind.name} does not belong to this lane")
    blobs: dict[str, bytes] = {}
    at, end = events.CONTROL.size, values["length"]
    if not at <= end <= len(raw):
        raise DecodeError(f"{kind.name}: says {end} bytes, has {len(raw)}")
    while at < end:
        if at + 8 > end:
            raise DecodeError(f"{kind.name}: a blob's header is cut at byte {at}")
        number, size = _BLOB_HEADER.unpack_from(raw, at)
        name = _KINDS.get(number)
        if name is None or at + 8 + size > end:
            raise DecodeError(f"{kind.name}: blob {number} of {size} bytes at byte {at} is not possible")
        blobs[name] = raw[at + 8 : at + 8 + size]
        at = (at + 8 + size + 7) & ~7
    return Record(kind, values, blobs)


def definition(raw: bytes) -> tuple[int, dict[str, Any], bytes]:
    """(type, values, bytes behind the fixed part) of a definition; `key` is signed. Raises DecodeError."""
    number = int.from_bytes(raw[:2], "little")
    layout = _DEFINITIONS.get(number)
    if layout is None:
        raise DecodeError(f"definition: type {number} is not known")
    values = _unpack(layout, raw, layout.name)
    values["key"] = signed(values["key"])
    return number, values, bytes(raw[layout.size :])


def session(raw: bytes) -> dict[str, Any]:
    """The definition of a session; `key` is signed. Raises DecodeError."""
    values = _unpack(events.SESSION_DEFINITION, raw, "session definition")
    values["key"] = signed(values["key"])
    return values


def bulk(raw: bytes, cpu: int) -> Record:
    """A bulk event; `raw` is all of it. `seq` is the low half of its number, `key` 0 where it has none. Raises DecodeError."""
    number = int.from_bytes(raw[:2], "little")
    layout = _BULK.get(number)
    if layout is None:
        raise DecodeError(f"bulk record: type {number} is not in the catalogue")
    if number in _GO_ON and events.BULK.size <= len(raw) < layout.size:
        whole = int(events.BULK.unpack(raw)["kf"]) & _WHOLE
        raw = raw if whole else raw + bytes(layout.size - len(raw))
    values = _unpack(layout, raw, layout.name)
    values["key"] = signed(values.get("key", 0))
    values["cpu"] = cpu
    if values["kf"] & events.WIDE:
        values["ret"] += signed(values.get("extra", 0) >> 32 << 32)
    if values.get("reason", 0) >= len(events.CLOSE_REASONS):
        raise DecodeError(f"{layout.name}: close reason {values['reason']} is not in the catalogue")
    return Record(events.EVENT_BY_ID[number], values, {"tail": bytes(raw[ADDRESS_AT:])})


def socket_blob(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The socket definition inside a control record, and the names behind it. Raises DecodeError."""
    return _unpack(events.SOCKET_DEFINITION, raw, "socket"), raw[events.SOCKET_DEFINITION.size :]


def task_facts(values: dict[str, Any]) -> dict[str, Any]:
    """The task facts of a task definition, under the names of events.TASK."""
    return {member.name: values["t_" + member.name] for member in events.TASK.fields}
