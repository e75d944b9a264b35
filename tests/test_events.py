"""The catalogue makes sense: unique names and numbers, layouts without padding, words of ECS and of Elastic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitor import events, tables
from monitor.model import EventType, Field, Layout, Shown

ES_TYPES = {"keyword", "long", "boolean", "ip", "date_nanos", "object", "flattened"}
# ECS 9: allowed values of event.category and event.type, as far as they can be ours
CATEGORIES = {"host", "process", "file", "network", "configuration", "driver"}
TYPES = {"access", "change", "connection", "creation", "deletion", "end", "info", "start", "allowed", "denied"}
PROFILES = ("minimal", "standard", "full", "trace")

each_event = pytest.mark.parametrize("kind", events.EVENTS, ids=lambda kind: kind.name)
each_layout = pytest.mark.parametrize(
    "layout",
    [*events.LAYOUTS, *(events.bulk_layout(kind) for kind in events.EVENTS if kind.lane == "bulk")],
    ids=lambda layout: layout.name,
)


def test_names_numbers_and_kinds_of_blobs_are_unique() -> None:
    assert len(events.EVENT) == len(events.EVENT_BY_ID) == len(events.EVENTS)
    assert len({blob.kind for blob in events.BLOBS}) == len(events.BLOB) == len(events.BLOBS)
    assert len({layout.name for layout in events.LAYOUTS}) == len(events.LAYOUTS)


def test_numbers_of_events_are_not_those_of_definitions() -> None:
    definitions = (events.DEF_TASK, events.DEF_FILE, events.DEF_SOCKET, events.DEF_SESSION)
    assert max(definitions) < 16 <= min(events.EVENT_BY_ID)
    assert max(kind.id for kind in events.EVENTS if kind.lane == "bulk") < 64, (
        "the compiled pass has 64 rows of templates"
    )


@pytest.mark.parametrize("flags", [events.KF, events.FILE_FLAGS], ids=["kf", "file"])
def test_flags_are_single_bits(flags: dict[str, int]) -> None:
    assert all(value.bit_count() == 1 for value in flags.values())
    assert len(set(flags.values())) == len(flags)
    assert max(events.KF.values()) < 1 << 16


@each_layout
def test_layout_has_no_padding_and_is_whole_words(layout: Layout) -> None:
    offsets = layout.offsets()
    assert len(offsets) == len(layout.fields), "two members of one name"
    assert layout.struct.size == layout.size
    assert layout.size % 8 == 0
    assert events.WIDE == 1 << 14, "bpf/file.c shifts it into its place"


@each_event
def test_bulk_records_share_their_beginning(kind: EventType) -> None:
    if kind.lane != "bulk":
        assert kind.fields == (), "a control record has no members of its own"
        return
    layout = events.bulk_layout(kind)
    assert layout.fields[: len(events.BULK.fields)] == events.BULK.fields
    assert events.BULK.fields[:4] == events.RECORD.fields[:4]
    assert events.BULK.offsets()["seq"] == events.RECORD.offsets()["seq"], "what stands at its low half is a definition's too"
    assert layout.size % 8 == 0


@each_event
def test_name_is_object_and_verb_of_a_known_family(kind: EventType) -> None:
    assert re.fullmatch(r"(process|file|socket|kernel|monitor)_[a-z_]+", kind.name)
    assert (kind.lane == "made") == (kind.name.startswith("monitor") or kind.name in ("process_found", "process_hash"))
    assert kind.object == kind.name.split("_")[0] or kind.object == "" or kind.name in ("process_exec", "process_namespace", "kernel_io_uring_request")


@each_event
def test_words_are_those_of_ecs(kind: EventType) -> None:
    assert kind.category in CATEGORIES
    assert set(kind.types) <= TYPES
    assert set(kind.failure_types) <= TYPES
    assert re.fullmatch("[a-z_]+", kind.action)


@each_event
def test_event_is_documented(kind: EventType) -> None:
    assert kind.doc.endswith(".")
    assert kind.trigger
    assert kind.profiles
    assert kind.profiles == tuple(one for one in PROFILES if one in kind.profiles)
    if kind.lane != "made":
        assert kind.probe
        assert kind.edge
        assert all(call in tables.SYSCALL_NUMBERS or call in tables.COMPAT_SYSCALL_NUMBERS for call in kind.syscalls)
    for shown in kind.shown:
        assert shown.doc, shown.path
        assert not shown.doc.endswith("."), shown.path


@each_event
def test_blobs_are_declared(kind: EventType) -> None:
    assert set(kind.blobs) <= set(events.BLOB)


def test_blobs_have_numbers_of_their_own() -> None:
    assert len({blob.kind for blob in events.BLOBS}) == len(events.BLOBS) == len(events.BLOB)


def shown_members() -> list[Field | Shown]:
    found: list[Field | Shown] = [member for layout in events.LAYOUTS for member in layout.fields if member.path]
    for kind in events.EVENTS:
        found += [*(member for member in kind.fields if member.path), *kind.shown]
    return [*found, *events.COMMON, *events.KERNEL_SHOWN, *events.TASK_SHOWN, *events.FILE_SHOWN, *events.SOCKET_SHOWN]


def test_paths_are_dotted_names_with_a_type_and_a_meaning() -> None:
    for member in shown_members():
        assert re.fullmatch(r"@timestamp|tags|labels|[a-z_]+(\.[A-Za-z0-9_]+)+", member.path), member
        assert member.es in ES_TYPES, member
        assert member.doc, member


def test_close_reasons_are_numbered_as_in_the_programs(repository: Path) -> None:
    text = (repository / "bpf" / "common.h").read_text()
    match = re.search(r"enum \{ (WHY_[A-Z_, ]+) \}", text)
    assert match
    assert match[1].split(", ") == [f"WHY_{reason.upper()}" for reason in events.CLOSE_REASONS]


def test_the_minimal_profile_keeps_processes_and_connections() -> None:
    kept = {kind.name for kind in events.EVENTS if "minimal" in kind.profiles and kind.lane != "made"}
    processes = {kind.name for kind in events.EVENTS if kind.name.startswith(("process_", "kernel_"))} - {
        "process_found",
        "process_hash",
    }
    assert kept == processes | {"socket_listen", "socket_connect", "socket_accept"}
