"""The reader's mirror of the kernel's direct-mapped tables: what each path key, task and session stands for, as JSON.

Owns the entries and the journal that undoes a batch which never reached the log. It lives in pinned memory, so that the
reader after a killed one knows what the records that lie in the rings refer to; never decides what an event says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from monitor import fastpath, names
from monitor.encode import Document, Names

FILE_ENTRY, TASK_ENTRY, SESSION_ENTRY = 512, 768, 1280
_WIDE_LIMIT = 4096


def object_fragment(found: Names) -> bytes:
    """The bytes from the end of the `ebpf` object to the end of the object's sections."""
    members: Document = dict(found.ebpf)
    if found.raw:
        members["raw"] = found.raw
    text = orjson.dumps(members)[1:-1]
    sections = orjson.dumps(found.sections)[1:-1]
    return (b"," + text if text else b"") + b"}" + (b"," + sections if sections else b"")


def parse_object(fragment: bytes) -> Names:
    """The inverse of `object_fragment`."""
    document = orjson.loads(b'{"ebpf":{"":0' + fragment + b"}")
    members = document.pop("ebpf")
    del members[""]
    raw = members.pop("raw", {})
    return Names(document, members, raw)


def task_fragment(task: Document) -> bytes:
    """The sections process, user, group and container without the outer braces."""
    return orjson.dumps(task)[1:-1]


class Mirror:
    """Entries by (CPU, key), (CPU, tid) and session slot; what does not fit an entry is kept whole in this process only."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self._m: npt.NDArray[np.int64] = memory["M"]
        self._m8: npt.NDArray[np.uint8] = memory["M8"]
        self._j, self._j8 = memory["J"], memory["J8"]
        self._nfile, self._ntask, self._tasks, self._sessions = (int(x) for x in memory["where"][:4])
        self._wide: dict[int, bytes] = {}

    # ---- where ----
    def file_at(self, cpu: int, key: int) -> int:
        """Byte offset of the entry for a path or socket key."""
        return (cpu * self._nfile + (key & (self._nfile - 1))) * FILE_ENTRY

    def task_at(self, cpu: int, tid: int) -> int:
        """Byte offset of the entry for a task."""
        return self._tasks + (cpu * self._ntask + (tid & (self._ntask - 1))) * TASK_ENTRY

    def session_at(self, slot: int) -> int:
        """Byte offset of the entry for a session."""
        return self._sessions + slot * SESSION_ENTRY

    def _save(self, at: int, size: int) -> None:
        fastpath.save(self._m8, self._j, self._j8, at, size)

    def _data(self, at: int, data_at: int, described: int, wide: int) -> bytes:
        """A fragment: whole from this process if the entry says that it was too long, else what stands in the entry.

        The compiled pass replaces entries without a look at `_wide`: what lies there for an entry that is not marked is old.
        """
        if described >> 32 & fastpath.SLOW_ENTRY and wide in self._wide:
            return self._wide[wide]
        return self._m8[at + data_at : at + data_at + (described & 0xFFFFFFFF)].tobytes()

    def _fill(self, at: int, data_at: int, room: int, fragment: bytes, short: bytes) -> int:
        """Writes a fragment, or the short form of a long one; the word that describes it."""
        self._wide.pop(at, None)
        slow = 0
        if len(fragment) > room:
            while len(self._wide) >= _WIDE_LIMIT:  # the oldest: the compiled pass may have replaced it long ago
                del self._wide[next(iter(self._wide))]
            self._wide[at] = fragment
            fragment, slow = short, fastpath.SLOW_ENTRY
        self._m8[at + data_at : at + data_at + len(fragment)] = np.frombuffer(fragment, np.uint8)
        return len(fragment) | slow << 32

    # ---- put ----
    def put_file(self, cpu: int, key: int, found: Names) -> None:
        """The object that `key` stands for on this CPU from now on. `key` as a signed 64-bit number."""
        at = self.file_at(cpu, key)
        word = at >> 3
        self._save(at, FILE_ENTRY)
        self._m[word] = 0
        fragment = object_fragment(found)
        path = found.sections.get("file", {}).get("path", "").encode("utf-8", "replace")
        start = fragment.find(b'"path":"') + 8 if path else 0
        plain = bool(path) and fragment[start : start + len(path) + 1] == path + b'"' and not found.raw
        short = fragment if len(fragment) <= fastpath.FILE_ROOM else object_fragment(_shortened(found))
        described = self._fill(at, fastpath.FILE_DATA, fastpath.FILE_ROOM, fragment, short)
        self._m[word + 1] = described
        self._m[word + 2] = len(path) if plain and not described >> 32 else 0
        self._m[word + 3] = start
        self._m[word] = key

    def put_task(self, cpu: int, tid: int, task: Document, raw: dict[str, str]) -> None:
        """The process that `tid` stands for on this CPU from now on. One with raw names is for the plain encoder."""
        at = self.task_at(cpu, tid)
        word = at >> 3
        self._save(at, TASK_ENTRY)
        self._m[word] = 0
        fragment = task_fragment(task | {"raw": raw} if raw else task)
        short = fragment if len(fragment) <= fastpath.TASK_ROOM else _short_task(task, raw)
        described = self._fill(at, fastpath.TASK_DATA, fastpath.TASK_ROOM, fragment, short)
        self._m[word + 1] = described | (fastpath.SLOW_ENTRY << 32 if raw else 0)
        self._m[word] = tid | 1 << 32

    def put_session(self, slot: int, generation: int, cpu: int, key: int, tid: int) -> None:
        """As the compiled pass does it, for records that it handed back. An object that is not known begins nothing: records
        of the session will say that it is not resolved."""
        at, obj, task = self.session_at(slot), self.file_at(cpu, key), self.task_at(cpu, tid)
        if int(self._m[obj >> 3]) != key:
            self._save(at, SESSION_ENTRY)
            self._m[at >> 3] = 0
            return
        fastpath.begin_session(self._m, self._m8, self._j, self._j8, at, generation, obj, task, key)
        for source, kept in ((obj, at), (task, at + 1)):
            self._wide.pop(kept, None)
            if source in self._wide:
                self._wide[kept] = self._wide[source]
        if int(self._m[task >> 3]) != tid | 1 << 32:  # whoever has the entry, it is not this one
            self._m[(at >> 3) + 2] = fastpath.SLOW_ENTRY << 32
            self._wide.pop(at + 1, None)

    # ---- get ----
    def file(self, cpu: int, key: int) -> Names | None:
        """What `key` stands for; None when it is not known."""
        at = self.file_at(cpu, key)
        if int(self._m[at >> 3]) != key:
            return None
        return parse_object(self._data(at, fastpath.FILE_DATA, int(self._m[(at >> 3) + 1]), at))

    def task(self, cpu: int, tid: int) -> tuple[Document, dict[str, str]] | None:
        """The sections of a task and its raw names; None when it is not known."""
        at = self.task_at(cpu, tid)
        if int(self._m[at >> 3]) != tid | 1 << 32:
            return None
        return _parse_task(self._data(at, fastpath.TASK_DATA, int(self._m[(at >> 3) + 1]), at))

    def session(self, slot: int, generation: int) -> tuple[Names, Document, dict[str, str], list[int]] | None:
        """Object, task sections, raw names and totals reported so far of a session; None when another took the slot."""
        if slot == fastpath.NOTHING or not generation or int(self._m[self.session_at(slot) >> 3]) != generation:
            return None
        at = self.session_at(slot)
        word = at >> 3
        found = parse_object(self._data(at, fastpath.SESSION_OBJECT, int(self._m[word + 1]), at))
        task, raw = _parse_task(self._data(at, fastpath.SESSION_TASK, int(self._m[word + 2]), at + 1))
        return found, task, raw, [int(x) for x in self._m[word + 4 : word + 8]]

    @property
    def sessions(self) -> npt.NDArray[np.int64]:
        """All session entries as words: generation, lengths, key, then the totals that were reported."""
        count = (len(self._m) - (self._sessions >> 3)) // (SESSION_ENTRY >> 3)
        start = self._sessions >> 3
        return self._m[start : start + count * (SESSION_ENTRY >> 3)].reshape(count, SESSION_ENTRY >> 3)

    def report(self, slot: int, totals: list[int]) -> None:
        """These cumulative totals of the session are in the log."""
        at = self.session_at(slot)
        self._save(at, SESSION_ENTRY)
        self._m[(at >> 3) + 4 : (at >> 3) + 8] = totals

    # ---- the journal ----
    def committed(self) -> None:
        """The batch is in the log: its changes stand."""
        self._j[0] = 0

    def roll_back(self) -> int:
        """Undoes what was changed since the last `committed`; the number of entries."""
        spots, at, end = [], 0, int(self._j[0])
        while at < end:
            word = int(self._j[1 + (at >> 3)])
            offset, size = word & 0xFFFFFFFF, word >> 32
            spots.append((offset, size, at + 16))
            at += 8 + ((size + 7) & ~7)
        for offset, size, kept in reversed(spots):
            self._m8[offset : offset + size] = self._j8[kept : kept + size]
            self._wide.pop(offset, None)
            self._wide.pop(offset + 1, None)
        self._j[0] = 0
        return len(spots)


def _parse_task(text: bytes) -> tuple[Document, dict[str, str]]:
    document = orjson.loads(b"{" + text + b"}")
    return document, document.pop("raw", {})


def _short_task(task: Document, raw: dict[str, str]) -> bytes:
    """A form that fits an entry: the program's path is left out, who it is stays."""
    process = {name: value for name, value in task["process"].items() if name not in ("name", "executable")}
    kept = {name: value for name, value in raw.items() if name != "process_executable"}
    short = task_fragment(task | {"process": process} | ({"raw": kept} if kept else {}))
    return short if len(short) <= fastpath.TASK_ROOM else b""


def _shortened(found: Names) -> Names:
    """A form that fits an entry: names are cut and say so, the identity stays."""
    members = dict(found.ebpf) | {"truncated": True}
    if "file" not in found.sections:
        about = dict(found.ebpf["socket"])
        members["original_bytes"] = sum(
            len(names.original(about.pop(name, ""), found.raw.get("ebpf_socket_" + name)))
            for name in ("path", "peer_path")
        )
        return Names(found.sections, members | {"socket": about})
    section = {name: value for name, value in found.sections["file"].items() if name != "name"}
    path, keep = section["path"], 96
    members["original_bytes"] = len(names.original(path, found.raw.get("file_path")))
    while True:
        short = Names({"file": section | {"path": path[:keep]}}, members)
        if len(object_fragment(short)) <= fastpath.FILE_ROOM:
            return short
        keep //= 2
