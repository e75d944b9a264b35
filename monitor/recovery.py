"""After the reader before us: was its last batch written, what must be undone, where do we go on.

Owns the use of the commit page around a batch and at start; never encodes a line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from monitor import fastpath
from monitor.frames import Unreadable, view
from monitor.kernel import bpf, rings
from monitor.kernel.rings import Capture, CommitPage
from monitor.ledger import CpuState, Ledger, State
from monitor.log import Log, Position
from monitor.logfiles import BLOCK_BYTES, ReaderError, files, tail_offset
from monitor.mirror import Mirror


@dataclass
class Previous:
    """What the epoch before left: its name, its last sequence, and whether its last batch had to be cut out of the log."""

    epoch: int
    sequence: int
    cut: bool


def _state(capture: Capture, words: list[int]) -> State:
    """The state in a slot; of one that nobody has written yet, that of a fresh capture."""
    state = State.from_words(words)
    return state if state.cpus else fresh(capture)


def fresh(capture: Capture) -> State:
    """The state of a capture that nobody has read yet."""
    return State(cpus=[CpuState() for _ in range(capture.shape.cpus)])


def recover(capture: Capture, log: Log, mirror: Mirror) -> tuple[State, Previous | None]:
    """The state to go on from. Cuts a batch that was not written whole and undoes its changes of the mirror.

    The valid slot announces batch n. Either it is in the log whole (then the journal holds changes of batch n + 1, unless n
    was not yet marked as done), or it is cut and the slot before it holds.
    """
    page = capture.commit
    if not page.used:
        return fresh(capture), None
    state = _state(capture, page.read())
    done = page.done == page.turn  # marked after the append: the file may have been rotated or compressed since
    whole = done or not state.length or log.recover(Position(state.device, state.inode, state.offset), state.length)
    if whole and not done:
        mirror.committed()
    else:
        mirror.roll_back()
    if whole:
        page.mark_done()
    else:
        page.withdraw()  # the next reader may be killed before it announces anything: the batch must not count as written
        state = _state(capture, page.read())
    for cpu, row in enumerate(state.cpus):
        capture.accounts[cpu, rings.TAIL] = row.position
    return state, Previous(state.epoch, state.sequence - 1, not whole) if state.epoch else None


def announce(
    capture: Capture, log: Log, ledger: Ledger, cpus: fastpath.Array, epoch: int, length: int, after: State
) -> None:
    """Says in the commit page what the log will be once the batch of `length` bytes is in it.

    An announcement that was not marked as done did not come into the log: this one takes its place.
    """
    if capture.commit.done < capture.commit.turn:
        capture.commit.withdraw()
    at = log.position()
    rows = [
        CpuState(int(cpus[i, fastpath.POS]), int(cpus[i, fastpath.EXPECTED]), ledger.counters(i))
        for i in range(len(cpus))
    ]
    capture.commit.write(
        replace(
            after,
            device=at.device,
            inode=at.inode,
            offset=at.offset,
            length=length,
            epoch=epoch,
            cpus=rows,
            excluded=ledger.excluded(),
            skipped=ledger.skipped,
        ).words()
    )


def unread(directory: Path) -> int:
    """Events in a capture of another layout that its reader has not logged; 0 when nothing can be told of them.

    The account (bpf/common.h) and the commit page (monitor/ledger.py) begin alike in every layout.
    """
    try:
        accounts, page = bpf.obj_get(directory / "map_accounts"), bpf.obj_get(directory / "map_commit")
    except bpf.BpfError:
        return 0
    try:
        cpus, size = bpf.map_info(accounts).max_entries, bpf.map_info(page).value_size
        each = bpf.map_info(accounts).value_size
        words = bpf.map_array(accounts, cpus * each).view("i8").reshape(cpus, each // 8)
        commit = CommitPage(bpf.map_array(page, size))
        rows = State.from_words(commit.read()).cpus if commit.used else []
        return max(0, int(words[:, rings.SEQ].sum()) - sum(row.expected for row in rows))
    except (bpf.BpfError, ValueError, IndexError):
        return 0
    finally:
        os.close(accounts)
        os.close(page)


def cut_off(directory: Path, boot_id: str) -> bool:
    """Does the log end in this boot and without monitor_stop? Where the capture went, too, only the log says that the monitor was
    killed. A log that does not say when it ended says nothing."""
    try:
        for file in [one for one in files(directory) if one.first and not one.compression][-1:]:
            with file.path.open("rb") as opened:
                last = view(opened.fileno(), file.framed).pread(BLOCK_BYTES, tail_offset(file, 1))
            document = orjson.loads(last.partition(b"\n")[0])
            return bool(document["host"]["boot"]["id"] == boot_id and document["ebpf"]["event"] != "monitor_stop")
    except (OSError, Unreadable, ReaderError, ValueError, KeyError, TypeError):
        pass
    return False
