"""Bytes of records: what the layouts say comes out, everything else is a DecodeError and nothing but that."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import decode, describe, events
from monitor.decode import DecodeError
from tests import fakes
from tests.fakes import facts, spelled

BULK = [kind.name for kind in events.EVENTS if kind.lane == "bulk"]
CONTROL = [kind.name for kind in events.EVENTS if kind.lane == "control"]
TYPES = [*events.EVENT_BY_ID, events.DEF_TASK, events.DEF_FILE, events.DEF_SOCKET, events.DEF_SESSION, 0, 65535]


@pytest.mark.parametrize("name", CONTROL)
def test_control_record_gives_its_members_and_blobs(name: str) -> None:
    blobs = {"executable": spelled(b"/usr/bin/x"), "name": b"odd \xff length", "args": b""}
    record = decode.control(fakes.control(name, blobs, ret=-13, cpu=3, seq=1 << 40, ts=(1 << 63) - 1, tgid=7))
    assert record.kind.name == name
    assert record.blobs == blobs
    assert (record.values["ret"], record.values["tgid"]) == (-13, 7)
    assert record.order == ((1 << 63) - 1, 3, 1 << 40)


@pytest.mark.parametrize("name", BULK)
def test_bulk_record_gives_its_members_and_tail(name: str) -> None:
    closes = name.endswith("_close")
    record = decode.bulk(fakes.bulk(name, b"" if closes else b"tail", ret=-(1 << 31), key=(1 << 64) - 1, fd=-1), 5)
    values = record.values
    assert record.kind.name == name
    assert (values["ret"], values["key"], values["fd"], values["cpu"]) == (-(1 << 31), 0 if closes else -1, -1, 5)
    assert record.blobs["tail"].startswith(b"" if closes else b"tail")


@pytest.mark.parametrize("ret", [1 << 31, (1 << 32) + 5, (1 << 40) - 1, -(1 << 31) - 1, 7])
@pytest.mark.parametrize("kf", [0, events.BEGIN, events.ADDRESS])
def test_a_return_value_that_needs_more_than_its_word_is_whole(ret: int, kf: int) -> None:
    raw = fakes.bulk("socket_send", b"address" if kf & events.ADDRESS else b"", ret=ret, kf=kf, extra=7 if kf & events.ADDRESS else 0)
    record = decode.bulk(raw, 0)
    assert record.values["ret"] == ret
    assert record.values["extra"] & 0xFFFFFFFF == (7 if kf & events.ADDRESS else 0)


@pytest.mark.parametrize(("kf", "size"), [(0, 40), (events.BEGIN, 56), (events.WIDE, 56), (events.ADDRESS, 56), (events.UNNAMED, 56)])
def test_a_record_without_what_its_flags_say_is_refused(kf: int, size: int) -> None:
    whole = events.bulk_layout(events.EVENT["file_read"]).struct.pack(33, size // 8, 1, 2, 3, 4, 5, 6, 7, kf, 8, 9, 0)
    assert decode.bulk(whole[:size], 0).values["tid"] == 1
    with pytest.raises(decode.DecodeError):
        decode.bulk(whole[: size - 8], 0)


def test_definitions_give_their_members_and_tail() -> None:
    number, values, tail = decode.definition(fakes.file_definition(1 << 63, spelled(b"/a/b"), ino=9))
    assert (number, values["key"], values["ino"], tail[: values["bytes"]]) == (
        events.DEF_FILE,
        -(1 << 63),
        9,
        b"b\0a\0",
    )
    number, values, tail = decode.definition(fakes.task_definition(facts(tid=8), b"/x"))
    assert (number, decode.task_facts(values)["tid"], tail[: values["cgroup_bytes"]]) == (events.DEF_TASK, 8, b"x\0")
    number, values, tail = decode.definition(fakes.socket_definition(3, b"/s", b"/t"))
    assert (number, values["local_bytes"], tail[:4]) == (events.DEF_SOCKET, 2, b"/s/t")


@given(st.integers(0, (1 << 64) - 1))
def test_signed_keys_are_the_same_bits(key: int) -> None:
    assert struct.pack("<q", decode.signed(key)) == struct.pack("<Q", key)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        bytes(events.CONTROL.size),
        fakes.control("process_exit")[:-1],
        fakes.control("process_exit", length=12),
        fakes.control("process_exit", length=1 << 31),
        fakes.control("process_exit", type=999),
        fakes.control("process_exit", type=events.EVENT["file_read"].id),
        fakes.control("process_exit") + b"\1\0\0\0",
        fakes.control("process_exit", length=events.CONTROL.size + 4) + bytes(4),
        fakes.control("process_exit", length=events.CONTROL.size + 16) + struct.pack("<IIQ", 99, 8, 0),
        fakes.control("process_exit", length=events.CONTROL.size + 16) + struct.pack("<IIQ", 1, 9, 0),
        fakes.control("process_exit", length=events.CONTROL.size + 16) + struct.pack("<IIQ", 1, 0xFFFFFFFF, 0),
    ],
    ids=lambda raw: f"{len(raw)}_bytes",
)
def test_impossible_control_record_is_refused(raw: bytes) -> None:
    if raw[:-4] == fakes.control("process_exit"):  # bytes behind the length are the ring's
        assert decode.control(raw).blobs == {}
        return
    with pytest.raises(DecodeError):
        decode.control(raw)


@given(st.binary(max_size=600), st.sampled_from(TYPES), st.booleans())
def test_garbage_is_a_decode_error_and_nothing_else(raw: bytes, number: int, with_type: bool) -> None:
    if with_type:
        raw = struct.pack("<IH", len(raw), number) + raw[6:]
    with contextlib.suppress(DecodeError):
        decode.control(raw)
    if with_type:
        raw = struct.pack("<H", number) + raw[2:]
    for read in (decode.definition, lambda data: decode.bulk(data, 0), decode.socket_blob):
        with contextlib.suppress(DecodeError):
            read(raw)


@given(
    st.binary(max_size=200),
    st.sampled_from([kind.id for kind in events.EVENTS if kind.lane == "control"]),
    st.binary(max_size=300),
)
def test_garbage_in_members_and_blobs_is_described_or_refused(head: bytes, number: int, tail: bytes) -> None:
    raw = bytearray(events.CONTROL.size) + tail
    raw[: len(head)] = head[: events.CONTROL.size]
    raw[:6] = struct.pack("<IH", len(raw), number)
    try:
        record = decode.control(bytes(raw))
    except DecodeError:
        return
    with contextlib.suppress(DecodeError):
        describe.control(record, fakes.tasks())


def test_error_names_the_record_and_the_byte() -> None:
    raw = fakes.control("file_delete", length=events.CONTROL.size + 16) + struct.pack("<IIQ", 99, 8, 0)
    with pytest.raises(DecodeError, match=rf"file_delete: blob 99 of 8 bytes at byte {events.CONTROL.size}"):
        decode.control(raw)
