"""Log lines as the plain encoder writes them, and directories full of them: what the reading commands are tested on.

Owns the few members that those tests vary; says nothing of what a real kernel would send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monitor import encode, events
from monitor.encode import Names, Origin
from tests.fakes import HOST, WALL_NS

EPOCH = "00112233aabbccdd"
BOOT_NS = 81_234_567_890_123
SECOND_NS = 1_000_000_000
START_NS = WALL_NS
"""Wall time of line 1 of a log: 2026-11-22T16:52:01.123456789Z; each line is a millisecond later."""
_MEMBERS = {"ts": BOOT_NS, "cpu": 0, "nr": 257, "kf": 0, "fd": -1}


def at(sequence: int) -> int:
    """Wall time of a line in nanoseconds."""
    return START_NS + (sequence - 1) * 1_000_000


def task(pid: int = 100, name: str = "cat", user: tuple[str, str] = ("0", "root"), **process: Any) -> dict[str, Any]:
    """The sections that name who did it."""
    about = {
        "thread": {"id": pid, "name": name[:15]},
        "entity_id": "x" * 22,
        "pid": pid,
        "name": name,
        "executable": f"/usr/bin/{name}",
        **process,
        "parent": {"pid": 1, "entity_id": "y" * 22},
    }
    return {"process": about, "user": {"id": user[0], "name": user[1]}, "group": {"id": "0", "name": "root"}}


def line(
    sequence: int,
    event: str = "file_open",
    path: str | None = "/etc/passwd",
    *,
    who: Mapping[str, Any] | None = None,
    epoch: str = EPOCH,
    ret: int = 3,
    time_ns: int | None = None,
    sections: Mapping[str, Any] | None = None,
    ebpf: Mapping[str, Any] | None = None,
    **members: Any,
) -> bytes:
    """One kernel event's line, with its newline. `sections` and `ebpf` are merged into the document's."""
    kind = events.EVENT[event]
    values = {member.name: 0 for member in kind.fields} | _MEMBERS | {"ret": ret} | members
    found = {"file": {"path": path, "name": path.rpartition("/")[2]}} if path is not None else {}
    names = Names(sections=found | dict(sections or {}), ebpf=dict(ebpf or {}))
    document = encode.document(
        Origin(HOST, epoch),
        kind,
        values,
        at(sequence) if time_ns is None else time_ns,
        sequence,
        names=names,
        task=dict(task() if who is None else who),
    )
    return encode.line(document)


def made(
    sequence: int, event: str, members: Mapping[str, Any] | None = None, *, epoch: str = EPOCH, boot: str = ""
) -> bytes:
    """One line of the monitor's own, with its newline."""
    host = HOST if not boot else type(HOST)(HOST.id, HOST.id_source, HOST.name, boot, HOST.agent_id)
    document = encode.made(
        Origin(host, epoch), events.EVENT[event], at(sequence), BOOT_NS, sequence, dict(members or {})
    )
    return encode.line(document)


def start(epoch: str = EPOCH, previous: tuple[str, int] | None = None, boot: str = "") -> bytes:
    """The first line of a run."""
    members: dict[str, Any] = {"monitor": {"profile": "full", "kernel": "6.1"}}
    if previous is not None:
        members["previous"] = {"epoch": previous[0], "sequence": previous[1]}
    return made(1, "monitor_start", members, epoch=epoch, boot=boot)


def stop(sequence: int, epoch: str = EPOCH) -> bytes:
    """The last line of a run that ended in order."""
    return made(sequence, "monitor_stop", {"monitor": {"reason": "SIGTERM"}}, epoch=epoch)


def run(last: int, epoch: str = EPOCH, previous: tuple[str, int] | None = None) -> list[bytes]:
    """A whole run of `last` lines, with its start and its stop."""
    return [start(epoch, previous), *(line(number, epoch=epoch) for number in range(2, last)), stop(last, epoch)]


def write(directory: Path, lines: Iterable[bytes], name: str = "events.jsonl") -> Path:
    """A log file with these lines; the file's path."""
    directory.mkdir(exist_ok=True, mode=0o750)
    path = directory / name
    path.write_bytes(b"".join(lines))
    return path
