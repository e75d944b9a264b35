"""Templates of the compiled encoder, made by the plain encoder: a document with marks is rendered and cut at the marks.

Owns the translation; because the plain encoder writes every literal byte, the two cannot drift apart in text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from monitor import encode, events, fastpath, tables
from monitor.encode import Names, Origin
from monitor.model import EventType, Field

_QUIET = b',"quiet":true'
_NUMBER = 7_000_000_000_000_000_000
_TABLE_FORMS = {"syscall": fastpath.BY_CALL, "error": fastpath.BY_ERROR, "close_reason": fastpath.BY_WORD}
_ROWS = {"syscall": encode.OPERATIONS_AT + 256, "error": 4096, "close_reason": len(events.CLOSE_REASONS)}

Int = npt.NDArray[np.int64]
Operation = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Templates:
    """The arrays that `fastpath.run` interprets. `index` row kind * VARIANTS + variant: first and last operation."""

    ops: Int
    index: Int
    literals: npt.NDArray[np.uint8]
    tables: Int
    flags: Int


class _Builder:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._pool = bytearray()
        self._kept: dict[bytes, int] = {}
        self._rows: list[tuple[int, int]] = []
        self._bases: dict[str, int] = {}
        self._marks: list[tuple[int, int, int, int]] = []
        for form, count in _ROWS.items():
            self._bases[form] = len(self._rows)
            for number in range(count):
                value = -number if form == "error" else number
                shown = orjson.dumps(encode.FORMS[form](value)) if number or form != "error" else b'""'
                self._rows.append((self.literal(shown), len(shown)))
        self._bases["quiet"] = len(self._rows)
        self._rows += [(0, 0), (self.literal(_QUIET), len(_QUIET))]

    def literal(self, text: bytes) -> int:
        """Offset of `text` in the pool."""
        if text not in self._kept:
            self._kept[text] = len(self._pool)
            self._pool += text
        return self._kept[text]

    def _mark(self, code: int, a: int = 0, b: int = 0, c: int = 0, *, text: bool = False) -> Any:
        self._marks.append((code, a, b, c))
        number = len(self._marks) - 1
        return f"\ue000{number}\ue001" if text else _NUMBER + number

    def _show(self, words: dict[str, int], values: dict[str, Any]) -> encode.Render:
        def show(member: Field, value: Any) -> Any:
            if member.form in _TABLE_FORMS:
                return self._mark(
                    fastpath.TABLE,
                    self._bases[member.form],
                    _TABLE_FORMS[member.form],
                    words.get(member.name, 0),
                    text=True,
                )
            if member.form == "open_flags":
                return self._mark(fastpath.FLAGS, words[member.name], text=True) + "quoted"
            if member.form == "errno":
                return self._mark(fastpath.ERRNO)
            if value is values["cpu"] and member.name == "int":
                return self._mark(fastpath.CPU_NUMBER)
            if value is values["fd"]:
                return self._mark(fastpath.FD)
            if member.name in _TOTALS:
                return self._mark(fastpath.TOTAL, words[member.name], _TOTALS[member.name])
            if value is values["ret"]:
                return self._mark(fastpath.RET)
            return self._mark(fastpath.WORD, next(word for name, word in words.items() if values.get(name) is value))

        return show

    def template(self, kind: EventType, variant: int) -> list[Operation]:
        """The operations of one variant."""
        self._marks = []
        layout = events.bulk_layout(kind)
        words = {name: at >> 3 for name, at in layout.offsets().items()}
        kf = events.QUIET | (events.CREATED if variant & fastpath.CREATED else 0)
        values: dict[str, Any] = {
            name: _Value(-1 if name == "ret" and variant & fastpath.FAILED else 1) for name in words
        }
        values |= {"kf": kf, "cpu": _Value(1), "nr": encode.NO_SYSCALL if variant & fastpath.NO_CALL else 0}
        if kind.name == "file_open" and variant & fastpath.FAILED:
            values["fd"] = -1
        names = Names(ebpf={"@OBJECT": 1})
        if variant & fastpath.UNNAMED:
            names = Names()
        elif variant & fastpath.CLAIMED:
            names = Names(
                {
                    "file": {
                        "path": self._mark(fastpath.PATH, text=True) + "quoted",
                        "name": self._mark(fastpath.BASENAME, text=True) + "quoted",
                    }
                },
                {"path_source": "caller", "claimed": True},
            )
        task = {} if variant & fastpath.NO_TASK else {"@TASK": 1}
        sequence = self._mark(fastpath.SEQ)
        identity = self._origin.event_id(0)[:-12] + self._mark(fastpath.HEX, text=True) + "quoted"
        found = encode.document(
            self._origin,
            kind,
            values,
            self._mark(fastpath.TIME, text=True) + "quoted",
            sequence,
            names=names,
            task=task,
            identity=identity,
            show=self._show(words, values),
        )
        for name in ("tags", "labels"):  # anybody's text: in it nothing may look like a mark
            if name in found:
                shown = orjson.dumps(found[name])
                found[name] = self._mark(fastpath.LIT, self.literal(shown), len(shown), text=True)
        return self._cut(encode.line(found))

    def _cut(self, text: bytes) -> list[Operation]:
        text = text.replace(b"\xee\x80\x81quoted", b"\xee\x80\x82")
        ops: list[Operation] = []
        at, before = 0, b""
        for found in re.finditer(
            rb'\xee\x80\x80([0-9]+)\xee\x80\x82|"\xee\x80\x80([0-9]+)\xee\x80\x81"|(7000000000000\d{6})|,"@OBJECT":1\}|"@TASK":1\}|,"quiet":true',
            text,
        ):
            before += text[at : found.start()]
            at = found.end()
            number = found[1] or found[2] or (found[3] and found[3][13:])
            if number:
                mark = self._marks[int(number)]
            elif found[0] == _QUIET:
                mark = (fastpath.TABLE, self._bases["quiet"], fastpath.BY_QUIET, 0)
            elif found[0].startswith(b","):
                mark = (fastpath.OBJECT, 0, 0, 0)
            else:
                mark = (fastpath.TASK, 0, 0, 0)
                at -= 1
            if mark[0] == fastpath.LIT:
                before += self._pool[mark[1] : mark[1] + mark[2]]
                continue
            ops.append((*mark, self.literal(before), len(before)))
            before = b""
        last = before + text[at:]
        return [*ops, (fastpath.LIT, 0, 0, 0, self.literal(last), len(last))]

    def build(self) -> Templates:
        """All templates."""
        ops: list[Operation] = []
        index = np.zeros((64 * fastpath.VARIANTS, 2), np.int64)
        for kind in events.EVENTS:
            if kind.lane != "bulk":
                continue
            for variant in range(fastpath.VARIANTS):
                made = self.template(kind, variant)
                index[kind.id * fastpath.VARIANTS + variant] = len(ops), len(ops) + len(made)
                ops += made
        flags = [(3, value, name) for value, name in enumerate(tables.ACCESS_MODES)] + [
            (mask, mask, name) for mask, name in tables.OPEN_FLAGS
        ]
        rows = [
            (mask, value, self.literal(name.encode()), len(name)) for mask, value, name in flags if name != "O_PATH"
        ]
        return Templates(
            np.array(ops, np.int64),
            index,
            np.frombuffer(bytes(self._pool) + bytes(16), np.uint8),  # short ones are copied by 16 bytes
            np.array(self._rows, np.int64),
            np.array(rows, np.int64),
        )


class _Value(int):
    """A stand-in for a record's value: an int that is told from every other by identity."""


_TOTALS = {"read_count": 0, "read_bytes": 1, "write_count": 2, "write_bytes": 3}


def build(origin: Origin) -> Templates:
    """Templates of every bulk event in every variant, for one epoch."""
    return _Builder(origin).build()
