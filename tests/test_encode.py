"""The plain encoder: order, outcome and rendering of a document, and one line for whatever the kernel says."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor import decode, describe, encode, events, fastpath, mirror, names, naming, tables
from monitor.encode import Names
from tests import fakes
from tests.fakes import BOOT_NS, ORIGIN, WALL_NS, spelled

NAME = st.binary(min_size=1, max_size=80).map(lambda name: name.replace(b"\0", b"")).filter(bool)
PATH = st.lists(NAME.map(lambda name: name.replace(b"/", b"")).filter(bool), min_size=1, max_size=4).map(
    lambda parts: b"/" + b"/".join(parts)
)


def line_of(raw: bytes) -> dict[str, Any]:
    """The document of a control record; it is one line of valid JSON."""
    record = decode.control(raw)
    found, task, extra = describe.control(record, fakes.tasks())
    text = encode.line(
        encode.document(ORIGIN, record.kind, record.values, WALL_NS, 42, names=found, task=task, extra=extra)
    )
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert not any(byte < 0x20 for byte in text[:-1])
    document: dict[str, Any] = orjson.loads(text)
    return document


def original(document: dict[str, Any], path: str) -> bytes:
    """The kernel's bytes of a shown name."""
    shown: Any = document
    for part in path.split("."):
        shown = shown[part]
    return names.original(shown, document["ebpf"].get("raw", {}).get(path.replace(".", "_")))


@given(
    executable=PATH,
    directory=PATH,
    args=st.lists(st.binary(max_size=40).map(lambda arg: arg.replace(b"\0", b"")), min_size=1, max_size=5),
    comm=NAME,
)
@example(executable=b"/memfd:x", directory=b"/a", args=[b"x"], comm=b"x")  # a real file of that name
def test_any_bytes_of_an_exec_come_back(executable: bytes, directory: bytes, args: list[bytes], comm: bytes) -> None:
    block = b"".join(arg + b"\0" for arg in args)
    blobs = {"executable": spelled(executable), "directory": spelled(directory), "args": block}
    found = line_of(fakes.control("process_exec", blobs, comm=comm[:16]))
    assert original(found, "process.executable") == original(found, "file.path") == executable
    assert original(found, "process.working_directory") == directory
    assert original(found, "process.thread.name") == comm[:16]
    assert names.original_list(found["process"]["args"], found["ebpf"].get("raw", {}).get("process_args")) == args
    assert found["process"]["args_count"] == len(args)


@given(name=NAME, other=NAME, base=PATH)
def test_any_bytes_of_a_rename_come_back(name: bytes, other: bytes, base: bytes) -> None:
    found = line_of(
        fakes.control("file_rename", {"name": name, "base": spelled(base), "name2": other, "base2": spelled(base)})
    )
    for path, given_name in (("file.Ext.original.path", name), ("file.path", other)):
        assert original(found, path) == (given_name if given_name.startswith(b"/") else base + b"/" + given_name)


@given(name=st.binary(min_size=1, max_size=108))
def test_any_unix_name_comes_back(name: bytes) -> None:
    blobs = {"address": fakes.sockaddr(name), "socket": fakes.socket_definition(family=1)}
    found = line_of(fakes.control("socket_connect", blobs, ret=-111))
    wanted = b"@" + name[1:] if name.startswith(b"\0") else name.split(b"\0")[0]
    assert original(found, "ebpf.socket.peer_path") == wanted


@given(
    address=st.binary(max_size=112),
    definition=st.binary(max_size=400),
    name=st.sampled_from(["socket_bind", "socket_connect", "socket_accept"]),
)
def test_any_address_gives_one_line_or_is_refused(address: bytes, definition: bytes, name: str) -> None:
    try:
        line_of(fakes.control(name, {"address": address, "socket": definition}))
    except decode.DecodeError:
        assert len(definition) < events.SOCKET_DEFINITION.size


@given(name=NAME, kind=st.sampled_from([kind.name for kind in events.EVENTS if kind.lane == "bulk"]))
def test_any_bytes_of_a_bulk_name_come_back_through_the_mirror(name: bytes, kind: str) -> None:
    path = b"/" + name.replace(b"/", b"")
    about = naming.file({"flags": 0, "ino": 1, "dev": 1, "mode": 0o100644}, spelled(path))
    kept = mirror.parse_object(mirror.object_fragment(about))
    record = decode.bulk(fakes.bulk(kind), 0)
    found = orjson.loads(
        encode.line(encode.document(ORIGIN, record.kind, record.values, WALL_NS, 1, names=kept, task={}))
    )
    assert names.original(found["file"]["path"], found["ebpf"].get("raw", {}).get("file_path")) == (
        path if path != b"/" else b"/"
    )


def plain(kind: str, **members: Any) -> dict[str, Any]:
    record = decode.bulk(fakes.bulk(kind, **members), 1)
    return encode.document(ORIGIN, record.kind, record.values, WALL_NS, 42, names=Names(), task={})


def test_a_failed_call_has_its_error_by_name_and_number() -> None:
    found = plain("file_read", ret=-13)
    assert (found["error"], found["ebpf"]["errno"], found["ebpf"]["ret"]) == ({"code": "EACCES"}, 13, -13)
    assert (found["event"]["outcome"], found["event"]["type"]) == ("failure", ["info"])


def test_an_open_that_created_is_a_creation_unless_it_failed() -> None:
    made, failed = plain("file_open", kf=events.CREATED), plain("file_open", kf=events.CREATED, ret=-17)
    assert (made["event"]["action"], made["event"]["type"]) == ("creation", ["creation"])
    assert (failed["event"]["action"], failed["event"]["type"]) == ("open", ["info"])


def test_what_does_not_apply_is_left_out() -> None:
    found = plain("file_close", nr=encode.NO_SYSCALL, fd=-1)
    assert not {"syscall", "fd", "errno", "raw"} & set(found["ebpf"])
    assert "error" not in found


def test_an_exit_has_no_outcome_of_a_call() -> None:
    found = line_of(fakes.control("process_exit", ret=-1, nr=encode.NO_SYSCALL, arg=256))
    assert found["event"]["outcome"] == "success"
    assert "error" not in found


def test_a_compat_call_is_named_by_its_own_table() -> None:
    assert (
        plain("file_open", nr=5, kf=events.COMPAT)["ebpf"]["syscall"] == tables.syscall_name(5, compat=True) == "open"
    )
    assert plain("file_open", nr=5)["ebpf"]["syscall"] == "fstat"


def test_made_documents_have_no_outcome_and_the_heartbeat_is_a_metric() -> None:
    beat = encode.made(ORIGIN, events.EVENT["monitor_heartbeat"], WALL_NS, BOOT_NS, 7, {"ledger": {"made": 1}})
    assert beat["event"]["kind"] == "metric"
    assert "outcome" not in beat["event"]
    assert beat["event"]["id"] == f"{fakes.HOST.agent_id}-{fakes.EPOCH}-000000000007"
    assert encode.made(ORIGIN, events.EVENT["monitor_stop"], WALL_NS, BOOT_NS, 7, {})["event"]["kind"] == "event"


@pytest.mark.parametrize(("value", "text"), [(8 << 20 | 1, "8:1"), (0, "0:0"), (0xFFFFFFFF, "4095:1048575")])
def test_device_is_major_and_minor_of_the_kernels_number(value: int, text: str) -> None:
    assert encode.device(value) == text


@pytest.mark.parametrize(("value", "text"), [(0o100644, "0644"), (0o104755, "4755"), (0, "0000")])
def test_mode_is_four_octal_digits(value: int, text: str) -> None:
    assert encode.mode(value) == text


def test_put_makes_the_objects_on_the_way() -> None:
    found: dict[str, Any] = {"a": {"x": 1}}
    encode.put(found, "a.b.c", 2)
    assert found == {"a": {"x": 1, "b": {"c": 2}}}


@given(st.integers(1, (1 << 48) - 1))
def test_the_id_ends_with_the_sequence(sequence: int) -> None:
    assert int(ORIGIN.event_id(sequence).rpartition("-")[2], 16) == sequence


def test_the_longest_compiled_line_fits_the_room_that_is_kept_for_one() -> None:
    # a relative claim: the base's path, the caller's name as path and as last name
    fixed = len(encode.line(plain("file_open", ret=-13, oflags=0o37777777))) + len(
        '"path_source":"caller","claimed":true,"file":{"path":"","name":""}'
    )
    assert fixed + fastpath.FILE_ROOM + fastpath.TASK_ROOM + 2 * 4096 <= fastpath.LINE_ROOM
