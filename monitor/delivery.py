"""The collector's side of delivery: starts the shipper's process, keeps it going, gives it the configuration.

Owns the child and what the collector reads from `<output_dir>/ship/`; whatever happens to either, capture goes on.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monitor import config as configuration
from monitor.config_keys import Config
from monitor.instance import StartError
from monitor.ship import removed, state
from monitor.ship.batches import Position, Removed
from monitor.ship.state import DIRECTORY
from monitor.sinks import credentials
from monitor.sinks.credentials import CredentialError

OWN_USER = "ebpf-monitor"
_FREE_UIDS = range(61_184, 65_520)
"""The range from which systemd takes DynamicUser's numbers (its documentation, "Users, Groups, UIDs and GIDs")."""
_LEAST_S, _MOST_S = 1.0, 60.0
_STABLE_S = 60.0
_STOP_S = 20.0
_TOLD_NAME = "removed.told"
_MOST_RANGES = 1000


@dataclass(frozen=True)
class User:
    """Whom the child becomes; `gid` also gets the log files."""

    uid: int
    gid: int


def user(config: Config) -> User:
    """The shipper's user. Raises StartError when `ship_user` names nobody."""
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid())
    name = config.ship_user
    try:
        found = pwd.getpwnam(name or OWN_USER)
        return User(found.pw_uid, found.pw_gid)
    except KeyError:
        if name:
            raise StartError(f"ship_user: there is no user {name!r}; make it: useradd --system {name}", 78) from None
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    number = next(number for number in _FREE_UIDS if number not in taken)
    return User(number, number)


class Delivery:
    """One child and its directory. `poll` each second; nothing here raises once it is made."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        """Raises StartError: the configuration cannot work."""
        self._config, self._say = config, say
        self.user = user(config)
        self._ship_dir = config.output_dir / DIRECTORY
        self._credentials = self._read()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._pending = b""
        self._started_at = self._retry_at = 0.0
        self._pause_s = _LEAST_S
        self._told, self._ranges = _told(config.output_dir / _TOLD_NAME)
        self._written = self._told, len(self._ranges)
        self._make_directory()

    def _read(self) -> dict[str, str]:
        try:
            found = credentials.read(self._config.es_config)
        except CredentialError as error:
            raise StartError(str(error), 78) from None
        return {"authorization": found.authorization, "source": found.source, "ca_pem": found.ca_pem}

    def _make_directory(self) -> None:
        try:
            self._config.output_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._ship_dir.mkdir(mode=0o750, exist_ok=True)
            descriptor = os.open(self._ship_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.geteuid() == 0:
                    self._own(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StartError(f"cannot make {self._ship_dir}: {error.strerror}") from None

    def _own(self, directory: int) -> None:
        """The directory and its files belong to the child's user, also when that was another one before."""
        os.fchown(directory, self.user.uid, self.user.gid)
        for entry in os.scandir(directory):
            if not entry.is_file(follow_symlinks=False):
                continue
            descriptor = os.open(
                entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory
            )
            about = os.fstat(descriptor)
            if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:  # a second name could be anybody's file
                os.fchown(descriptor, self.user.uid, self.user.gid)
            os.close(descriptor)

    # ---- the child ----

    def start(self) -> None:
        """Starts the child; the log directory must be there."""
        ours, theirs = socket.socketpair()
        descriptors: list[int] = []
        try:
            for path in (self._config.events_dir, self._ship_dir):
                descriptors.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "monitor.ship.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", env=_environment(),
                pass_fds=(theirs.fileno(), *descriptors),
            )  # fmt: skip
        except OSError as error:
            ours.close()
            self._later(f"the shipper cannot be started: {error.strerror}")
            return
        finally:
            theirs.close()
            for descriptor in descriptors:
                os.close(descriptor)
        ours.setblocking(False)
        self._link, self._pending = ours, b""
        self._started_at = time.monotonic()
        names = {"events_dir": str(self._config.events_dir), "ship_dir": str(self._ship_dir)}
        places = {"events_fd": descriptors[0], "ship_fd": descriptors[1]}
        self._send({"type": "start", "start": vars(self.user) | places | names, **self._configuration()})

    def _configuration(self) -> dict[str, Any]:
        # What the child may not read it must not be asked to read either: files stand for what is in them already.
        es = replace(self._config.es_config, ca_certs=None, password_file=None, api_key_file=None)
        plain = configuration.without_secrets(replace(self._config, es_config=es))
        return {"config": plain, "credentials": self._credentials}

    def _send(self, message: dict[str, Any]) -> None:
        if self._link is None:
            return
        try:
            self._link.setblocking(True)
            self._link.settimeout(1.0)
            self._link.sendall(json.dumps(message).encode() + b"\n")
            self._link.setblocking(False)
        except OSError:
            self._link.close()  # it ends when it sees that; poll starts another
            self._link = None

    def _later(self, text: str) -> None:
        self._say(f"{text}; another try in {self._pause_s:.0f} s")
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(_MOST_S, 2 * self._pause_s)

    def poll(self) -> None:
        """Starts the child again when it has died, and answers what it asks."""
        if self._process is None:
            if time.monotonic() >= self._retry_at:
                self.start()
            return
        status = self._process.poll()
        if status is not None:
            if time.monotonic() - self._started_at > _STABLE_S:
                self._pause_s = _LEAST_S
            self._forget()
            self._later(f"the shipper ended ({_ending(status)}); capture goes on")
            return
        if self._link is None:
            return
        try:
            data = self._link.recv(4096)
        except OSError:
            return
        self._pending = (self._pending + data)[-4096:]
        if b"\n" in self._pending:
            self._pending = b""
            self.renew()

    def renew(self) -> None:
        """The child gets the credentials as the files have them now."""
        try:
            self._credentials = self._read()
        except StartError as error:
            self._say(str(error))
            return
        self._send({"type": "configure", **self._configuration()})

    def configure(self, config: Config) -> None:
        """Another configuration, live."""
        self._config = config
        self.renew()

    def reload(self) -> None:
        """SIGHUP: credentials are read again, a pause ends."""
        self.renew()
        self._send({"type": "reload"})

    def stop(self) -> None:
        """Ends the child, which delivers the last lines first if it can."""
        process = self._process
        if process is None:
            return
        self._send({"type": "stop"})
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._forget()

    def shipped_side(self, epoch: str, logged: int) -> dict[str, int]:
        """The shipped side of the ledger; {} before anything was delivered."""
        found = state.read(self._ship_dir)
        return {} if found is None else found.ledger(epoch, logged)

    def _forget(self) -> None:
        if self._link is not None:
            self._link.close()
        self._process = self._link = None

    # ---- what the ship directory says ----

    def place(self) -> Position | None:
        """The last line that was delivered."""
        return place(self._config.output_dir)

    def removed(self) -> list[Removed]:
        """Ranges that were removed before they were delivered and are not in the log as losses yet."""
        try:
            found = removed.records(self._ship_dir, self._told)
        except OSError:
            return []
        if found:
            self._told = found[-1][0]
        return [left for _, one in found for left in _without(one, self._ranges)]

    def recorded(self, epoch: str, first: int, last: int) -> None:
        """The collector removed these lines itself, and has told so: the shipper will miss them too."""
        self._ranges = [*self._ranges, (epoch, first, last)][-_MOST_RANGES:]

    def told(self) -> None:
        """What `removed` gave is in the log now."""
        path = self._config.output_dir / _TOLD_NAME
        try:
            if self._written != (self._told, len(self._ranges)):
                state.write(path, {"number": self._told, "ranges": self._ranges})
                self._written = self._told, len(self._ranges)
        except OSError as error:
            self._say(f"cannot write {path}: {error.strerror}")


def _without(one: Removed, ranges: list[tuple[str, int, int]]) -> list[Removed]:
    """What of the lines is in none of the ranges."""
    mine = sorted((first, last) for epoch, first, last in ranges if epoch == one.epoch)
    if not one.last:  # how far it went is not known: the range that was told is the better word
        return [] if any(first <= one.first <= last for first, last in mine) else [one]
    left, at = [], one.first
    for first, last in mine:
        if first > at and at <= one.last:
            left.append(replace(one, first=at, last=min(first - 1, one.last)))
        at = max(at, last + 1)
    return [*left, replace(one, first=at)] if at <= one.last else left


def place(output_dir: Path) -> Position | None:
    """The last line that was delivered from this output_dir, by whomever; None when none was."""
    found = state.read(output_dir / DIRECTORY)
    return found.done if found is not None else None


def _told(path: Path) -> tuple[int, list[tuple[str, int, int]]]:
    """(number of the last record that was told, ranges that the collector removed itself)."""
    found = state.read_json(path)
    number, ranges = found.get("number"), found.get("ranges")
    whole = (
        [(str(one[0]), int(one[1]), int(one[2])) for one in ranges if len(one) == 3] if isinstance(ranges, list) else []
    )
    return (number if isinstance(number, int) else 0), whole


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _environment() -> dict[str, str]:
    """Nothing of ours: no credentials directory, no notify socket."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
