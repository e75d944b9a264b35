"""What the rare acts on files say in their documents: by name or on an open file, each with its own values.

Owns the meaning of these records' blobs and values; never renders a line and never keeps state.
"""

from __future__ import annotations

from collections.abc import Callable

from monitor import constants, events, naming, tables
from monitor import names as shown
from monitor.decode import Record, socket_blob
from monitor.encode import Document, Names, mode

_MOVE_MOUNT = 429
"""in every table"""
_UNCHANGED = (0xFFFFFFFF, 0xFFFF)
"""-1 as an id, of a 32-bit and of a 16-bit call: leave it as it is"""


def claimed_name(record: Record, name: str, base: str) -> bytes:
    """The caller's name, absolute where its base is known; without a name (AT_EMPTY_PATH) the base itself."""
    start, given = record.blobs.get(base), record.blobs.get(name, b"")
    above = naming.path(start, 0) if start is not None else b""
    return naming.join(above, given) if given else above


def _objects(record: Record) -> Names:
    """The names of what was acted upon, and where they come from."""
    values, blobs = record.values, record.blobs
    last = "2" if "name2" in blobs or "path2" in blobs else ""
    if "path" in blobs:
        last = "2" if "path2" in blobs else ""
        flags = values["flags"] | naming.program_flags(blobs["path"])
        source = "hook" if values["kf"] & events.HOOKED else "file"
        found = naming.named_file(naming.path(blobs["path" + last], flags), source, flags=flags)
        if values["mode"]:
            identity = naming.file_identity(values["ino"], values["dev"], values["mode"])
            if source == "hook" and record.kind.name == "file_mode":  # the hook came before the change
                del identity["mode"]
            found.sections["file"] = found.sections.get("file", {}) | identity
        earlier = naming.path(blobs["path"], 0)
    elif "name" in blobs or (values["kf"] & events.CLAIMED and record.kind.name != "file_map"):
        found = naming.named_file(claimed_name(record, "name" + last, "base" + last), "caller", claimed=True)
        earlier = claimed_name(record, "name", "base")
    else:
        return Names()
    if last and not (record.kind.name == "file_mount" and "path" in blobs):  # of a mount its place is all that is left
        text = shown.put(found.raw, "file.Ext.original.path", earlier)
        found.sections["file"]["Ext"] = {"original": {"path": text}}
    return found


def control(record: Record, extra: Document) -> Names:
    """The names of a control record of the family `file`; `extra` gets further members of `ebpf`."""
    found = _objects(record)
    if record.values["kf"] & events.TRUNCATED:
        found.ebpf["truncated"] = True
    tell = _TOLD.get(record.kind.name)
    if tell is not None:
        tell(record, found, extra)
    return found


def _renamed(record: Record, _: Names, extra: Document) -> None:
    if record.values["arg"]:
        extra["flags"] = "|".join(tables.rename_flags(record.values["arg"]))


def _symlink(record: Record, found: Names, _: Document) -> None:
    if "text" in record.blobs:
        content = shown.put(found.raw, "file.target_path", record.blobs["text"])
        found.sections["file"] = found.sections.get("file", {}) | {"target_path": content}


def _mode(record: Record, _: Names, extra: Document) -> None:
    extra["requested"] = {"mode": mode(record.values["arg"])}


def _owner(record: Record, _: Names, extra: Document) -> None:
    asked = (("uid", record.values["arg"]), ("gid", record.values["arg2"]))
    wanted = {name: str(value & 0xFFFFFFFF) for name, value in asked if value & 0xFFFFFFFF not in _UNCHANGED}
    if wanted:
        extra["requested"] = wanted


def _truncate(record: Record, _: Names, extra: Document) -> None:
    low, high = record.values["arg"], record.values["arg2"]
    # two halves in the 32-bit table; else the second value is not there and 0
    size = low | high << 32
    extra["requested"] = {"size": size - (1 << 64) if size >> 63 else size}


def _xattr(record: Record, found: Names, extra: Document) -> None:
    about: Document = {}
    if "text" in record.blobs:
        about["name"] = shown.put(found.raw, "ebpf.xattr.name", record.blobs["text"])
    by_ring = record.values["kf"] & events.URING
    call = "" if by_ring else tables.syscall_name(record.values["nr"], compat=bool(record.values["kf"] & events.COMPAT))
    if call in ("setxattr", "lsetxattr", "fsetxattr"):  # setxattrat's size is in memory of the caller
        about["size"] = record.values["arg"]
    if about:
        extra["xattr"] = about


def _request(record: Record, found: Names, extra: Document) -> None:
    if record.values["kf"] & events.PENDING:
        extra["in_progress"] = True
    operation = tables.operation_name(record.values["nr"])
    if operation == "IORING_OP_SYMLINKAT":
        _symlink(record, found, extra)
    elif "text" in record.blobs:
        _xattr(record, found, extra)
    if "address" in record.blobs:
        naming.claim_address(
            found, record.blobs["address"], "source" if operation == "IORING_OP_BIND" else "destination"
        )


def _memfd(record: Record, found: Names, extra: Document) -> None:
    if record.values["arg"]:
        extra["flags"] = "|".join(tables.memfd_flags(record.values["arg"]))
    if "path" not in record.blobs and "text" in record.blobs:  # a failed call: the caller's word
        claim = naming.named_file(b"memfd:" + record.blobs["text"], "caller", claimed=True)
        found.sections, found.raw = claim.sections, claim.raw
        found.ebpf = claim.ebpf | found.ebpf


def _mount(record: Record, found: Names, extra: Document) -> None:
    moved = record.values["nr"] == _MOVE_MOUNT
    about: Document = {}
    for name, blob in (("source", "text"), ("type", "text2")):
        if blob in record.blobs:
            about[name] = shown.put(found.raw, f"ebpf.mount.{name}", record.blobs[blob])
    if about:
        extra["mount"] = about
    if record.values["arg"]:
        flags = constants.move_mount_flags if moved else constants.mount_flags
        extra["flags"] = "|".join(flags(record.values["arg"]))


def _map(record: Record, found: Names, extra: Document) -> None:
    values, about = record.values, Document()
    about["protection"] = "|".join(constants.protection(values["arg"]))
    changed = tables.syscall_name(values["nr"], compat=bool(values["kf"] & events.COMPAT)).endswith("mprotect")
    if not changed:
        extra["flags"] = "|".join(constants.map_flags(values["arg2"]))
    if "mapping" in record.blobs:
        area = events.MAPPING.unpack(record.blobs["mapping"])
        about |= {"size": area["length"]} if changed else {"offset": area["offset"], "size": area["length"]}
    extra["map"] = about
    if values["kf"] & events.CLAIMED and "path" in record.blobs:
        extra["claimed"] = True
    if "sha256" in record.blobs:
        found.sections["file"] = found.sections.get("file", {}) | {"hash": {"sha256": record.blobs["sha256"].hex()}}


def _receive(record: Record, found: Names, extra: Document) -> None:
    if record.values["arg"]:
        extra["received"] = record.values["arg"]
    if record.values["arg2"]:
        extra["left_out"] = record.values["arg2"]
    if "socket" in record.blobs:
        through = naming.endpoint(*socket_blob(record.blobs["socket"]))
        extra["socket"] = through.ebpf["socket"]
        found.raw |= through.raw


def _umount(record: Record, _: Names, extra: Document) -> None:
    if record.values["arg"]:
        extra["flags"] = "|".join(constants.umount_flags(record.values["arg"]))


_TOLD: dict[str, Callable[[Record, Names, Document], None]] = {
    "file_rename": _renamed,
    "file_symlink": _symlink,
    "file_mkdir": _mode,
    "file_mode": _mode,
    "file_owner": _owner,
    "file_truncate": _truncate,
    "file_xattr": _xattr,
    "file_memfd": _memfd,
    "file_mount": _mount,
    "file_umount": _umount,
    "file_map": _map,
    "file_receive": _receive,
    "kernel_io_uring_request": _request,
}
