"""socket_bind, socket_listen, socket_connect, socket_accept, socket_send, socket_receive, socket_close: known acts through
every system call over IPv4, IPv6 and Unix sockets, exactly these documents, with folding and without it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.acts import Call, Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of, wall_ns

pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full"}, {"profile": "trace"}], indirect=True, ids=["folding", "trace"]
)
PRIME = 5
SIZE = 13
INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DATAGRAM, NONBLOCK = 1, 2, 0o4000
LOOPBACK: dict[int, str] = {INET: "127.0.0.1", INET6: "::1"}
SENDS = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
RECEIVES = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")


def folds(monitor: MonitorProcess) -> bool:
    return bool(monitor.keys["profile"] != "trace")


def brief(document: Document) -> tuple[str, str | None, int, str | None]:
    return (
        name_of(document),
        document["ebpf"].get("syscall"),
        document["ebpf"]["ret"],
        document.get("error", {}).get("code"),
    )


class Ends:
    """Steps that make a listening socket and one that is connected to it; where its port stands after the run."""

    def __init__(self, script: Script, family: int, name: str | bytes = "") -> None:
        self.script, self.family = script, family
        self.address, self.length = script.address(family, LOOPBACK.get(family) or name, 0)
        self.listener = script.call("socket", family, STREAM, 0)
        self.bound = script.call("bind", self.listener, self.address, self.length)
        self.listened = script.call("listen", self.listener, 8)
        if family != UNIX:
            script.call("getsockname", self.listener, self.address, script.words(self.length))
        self.client = script.call("socket", family, STREAM, 0)

    def connect(self) -> Call:
        return self.script.call("connect", self.client, self.address, self.length)

    def accept(self, call: str = "accept4") -> Call:
        return self.script.call(call, self.listener, 0, 0, 0)

    @property
    def port(self) -> int:
        found: int = struct.unpack(">H", self.script.read(self.address + 2, 2))[0]
        return found


@pytest.mark.parametrize("family", [INET, INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("call", ["accept", "accept4"])
def test_a_tcp_connection_is_bind_listen_connect_accept_and_three_closes(
    monitor: MonitorProcess, script: Script, family: int, call: str
) -> None:
    made = []
    for _ in range(PRIME):
        ends = Ends(script, family)
        connected, accepted = ends.connect(), ends.accept(call)
        closed = [script.call("close", one) for one in (ends.client, accepted, ends.listener)]
        made.append((ends, connected, accepted, closed))
    found = monitor.program(script.run())
    assert [brief(one) for one in found] == [
        row
        for ends, connected, accepted, closed in made
        for row in (
            ("socket_bind", "bind", 0, None),
            ("socket_listen", "listen", 0, None),
            ("socket_connect", "connect", 0, None),
            ("socket_accept", call, accepted.ret, None),
            *[("socket_close", "close", 0, None)] * 3,
        )
    ]
    for i, (ends, connected, accepted, _closes) in enumerate(made):
        bound, listened, out, into, closed_out, closed_in, listener_closed = found[7 * i : 7 * i + 7]
        here = {"ip": LOOPBACK[family], "port": ends.port}
        assert ends.port > 0
        assert bound["source"] == listened["source"] == listener_closed["source"] == here
        assert (bound["ebpf"]["fd"], listened["ebpf"]["fd"]) == (ends.listener.ret, ends.listener.ret)
        assert out["destination"] == here
        assert out["source"]["ip"] == LOOPBACK[family]
        assert into["source"] == here, "local end"
        assert into["destination"] == out["source"], "the far end is the connecting one"
        assert (closed_out["source"], closed_out["destination"]) == (out["source"], out["destination"])
        assert (closed_in["source"], closed_in["destination"]) == (into["source"], into["destination"])
        assert all(
            one["network"]["transport"] == "tcp" and one["network"]["type"] == ("ipv4" if family == INET else "ipv6")
            for one in found
        )
        assert (out["network"]["direction"], into["network"]["direction"]) == ("egress", "ingress")
        assert (out["ebpf"]["fd"], into["ebpf"]["fd"]) == (ends.client.ret, accepted.ret)
        assert (out["event"]["action"], into["event"]["action"]) == ("connection_attempted", "connection_accepted")
        assert connected.before - 50_000_000 <= wall_ns(out) <= connected.after + 50_000_000


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_unix_connection_names_its_address_on_both_ends(
    monitor: MonitorProcess, script: Script, place: Path, abstract: bool
) -> None:
    names: list[bytes] = []
    for i in range(PRIME):
        names.append(b"\0ebpf-test-%d" % i if abstract else str(place / f"s{i}").encode())
        ends = Ends(script, UNIX, names[-1])
        ends.connect()
        for one in (ends.accept(), ends.client, ends.listener):
            script.call("close", one)
    found = monitor.program(script.run())
    assert [name_of(one) for one in found] == [
        "socket_bind",
        "socket_listen",
        "socket_connect",
        "socket_accept",
        *["socket_close"] * 3,
    ] * PRIME
    for i, name in enumerate(names):
        wanted = "@" + name[1:].decode() if abstract else name.decode()
        bound, listened, out, into, closed_in, closed_out, closed = found[7 * i : 7 * i + 7]
        assert (
            bound["ebpf"]["socket"]["path"]
            == listened["ebpf"]["socket"]["path"]
            == into["ebpf"]["socket"]["path"]
            == wanted
        )
        assert closed["ebpf"]["socket"]["path"] == wanted
        assert out["ebpf"]["socket"]["peer_path"] == wanted == closed_out["ebpf"]["socket"]["peer_path"]
        assert closed_in["ebpf"]["socket"]["path"] == wanted
        assert all(
            one["ebpf"]["socket"]["family"] == "AF_UNIX" and one["ebpf"]["socket"]["type"] == "SOCK_STREAM"
            for one in found
        )


@pytest.mark.parametrize("family", [INET, INET6], ids=["ipv4", "ipv6"])
def test_a_refused_connect_has_its_destination(monitor: MonitorProcess, script: Script, family: int) -> None:
    address, length = script.address(family, LOOPBACK[family], 1)
    made = []
    for _ in range(PRIME):
        client = script.call("socket", family, STREAM, 0)
        made.append(script.call("connect", client, address, length))
    found = [one for one in monitor.program(script.run()) if name_of(one) == "socket_connect"]
    assert [brief(one) for one in found] == [("socket_connect", "connect", -111, "ECONNREFUSED")] * PRIME
    assert all(one["destination"] == {"ip": LOOPBACK[family], "port": 1} for one in found)
    assert all(one["event"]["outcome"] == "failure" and one["network"]["transport"] == "tcp" for one in found)


def test_a_connect_in_progress_says_so_and_has_its_destination(monitor: MonitorProcess, script: Script) -> None:
    made = []
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the answer waits until the caller has let the socket go
        port = listener.getsockname()[1]
        for _ in range(PRIME):
            address, length = script.address(INET, "127.0.0.1", port)
            client = script.call("socket", INET, STREAM | NONBLOCK, 0)
            made.append(script.call("connect", client, address, length))
            script.call("close", client)
        found = monitor.program(script.run())
    assert {one.error for one in made} == {"EINPROGRESS"}
    assert [brief(one) for one in found] == [
        ("socket_connect", "connect", -115, None),
        ("socket_close", "close", 0, None),
    ] * PRIME
    for one in found:
        assert one["destination"] == {"ip": "127.0.0.1", "port": port}
        assert one["event"]["outcome"] == ("unknown" if "in_progress" in one["ebpf"] else "success")
    assert all(one["ebpf"]["in_progress"] is True and "claimed" not in one["ebpf"] for one in found[::2])


def test_connects_to_a_missing_or_refusing_unix_path_have_the_claimed_path(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    missing, refusing = place / "missing", place / "refusing"
    with socket.socket(UNIX) as nobody_listens:
        nobody_listens.bind(str(refusing))
        made = []
        for name in (missing, refusing) * PRIME:
            client = script.call("socket", UNIX, STREAM, 0)
            made.append(script.call("connect", client, *script.address(UNIX, str(name))))
        found = monitor.program(script.run())
    assert [brief(one) for one in found] == [
        ("socket_connect", "connect", -2, "ENOENT"),
        ("socket_connect", "connect", -111, "ECONNREFUSED"),
    ] * PRIME
    assert [one["ebpf"]["socket"]["peer_path"] for one in found] == [str(missing), str(refusing)] * PRIME
    assert all(one["ebpf"]["claimed"] is True for one in found)


def test_failed_binds_listens_and_accepts_have_their_errors(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    (place / "file").touch()
    made = []
    for _ in range(PRIME):
        ends = Ends(script, INET)
        second = script.call("socket", INET, STREAM, 0)
        made += [
            script.call("bind", second, ends.address, ends.length),
            script.call("accept4", second, 0, 0, 0),
            script.call("accept", 999, 0, 0),
            script.call("bind", 999, ends.address, ends.length),
            script.call("connect", 999, ends.address, ends.length),
            script.call("listen", script.call("socket", INET, DATAGRAM, 0), 3),
            script.call("bind", script.call("socket", UNIX, STREAM, 0), *script.address(UNIX, str(place / "file"))),
            script.call("connect", second, 8, 16),
        ]
    found = [one for one in monitor.program(script.run()) if "error" in one]
    assert [brief(one) for one in found] == [
        (f"socket_{act.name.rstrip('4')}", act.name, act.ret, act.error) for act in made
    ]
    assert [act.error for act in made] == [
        "EADDRINUSE",
        "EINVAL",
        "EBADF",
        "EBADF",
        "EBADF",
        "EOPNOTSUPP",
        "EADDRINUSE",
        "EFAULT",
    ] * PRIME
    claims = [one for one in found if one["error"]["code"] == "EADDRINUSE"]
    assert all(one["ebpf"].get("claimed") is True for one in claims)
    assert [one.get("source", {}).get("ip") or one["ebpf"]["socket"].get("path") for one in claims] == [
        "127.0.0.1",
        str(place / "file"),
    ] * PRIME
    assert all(one["event"]["outcome"] == "failure" for one in found)


def pass_bytes(script: Script, call: str, descriptor: Call, target: tuple[int, int] = (0, 0)) -> Call:
    """One call of the send or receive family, of SIZE bytes."""
    if call in ("readv", "writev"):
        return script.call(call, descriptor, script.vector(SIZE - 3, 3), 2)
    if call == "sendto":
        return script.call(call, descriptor, script.room(SIZE), SIZE, 0, *target)
    if call == "recvfrom":
        return script.call(call, descriptor, script.room(SIZE), SIZE, 0, 0, 0)
    if call in ("sendmsg", "recvmsg"):
        return script.call(call, descriptor, script.message(SIZE, *target), 0)
    if call in ("sendmmsg", "recvmmsg"):
        return script.call(call, descriptor, script.message(SIZE, *target), 1, 0, 0)
    return script.call(call, descriptor, script.room(SIZE), SIZE)


@pytest.mark.parametrize(("send", "receive"), list(zip(SENDS, RECEIVES, strict=True)))
@pytest.mark.parametrize("family", [INET, INET6, UNIX], ids=["ipv4", "ipv6", "unix"])
def test_sends_and_receives_are_recorded_as_the_profile_says_and_totals_are_exact(
    monitor: MonitorProcess, script: Script, place: Path, family: int, send: str, receive: str
) -> None:
    ends = Ends(script, family, str(place / "s"))
    ends.connect()
    accepted = ends.accept()
    script.call("close", ends.listener)
    sent, received = [], []
    for _ in range(PRIME):
        sent.append(pass_bytes(script, send, ends.client))
        received.append(pass_bytes(script, receive, accepted))
    script.call("close", ends.client)
    script.call("close", accepted)
    found = monitor.program(script.run())
    wanted_ret = 1 if send == "sendmmsg" else SIZE
    assert [one.ret for one in (*sent, *received)] == [wanted_ret] * 2 * PRIME
    number = 1 if folds(monitor) else PRIME
    assert [brief(one) for one in found[5:]] == [
        *[("socket_send", send, SIZE, None), ("socket_receive", receive, SIZE, None)] * number,
        ("socket_close", "close", 0, None),
        ("socket_close", "close", 0, None),
    ]
    nothing, everything = {"count": 0, "bytes": 0}, {"count": PRIME, "bytes": PRIME * SIZE}
    assert (found[-2]["ebpf"]["read"], found[-2]["ebpf"]["write"]) == (nothing, everything)
    assert (found[-1]["ebpf"]["read"], found[-1]["ebpf"]["write"]) == (everything, nothing)
    if family != UNIX:
        there = {"ip": LOOPBACK[family], "port": ends.port}
        assert found[5]["destination"] == there == found[6]["source"] == found[-2]["destination"] == found[-1]["source"]
    assert {one["ebpf"]["fd"] for one in found if name_of(one) == "socket_send"} == {ends.client.ret}


@pytest.mark.parametrize("family", [INET, INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("call", ["sendto", "sendmsg", "sendmmsg"])
def test_each_new_destination_of_a_datagram_socket_is_a_send_of_its_own(
    monitor: MonitorProcess, script: Script, family: int, call: str
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as other:
        ports = []
        for receiver in (one, other):
            receiver.bind((LOOPBACK[family], 0))
            ports.append(receiver.getsockname()[1])
        client = script.call("socket", family, DATAGRAM, 0)
        targets = [script.address(family, LOOPBACK[family], port) for port in ports]
        for i in range(2 * PRIME):
            for _ in range(2):  # the same again folds
                pass_bytes(script, call, client, targets[i % 2])
        script.call("close", client)
        found = monitor.program(script.run())
    repeats = 1 if folds(monitor) else 2
    assert [brief(one) for one in found] == [("socket_send", call, SIZE, None)] * (2 * PRIME * repeats) + [
        ("socket_close", "close", 0, None)
    ]
    assert [one["destination"] for one in found[:-1]] == [
        {"ip": LOOPBACK[family], "port": ports[i % 2]} for i in range(2 * PRIME) for _ in range(repeats)
    ]
    assert all(one["network"]["transport"] == "udp" for one in found)
    assert found[-1]["ebpf"]["write"] == {"count": 4 * PRIME, "bytes": 4 * PRIME * SIZE}


def test_a_received_datagram_shows_the_sender_where_the_caller_asked_for_it(
    monitor: MonitorProcess, script: Script
) -> None:
    receiver = script.call("socket", INET, DATAGRAM, 0)
    address, length = script.address(INET, "127.0.0.1", 0)
    script.call("bind", receiver, address, length)
    script.call("getsockname", receiver, address, script.words(length))
    sender = script.call("socket", INET, DATAGRAM, 0)
    own, own_length = script.address(INET, "127.0.0.1", 0)
    script.call("bind", sender, own, own_length)
    script.call("getsockname", sender, own, script.words(own_length))
    script.call("sendto", sender, script.room(SIZE), SIZE, 0, address, length)
    script.call("recvfrom", receiver, script.room(SIZE), SIZE, 0, script.room(128), script.words(128))
    found = monitor.program(script.run())
    sent, received = (next(one for one in found if name_of(one) == name) for name in ("socket_send", "socket_receive"))
    here, there = ({"ip": "127.0.0.1", "port": struct.unpack(">H", script.read(at + 2, 2))[0]} for at in (own, address))
    assert (sent["source"]["port"], sent["destination"]) == (here["port"], there)
    assert (received["source"], received["destination"]) == (there, here)


def test_messages_of_one_call_are_all_counted(monitor: MonitorProcess, script: Script) -> None:
    pair = script.room(8)
    script.call("socketpair", UNIX, DATAGRAM, 0, pair)
    first = next(n for n in range(3, 64) if n != script.fd)
    second = next(n for n in range(first + 1, 64) if n != script.fd)
    vector = script.words(*(word for i in range(PRIME) for word in (0, 0, script.vector(SIZE + i), 1, 0, 0, 0, 0)))
    into = script.words(*(word for i in range(PRIME) for word in (0, 0, script.vector(100), 1, 0, 0, 0, 0)))
    sent = script.call("sendmmsg", first, vector, PRIME, 0)
    received = script.call("recvmmsg", second, into, PRIME, 0, 0)
    script.call("close", first)
    script.call("close", second)
    found = monitor.program(script.run())
    assert struct.unpack("<ii", script.read(pair, 8)) == (first, second)
    assert (sent.ret, received.ret) == (PRIME, PRIME)
    total = sum(SIZE + i for i in range(PRIME))
    assert [brief(one)[:3] for one in found] == [
        ("socket_send", "sendmmsg", total),
        ("socket_receive", "recvmmsg", total),
        ("socket_close", "close", 0),
        ("socket_close", "close", 0),
    ]
    assert found[2]["ebpf"]["write"]["bytes"] == found[3]["ebpf"]["read"]["bytes"] == total


@pytest.mark.parametrize("call", SENDS)
def test_failed_sends_have_their_error(monitor: MonitorProcess, script: Script, call: str) -> None:
    script.call("rt_sigaction", 13, script.words(1, 0, 0, 0), 0, 8)  # SIGPIPE: ignored
    sockets = [script.call("socket", INET, STREAM, 0) for _ in range(PRIME)]
    made = [pass_bytes(script, call, one) for one in sockets]
    made.append(pass_bytes(script, call, 999))  # type: ignore[arg-type]
    found = monitor.program(script.run())
    sends = [one for one in found if "error" in one]
    assert [brief(one)[1:] for one in sends] == [(call, act.ret, act.error) for act in made]
    assert [name_of(one) for one in sends[:-1]] == ["socket_send"] * PRIME
    assert {act.error for act in made} == {"EPIPE", "EBADF"}


def test_a_failed_datagram_send_has_the_claimed_destination(monitor: MonitorProcess, script: Script) -> None:
    client = script.call("socket", INET, DATAGRAM, 0)
    made: list[Any] = [
        pass_bytes(script, "sendto", client, script.address(INET, "255.255.255.255", 99)) for _ in range(PRIME)
    ]
    found = [one for one in monitor.program(script.run()) if name_of(one) == "socket_send"]
    assert [act.error for act in made] == ["EACCES"] * PRIME, "broadcast is not allowed without SO_BROADCAST"
    number = 1 if folds(monitor) else PRIME
    assert [brief(one) for one in found] == [("socket_send", "sendto", -13, "EACCES")] * number
    assert all(
        one["destination"] == {"ip": "255.255.255.255", "port": 99} and one["ebpf"]["claimed"] is True for one in found
    )


def test_an_exit_ends_each_socket_with_its_totals(monitor: MonitorProcess, script: Script) -> None:
    ends = Ends(script, INET)
    ends.connect()
    accepted = ends.accept()
    for _ in range(PRIME):
        pass_bytes(script, "write", ends.client)
        pass_bytes(script, "read", accepted)
    found = monitor.program(script.run())
    closes = {one["ebpf"]["fd"]: one for one in found if name_of(one) == "socket_close"}
    assert set(closes) == {ends.listener.ret, ends.client.ret, accepted.ret}
    assert all(one["ebpf"]["close"]["reason"] == "exit" for one in closes.values())
    assert (
        closes[ends.client.ret]["ebpf"]["write"]
        == closes[accepted.ret]["ebpf"]["read"]
        == {"count": PRIME, "bytes": PRIME * SIZE}
    )
