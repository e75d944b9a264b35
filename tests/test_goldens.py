"""One document per variant of each event, as checked-in files: what people and Elasticsearch see does not change unseen.

UPDATE_GOLDENS=1 writes the files anew; the diff is then to be read.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

import orjson
import pytest

from monitor import events, fields, generate
from monitor.model import SCHEMA
from tests import scenes
from tests.fakes import leaves

NAMES = sorted({**scenes.SCENES, **scenes.MADE, **scenes.FOUND, **scenes.HASHED})
FILES = sorted(path.name.removesuffix(".json") for path in generate.GOLDENS.glob("*.json"))
TOP = (
    "@timestamp",
    "ecs",
    "agent",
    "host",
    "tags",
    "labels",
    "event",
    "error",
    "ebpf",
    "file",
    "source",
    "destination",
    "network",
    "process",
    "user",
    "group",
    "container",
)
EVENT = ("kind", "module", "dataset", "category", "type", "action", "outcome", "id", "sequence")
EBPF = ("event", "schema", "timestamp_ns", "cpu", "syscall", "ret", "fd", "errno", "flags")
PROCESS = (
    "thread",
    "entity_id",
    "pid",
    "name",
    "executable",
    "args",
    "args_count",
    "command_line",
    "env_vars",
    "working_directory",
    "hash",
    "exit_code",
    "parent",
    "real_user",
    "real_group",
    "session_leader",
    "group_leader",
    "entry_leader",
    "tty",
    "interactive",
    "start",
)
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "keyword": (str,),
    "long": (int,),
    "boolean": (bool,),
    "ip": (str,),
    "date_nanos": (str,),
    "object": (dict,),
    "flattened": (dict,),
}


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((generate.GOLDENS / f"{name}.json").read_bytes())
    return found


def in_order(found: dict[str, Any], wanted: tuple[str, ...]) -> bool:
    known = [name for name in found if name in wanted]
    return known == [name for name in wanted if name in found]


@pytest.mark.parametrize("name", NAMES)
def test_golden_is_what_the_stages_write(name: str) -> None:
    path, line = generate.GOLDENS / f"{name}.json", scenes.line(name)
    shown = orjson.dumps(orjson.loads(line), option=orjson.OPT_INDENT_2) + b"\n"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shown)
    assert path.is_file(), "no such golden: UPDATE_GOLDENS=1 writes it"
    assert shown == path.read_bytes()


def test_every_golden_file_has_a_scene_and_every_event_a_golden() -> None:
    assert set(FILES) == set(NAMES)
    assert {name.split(".")[0] for name in NAMES} == set(events.EVENT)
    assert set(events.EVENT) <= set(NAMES), "the plain name of each event is the example of its reference"


@pytest.mark.parametrize("name", FILES)
class TestEachGolden:
    def test_keys_stand_in_the_order_of_the_format(self, name: str) -> None:
        found = golden(name)
        assert list(found) == [key for key in TOP if key in found], "an unknown section, or another order"
        assert list(found["event"]) == [key for key in EVENT if key in found["event"]]
        assert in_order(found["ebpf"], EBPF)
        assert list(found["ebpf"])[:3] == list(EBPF[:3])
        process = found.get("process", {})
        assert list(process) == [key for key in PROCESS if key in process]

    def test_nothing_is_null_or_empty(self, name: str) -> None:
        for path, value in leaves(golden(name)):
            assert value not in (None, "", [], {}), path

    def test_event_id_names_host_epoch_and_sequence(self, name: str) -> None:
        found = golden(name)
        host, epoch, sequence = found["event"]["id"].split("-")
        assert (host, len(epoch), len(sequence)) == (found["agent"]["id"], 16, 12)
        assert int(sequence, 16) == found["event"]["sequence"] > 0

    def test_names_its_event_and_schema(self, name: str) -> None:
        found, kind = golden(name), events.EVENT[name.split(".")[0]]
        assert found["ebpf"]["event"] == kind.name
        assert found["event"]["dataset"] == kind.dataset
        assert found["ebpf"]["schema"] == SCHEMA

    def test_failure_and_only_failure_has_an_error(self, name: str) -> None:
        found = golden(name)
        if found["event"].get("outcome") == "failure":
            assert found["ebpf"]["ret"] == -found["ebpf"]["errno"] < 0
            assert found["error"]["code"].startswith("E")
            assert found["event"]["type"] == list(events.EVENT[name.split(".")[0]].failure_types)
        else:
            assert "error" not in found
            assert "errno" not in found["ebpf"]

    def test_every_field_is_declared_for_its_event_with_this_type(self, name: str) -> None:
        found = golden(name)
        declared = fields.paths(events.EVENT[found["ebpf"]["event"]])
        for path, value in leaves(found):
            assert path in declared, path
            for one in value if isinstance(value, list) else [value]:
                assert type(one) in JSON_TYPES[declared[path]], path
                if declared[path] == "ip":
                    ipaddress.ip_address(one)


def test_every_mapped_field_is_written_by_some_golden() -> None:
    written = {path for name in FILES for path, _ in leaves(golden(name))}
    assert set(fields.all_paths()) - written == set()


def test_variants_that_the_format_promises_are_there() -> None:
    found = [golden(name) for name in FILES]

    def some(path: str, value: object) -> bool:
        return any((path, value) in [*leaves(one)] for one in found)

    assert {one["ebpf"]["close"]["reason"] for one in found if "close" in one["ebpf"]} == set(events.CLOSE_REASONS)
    assert some("event.action", "creation")
    assert some("network.type", "ipv6")
    assert some("ebpf.socket.family", "AF_UNIX")
    assert some("ebpf.claimed", True)
    assert some("ebpf.truncated", True)
    assert some("ebpf.quiet", True)
    assert some("ebpf.path_flags", ["deleted"])
    assert some("ebpf.in_progress", True)
    assert some("container.id", scenes.CONTAINER)
    assert any("raw" in one["ebpf"] for one in found)
