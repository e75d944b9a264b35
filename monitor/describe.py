"""What each kind of record says in its document beyond its plain members: one function per family.

Owns the meaning of blobs and arguments; never renders a line and never keeps state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from monitor import events, fileacts, names, naming, processacts, tables
from monitor.decode import Record, socket_blob
from monitor.encode import Document, Names, kernel_device
from monitor.naming import Tasks

_EINPROGRESS = 115


def executable(blob: bytes | None) -> bytes | None:
    """The running program's path, from its names."""
    return None if blob is None else naming.path(blob, naming.program_flags(blob))


def control(record: Record, tasks: Tasks) -> tuple[Names, Document, Document]:
    """(names of the object, task sections, further members of `ebpf`) of a control record."""
    family = record.kind.name.split("_", 1)[0]
    found, extra, process = Names(), Document(), Document()
    if record.values["kf"] & events.REDACTED:
        extra["redacted"] = True
    tell = processacts.TOLD.get(record.kind.name)
    thread: Document = {}
    if tell is not None:
        tell(record, found, extra, tasks)
    elif record.kind.name == "process_credentials":
        found.action, thread = processacts.credentials(record, extra)
    elif family == "process":
        process = _process(record, found, extra)
        if "sha256" in record.blobs:
            process["hash"] = {"sha256": record.blobs["sha256"].hex()}
    elif family == "file" or record.kind.name == "kernel_io_uring_request":
        found = fileacts.control(record, extra)
    else:
        _socket(record, found, extra)
    facts = record.values
    sections = tasks.parts(
        facts,
        executable(record.blobs.get("executable")),
        record.blobs.get("cgroup", b""),
        found.raw,
        full=True,
        process=process,
    )
    sections["process"]["thread"] |= thread
    return found, sections, extra | naming.login(facts)


def _process(record: Record, found: Names, extra: Document) -> Document:
    values, process = record.values, Document()
    if record.kind.name == "process_exec":
        return _exec(record, found, extra)
    if record.kind.name == "process_found":
        if "args" in record.blobs:
            put_arguments(process, found, naming.arguments(record.blobs["args"]))
        _cut(values, extra)
        if "directory" in record.blobs:
            process["working_directory"] = names.put(
                found.raw, "process.working_directory", naming.path(record.blobs["directory"], 0)
            )
        extra["scanned"] = True
        return process
    if record.kind.name == "process_exit":
        signal = values["arg"] & 0x7F
        if signal:
            extra["signal"] = {"number": signal, "name": tables.signal_name(signal)}
        else:
            process["exit_code"] = values["arg"] >> 8 & 0xFF
    return process


def _exec(record: Record, found: Names, extra: Document) -> Document:
    values, process = record.values, Document()
    if values["ret"] < 0:
        found.sections, found.ebpf, found.raw = _parts(
            naming.named_file(fileacts.claimed_name(record, "name", "base"), "caller", claimed=True)
        )
    elif record.blobs.get("executable") is not None:
        flags = values["flags"] | naming.program_flags(record.blobs["executable"])
        named = naming.named_file(naming.path(record.blobs["executable"], flags), "file", flags=flags)
        named.sections["file"] = named.sections.get("file", {}) | naming.file_identity(
            values["ino"], values["dev"], values["mode"]
        )
        found.sections, found.ebpf, found.raw = _parts(named)
    if values["ret"] >= 0:
        processacts.started(record, found, extra)
    if "args" in record.blobs:
        put_arguments(process, found, naming.arguments(record.blobs["args"]))
    if "environment" in record.blobs:
        process["env_vars"] = names.put_list(found.raw, "process.env_vars", naming.arguments(record.blobs["environment"]))
    _cut(values, extra)
    if "directory" in record.blobs:
        process["working_directory"] = names.put(
            found.raw, "process.working_directory", naming.path(record.blobs["directory"], 0)
        )
    return process


def _cut(values: dict[str, Any], extra: Document) -> None:
    """Says that the arguments were cut, and how long they were."""
    if values["kf"] & events.TRUNCATED:
        extra["truncated"] = True
        if values["original"]:  # of a failed exec's name the whole length is not known
            extra["original_bytes"] = values["original"]


def put_arguments(process: Document, found: Names, arguments: Sequence[bytes]) -> None:
    """args, their count and the command line."""
    process["args"] = names.put_list(found.raw, "process.args", arguments)
    process["args_count"] = len(arguments)
    process["command_line"] = " ".join(process["args"])


def _parts(found: Names) -> tuple[Document, Document, dict[str, str]]:
    return found.sections, found.ebpf, found.raw


def _socket(record: Record, found: Names, extra: Document) -> None:
    if "socket" in record.blobs:
        found.sections, found.ebpf, found.raw = _parts(naming.endpoint(*socket_blob(record.blobs["socket"])))
    name, values = record.kind.name, record.values
    if "address" in record.blobs:
        section = "source" if name == "socket_bind" else "destination"
        if values["ret"] < 0 and values["ret"] != -_EINPROGRESS:
            # what is left in the socket is not what was attempted: of a refused peer the port is 0
            naming.drop_end(found, section)
        naming.claim_address(found, record.blobs["address"], section)
    if name == "socket_connect" and values["ret"] == -_EINPROGRESS:
        extra["in_progress"] = True
    if name in ("socket_connect", "socket_accept") and "network" in found.sections:
        found.sections["network"]["direction"] = "egress" if name == "socket_connect" else "ingress"


def bulk_claim(record: Record, base: Names | None) -> Names:
    """The names of a bulk record that carries the caller's word: a failed open, or a message with an address."""
    values = record.values
    if values["kf"] & events.ADDRESS:
        found = base or Names()
        section = "destination" if record.kind.name == "socket_send" else "source"
        if section == "source":  # the sender of a datagram is the far end, as everywhere in these documents
            section = "destination"
        naming.claim_address(found, record.blobs["tail"][: values.get("extra", 0) & 0xFFFFFFFF], section)
        return found
    name = record.blobs["tail"][: values["session"]]
    start = b""
    if base is not None and values["kf"] & events.RELATIVE and "file" in base.sections:
        start = names.original(base.sections["file"].get("path", ""), base.raw.get("file_path"))
    found = naming.named_file(naming.join(start, name), "caller", claimed=True)
    if values["kf"] & events.TRUNCATED:
        found.ebpf["truncated"] = True
    return found


def stat_identity(path: str) -> tuple[int, int] | None:
    """(inode, kernel device number) of a path, None when it is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_ino, kernel_device(about.st_dev)


def definition_names(kind: int, values: dict[str, Any], tail: bytes) -> Names:
    """The names of a file or socket definition."""
    if kind == events.DEF_FILE:
        return naming.file(values, tail[: values["bytes"]])
    return naming.endpoint(values, tail)
