from __future__ import annotations

import base64
import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor import names

BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    # Near misses: escapes written out, cut multi-byte characters, line ends of every kind.
    st.lists(
        st.sampled_from(
            [b"a", b"/", b"\\x41", b"\\", b"\xff", b"\xc3", b"\xc3\xa9", b"\n", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8"]
        )
    ).map(b"".join),
)


def document(raw: bytes) -> tuple[str, str | None]:
    doc_raw: dict[str, str] = {}
    shown = names.put(doc_raw, "file.path", raw)
    return shown, doc_raw.get("file_path")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "a b", "jürgen", "\\x41", "日本語", "😀", "a\u00a0b", "\u202eevil", '"\\']
)
def test_clean_text_stands_as_it_is(name: str) -> None:
    assert names.text(name.encode()) == (name, True)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a\nb", r"a\x0ab"),
        (b"\x00", r"\x00"),
        (b"\x1b[31m", r"\x1b[31m"),
        (b"\x7f", r"\x7f"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"caf\xe9", r"caf\xe9"),
        (b"\xc3", r"\xc3"),
        ("\x85".encode(), r"\xc2\x85"),
        ("\u2028\u2029".encode(), r"\xe2\x80\xa8\xe2\x80\xa9"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate is not UTF-8
        (b"\xc0\xaf", r"\xc0\xaf"),  # nor is an overlong slash
        ("é\n".encode() + b"\xff", r"é\x0a\xff"),
        (b"\\x41\xff", r"\x41\xff"),
    ],
)
def test_each_offending_byte_is_escaped_and_marked(raw: bytes, shown: str) -> None:
    assert names.text(raw) == (shown, False)


@given(BYTES)
@example(b"\\xff")
@example(b"\xff")
def test_every_name_comes_back_byte_for_byte(raw: bytes) -> None:
    assert names.original(*document(raw)) == raw


@given(BYTES, BYTES)
@example(b"\xff", b"\\xff")
@example(b"a\n", b"a\\x0a")
@example("\x85".encode(), b"\\xc2\\x85")
def test_two_names_never_become_one_document(one: bytes, other: bytes) -> None:
    assert (document(one) == document(other)) == (one == other)


@given(BYTES)
def test_no_name_breaks_a_line_or_the_json(raw: bytes) -> None:
    shown, exact = names.text(raw)
    line = orjson.dumps({"file": {"path": shown}})
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {"file": {"path": shown}}
    assert exact == (shown.encode() == raw)


def test_raw_bytes_stand_under_the_path_with_underscores_only_when_needed() -> None:
    doc_raw: dict[str, str] = {}
    assert names.put(doc_raw, "process.name", b"sh") == "sh"
    assert doc_raw == {}
    assert names.put(doc_raw, "file.Ext.original.path", b"\xff") == r"\xff"
    assert doc_raw == {"file_Ext_original_path": base64.b64encode(b"\xff").decode()}


@given(st.lists(BYTES.map(lambda raw: raw.replace(b"\0", b"."))))
@example([])
@example([b""])
@example([b"\xff", b""])
def test_a_list_comes_back_element_for_element(raws: list[bytes]) -> None:
    doc_raw: dict[str, str] = {}
    shown = names.put_list(doc_raw, "process.args", raws)
    assert len(shown) == len(raws)
    assert names.original_list(shown, doc_raw.get("process_args")) == raws


def test_a_nul_inside_a_list_element_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        names.put_list({}, "process.args", [b"a\0b"])


@pytest.mark.parametrize("entry", ["???", "YQ", "Y Q=", "é"])
def test_raw_that_is_not_base64_is_refused(entry: str) -> None:
    with pytest.raises(names.RawNameError, match="base64"):
        names.original("a", entry)


def test_raw_of_a_list_without_its_end_is_refused() -> None:
    with pytest.raises(names.RawNameError, match="byte 1"):
        names.original_list(["a"], base64.b64encode(b"a").decode())


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/a/b", "b"),
        ("b", "b"),
        ("/a/b/", "b"),
        ("/a/b//", "b"),
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("/a", "a"),
        ("..", ".."),
    ],
)
def test_basename_is_that_of_posix_for_text_and_bytes(path: str, base: str) -> None:
    assert names.basename(path) == base
    assert names.basename(path.encode()) == base.encode()


@given(BYTES)
def test_basename_of_the_shown_path_is_the_shown_basename(raw: bytes) -> None:
    # A cut is always at a slash, which is part of no multi-byte character.
    assert names.basename(names.text(raw)[0]) == names.text(names.basename(raw))[0]
