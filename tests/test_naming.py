"""Names of files, sockets and processes: from the kernel's own form to the parts of a document."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import events, naming
from monitor.encode import Names
from tests import fakes
from tests.fakes import facts, sockaddr, spelled

NO_PATH = events.FILE_FLAGS["NO_PATH"]


@pytest.mark.parametrize(
    ("components", "flags", "path"),
    [
        (b"passwd\0etc\0", 0, b"/etc/passwd"),
        (b"", 0, b"/"),
        (b"a\0", 0, b"/a"),
        (b"memfd:x\0\0", NO_PATH, b"memfd:x"),
        (b"[timerfd]\0", NO_PATH, b"[timerfd]"),
        (b"", NO_PATH, b""),
        (b"\0\0", NO_PATH, b""),
        (b"/\0\0", NO_PATH, b"/"),
        (b"b\0a\0/\0\0", NO_PATH, b"a/b"),
        (b"b\0b\0b\0", 0, b"/b/b/b"),
    ],
)
def test_path_is_spelled_from_the_leaf(components: bytes, flags: int, path: bytes) -> None:
    assert naming.path(components, flags) == path


@given(
    st.lists(
        st.binary(min_size=1, max_size=20).map(lambda name: name.replace(b"\0", b"x").replace(b"/", b"y")), max_size=6
    )
)
def test_path_is_the_inverse_of_the_kernels_spelling(parts: list[bytes]) -> None:
    path = b"/" + b"/".join(parts)
    assert naming.path(spelled(path), 0) == path


@pytest.mark.parametrize(
    ("base", "name", "joined"),
    [
        (b"/srv", b"a", b"/srv/a"),
        (b"/", b"a", b"/a"),
        (b"/srv", b"/a", b"/a"),
        (b"", b"a", b"a"),
        (b"/srv", b"../a", b"/srv/../a"),
    ],
)
def test_a_relative_name_is_made_absolute_and_not_normalised(base: bytes, name: bytes, joined: bytes) -> None:
    assert naming.join(base, name) == joined


def test_file_has_identity_and_flags() -> None:
    found = naming.file({"flags": 5, "ino": 1 << 63, "dev": 8 << 20 | 1, "mode": 0o40750}, spelled(b"/srv/gone"))
    assert found.sections["file"] == {
        "path": "/srv/gone",
        "name": "gone",
        "inode": str(1 << 63),
        "device": "8:1",
        "mode": "0750",
        "type": "dir",
    }
    assert found.ebpf == {"path_source": "file", "path_flags": ["deleted", "too_deep"]}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(0o100600, "file"), (0o10600, "fifo"), (0o140600, "socket"), (0o120777, "symlink"), (0, "unknown")],
)
def test_file_type_is_named(mode: int, kind: str) -> None:
    assert naming.file_identity(1, 1, mode)["type"] == kind


def endpoint(family: int, tail: bytes = b"", **members: Any) -> Names:
    about = {
        "family": family,
        "kind": 1,
        "protocol": 6,
        "ino": 9,
        "cookie": 0,
        "peer": 0,
        "local": bytes(16),
        "remote": bytes(16),
        "local_port": 0,
        "remote_port": 0,
        "local_bytes": 0,
        "remote_bytes": 0,
    }
    return naming.endpoint(about | members, tail)


def test_ends_of_a_socket_that_has_none_are_left_out() -> None:
    found = endpoint(socket.AF_INET)
    assert found.sections == {"network": {"transport": "tcp", "type": "ipv4"}}
    assert found.ebpf == {"socket": {"family": "AF_INET", "type": "SOCK_STREAM", "inode": "9"}}


def test_ipv6_ends_are_written_in_their_short_form() -> None:
    found = endpoint(
        socket.AF_INET6,
        local=socket.inet_pton(socket.AF_INET6, "::1"),
        local_port=80,
        remote=b"\x20\x01" + bytes(13) + b"\x07",
        remote_port=9,
    )
    assert found.sections["source"] == {"ip": "::1", "port": 80}
    assert found.sections["destination"] == {"ip": "2001::7", "port": 9}


def test_a_wildcard_address_with_a_port_is_an_end() -> None:
    assert endpoint(socket.AF_INET, local_port=53).sections["source"] == {"ip": "0.0.0.0", "port": 53}


def test_unix_names_are_paths_or_abstract() -> None:
    found = endpoint(socket.AF_UNIX, b"/run/a\0\0abs\xff", local_bytes=7, remote_bytes=5)
    assert found.ebpf["socket"]["path"] == "/run/a"
    assert found.ebpf["socket"]["peer_path"] == "@abs\\xff"
    assert set(found.raw) == {"ebpf_socket_peer_path"}


@pytest.mark.parametrize(
    "raw", [b"", b"\2", b"\2\0", b"\2\0\0\x35\x7f", b"\x0a\0" + bytes(10), b"\1\0", b"\1\0\0", b"\xff\xff" + bytes(100)]
)
@pytest.mark.parametrize("section", ["source", "destination"])
def test_an_address_that_is_none_claims_no_end(raw: bytes, section: str) -> None:
    found = Names()
    naming.claim_address(found, raw, section)
    assert found.sections == {}


def test_a_claimed_address_stands_only_where_the_kernel_gave_none() -> None:
    found = endpoint(socket.AF_INET, remote=socket.inet_aton("192.0.2.1") + bytes(12), remote_port=1)
    naming.claim_address(found, sockaddr("198.51.100.1", 2), "destination")
    assert found.sections["destination"] == {"ip": "192.0.2.1", "port": 1}
    assert "claimed" not in found.ebpf
    naming.claim_address(found, sockaddr("198.51.100.1", 2), "source")
    assert found.sections["source"] == {"ip": "198.51.100.1", "port": 2}
    assert found.ebpf["claimed"] is True
    assert list(found.sections) == ["source", "destination", "network"]


def parts(
    raw: dict[str, str] | None = None,
    *,
    full: bool = False,
    cgroup: bytes = b"",
    executable: bytes | None = b"/usr/bin/cat",
    **changes: Any,
) -> Any:
    return fakes.tasks().parts(facts(**changes), executable, spelled(cgroup), {} if raw is None else raw, full=full)


def test_uid_is_never_gid_and_the_effective_ones_are_the_user() -> None:
    found = parts(full=True, uid=1000, euid=0, gid=33, egid=1000)
    assert (found["user"], found["group"]) == ({"id": "0", "name": "root"}, {"id": "1000", "name": "eve"})
    assert found["process"]["real_user"] == {"id": "1000", "name": "eve"}
    assert found["process"]["real_group"] == {"id": "33", "name": "www-data"}


def test_an_id_without_a_name_has_none() -> None:
    assert parts(euid=4242)["user"] == {"id": "4242"}


def test_real_ids_are_left_out_of_bulk_events_when_they_say_nothing_new() -> None:
    assert "real_user" not in parts()["process"]
    assert "real_user" in parts(uid=5)["process"]
    assert "real_group" not in parts(uid=5)["process"]


def test_entity_is_of_the_process_not_of_the_thread() -> None:
    one, other = parts(tid=1)["process"], parts(tid=2)["process"]
    assert one["entity_id"] == other["entity_id"]
    assert parts(start=6)["process"]["entity_id"] != one["entity_id"]
    assert parts(tgid=101)["process"]["entity_id"] != one["entity_id"]


def test_a_kernel_thread_has_no_executable() -> None:
    assert not {"name", "executable"} & set(parts(executable=None)["process"])


def test_container_is_that_of_the_cgroup() -> None:
    assert parts(cgroup=b"/docker/" + b"ab" * 32)["container"] == {"id": "ab" * 32}
    assert "container" not in parts(cgroup=b"/user.slice/session-1.scope")


@pytest.mark.parametrize(
    ("uid", "session", "wanted"),
    [
        (naming.UNSET, naming.UNSET, {}),
        (0, naming.UNSET, {"login": {"uid": 0}}),
        (1000, 3, {"login": {"uid": 1000, "session": 3}}),
    ],
)
def test_login_is_left_out_when_unset(uid: int, session: int, wanted: dict[str, Any]) -> None:
    assert naming.login({"login_uid": uid, "login_session": session}) == wanted


@pytest.mark.parametrize(
    ("block", "arguments"),
    [(b"a\0b\0", [b"a", b"b"]), (b"a\0b", [b"a", b"b"]), (b"\0", [b""]), (b"a\0\0", [b"a", b""])],
)
def test_arguments_are_separated_by_nul(block: bytes, arguments: list[bytes]) -> None:
    assert list(naming.arguments(block)) == arguments
