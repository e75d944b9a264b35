"""What each kind of record says beyond its members: blobs, signals, claims."""

from __future__ import annotations

from typing import Any

import pytest

from monitor import decode, describe, events
from monitor.encode import Document, Names
from tests import fakes
from tests.fakes import sockaddr, socket_definition, spelled


def control(name: str, blobs: dict[str, bytes] | None = None, **members: Any) -> tuple[Names, Document, Document]:
    return describe.control(decode.control(fakes.control(name, blobs or {}, **members)), fakes.tasks())


@pytest.mark.parametrize(
    ("status", "process", "signal"),
    [
        (0, {"exit_code": 0}, None),
        (3 << 8, {"exit_code": 3}, None),
        (255 << 8, {"exit_code": 255}, None),
        (9, {}, {"number": 9, "name": "SIGKILL"}),
        (11 | 128, {}, {"number": 11, "name": "SIGSEGV"}),
    ],
)
def test_exit_has_a_code_or_a_signal(status: int, process: Document, signal: Document | None) -> None:
    _, task, extra = control("process_exit", arg=status)
    assert {key: value for key, value in task["process"].items() if key == "exit_code"} == process
    assert extra.get("signal") == signal


def test_exec_names_the_program_by_the_kernels_file() -> None:
    found, task, _ = control(
        "process_exec", {"executable": spelled(b"/usr/bin/x"), "name": b"claimed"}, ino=5, dev=1, mode=0o104755
    )
    assert found.sections["file"] == {
        "path": "/usr/bin/x",
        "name": "x",
        "inode": "5",
        "device": "0:1",
        "mode": "4755",
        "type": "file",
    }
    assert found.ebpf == {"path_source": "file"}
    assert task["process"]["executable"] == "/usr/bin/x"


def test_failed_exec_names_what_the_caller_gave_and_keeps_the_old_program() -> None:
    found, task, _ = control(
        "process_exec", {"executable": spelled(b"/bin/sh"), "name": b"x", "base": spelled(b"/opt")}, ret=-2
    )
    assert found.sections["file"] == {"path": "/opt/x", "name": "x"}
    assert found.ebpf == {"path_source": "caller", "claimed": True}
    assert task["process"]["executable"] == "/bin/sh"


def test_truncated_arguments_say_how_long_they_were() -> None:
    _, _, extra = control("process_exec", {"args": b"a\0b"}, kf=events.TRUNCATED, original=99_999)
    assert (extra["truncated"], extra["original_bytes"]) == (True, 99_999)


def test_rename_keeps_the_earlier_name_beside_the_new_one() -> None:
    found, _, _ = control(
        "file_rename", {"name": b"old", "base": spelled(b"/a"), "name2": b"new", "base2": spelled(b"/b")}
    )
    assert found.sections["file"] == {"path": "/b/new", "name": "new", "Ext": {"original": {"path": "/a/old"}}}


def test_a_name_whose_base_is_unknown_stands_as_given() -> None:
    found, _, _ = control("file_delete", {"name": b"sub/x"})
    assert found.sections["file"]["path"] == "sub/x"
    assert found.ebpf["claimed"] is True


def test_a_call_in_progress_says_so() -> None:
    blobs = {"address": sockaddr("192.0.2.1", 80), "socket": socket_definition()}
    assert control("socket_connect", blobs, ret=-115)[2].get("in_progress") is True
    assert "in_progress" not in control("socket_connect", blobs, ret=-111)[2]


def test_failed_connect_still_has_its_destination() -> None:
    found, _, _ = control("socket_connect", {"address": sockaddr("2001:db8::1", 80)}, ret=-111)
    assert found.sections["destination"] == {"ip": "2001:db8::1", "port": 80}
    assert found.ebpf["claimed"] is True


@pytest.mark.parametrize(
    ("name", "direction"), [("socket_connect", "egress"), ("socket_accept", "ingress"), ("socket_listen", None)]
)
def test_direction_is_that_of_the_connection(name: str, direction: str | None) -> None:
    assert control(name, {"socket": socket_definition()})[0].sections["network"].get("direction") == direction


@pytest.mark.parametrize("name", ["socket_send", "socket_receive"])
def test_the_address_of_a_message_is_the_far_end(name: str) -> None:
    address = sockaddr("192.0.2.9", 53)
    record = decode.bulk(fakes.bulk(name, address, kf=events.ADDRESS, extra=len(address)), 0)
    found = describe.bulk_claim(record, None)
    assert found.sections == {"destination": {"ip": "192.0.2.9", "port": 53}}
    assert found.ebpf["claimed"] is True


def test_a_claim_starts_from_its_base_with_the_bases_exact_bytes() -> None:
    base = describe.definition_names(*decode.definition(fakes.file_definition(1, spelled(b"/srv/\xff")))[0:3])
    record = decode.bulk(fakes.bulk("file_open", b"x", kf=events.CLAIMED | events.RELATIVE, session=1), 0)
    found = describe.bulk_claim(record, base)
    assert found.sections["file"]["path"] == "/srv/\\xff/x"
    assert "file_path" in found.raw


def test_a_claim_whose_base_is_no_file_stands_as_given() -> None:
    record = decode.bulk(fakes.bulk("file_open", b"x", kf=events.CLAIMED | events.RELATIVE, session=1), 0)
    assert describe.bulk_claim(record, Names({"network": {}})).sections["file"]["path"] == "x"


def test_a_memfd_is_named_without_a_slash() -> None:
    assert describe.executable(b"memfd:a\0\0") == b"memfd:a"
    assert describe.executable(b"a\0usr\0") == b"/usr/a"
    assert describe.executable(None) is None


def test_identity_of_a_path_is_the_kernels(tmp_path: Any) -> None:
    found = describe.stat_identity(str(tmp_path))
    assert found is not None
    assert found[0] == tmp_path.stat().st_ino
    assert describe.stat_identity(str(tmp_path / "none")) is None
