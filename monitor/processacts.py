"""What the acts that change a process or reach into another one say in their documents, and those that change the kernel.

Owns the meaning of these records' blobs and values; never renders a line and never keeps state.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from monitor import constants, events, fileacts, naming, tables
from monitor import names as shown
from monitor.decode import Record
from monitor.encode import Document, Names
from monitor.model import Layout
from monitor.naming import Tasks

_IDS = ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid", "user_ns")
_SETS = ("securebits", "inheritable", "permitted", "effective", "bounding", "ambient")
_USER, _GROUP = ("uid", "euid", "suid", "fsuid"), ("gid", "egid", "sgid", "fsgid", "groups")
_ASKED = {
    "setuid": 1,
    "setgid": 1,
    "setfsuid": 1,
    "setfsgid": 1,
    "setreuid": 2,
    "setregid": 2,
    "setresuid": 3,
    "setresgid": 3,
}
_NAMESPACES = {"mnt_ns": "mnt", "uts_ns": "uts", "ipc_ns": "ipc", "net_ns": "net", "pid_ns_for_children": "pid_for_children",
               "cgroup_ns": "cgroup", "time_ns": "time", "user_ns": "user"}  # fmt: skip


def _fixed(record: Record, name: str, layout: Layout) -> Mapping[str, Any] | None:
    raw = record.blobs.get(name)
    return layout.unpack(raw) if raw is not None and len(raw) >= layout.size else None


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def call_of(record: Record) -> str:
    """The name of the record's system call."""
    return tables.syscall_name(record.values["nr"], compat=bool(record.values["kf"] & events.COMPAT))


def credentials(record: Record, extra: Document) -> tuple[str, Document]:
    """Puts what changed into `ebpf`; the action, by what changed, and the members of `process.thread`."""
    before, after = (_fixed(record, name, events.CREDENTIALS) for name in ("before", "after"))
    about: Document = {}
    changed: list[str] = []
    if before is not None and after is not None:
        changed = [name for name in (*_IDS, *_SETS) if before[name] != after[name]]
        changed += ["groups"] if before["groups_at"] != after["groups_at"] else []
        about |= {"changed": changed} if changed else {}
    for when, held in (("before", before), ("after", after)):
        if held is not None:
            about[when] = {name: str(held[name]) for name in _IDS} | {name: f"{held[name]:016x}" for name in _SETS}
    thread: Document = {}
    if after is not None:
        sets = {name: constants.capabilities(after[name]) for name in ("effective", "permitted") if after[name]}
        thread = {"capabilities": sets} if sets else {}
    if "groups" in record.blobs and "after" in about:
        raw = record.blobs["groups"]
        about["after"]["groups"] = [str(one) for one in struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) & ~3])]
    extra["credentials"] = about
    count = _ASKED.get(call_of(record).removesuffix("32"), 0)
    asked = [record.values[name] & 0xFFFFFFFF for name in ("arg", "arg2", "ino")][:count]
    if asked:
        extra["requested"] = {"ids": ["-1" if one == 0xFFFFFFFF else str(one) for one in asked]}
    if changed and not set(changed) & {*_USER, *_GROUP}:
        return "capabilities_change", thread
    return "gid_change" if changed and not set(changed) & set(_USER) else "uid_change", thread


_DESCRIPTOR = re.compile(rb"/dev/fd/|/proc/(self|thread-self|\d+)/(task/\d+/)?fd/")
_GAINED = ((1, "setuid"), (2, "setgid"), (4, "file_capabilities"))


def started(record: Record, found: Names, extra: Document) -> None:
    """`ebpf.exec`: by what name a program was started, and what is special about it."""
    blobs, about = record.blobs, Document()
    given, components = blobs.get("name", b""), blobs.get("executable", b"")
    kinds = ["script"] if "text" in blobs else []
    if components.startswith(b"memfd:") and naming.program_flags(components):
        kinds.append("memfd")
    elif record.values["flags"] & events.FILE_FLAGS["DELETED"]:
        kinds.append("deleted")
    if _DESCRIPTOR.match(given):
        kinds.append("descriptor")
    kinds += [word for bit, word in _GAINED if record.values["arg"] & bit]
    if given and ("text" in blobs or given != naming.path(components, naming.program_flags(components))):
        about["filename"] = shown.put(found.raw, "ebpf.exec.filename", given)
    if "text" in blobs:
        about["interpreter"] = shown.put(found.raw, "ebpf.exec.interpreter", blobs["text"])
    if kinds:
        about["kind"] = kinds
    if about:
        extra["exec"] = about


def _target(record: Record, extra: Document, tasks: Tasks, raw: dict[str, str]) -> None:
    other = _fixed(record, "target", events.TARGET)
    if other is not None:
        extra["target"] = {
            "pid": other["tgid"],
            "entity_id": tasks.entity(other["tgid"], other["start"]),
            "thread": {
                "id": other["tid"],
                "name": shown.put(raw, "ebpf.target.thread.name", _text(bytes(other["comm"]))),
            },
            "user": {"id": str(other["euid"])},
        }
    elif record.values["ino"]:
        number = record.values["ino"] & 0xFFFFFFFF
        extra["target"] = {"pid": number - (1 << 32) if number >> 31 else number}


def _signal(record: Record, found: Names, extra: Document, tasks: Tasks) -> None:
    number = record.values["arg"] & 0xFFFFFFFF
    extra["signal"] = {"number": number, "name": tables.signal_name(number)}
    if record.values["ret"] >= 0 and record.values["arg2"] < len(constants.SIGNAL_RESULTS):
        extra["signal"]["result"] = constants.SIGNAL_RESULTS[record.values["arg2"]]
    _target(record, extra, tasks, found.raw)
    if "target" in extra and "entity_id" not in extra["target"]:
        found.ebpf["claimed"] = True


def _ptrace(record: Record, found: Names, extra: Document, tasks: Tasks) -> None:
    if call_of(record) == "ptrace":
        extra["ptrace"] = {"request": constants.ptrace_request(record.values["arg"])}
    _target(record, extra, tasks, found.raw)


def _namespace(record: Record, found: Names, extra: Document, _: Tasks) -> None:
    if record.values["arg"]:
        extra["flags"] = "|".join(tables.clone_flags(record.values["arg"]))
    held = _fixed(record, "namespaces", events.NAMESPACES)
    if held is not None:
        extra["namespace"] = {word: str(held[name]) for name, word in _NAMESPACES.items()}
    if {"path", "name"} & record.blobs.keys():
        named = fileacts.control(record, extra)
        found.sections, found.raw = named.sections, found.raw | named.raw
        found.ebpf |= named.ebpf


def _module(record: Record, found: Names, extra: Document, _: Tasks) -> None:
    blobs, about = record.blobs, Document()
    removed = call_of(record) == "delete_module"
    name = blobs.get("text") if removed else blobs.get("text2")
    if "path" in blobs:
        named = fileacts.control(record, extra)
        found.sections, found.raw, found.ebpf = named.sections, named.raw, named.ebpf
    if name:
        about["name"] = shown.put(found.raw, "ebpf.module.name", name)
        if removed:
            found.ebpf["claimed"] = True
    if not removed and blobs.get("text"):
        about["parameters"] = shown.put(found.raw, "ebpf.module.parameters", blobs["text"])
    if about:
        extra["module"] = about
    if record.values["arg"]:
        extra["flags"] = hex(record.values["arg"])


def _bpf(record: Record, found: Names, extra: Document, _: Tasks) -> None:
    about: Document = {"command": constants.bpf_command(record.values["arg"])}
    it = _fixed(record, "program", events.PROGRAM)
    if it is not None:
        program: Document = {"type": constants.bpf_program_type(it["type"]), "instructions": it["length"]}
        if _text(it["name"]):
            program["name"] = shown.put(found.raw, "ebpf.bpf.program.name", _text(it["name"]))
        if record.values["kf"] & events.CLAIMED:
            found.ebpf["claimed"] = True
        else:
            program |= {"id": str(it["id"]), "tag": it["tag"].hex(), "attach_type": it["attach"]}
        if "text" in record.blobs:
            program["attach_to"] = shown.put(found.raw, "ebpf.bpf.program.attach_to", record.blobs["text"])
        about["program"] = program
        if it["link"]:
            about["link"] = {"id": str(it["link"])}
    extra["bpf"] = about


def _io_uring(record: Record, _: Names, extra: Document, __: Tasks) -> None:
    extra["io_uring"] = {"entries": record.values["arg"]}
    if record.values["arg2"]:
        extra["flags"] = "|".join(constants.io_uring_flags(record.values["arg2"]))


TOLD: dict[str, Callable[[Record, Names, Document, Tasks], None]] = {
    "process_signal": _signal,
    "process_ptrace": _ptrace,
    "process_namespace": _namespace,
    "kernel_module": _module,
    "kernel_bpf": _bpf,
    "kernel_io_uring": _io_uring,
}
"""What the kinds of records say, but credentials: these belong to the process's own part of the document."""
