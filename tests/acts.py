"""Random but possible record streams: what two CPUs' probes may write, every kind and variant of a bulk record among it.

Owns the generator that the tests of the compiled pass share; the same seed gives the same bytes in every process.
"""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, field

from monitor import events
from tests.fakes import FakeKernel, facts, sockaddr

OPEN_FLAGS = (0, 1, 2, 0o102, 0o1102, 0o2000001, 0o100000, 0o10200000, 0o20000000, 1 << 31, 0o3)
NUMBERS = (0, 1, 9, 10, 99, 100, 4096, 10**9 - 1, 10**9, 2**31 - 1, 2**31, 2**40 + 7, 10**18)
PATHS = (
    b"/etc/passwd",
    b"/",
    b"/srv/data",
    b"/a",
    b'/srv/"quoted"',
    b"/srv/back\\slash",
    "/srv/größe/日本".encode(),
    b"/srv/caf\xe9",
    b"/srv/new\nline",
    b"/srv/" + b"x" * 250 + b"/" + b"y" * 250,
    b"/srv/" + b"\xe9" * 200,
    b"/srv/" + "ä".encode() * 120,
    b"/tmp/with space",
)
CLAIMS = (
    b"/nowhere",
    b"file",
    b"sub/dir/file",
    b"./x",
    b"ends/",
    b"/",
    b"\xff\xfe",
    b'"',
    b"a\\b",
    "é".encode(),
    b"z" * 300,
    b"\x01",
    b"..",
)
COMMS = (b"bash", b"cat", b"a b", b'q"q', b"\xff", b"exactly15bytes!", b"")
SLOTS = (0, 1, 2, 3, 255)
CALLS = (0, 1, 3, 17, 257, 437, 511, 0xFFFF)


@dataclass
class Acts:
    """A stream. `kernel` takes the records; what was opened is remembered, so that most records refer to what is known."""

    kernel: FakeKernel
    random: random.Random
    open: list[dict[str, int]] = field(default_factory=list)

    def one(self) -> None:
        """One more record, at the same time as the one before now and then."""
        kernel, choose = self.kernel, self.random
        kernel.step = choose.choice((0, 1, 1000, 10**9))
        cpu = choose.randrange(kernel.capture.shape.cpus)
        choose.choice(
            (
                self._task,
                self._file,
                self._socket,
                self._open,
                self._open,
                self._failed,
                self._io,
                self._io,
                self._io,
                self._close,
                self._close,
                self._message,
                self._session,
                self._exit,
            )
        )(cpu)

    def _tid(self) -> int:
        return self.random.choice((101, 102, 101 + 512, 7))

    def _key(self) -> int:
        return self.random.choice((5, 6, 5 + 512, (1 << 63) + 9, 11))

    def _common(self) -> dict[str, int]:
        choose = self.random
        kf = events.COMPAT if choose.random() < 0.1 else 0
        return {
            "tid": self._tid(),
            "nr": choose.choice(CALLS),
            "kf": kf,
            "fd": choose.choice((0, 3, 1000)),
            "key": self._key(),
        }

    def _ret(self) -> int:
        choose = self.random
        return -choose.choice((1, 2, 9, 11, 13, 115, 512, 4095)) if choose.random() < 0.3 else choose.choice(NUMBERS)

    def _slot(self) -> dict[str, int]:
        choose = self.random
        if self.open and choose.random() < 0.9:
            return choose.choice(self.open)
        return {"session": choose.choice((*SLOTS, 0xFFFFFFFF)), "generation": choose.randrange(8)}

    def _begun(self) -> dict[str, int]:
        found = {"session": self.random.choice(SLOTS), "generation": self.kernel.fresh_generation()}
        self.open = [*self.open[-6:], found]
        return found

    def _task(self, cpu: int) -> None:
        choose = self.random
        about = facts(
            tid=self._tid(),
            comm=choose.choice(COMMS),
            exe_key=choose.choice((0, 5, 6, 11)),
            uid=choose.choice((0, 1000)),
            euid=choose.choice((0, 1000, 5)),
        )
        self.kernel.task(cpu, about, choose.choice((b"", b"/docker/" + b"ab" * 32)))

    def _file(self, cpu: int) -> None:
        choose = self.random
        self.kernel.file(
            cpu,
            self._key(),
            choose.choice(PATHS),
            flags=choose.choice((0, 0, 1, 5)),
            mode=choose.choice((0o100644, 0o40755, 0o20620)),
            ino=choose.choice(NUMBERS),
        )

    def _socket(self, cpu: int) -> None:
        choose = self.random
        if choose.random() < 0.3:
            self.kernel.socket(
                cpu, self._key(), choose.choice((b"", b"/run/a\0", b"\0abstract", b"\xff" * 108)), b"", family=1
            )
            return
        self.kernel.socket(
            cpu,
            self._key(),
            family=choose.choice((2, 10, 16)),
            local=socket.inet_aton("127.0.0.1") + bytes(12),
            local_port=choose.randrange(65536),
            cookie=choose.choice((0, 77)),
        )

    def _open(self, cpu: int) -> None:
        members = self._common() | self._begun()
        members["kf"] |= events.BEGIN | (events.CREATED if self.random.random() < 0.2 else 0)
        self.kernel.bulk(cpu, "file_open", ret=members["fd"], oflags=self.random.choice(OPEN_FLAGS), **members)

    def _failed(self, cpu: int) -> None:
        choose, name = self.random, self.random.choice(CLAIMS)
        members = self._common() | {"fd": -1, "session": len(name)}
        how = choose.choice((events.CLAIMED, events.CLAIMED | events.RELATIVE, events.UNNAMED))
        members["kf"] |= how
        if how == events.UNNAMED:
            name, members["session"] = b"", 0
        self.kernel.bulk(
            cpu,
            "file_open",
            name,
            ret=-choose.choice((1, 2, 13, 40, 4095)),
            oflags=choose.choice(OPEN_FLAGS),
            **members,
        )

    def _io(self, cpu: int) -> None:
        choose, members = self.random, self._common()
        if choose.random() < 0.2:
            members |= self._begun()
            members["kf"] |= events.BEGIN
        elif choose.random() < 0.1:
            members |= {"session": 0xFFFFFFFF, "generation": 0}
            members["kf"] |= events.UNNAMED
        else:
            members |= self._slot()
        self.kernel.bulk(
            cpu, choose.choice(("file_read", "file_write", "socket_send", "socket_receive")), ret=self._ret(), **members
        )

    def _close(self, cpu: int) -> None:
        choose, members = self.random, self._common() | self._slot()
        if choose.random() < 0.1:
            members |= {"session": 0xFFFFFFFF, "generation": 0}
            members["kf"] |= events.UNNAMED
        totals = {name: choose.choice(NUMBERS) for name in ("read_count", "read_bytes", "write_count", "write_bytes")}
        self.kernel.bulk(
            cpu,
            choose.choice(("file_close", "socket_close")),
            ret=choose.choice((0, 0, -5)),
            reason=choose.randrange(6),
            **members,
            **totals,
        )

    def _message(self, cpu: int) -> None:
        choose, members = self.random, self._common() | self._slot()
        address = choose.choice(
            (
                sockaddr("192.0.2.1", 53),
                sockaddr("2001:db8::1", 53),
                sockaddr(b"/run/x\0"),
                b"\0",
                b"\x02\0",
                b"\xff" * 112,
            )
        )
        members["kf"] |= events.ADDRESS | events.CLAIMED
        if choose.random() < 0.3:
            members |= self._begun()
            members["kf"] |= events.BEGIN
        self.kernel.bulk(
            cpu, choose.choice(("socket_send", "socket_receive")), address, ret=self._ret(), extra=len(address), **members
        )

    def _session(self, cpu: int) -> None:
        self.kernel.session(cpu, tid=self._tid(), key=self._key(), **self._begun())

    def _exit(self, cpu: int) -> None:
        self.kernel.control(cpu, "process_exit", tid=self._tid(), nr=0xFFFF)
