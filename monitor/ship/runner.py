"""One process that ships: its lock, its status file, its loop. Used by the command `ship` and by the child of `run`.

Owns what surrounds a Shipper; never sends anything itself.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.config_keys import Config
from monitor.durable import read_durable
from monitor.logfiles import LogFile, ReaderError, files
from monitor.ship import state
from monitor.ship.batches import Selection
from monitor.ship.checkpoint import CheckpointError
from monitor.ship.shipper import POLL_S, Hooks, Shipper
from monitor.ship.tail import Blocked

ONCE_PATIENCE_S, DRAIN_S = 30.0, 10.0
_STATUS_S, _LAG_S = 1.0, 5.0
EXIT_OK, EXIT_FAILURE, EXIT_RUNNING = 0, 1, 75


class ShipError(Exception):
    """The shipper cannot start or go on; `status` is the exit status."""

    def __init__(self, message: str, status: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Control:
    """What signals and the parent ask for."""

    stopping: bool = False
    reload: bool = False


def selection(config: Config) -> Selection:
    """The lines that `es_config.profile` selects."""
    return Selection.of(config.es_config.profile)


class Lock:
    """One shipper for each ship directory. Raises ShipError (75)."""

    def __init__(self, ship_dir: Path, name: str = "lock") -> None:
        try:
            self._fd = os.open(ship_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise ShipError(f"cannot open {ship_dir / name}: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise ShipError(f"another shipper runs: process {holder} holds {ship_dir / name}", EXIT_RUNNING) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The next one may start."""
        os.close(self._fd)


class Runner:
    """A Shipper with its surroundings. `tick`: called about twenty times a second."""

    def __init__(
        self,
        config: Config,
        ship_dir: Path,
        hooks: Hooks,
        control: Control,
        *,
        wanted: Selection | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises ShipError."""
        self._config, self._ship_dir, self._hooks, self._control = config, ship_dir, hooks, control
        self._wanted, self._outer_tick = wanted, tick
        self._lock = Lock(ship_dir)
        hooks.tick = self._tick
        self._status_at = self._lag_at = 0.0
        self._lag: dict[str, Any] = {}
        self._status_problem = ""
        self.shipper: Shipper | None = None
        try:
            self.shipper = Shipper(config.events_dir, ship_dir, config.es_config, wanted or selection(config), hooks)
        except Blocked as error:
            raise ShipError(f"cannot read the log: {error}") from None
        except CheckpointError as error:
            raise ShipError(str(error)) from None
        except OSError as error:
            raise ShipError(f"cannot use {error.filename or ship_dir}: {error.strerror}") from None

    def configure(self, config: Config) -> None:
        """A new configuration, live."""
        self._config = config
        if self.shipper is not None:
            self.shipper.configure(config.es_config, self._wanted or selection(config))

    def run(self) -> int:
        """Until stopped."""
        shipper = self._started()
        while not self._control.stopping:
            if not shipper.turn():
                time.sleep(POLL_S)
        self._drain(shipper)
        return self._end(shipper)

    def _drain(self, shipper: Shipper) -> None:
        """The last lines, if that takes no more than some seconds and nothing is in the way."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and shipper.backoff.trouble is None:
            worked = shipper.turn()
            shipper.drain()
            if shipper.idle:
                return
            if not worked:
                time.sleep(POLL_S / 5)

    def once(self) -> int:
        """Until everything that is durable now is delivered. Raises ShipError when it cannot be, for some time."""
        shipper = self._started()
        problem = ""
        while not self._control.stopping and not problem:
            worked = shipper.turn()
            shipper.drain()
            if shipper.idle:
                break
            trouble = shipper.backoff.trouble
            if trouble is not None and time.time() - shipper.backoff.since > (ONCE_PATIENCE_S if trouble.wait else 2.0):
                problem = trouble.text
            if not worked:
                time.sleep(POLL_S / 5)
        status = self._end(shipper)
        if problem:
            raise ShipError(problem)
        return status

    def _started(self) -> Shipper:
        if self.shipper is None:
            raise ShipError("the shipper did not start")
        return self.shipper

    def _end(self, shipper: Shipper) -> int:
        shipper.close()
        self._write_status("stopped")
        self._lock.release()
        return EXIT_OK

    def _tick(self) -> None:
        self._outer_tick()
        if self.shipper is None:
            return
        if self._control.reload:
            self._control.reload = False
            self.shipper.reconnect()
        if time.monotonic() - self._status_at >= _STATUS_S:
            self._write_status("")

    # ---- status ----

    def _write_status(self, word: str) -> None:
        self._status_at = time.monotonic()
        problem = ""
        try:
            state.write(self._ship_dir / state.STATUS_NAME, self.status(word))
        except OSError as error:
            problem = f"cannot write {state.STATUS_NAME}: {error.strerror}"
        if problem and problem != self._status_problem:
            self._hooks.say(problem)
        self._status_problem = problem

    def status(self, word: str = "") -> dict[str, Any]:
        """The content of status.json. Times are seconds since 1970, `lag` in events, bytes and seconds."""
        shipper = self.shipper
        if shipper is None:
            return {}
        trouble, done = shipper.backoff.trouble, shipper.checkpoint.state.done
        return {
            "pid": os.getpid(), "time": time.time(),
            "state": word or ("delivering" if trouble is None else "waiting" if trouble.wait else "paused"),
            "reason": "" if trouble is None else trouble.text, "check": "" if trouble is None else trouble.check,
            "since": None if trouble is None else shipper.backoff.since, "tries": 0 if trouble is None else shipper.backoff.tries,
            "done": {"epoch": done[0], "sequence": done[1]} if done else None,
            "lag": self._measured(shipper), "documents": shipper.counts.documents, "bulks": shipper.counts.bulks,
            "retries": shipper.counts.retries, "batch": shipper.limits.documents,
            "index": self._config.es_config.es_index, "insecure": self._config.es_config.insecure,
        }  # fmt: skip

    def _measured(self, shipper: Shipper) -> dict[str, Any]:
        """How far delivery is behind the durable point; looked at less often while it is far behind."""
        done = shipper.checkpoint.state.done
        try:
            point = read_durable(self._config.events_dir)
        except OSError:
            point = None
        if point is not None and done == (point.epoch, point.sequence):
            return {"events": 0, "bytes": 0, "seconds": 0.0}
        if time.monotonic() - self._lag_at > _LAG_S or not self._lag or not self._lag["bytes"]:
            self._lag_at = time.monotonic()
            self._lag = self._behind(shipper)
        if point is not None and done is not None and done[0] == point.epoch:
            return self._lag | {"events": point.sequence - done[1]}
        return self._lag

    def _behind(self, shipper: Shipper) -> dict[str, Any]:
        """events (estimated over files whose numbers do not tell), bytes (compressed ones as they are), seconds."""
        done = shipper.checkpoint.state
        try:
            listed = files(self._config.events_dir)
        except ReaderError:
            return {"events": 0, "bytes": 0, "seconds": 0.0}
        at = next((index for index, file in enumerate(listed) if done.file_id and file.file_id == done.file_id), 0)
        later = listed[at:]
        size = sum(file.size for file in later) - (min(done.offset, later[0].size) if later and done.file_id else 0)
        oldest = shipper.oldest or next((file.timestamp for file in later), "")
        return {"events": sum(map(_lines, later)), "bytes": max(0, size), "seconds": _age(oldest)}


def _lines(file: LogFile) -> int:
    if file.first and file.last and file.first[0] == file.last[0]:
        return file.last[1] - file.first[1] + 1
    return file.size // (40 if file.compression else 800)


def _age(timestamp: str) -> float:
    try:
        then = datetime.datetime.fromisoformat(timestamp[:19] + "+00:00")
    except ValueError:
        return 0.0
    return round(max(0.0, time.time() - then.timestamp()), 1)
