"""What a person sees of an event: each golden document, hostile names, narrow terminals, garbage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import compact, parts
from monitor.compact import Compact, cut, neutral, width
from tests import loglines

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.json"))
HOSTILE = [
    "\x1b[2J",
    "\r",
    "\n",
    "\x07",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u2028",
    "\u200b",
    "\ufeff",
    "\u00a0",
    "\U000e0041",
]


@pytest.fixture(autouse=True)
def _utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    compact._local.cache_clear()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()
    compact._local.cache_clear()


def shown(line: bytes, columns: int | None = None, colour: bool = False) -> str:
    """The event's own line, without the one that names its day."""
    return Compact(columns=columns, colour=colour).raw(line).splitlines()[-1]


def test_goldens_are_there() -> None:
    assert GOLDENS


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_each_golden_document_is_one_line_with_its_time_event_and_object(path: Path) -> None:
    document = orjson.loads(path.read_bytes())
    text = Compact().document(document)
    assert text.endswith("\n")
    row = text.splitlines()[-1]
    assert row.replace("*** ", "").startswith("16:52:0")
    assert f"  {document['ebpf']['event']}" in row
    assert row.isprintable()
    if "error" in document:
        assert f" {document['error']['code']} " in row
    if "path" in document.get("file", {}) and document["ebpf"]["event"] not in ("process_exec", "process_found"):
        assert document["file"]["path"] in row


def whole(line: bytes) -> str:
    """What is shown of a line that is read as one."""
    try:
        return Compact().document(orjson.loads(line))
    except orjson.JSONDecodeError:
        return Compact().raw(b"[" + line)[:16]


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_a_line_read_in_parts_is_shown_as_the_line_read_as_one(path: Path) -> None:
    line = orjson.dumps(orjson.loads(path.read_bytes()))
    for _ in range(2):  # what was seen before is not read again
        assert Compact().raw(line) == whole(line)


def test_a_line_that_lacks_a_byte_is_no_document_whichever_byte_it_is() -> None:
    line = loglines.line(2, ret=-13, path='/tmp/,"process":{"pid":4}').rstrip(b"\n")
    assert parts.read(line) is not None
    for at in range(len(line)):
        for broken in (
            line[:at] + line[at + 1 :],
            line[:at],
            line[:at] + b'"' + line[at:],
            line[:at] + b"}" + line[at:],
        ):
            if broken:
                assert Compact().raw(broken).startswith(whole(broken)), broken


def test_columns_stand_below_each_other() -> None:
    one = shown(loglines.line(2, path="/a"))
    other = shown(
        loglines.line(3, "file_delete", "/a", ret=-13, who=loglines.task(4194303, "systemd-logind", ("33", "www-data")))
    )
    assert one.index("/a") == other.index("/a")
    assert one == "16:52:01.124  file_open       ok         100 cat             root     /a  O_RDONLY"
    assert other == "16:52:01.125  file_delete     EACCES 4194303 systemd-logind  www-data /a"


def test_time_is_local() -> None:
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()
    compact._local.cache_clear()
    assert shown(loglines.line(2)).startswith("22:22:01.124  ")


def test_another_day_is_named_once_before_its_first_event() -> None:
    view, billion = Compact(), 10**9 * loglines.SECOND_NS
    rows = (view.raw(loglines.line(2, time_ns=billion)) + view.raw(loglines.line(3, time_ns=billion + 1))).splitlines()
    assert rows[0] == "-- Sunday 2001-09-09 --"
    assert len(rows) == 3
    later = view.raw(loglines.line(4, time_ns=billion + 86_400 * loglines.SECOND_NS)).splitlines()
    assert later[0] == "-- Monday 2001-09-10 --"


@pytest.mark.parametrize("name", HOSTILE, ids=lambda text: f"U+{ord(text[0]):04X}")
def test_no_name_moves_the_cursor_or_reverses_the_line(name: str) -> None:
    row = shown(
        loglines.line(2, path=f"/tmp/a{name}b", who=loglines.task(name=f"c{name}", user=("1000", f"eve{name}")))
    )
    assert row.isprintable()
    assert f"/tmp/a{neutral(name)}b" in row


def test_escape_of_the_display_differs_from_the_escape_of_the_log() -> None:
    assert neutral("\u202e/\\xff") == "\\u202e/\\xff"
    assert neutral("\U000e0041") == "\\U000e0041"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_becomes_printable_and_clean_text_stays(text: str) -> None:
    found = neutral(text)
    assert found.isprintable()
    assert (found == text) == text.isprintable()


def test_path_is_whole_where_there_is_no_terminal() -> None:
    path = "/" + "x" * 4000
    assert path in shown(loglines.line(2, path=path))


def test_a_file_without_a_name_is_shown_by_its_descriptor() -> None:
    assert shown(loglines.line(2, "file_close", None, ret=0, fd=4)).endswith(" descriptor 4")
    assert shown(loglines.line(2, "file_close", "/a", ret=0, fd=4)).endswith(" /a")


def test_path_loses_its_middle_on_a_narrow_terminal() -> None:
    path = "/usr/share/" + "x" * 200 + "/important.conf"
    row = shown(loglines.line(2, path=path), columns=120)
    assert len(row) == 120
    assert "/usr/share/" in row
    assert "important.conf" in row
    assert "…" in row
    assert row.endswith("O_RDONLY")


def test_path_that_fits_is_not_cut() -> None:
    assert "…" not in shown(loglines.line(2, path="/etc/passwd"), columns=120)


@given(
    st.text(
        st.characters(min_codepoint=32, max_codepoint=0x30FF, exclude_categories=["Cc", "Cf", "Cs", "Cn", "Zl", "Zp"])
    ),
    st.integers(1, 40),
)
def test_cut_text_fits(text: str, columns: int) -> None:
    assert width(cut(text, columns)) <= columns
    if width(text) <= columns:
        assert cut(text, columns) == text


def test_wide_characters_count_twice() -> None:
    assert width("漢字") == 4
    assert width("e\u0301") == 1


def test_loss_stands_out_with_and_without_colour() -> None:
    loss = {"loss": {"class": "file", "cpu": 1, "count": 17, "first": 5, "last": 21, "reason": "ring_full"}}
    assert shown(loglines.made(2, "monitor_loss", loss)).startswith(
        "*** 16:52:01.124  monitor_loss    LOST 17 file events (ring_full)"
    )
    assert shown(loglines.made(2, "monitor_loss", loss), colour=True).startswith("\x1b[1;37;41m")


def test_a_bound_is_said_with_its_direction() -> None:
    loss = {"class": "unknown", "cpu": 0, "count": 17, "exact": False}
    assert "LOST at least 17 unknown" in shown(loglines.made(2, "monitor_loss", {"loss": loss | {"reason": "expired"}}))
    assert "LOST at most 17 unknown" in shown(loglines.made(2, "monitor_loss", {"loss": loss | {"reason": "layout"}}))


def test_degraded_detail_is_not_called_a_loss() -> None:
    loss = {"loss": {"class": "file", "cpu": 1, "count": 0, "first": 5, "last": 5, "reason": "degraded"}}
    row = shown(loglines.made(2, "monitor_loss", loss))
    assert "LOST" not in row
    assert "nothing lost" in row


def test_no_colour_means_no_escape() -> None:
    assert "\x1b" not in Compact().raw(loglines.line(2, ret=-2))
    assert "\x1b[31mENOENT" in shown(loglines.line(2, ret=-2), colour=True)


def test_arguments_are_shown_as_a_shell_would_take_them() -> None:
    who = loglines.task(name="dash", args=["sh", "-c", "rm -rf 'x y'"], working_directory="/srv")
    row = shown(loglines.line(2, "process_exec", "/usr/bin/dash", ret=0, who=who))
    assert """sh -c 'rm -rf '"'"'x y'"'"''  /usr/bin/dash in /srv""" in row


def test_claimed_name_of_a_success_is_marked_and_of_a_failure_goes_without_saying() -> None:
    assert shown(loglines.line(2, "file_delete", "/x", ret=0, ebpf={"claimed": True})).endswith("/x  (claimed)")
    assert "claimed" not in shown(loglines.line(2, "file_delete", "/x", ret=-2, ebpf={"claimed": True}))


def test_both_ends_of_a_connection_and_ipv6_in_brackets() -> None:
    ends = {
        "source": {"ip": "::1", "port": 40000},
        "destination": {"ip": "2001:db8::7", "port": 443},
        "network": {"transport": "tcp"},
    }
    row = shown(loglines.line(2, "socket_connect", None, ret=0, sections=ends))
    assert "[::1]:40000 -> [2001:db8::7]:443  tcp" in row


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"42",
    b'"x"',
    b"\xff\xfe",
    b"{}",
    b'{"@timestamp":5}',
    b'{"@timestamp":"2026-99-99T00:00:00.1Z"}',
    b'{"ebpf":[],"file":"x","process":7,"user":null}',
    b'{"ebpf":{"event":"file_open"},"process":{"thread":[],"pid":{}}}',
    b'{"ebpf":{"event":"process_exec"},"process":{"args":[1,{}]}}',
    b'{"ebpf":{"event":"monitor_loss","loss":3}}',
    b'{"ebpf":{"event":"monitor_heartbeat","ledger":{"refused":{"x":"y"}}}}',
    b'{"ebpf":{"event":"file_close","read":{"count":[]}}}',
    b'{"@timestamp":"2026-11-22T16:52:01.x\\u0000yZ","ebpf":{"event":"\\u001b[2J"}}',
]


@pytest.mark.parametrize("raw", GARBAGE)
def test_garbage_is_one_printable_line(raw: bytes) -> None:
    text = Compact().raw(raw)
    assert text.endswith("\n")
    assert all(row.isprintable() for row in text.splitlines())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["event", "path", "loss", "read", "count", "args", "id", "name", "thread", "signal", "code", "socket"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["@timestamp", "ebpf", "event", "process", "user", "file", "error", "source", "network"]), _JSON
    ),
    st.sampled_from([None, 20, 100]),
    st.booleans(),
)
def test_any_object_is_rendered_without_an_exception(
    document: dict[str, object], columns: int | None, colour: bool
) -> None:
    assert Compact(columns=columns, colour=colour).document(document).endswith("\n")
