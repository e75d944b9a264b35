"""What the service manager is told: READY, STATUS, WATCHDOG, RELOADING, STOPPING over the socket of sd_notify(3).

Owns the protocol and the judgement whether reader, encoder and writer advance; never stops or restarts anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field

_STATUS_S = 5.0
_EVENT_S = 0.5
_BEATS = 4  # WATCHDOG=1 so many times within WatchdogSec=


class Notifier:
    """The socket that NOTIFY_SOCKET names. Without one, and when it cannot be reached, nothing is sent and nothing fails.

    The variables are taken out of `environment`: a child must not speak in the monitor's name.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        mine = pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if usec.isascii() and usec.isdigit() and mine else 0.0
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]

    def __bool__(self) -> bool:
        return bool(self._address)

    def send(self, **variables: str) -> None:
        """One datagram of VARIABLE=value lines; a value loses its line breaks."""
        if not self._address:
            return
        text = "".join(f"{name}={' '.join(value.splitlines())}\n" for name, value in variables.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.sendto(text.encode("utf-8", "backslashreplace"), self._address)


@dataclass
class Progress:
    """How far the parts are. `cut`, `received` and `durable` grow while they work; `told` is true while a failing log is
    being reported: a full disk is a state that a restart does not mend."""

    cut: int
    """boot time in ns up to which the rings were looked at: the reader"""
    received: int
    """events that came from the kernel in this run, and are encoded; what the monitor itself makes proves nothing"""
    idle: bool
    """everything that was seen is encoded"""
    logged: int
    """last event.sequence that was appended"""
    durable: int
    """last event.sequence on the disk: the writer"""
    told: bool = False


@dataclass
class Watchdog:
    """Compares two moments. `patience_s`: the longest pause between two syncs that the configuration allows."""

    patience_s: float
    _cut: int = -1
    _received: int = -1
    _owed: int = 0
    _since: float = field(default_factory=time.monotonic)

    def hanging(self, now: float, seen: Progress) -> str:
        """The part that has not advanced since the last call: "reader", "encoder" or "writer"; "" when all have.

        With a log that cannot be written all wait for it, as they should.
        """
        reader = seen.cut > self._cut
        encoder = seen.idle or seen.received > self._received
        if seen.durable >= self._owed or seen.told:
            self._owed, self._since = seen.logged, now
        writer = now - self._since <= self.patience_s
        self._cut, self._received = seen.cut, seen.received
        if seen.told:
            return ""
        return "" if reader and encoder and writer else "reader" if not reader else "writer" if encoder else "encoder"


class Service:
    """The monitor as a service: `turn` in each turn of the loop, `reloading` and `stopping` where these happen."""

    def __init__(self, notifier: Notifier, patience_s: float) -> None:
        self._notifier = notifier
        self._interval = notifier.watchdog_s / _BEATS
        self._watchdog = Watchdog(patience_s + self._interval)
        self._next_beat = self._next_status = 0.0
        self._hanging = ""
        self._first = 0  # event.sequence by which an event of the kernel was logged
        self._next_event = 0.0
        self.ready = not notifier

    def due(self, now: float) -> bool:
        """Something is to be said: ask for the Progress and call `turn`."""
        if not self._notifier:
            return False
        return not self.ready or now >= self._next_status or bool(self._interval and now >= self._next_beat)

    def turn(self, now: float, seen: Progress, status: str) -> None:
        """Sends what is due. READY=1 once an event of the kernel is durable; on a calm host one is caused."""
        if not self.ready:
            self._first = self._first or (seen.logged if seen.received else 0)
            if 0 < self._first <= seen.durable:
                self.ready = True
                self._notifier.send(READY="1", STATUS=status)
            elif not self._first and now >= self._next_event:
                self._next_event = now + _EVENT_S
                cause_event()
        if self._interval and now >= self._next_beat:
            self._next_beat = now + self._interval
            self._hanging = self._watchdog.hanging(now, seen)
            if not self._hanging:
                self._notifier.send(WATCHDOG="1")
        if now >= self._next_status:
            self._next_status = now + _STATUS_S
            self._notifier.send(STATUS=f"The {self._hanging} hangs. {status}" if self._hanging else status)

    def reloading(self) -> None:
        """The log is being reopened; `reloaded` says that it is done."""
        self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def reloaded(self) -> None:
        """What SIGHUP asked for is done."""
        if self.ready:
            self._notifier.send(READY="1")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._notifier.send(STOPPING="1", STATUS=status)


def cause_event() -> None:
    """A child that ends at once: its fork, exec and exit are events in every profile."""
    with contextlib.suppress(OSError):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
