"""The entries of the key `exclusions`: own rules for what the log leaves out. Their members, declared once, and their checks.

Owns what a rule may say; never looks at the host (monitor/exclusions.py finds out what its paths stand for).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from monitor.config_file import Node, Refused, absolute_path, boolean, choice, integer, mismatch, nearest, text

Act = Literal["file_open", "file_read", "file_write"]
Direction = Literal["", "read", "write"]
FileSystem = Literal[
    "bpf", "btrfs", "cgroup2", "debugfs", "erofs", "exfat", "ext4", "f2fs", "fuse", "nfs", "overlay", "proc", "ramfs",
    "securityfs", "smb2", "squashfs", "sysfs", "tmpfs", "tracefs", "vfat", "xfs",
]  # fmt: skip
ACTS: tuple[Act, ...] = get_args(Act)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DEVICE = re.compile(r"([0-9]{1,4}):([0-9]{1,7})")
_SELECTORS = ("executable", "directory", "filesystem", "device", "cgroup", "uid")

_PAGE = """\
## Own rules: `exclusions`

Each entry leaves out the acts for which all that it says is true. It needs a `name` and at least one of the six selectors
`executable` to `uid`.

{TABLE}
A rule compares what the kernel itself knows, never a name that a process gives itself. A path stands for the object that
is there, and is looked at each second; while nothing is there, or a program that others than root can change, the rule
leaves out nothing, and the reason is said. An object counts as below a directory where it stands in its own file system,
not where it is mounted. Failed calls, opens that make a file, and io_uring requests are never left out; an open for writing
only by a rule for `file_open` and `file_write`; a `file_close` goes when nothing was told of its open file. Executions,
connections, deletions and all other events cannot be left out by a rule. The first rule that matches counts the act:
`exclusions` in `status --json`, `ebpf.exclusions` in the heartbeat, `ebpf_monitor_events_excluded_total`. Whoever may run
the program of a rule, or write below its directory, acts under it: pair them with `uid`, and keep `sensitive_paths`
complete.

```json
{"exclusions": [{"name": "backup", "executable": "/usr/bin/restic", "uid": 0,
                 "directory": "/srv/data", "direction": "read"}]}
```
"""


@dataclass(frozen=True)
class Exclusion:
    """One rule. All that it names must be true of an act; None and "" select nothing. `device`: the kernel's dev_t."""

    name: str
    executable: Path | None = None
    directory: Path | None = None
    filesystem: str = ""
    device: int | None = None
    cgroup: Path | None = None
    uid: int | None = None
    events: tuple[Act, ...] = ACTS
    direction: Direction = ""
    sensitive: bool = False


def _name(value: object) -> str:
    found = text(value)
    if not _NAME.fullmatch(found):
        raise Refused("the name of a rule has 1 to 32 small letters, digits, '_' and '-', and begins with no sign")
    return found


def _path(value: object) -> Path:
    return absolute_path(text(value))


def _device(value: object) -> int:
    found = _DEVICE.fullmatch(text(value))
    major, minor = map(int, found.groups()) if found else (1 << 12, 0)
    if major >= 1 << 12 or minor >= 1 << 20:
        raise Refused("expected the numbers of a device, as in 8:1 (major 0 to 4095, minor 0 to 1048575)")
    return major << 20 | minor


def _events(value: object) -> tuple[Act, ...]:
    if not isinstance(value, list):
        raise mismatch("a list of strings", value)
    found = {choice(one.value, ACTS) for one in value}
    if not found:
        raise Refused(f"no event; name some of {', '.join(ACTS)}")
    return tuple(act for act in ACTS if act in found)


_MEMBERS: dict[str, tuple[Callable[[object], Any], str]] = {
    "name": (_name, "what it is called, where its hits are counted"),
    "executable": (_path, "the program's file: the one that the process runs, by device and inode"),
    "directory": (_path, "the object stands below this directory, by device and inode, in the same file system"),
    "filesystem": (lambda value: choice(value, get_args(FileSystem)), "type of the object's file system"),
    "device": (_device, "device of the object's file system, as in `8:1`"),
    "cgroup": (_path, "directory of a cgroup (version 2) that the process is in or below"),
    "uid": (lambda value: integer(value, 0, 0xFFFFFFFE), "the process's effective user id"),
    "events": (_events, "some of " + ", ".join(f"`{act}`" for act in ACTS) + " (default: all three)"),
    "direction": (
        lambda value: choice(value, ("read", "write")),
        "`read`: only descriptors that cannot write; `write`: only those that can",
    ),
    "sensitive": (boolean, "`true`: also what is under `sensitive_paths`, and files with several names"),
}


def read(node: Node, where: str, refuse: Callable[[str, Node, str], NoReturn]) -> Exclusion:
    """The rule in `node`. `refuse` is called with a message, the node at fault and its key; it raises."""
    if not isinstance(node.value, dict):
        refuse(str(mismatch("an object {...}", node.value)), node, where)
    found: dict[str, Any] = {}
    for name, child in node.value.items():
        if name not in _MEMBERS:
            hint = nearest(name, list(_MEMBERS)) or f"; valid here: {', '.join(_MEMBERS)}"
            refuse(f"unknown member of a rule{hint}", Node(None, child.key_line, child.key_line), where)
        try:
            found[name] = _MEMBERS[name][0](child.value)
            continue
        except Refused as error:
            message = str(error)
        refuse(message, child, f"{where}.{name}")
    if "name" not in found:
        refuse("a rule needs a name", node, where)
    if not set(found) & set(_SELECTORS):
        refuse(
            f"it would leave out everything: select by {', '.join(_SELECTORS[:-1])} or {_SELECTORS[-1]}", node, where
        )
    return Exclusion(**found)


def plain(rule: Exclusion) -> dict[str, Any]:
    """The rule as the file has it, what it does not say left out."""
    found: dict[str, Any] = {}
    for one in fields(rule):
        value = getattr(rule, one.name)
        if value != one.default:
            found[one.name] = value
    for name in {"executable", "directory", "cgroup"} & found.keys():
        found[name] = str(found[name])
    if "events" in found:
        found["events"] = list(found["events"])
    if "device" in found:
        found["device"] = f"{rule.device >> 20}:{rule.device & 0xFFFFF}" if rule.device is not None else ""
    return found


def reference() -> str:
    """The part of the configuration's page about the rules, in Markdown."""
    rows = [f"| `{name}` | {doc} |" for name, (_, doc) in _MEMBERS.items()]
    return _PAGE.replace("{TABLE}", "\n".join(["| Member | Meaning |", "|---|---|", *rows]))
