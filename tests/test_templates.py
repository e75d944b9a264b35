"""Templates are documents of the plain encoder cut at marks: they cover every bulk event and stay inside their tables."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from monitor import encode, events, fastpath, tables, templates
from tests.fakes import ORIGIN

BUILT = templates.build(ORIGIN)
BULK = [kind for kind in events.EVENTS if kind.lane == "bulk"]


def literals(kind: events.EventType, variant: int) -> bytes:
    first, last = BUILT.index[kind.id * fastpath.VARIANTS + variant]
    return b"".join(BUILT.literals[at : at + count].tobytes() for *_, at, count in BUILT.ops[first:last])


def codes(kind: events.EventType, variant: int) -> list[int]:
    first, last = BUILT.index[kind.id * fastpath.VARIANTS + variant]
    return [int(code) for code in BUILT.ops[first:last, 0]]


def test_every_bulk_event_has_every_variant_and_no_other_event_has_one() -> None:
    filled = {int(row) // fastpath.VARIANTS for row in np.nonzero(BUILT.index[:, 1] > BUILT.index[:, 0])[0]}
    assert filled == {kind.id for kind in BULK}
    for kind in BULK:
        rows = BUILT.index[kind.id * fastpath.VARIANTS : (kind.id + 1) * fastpath.VARIANTS]
        assert (rows[:, 1] > rows[:, 0]).all()


@pytest.mark.parametrize("kind", BULK, ids=lambda kind: kind.name)
def test_no_mark_is_left_in_a_literal(kind: events.EventType) -> None:
    for variant in range(fastpath.VARIANTS):
        text = literals(kind, variant)
        assert b"\xee\x80" not in text
        assert b"quoted" not in text
        assert b"@" not in text.replace(b'"@timestamp"', b"")
        assert b"7000000000000" not in text
        assert text.count(b"\n") == 1


@pytest.mark.parametrize("kind", BULK, ids=lambda kind: kind.name)
def test_variants_differ_by_what_they_say(kind: events.EventType) -> None:
    assert b'"error"' in literals(kind, fastpath.FAILED)
    assert b'"error"' not in literals(kind, 0)
    assert fastpath.OBJECT in codes(kind, 0)
    assert fastpath.OBJECT not in codes(kind, fastpath.UNNAMED)
    assert fastpath.TASK in codes(kind, 0)
    assert fastpath.TASK not in codes(kind, fastpath.NO_TASK)
    assert b'"creation"' in literals(kind, fastpath.CREATED)
    assert b'"creation"' not in literals(kind, fastpath.CREATED | fastpath.FAILED)
    assert b'"syscall"' in literals(kind, 0)
    assert b'"syscall"' not in literals(kind, fastpath.NO_CALL)
    assert b'"claimed":true' in literals(kind, fastpath.CLAIMED)


def test_operations_stay_inside_their_tables() -> None:
    assert set(BUILT.ops[:, 0]) <= set(range(fastpath.BASENAME + 1))
    assert BUILT.ops.shape[1] == fastpath.OPERATION
    for at, count in (BUILT.ops[:, 4:6].T, BUILT.tables.T):
        assert (at + np.maximum(count, 16) <= len(BUILT.literals)).all()
    words = BUILT.ops[BUILT.ops[:, 0] == fastpath.WORD][:, 1]
    assert (words > 0).all()
    assert (words * 8 < max(events.bulk_layout(kind).size for kind in BULK)).all()


def row(number: int) -> bytes:
    start, length = BUILT.tables[number]
    return BUILT.literals[start : start + length].tobytes()


def test_tables_hold_the_names_of_all_numbers() -> None:
    base = 0
    for number in range(1024):
        assert orjson.loads(row(base + number)) == encode.syscall(number & 511, bool(number & 512))
    base += 1024
    for number in range(256):
        assert orjson.loads(row(base + number)) == tables.operation_name(number)
    base += 256
    for number in range(1, 4096):
        assert orjson.loads(row(base + number)) == tables.errno_name(number)
    base += 4096
    assert [orjson.loads(row(base + number)) for number in range(len(events.CLOSE_REASONS))] == list(
        events.CLOSE_REASONS
    )
