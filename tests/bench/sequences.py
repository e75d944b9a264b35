"""Is the log what happened? The generator's cycles, read again from it: each act in its place, with its path and its fields.

Owns what a cycle of the mode `mix` (load.c) must look like in the log; knows no monitor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.bench.load import LOAD_NAME, LoadRun, plain_lines

FILES, FOLDERS = 256, 16
_CYCLE = (("file_open", "openat"), *[("file_read", "read")] * 3, *[("file_write", "write")] * 2, ("file_close", "close"))
_RETURNED = {"file_read": 16, "file_write": 8, "file_close": 0}
_FIRST_WRONG = 5


@dataclass
class Sequences:
    """What was found of one run: cycles that are right, the first few that are not, in words, and how many those are."""

    right: int = 0
    wrong: int = 0
    words: list[str] = field(default_factory=list)


def path_of(tree: Path, number: int) -> str:
    """The file of cycle `number`, as load.c names it."""
    return f"{tree}/project-{number % FILES % FOLDERS:02d}/src_module_{number % FILES:04d}.c"


def read_again(log: Path, run: LoadRun, tree: Path) -> Sequences:
    """Holds a finished log file against the cycles that `run` did below `tree`: all of them, in order, nothing between them."""
    found, number, cycle = Sequences(), 0, list[dict[str, Any]]()
    mine = b'"pid":%d,"name":"%s"' % (run.pid, LOAD_NAME.encode())
    last = 0, 0
    left = 3 * FILES  # opens, writes and closes of the preparation
    with log.open("rb") as opened:
        for line in plain_lines(opened.fileno()):
            if mine not in line:
                continue
            document = orjson.loads(line)
            if document["ebpf"]["event"] not in _NAMES:
                continue
            if left:
                left -= 1
                continue
            cycle.append(document)
            if len(cycle) < len(_CYCLE):
                continue
            reason, last = _reason(cycle, path_of(tree, number), last)
            found.right += not reason
            found.wrong += bool(reason)
            if reason and len(found.words) < _FIRST_WRONG:
                found.words.append(f"cycle {number}: {reason}")
            number, cycle = number + 1, []
    missing = run.syscalls // len(_CYCLE) - number
    if missing:
        found.wrong += missing
        found.words.append(f"{missing} cycles are not in the log")
    return found


_NAMES = {event for event, _ in _CYCLE}


def _reason(cycle: list[dict[str, Any]], path: str, last: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Why a cycle is not what the load did, or ""; and (time, sequence) of its end. `last`: those before it."""
    fd = cycle[0]["ebpf"]["ret"]
    for at, (document, (event, call)) in enumerate(zip(cycle, _CYCLE, strict=True)):
        ebpf = document["ebpf"]
        here = ebpf["timestamp_ns"], document["event"]["sequence"]
        wanted = {
            "event": (ebpf["event"], event),
            "syscall": (ebpf["syscall"], call),
            "path": (document.get("file", {}).get("path"), path),
            "source of the path": (ebpf.get("path_source"), "file"),
            "outcome": (document["event"]["outcome"], "success"),
            "descriptor": (ebpf["fd"], fd),
            "returned": (ebpf["ret"], _RETURNED.get(event, fd)),
            "totals": ((ebpf.get("read"), ebpf.get("write")), _TOTALS if event == "file_close" else (None, None)),
            "order": (last[0] <= here[0] and last[1] < here[1], True),
        }
        last = here
        for name, (is_, should) in wanted.items():
            if is_ != should:
                return f"act {at}: {name} is {is_!r}, not {should!r}", last
    return "", last


_TOTALS = {"count": 3, "bytes": 48}, {"count": 2, "bytes": 16}
