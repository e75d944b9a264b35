"""The process that delivers on behalf of `run`: started as root, everything imported, then without any privilege.

Owns its side of the socket to the collector: one JSON object a line. The collector sends `configure` (the whole
configuration without its secrets, and what is sent as authorization), `reload` and `stop`; the child asks for
`credentials` when the server refused the ones it has. When the socket ends the collector is gone, and so does the child.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import isal.igzip  # noqa: F401 - nothing can be imported any more once the privileges are gone
import zstandard  # noqa: F401

from monitor import config as configuration
from monitor.config_keys import Config
from monitor.ship.runner import Control, Runner, ShipError
from monitor.ship.shipper import Hooks
from monitor.sinks.credentials import Credentials
from monitor.sinks.elasticsearch import Connection, EsError
from monitor.voice import Voice

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_ASK_S = 3.0


@dataclass
class Start:
    """The first message: who to become, and the descriptors of the two directories (their paths may be out of reach)."""

    uid: int
    gid: int
    events_fd: int
    ship_fd: int
    events_dir: str
    ship_dir: str


def drop_privileges(uid: int, gid: int) -> None:
    """Becomes that user for good. Raises OSError."""
    if os.geteuid() == 0:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_PDEATHSIG, signal.SIGTERM)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Child:
    """The loop around one Runner, with the collector's messages."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._pending = b""
        self._control = Control()
        self._credentials = Credentials()
        self._asked_at = 0.0
        self._start: Start | None = None
        self._runner: Runner | None = None
        self.config = Config()

    def run(self) -> int:
        """Until it is stopped, or the collector is gone; the exit status."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal's signals are the collector's business
        signal.signal(signal.SIGTERM, self._on_stop)
        self._link.settimeout(None)
        while self._start is None and not self._control.stopping:
            self._receive()
        start = self._start
        if start is None:
            return 0
        self._warm_up()
        drop_privileges(start.uid, start.gid)
        self._link.setblocking(False)
        hooks = Hooks(self._connect, self._say)
        try:
            self._runner = Runner(
                self.config, Path(f"/proc/self/fd/{start.ship_fd}"), hooks, self._control, tick=self._tick
            )
            if self.config.es_config.insecure:
                self._say(f"WARNING: {self._connect().warning}")
            return self._runner.run()
        except (ShipError, EsError) as error:
            self._print(str(error))
            return 1

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._control.stopping = True

    def _warm_up(self) -> None:
        """Makes and drops a connection: what the client imports late is imported now."""
        try:
            connection = self._connect()
            connection.perform("GET", "/", timeout_s=0.001)
        except EsError:
            return
        connection.close()

    def _connect(self) -> Connection:
        return Connection(self.config.es_config, self._credentials)

    def _say(self, text: str) -> None:
        Voice(self._print, self.config.log_level).warning(text)

    def _print(self, text: str) -> None:
        if self._start is not None:
            for descriptor, name in (
                (self._start.events_fd, self._start.events_dir),
                (self._start.ship_fd, self._start.ship_dir),
            ):
                text = text.replace(f"/proc/self/fd/{descriptor}", name)
        print(f"ebpf-monitor: delivery: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the collector's own standard error

    # ---- messages ----

    def _tick(self) -> None:
        self._receive()
        shipper = self._runner.shipper if self._runner is not None else None
        if shipper is None or shipper.backoff.trouble is None:
            return
        refused = shipper.backoff.trouble.check in ("credentials", "permission", "security_exception")
        if refused and time.monotonic() - self._asked_at > _ASK_S:
            self._asked_at = time.monotonic()
            self._send({"type": "credentials"})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._link.send(json.dumps(message).encode() + b"\n")
        except OSError:
            self._control.stopping = True

    def _receive(self) -> None:
        while True:
            try:
                data = self._link.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._control.stopping = True
                return
            self._pending += data
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                self._message(json.loads(line))
            if lines and self._link.gettimeout() is None:
                return

    def _message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "start":
            self._start = Start(**message["start"])
        if kind in ("start", "configure"):
            config = configuration.loads(json.dumps(message["config"]).encode(), "(from the collector)")
            if self._start is not None:
                config = replace(config, events_dir=Path(f"/proc/self/fd/{self._start.events_fd}"))
            changed = config != self.config
            self._credentials, self.config = Credentials(**message["credentials"]), config
            if self._runner is not None:
                self._runner.configure(config) if changed else self._renew()
        elif kind == "reload":
            self._control.reload = True
        elif kind == "stop":
            self._control.stopping = True

    def _renew(self) -> None:
        if self._runner is not None and self._runner.shipper is not None:
            self._runner.shipper.renew()


def main() -> int:
    """The process: its only argument is the number of the inherited socket."""
    return Child(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    sys.exit(main())
