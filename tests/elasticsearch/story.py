"""Acts of invented processes as the real stages document them: what the tests put into a real server.

Owns the few acts that queries ask about; each is recorded as the probes would and goes through the whole pipeline.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from monitor import events, generate
from monitor.clock import rfc3339
from monitor.cluster import Cluster
from monitor.sinks.elasticsearch import NDJSON
from tests import scenes
from tests.fakes import HOST, WALL_NS, Bench, facts, sockaddr, socket_definition, spelled

EPOCH = "5707a57007a57007"
_CREATED, _RDONLY = 0o102, 0


@dataclass(frozen=True)
class Who:
    """A process: `start` and pid make its identity."""

    executable: str
    pid: int = 700
    parent: int = 600
    uid: int = 1000
    euid: int = 1000

    @property
    def facts(self) -> dict[str, Any]:
        """What the kernel says of it."""
        name = self.executable.rpartition("/")[2].encode()[:15]
        return facts(
            tgid=self.pid, tid=self.pid, ppid=self.parent, start=10_000_000_000 + self.pid, parent_start=10_000_000_000 + self.parent,
            uid=self.uid, euid=self.euid, gid=self.uid, egid=self.euid, comm=name,
        )  # fmt: skip


@dataclass
class Story:
    """Acts one after the other; `documents` are what the pipeline makes of them."""

    bench: Bench = field(default_factory=Bench)
    _key: int = 0x40

    def _control(self, who: Who, name: str, blobs: dict[str, bytes], **members: Any) -> Story:
        blobs = {"executable": spelled(who.executable.encode()), **blobs}
        self.bench.kernel.control(1, name, blobs, **(who.facts | members))
        return self

    def executes(
        self, who: Who, *arguments: str, directory: str = "/srv/eve", flags: int = 0, memfd: str = ""
    ) -> Story:
        """Starts the program who.executable."""
        blobs = {
            "directory": spelled(directory.encode()),
            "args": b"".join(one.encode("utf-8", "surrogateescape") + b"\0" for one in arguments or (who.executable,)),
        }
        if memfd:
            blobs["executable"] = f"memfd:{memfd}\0/\0".encode()
        identity = {"ino": 77, "dev": 8 << 20 | 1, "mode": 0o100755}
        return self._control(who, "process_exec", blobs, nr=scenes.EXECVE, flags=flags, **identity)

    def ends(self, who: Who, status: int = 0) -> Story:
        """Ends with this wait status."""
        return self._control(who, "process_exit", {}, nr=scenes.NO_CALL, arg=status)

    def _file(self, who: Who, path: bytes) -> tuple[int, int]:
        kernel, self._key = self.bench.kernel, self._key + 2
        kernel.file(0, self._key, who.executable.encode())
        kernel.task(0, who.facts | {"exe_key": self._key})
        kernel.file(0, self._key + 1, path)
        return self._key + 1, self._key // 2 % 200

    def _opened(self, who: Who, path: bytes, created: bool, oflags: int) -> dict[str, int]:
        key, session = self._file(who, path)
        kf = events.BEGIN | (events.CREATED if created else 0)
        place = {"fd": 3, "session": session, "generation": 7, "tid": who.pid}
        self.bench.kernel.bulk(0, "file_open", key=key, ret=3, nr=scenes.OPENAT, kf=kf, oflags=oflags, **place)
        return place

    def opens(self, who: Who, path: str | bytes, *, created: bool = False) -> Story:
        """Opens a file, to read or as a new one."""
        raw = path if isinstance(path, bytes) else path.encode()
        self._opened(who, raw, created, _CREATED if created else _RDONLY)
        return self

    def fails_to_open(self, who: Who, path: str, errno: int) -> Story:
        """An open that the kernel refuses."""
        self._file(who, b"/x")
        members = {
            "ret": -errno,
            "nr": scenes.OPENAT,
            "fd": -1,
            "kf": events.CLAIMED,
            "session": len(path),
            "oflags": 0,
        }
        self.bench.kernel.bulk(0, "file_open", path.encode(), tid=who.pid, **members)
        return self

    def writes(self, who: Who, path: str, count: int = 512) -> Story:
        """Opens a file, writes to it and closes it."""
        place = self._opened(who, path.encode(), False, 1)
        self.bench.kernel.bulk(0, "file_write", ret=count, nr=scenes.WRITE, **place)
        totals = {"write_count": 1, "write_bytes": count, "reason": events.CLOSE_REASONS.index("close")}
        self.bench.kernel.bulk(0, "file_close", ret=0, nr=scenes.CLOSE, **place, **totals)
        return self

    def deletes(self, who: Who, path: str) -> Story:
        """Removes a name."""
        return self._control(who, "file_delete", {"name": path.encode()}, nr=scenes.UNLINKAT, kf=events.CLAIMED)

    def renames(self, who: Who, path: str, to: str) -> Story:
        """Gives a file another name."""
        blobs = {"name": path.encode(), "name2": to.encode()}
        return self._control(who, "file_rename", blobs, nr=scenes.RENAME, kf=events.CLAIMED)

    def connects(self, who: Who, address: str, port: int, ret: int = 0) -> Story:
        """Connects to a remote address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        local = scenes.LOCAL6 if ":" in address else scenes.LOOPBACK
        end = socket_definition(
            local=local, local_port=40000, remote=socket.inet_pton(family, address), remote_port=port, cookie=4097,
            family=int(family),
        )  # fmt: skip
        blobs = {"address": sockaddr(address, port), "socket": end}
        return self._control(who, "socket_connect", blobs, nr=scenes.CONNECT, fd=5, ret=ret)

    def listens(self, who: Who, port: int) -> Story:
        """Waits for connections."""
        blobs = {"socket": socket_definition(local=bytes(4), local_port=port, state=10, cookie=4098)}
        return self._control(who, "socket_listen", blobs, nr=scenes.LISTEN, fd=3)

    def accepts(self, who: Who, address: str, port: int) -> Story:
        """Takes a connection from a remote address to its port."""
        end = socket_definition(
            local=scenes.LOOPBACK, local_port=port, remote=socket.inet_aton(address), remote_port=51515, cookie=4099
        )
        return self._control(who, "socket_accept", {"socket": end}, nr=scenes.ACCEPT, fd=7, ret=7)

    def documents(self) -> list[dict[str, Any]]:
        """What the pipeline wrote, in order."""
        return self.bench.documents()


def numbered(documents: Iterable[dict[str, Any]], first: int = 1) -> list[dict[str, Any]]:
    """The documents as lines of one log: own numbers from `first` on, a millisecond apart."""
    found = []
    for number, document in enumerate(documents, first):
        event = document["event"] | {"id": f"{HOST.agent_id}-{EPOCH}-{number:012x}", "sequence": number}
        found.append(document | {"@timestamp": rfc3339(WALL_NS + number * 1_000_000), "event": event})
    return found


def goldens() -> list[dict[str, Any]]:
    """One document of each variant that the catalogue promises: the files that are what the pipeline writes (test_goldens)."""
    return [orjson.loads(path.read_bytes()) for path in sorted(generate.GOLDENS.glob("*.json"))]


def store(cluster: Cluster, documents: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Indexes (index, document) pairs as the shipper does, and makes them visible."""
    body = b""
    for index, document in documents:
        action = {"create": {"_index": index, "_id": document["event"]["id"]}}
        body += orjson.dumps(action) + b"\n" + orjson.dumps(document) + b"\n"
    found = cluster.need("POST", "/_bulk?refresh=true", body, {"content-type": NDJSON})
    assert not found["errors"], [item for item in found["items"] if item["create"]["status"] != 201][:3]
