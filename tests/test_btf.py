"""Btf answers from the bytes alone: a small BTF is written here word by word, of every kind the kernel documents."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.kernel import btf
from monitor.kernel.btf import BitField, Btf, BtfError

HEADER = 24


class Writer:
    """Collects types in the kernel's layout; each method returns the new type's number."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str | int, last: int, words: tuple[int, ...] = (), vlen: int = 0, flag: int = 0
    ) -> int:
        offset = name if isinstance(name, int) else self.name(name)
        self.types += struct.pack(f"<{3 + len(words)}I", offset, flag << 31 | kind << 24 | vlen, last, *words)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, bits: int | None = None, shift: int = 0) -> int:
        return self.add(btf.INT, name, size, ((8 * size if bits is None else bits) | shift << 16,))

    def composite(
        self, name: str | int, size: int, members: list[tuple[str, int, int]], kind: int = btf.STRUCT, flag: int = 0
    ) -> int:
        words = tuple(word for label, type_id, place in members for word in (self.name(label), type_id, place))
        return self.add(kind, name, size, words, len(members), flag)

    def bytes(self) -> bytes:
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, HEADER, 0, len(self.types), len(self.types), len(self.strings))
        return header + self.types + self.strings


def sample() -> bytes:
    """task, dentry and friends: all 19 kinds, nested, anonymous, flagged and not."""
    w = Writer()
    u32 = w.integer("unsigned int", 4)  # 1
    u64 = w.integer("unsigned long", 8)  # 2
    ro = w.add(btf.CONST, "", u32)  # 3
    alias = w.add(btf.TYPEDEF, "pid_t", w.add(btf.VOLATILE, "", ro))  # 4, 5
    text = w.add(btf.ARRAY, "", 0, (u32, u32, 4))  # 6
    pointer = w.add(btf.PTR, "", w.count + 2)  # 7 -> inner
    inner = w.composite("inner", 16, [("a", u64, 0), ("b", alias, 64)])
    anonymous = w.composite("", 8, [("left", u32, 0), ("right", u64, 0)], kind=btf.UNION)
    wrapped = w.composite("", 24, [("", anonymous, 0), ("deep", w.count, 64)])
    w.composite("outer", 64, [
        ("first", pointer, 0), ("comm", text, 64), ("", wrapped, 192), ("inner", inner, 384),
    ])  # fmt: skip
    w.composite("flagged", 8, [("plain", u32, 0), ("flag", u32, 1 << 24 | 35), ("wide", u32, 3 << 24 | 36)], flag=1)
    narrow = w.integer("narrow", 4, bits=5, shift=2)
    w.composite("unflagged", 8, [("plain", u32, 0), ("old", narrow, 32)])
    w.add(btf.TYPEDEF, "outer_t", w.add(btf.TYPE_TAG, "user", w.add(btf.RESTRICT, "", w.count - 3)))
    w.add(btf.FWD, "elsewhere", 0)
    w.add(btf.ENUM, "signs", 4, (w.name("MINUS"), 0xFFFFFFFF, w.name("PLUS"), 7), 2, 1)
    w.add(btf.ENUM, "", 4, (w.name("PLAIN"), 0xFFFFFFFF), 1)
    w.add(btf.ENUM64, "wide", 8, (w.name("BIG"), 1, 2, w.name("LOW"), 0xFFFFFFFE, 0xFFFFFFFF), 2, 1)
    proto = w.add(btf.FUNC_PROTO, "", u32, (w.name("x"), u32), 1)
    w.add(btf.FUNC, "bpf_cast", proto)
    variable = w.add(btf.VAR, "jiffies", u64, (1,))
    w.add(btf.DATASEC, ".data", 8, (variable, 0, 8), 1)
    w.add(btf.FLOAT, "double", 8)
    w.add(btf.DECL_TAG, "tag", inner, (0xFFFFFFFF,))
    w.add(btf.TYPEDEF, "btf_trace_sys_exit", pointer)
    w.composite("outer", 1, [])
    return w.bytes()


@pytest.fixture(scope="module")
def types() -> Btf:
    return Btf(sample())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("first", 0), ("comm", 8), ("left", 24), ("right", 24), ("deep.right", 32), ("deep.left", 32),
        ("inner", 48), ("inner.a", 48), ("inner.b", 56),
    ],
)  # fmt: skip
def test_members_are_found_also_in_anonymous_and_nested_ones(types: Btf, path: str, expected: int) -> None:
    assert types.offset("outer", path) == expected


def test_a_typedef_stands_for_its_struct(types: Btf) -> None:
    assert types.offset("outer_t", "inner.b") == 56
    assert types.size("outer_t") == 64


@pytest.mark.parametrize("path", ["", "nothing", "inner.nothing", "first.a", "comm.a", "inner.a.b", "inner."])
def test_what_is_no_member_has_no_offset_and_pointers_are_not_followed(types: Btf, path: str) -> None:
    assert types.offset("outer", path) is None
    assert types.bitfield("outer", path) is None


def test_a_missing_struct_has_no_offset_and_no_size(types: Btf) -> None:
    assert types.offset("elsewhere", "a") is None
    assert types.size("elsewhere") is None


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("flagged", "flag", (4, 3, 1)), ("flagged", "wide", (4, 4, 3)), ("flagged", "plain", (0, 0, 32)),
        ("unflagged", "old", (4, 2, 5)), ("outer", "comm", (8, 0, 128)), ("outer", "first", (0, 0, 64)),
        ("outer", "inner.b", (56, 0, 32)),
    ],
)  # fmt: skip
def test_bitfield_tells_byte_bit_and_width_in_both_encodings(
    types: Btf, name: str, path: str, expected: tuple[int, int, int]
) -> None:
    assert types.bitfield(name, path) == BitField(*expected)


@pytest.mark.parametrize(("name", "path"), [("flagged", "flag"), ("unflagged", "old")])
def test_a_bitfield_has_no_byte_offset(types: Btf, name: str, path: str) -> None:
    with pytest.raises(BtfError, match=rf"{name}\.{path} is a bit-field"):
        types.offset(name, path)


def test_the_first_of_equal_names_counts(types: Btf) -> None:
    assert types.size("outer") == 64


def test_a_name_is_looked_up_by_kind(types: Btf) -> None:
    assert types.type_id("inner") == 8
    assert types.type_id("inner", btf.UNION) is None
    assert types.func_id("bpf_cast") is not None
    assert types.func_id("inner") is None
    assert types.type_id("btf_trace_sys_exit", btf.TYPEDEF) == types.typedef_id("btf_trace_sys_exit") is not None
    assert types.type_id("") is None


def test_a_name_that_ends_another_name_is_told_apart() -> None:
    w = Writer()
    w.composite("my_task", 4, [])
    assert Btf(w.bytes()).type_id("task") is None
    w.composite(w.strings.index(b"task\0"), 8, [])  # a writer that shares the ends of strings
    assert Btf(w.bytes()).size("task") == 8
    assert Btf(w.bytes()).size("my_task") == 4


@pytest.mark.parametrize(
    ("enum", "value", "expected"),
    [
        ("signs", "MINUS", -1), ("signs", "PLUS", 7), (None, "PLAIN", 0xFFFFFFFF), (None, "BIG", 2 << 32 | 1),
        ("wide", "LOW", -2), ("signs", "BIG", None), (None, "NONE", None), ("nothing", "PLUS", None),
    ],
)  # fmt: skip
def test_enumerators_have_their_sign_and_width(types: Btf, enum: str | None, value: str, expected: int | None) -> None:
    assert types.enum_value(enum, value) == expected


def test_a_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.write_bytes(sample())
    cut.write_bytes(sample()[:-1])
    assert Btf(whole).size("inner") == 16
    with pytest.raises(BtfError, match=f"^{cut}: byte 16: string section"):
        Btf(cut)


def test_every_truncation_is_refused() -> None:
    whole = sample()
    for length in range(len(whole)):
        with pytest.raises(BtfError) as error:
            Btf(whole[:length])
        assert error.value.byte is not None


@pytest.mark.parametrize(
    ("at", "layout", "value", "byte", "message"),
    [
        (0, "<H", 0x9FEB, 0, "magic"),
        (2, "B", 2, 2, "version 2"),
        (4, "<I", 1 << 20, 4, "header length"),
        (12, "<I", 1 << 20, 8, "type section"),
        (20, "<I", 1 << 20, 16, "string section"),
        (HEADER + 4, "<I", 20 << 24, HEADER + 4, "kind 20"),
        (HEADER + 4, "<I", 0, HEADER + 4, "kind 0"),
        (HEADER, "<I", 1 << 20, HEADER, "outside the string section"),
        (HEADER + 4, "<I", btf.STRUCT << 24 | 0xFFFF, HEADER, "cut off"),
    ],
)
def test_a_wrong_word_is_named_by_its_byte(at: int, layout: str, value: int, byte: int, message: str) -> None:
    raw = bytearray(sample())
    struct.pack_into(layout, raw, at, value)
    with pytest.raises(BtfError, match=message) as error:
        Btf(bytes(raw))
    assert error.value.byte == byte
    assert f"byte {byte}:" in str(error.value)


def test_a_typedef_of_itself_and_a_missing_type_are_named_by_their_byte() -> None:
    w = Writer()
    w.add(btf.TYPEDEF, "circle", 1)
    w.add(btf.TYPEDEF, "nowhere", 99)
    w.composite("", 8, [("", 3, 0)])
    w.add(btf.TYPEDEF, "nested", 3)
    types = Btf(w.bytes())
    with pytest.raises(BtfError, match="refers to itself") as error:
        types.size("circle")
    assert error.value.byte == HEADER + 8
    with pytest.raises(BtfError, match="type 99 does not exist") as error:
        types.offset("nowhere", "a")
    assert error.value.byte == HEADER + 12 + 8
    with pytest.raises(BtfError, match="contains itself"):
        types.offset("nested", "a")


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(sample()) - 1), st.integers(0, 255))
def test_any_changed_byte_gives_an_answer_or_a_btf_error(at: int, value: int) -> None:
    raw = bytearray(sample())
    raw[at] = value
    places: list[int | None] = []

    def ask() -> None:
        types = Btf(bytes(raw))
        for name in ("outer", "outer_t", "flagged", "unflagged", "inner"):
            types.size(name)
            for path in ("inner.b", "deep.right", "comm", "flag", "old", "first"):
                found = types.bitfield(name, path)
                assert found is None or (0 <= found.bit < 8 and found.byte >= 0)
        types.enum_value(None, "BIG")
        types.func_id("bpf_cast")

    try:
        ask()
    except BtfError as error:
        places.append(error.byte)
    assert all(place is None or 0 <= place <= len(raw) for place in places)
