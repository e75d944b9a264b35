"""A log directory that grows and is rotated, a shipper that delivers it, and the one question: is the index the log?

Owns how these tests write logs and read results; asserts the promise of exactly one document for each line.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from monitor import reader
from monitor.config_keys import Config, EsConfig
from monitor.durable import DURABLE_NAME, Durable, encode_durable
from monitor.logfiles import LIVE_NAME
from monitor.ship import state
from monitor.ship.deadletters import NAME as LETTERS
from monitor.ship.deadletters import letters
from monitor.ship.runner import Control, Runner
from monitor.ship.shipper import Hooks
from monitor.sinks import credentials
from monitor.sinks.elasticsearch import Connection
from tests import loglines
from tests.elasticsearch.fake import Fake

EPOCHS = [f"{number:016x}" for number in range(0xAAAA0001, 0xAAAA0100)]


@dataclass
class Log:
    """Writes lines as the monitor does; `epoch` and `sequence` are of the last one."""

    directory: Path
    epoch: str = EPOCHS[0]
    sequence: int = 0
    previous: tuple[str, int] | None = None
    _first: str | None = None
    _made: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o750, exist_ok=True)

    @property
    def live(self) -> Path:
        return self.directory / LIVE_NAME

    def append(self, count: int, *, durable: bool = True, **members: Any) -> None:
        """`count` more lines."""
        lines = []
        for _ in range(count):
            self.sequence += 1
            if self.sequence == 1:
                lines.append(loglines.start(self.epoch, self.previous))
            else:
                lines.append(self.line(self.sequence, **members))
        self.write(b"".join(lines), durable=durable)

    def line(self, sequence: int, **members: Any) -> bytes:
        """One line; the first is made by the plain encoder, the others are copies with another number and time."""
        if members:
            return loglines.line(sequence, epoch=self.epoch, **members)
        if not self._made:
            self._made = loglines.line(987654321, epoch="e" * 16, time_ns=loglines.START_NS).split(
                b"2026-11-22T16:52:01.123456789Z"
            )
        stamp = f"2026-11-22T16:{52 + sequence // 60_000 % 8:02d}:{sequence // 1000 % 60:02d}.{sequence % 1000:03d}456789Z".encode()
        return (
            self._made[0] + stamp + self._made[1].replace(b"e" * 16, self.epoch.encode()).replace(b"%012x" % 987654321, b"%012x" % sequence)
            .replace(b'"sequence":987654321', b'"sequence":%d' % sequence)
        )  # fmt: skip

    def write(self, data: bytes, *, durable: bool = True) -> None:
        with self.live.open("ab") as file:
            file.write(data)
        if durable:
            self.sync()

    def sync(self) -> None:
        """Publishes the durable point at the end of the live file."""
        with self.live.open("rb") as file:
            data = file.read(65536)
        first = orjson.loads(data.split(b"\n")[0])["event"]["id"] if data else None
        point = Durable(self.epoch, self.sequence, first, self.live.stat().st_size)
        fd = os.open(self.directory / DURABLE_NAME, os.O_RDWR | os.O_CREAT, 0o640)
        os.pwrite(fd, encode_durable(point), 0)
        os.close(fd)

    def restart(self) -> None:
        """The monitor begins a new epoch in the same file."""
        self.previous = self.epoch, self.sequence
        self.epoch, self.sequence = EPOCHS[EPOCHS.index(self.epoch) + 1], 0

    def rotate(self, name: str) -> Path:
        """The live file gets another name; the next append makes a new one."""
        target = self.directory / f"{LIVE_NAME}-{name}"
        self.live.rename(target)
        return target

    def compress(self, path: Path) -> Path:
        """As gzip does it."""
        target = path.with_name(path.name + ".gz")
        target.write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
        return target


def ids_of(directory: Path) -> list[str]:
    """event.id of each line that can be read."""
    found = reader.documents(directory)
    return [one.fields["event"]["id"] for one in found if isinstance(one, reader.Document)]


@dataclass
class Scene:
    """A log, a configuration and what the shipper said."""

    root: Path
    es: EsConfig
    said: list[str] = field(default_factory=list)
    runner: Runner | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.log = Log(self.root / "events")
        self.ship_dir = self.root / "out" / "ship"
        self.ship_dir.mkdir(parents=True, exist_ok=True)
        self.control = Control()

    @property
    def config(self) -> Config:
        return Config(
            events_dir=self.log.directory, output_dir=self.root / "out", storage_type="elasticsearch", es_config=self.es
        )

    def connect(self) -> Connection:
        return Connection(self.es, credentials.read(self.es), timeout_s=self.timeout_s)

    def start(self) -> Runner:
        """A shipper of this process, as after a start."""
        self.runner = Runner(self.config, self.ship_dir, Hooks(self.connect, self.said.append), self.control)
        return self.runner

    def deliver(self, seconds: float = 30.0, until: Callable[[], bool] | None = None) -> None:
        """Turns the shipper until it has nothing left (or `until`); starts it when there is none."""
        runner = self.runner or self.start()
        shipper = runner.shipper
        assert shipper is not None
        deadline = time.monotonic() + seconds
        while True:
            if not shipper.turn():
                time.sleep(0.002)
            if until is not None:
                if until():
                    return
            else:
                shipper.drain()
                if shipper.idle:
                    shipper.turn()
                    return
            assert time.monotonic() < deadline, (shipper.backoff, self.said)

    def end(self) -> None:
        """Ends the shipper in order."""
        if self.runner is not None and self.runner.shipper is not None:
            self.runner._end(self.runner.shipper)
        self.runner = None

    def drop(self) -> None:
        """Forgets the shipper as kill -9 does: nothing is written any more."""
        runner, self.runner = self.runner, None
        assert runner is not None
        assert runner.shipper is not None
        runner._lock.release()
        runner.shipper._threads.shutdown(wait=True)
        runner.shipper._tail.close()
        os.close(runner.shipper.checkpoint._fd)

    def letters(self) -> list[str]:
        return [letter.identity for letter in letters(self.ship_dir / LETTERS)]

    def counts(self) -> dict[str, int]:
        """The shipped side of the ledger of the present epoch."""
        if self.runner is not None and self.runner.shipper is not None:
            self.runner.shipper._save(force=True)
        shipped = state.read(self.ship_dir)
        assert shipped is not None
        return shipped.ledger(self.log.epoch, self.log.sequence)

    def exactly_once(
        self, stored: Iterable[str], *, log: list[str] | None = None, withheld: Iterable[str] = ()
    ) -> None:
        """The promise: log less withheld less dead letters is the index, each once; the ledger is balanced."""
        self.end()
        stored = list(stored)
        wanted = ids_of(self.log.directory) if log is None else log
        letters = self.letters()
        assert len(stored) == len(set(stored))
        assert len(letters) == len(set(letters))
        assert sorted(set(wanted) - set(withheld) - set(letters)) == sorted(stored)
        assert self.counts()["lag"] == 0


def disk_full(*_: object) -> None:
    """In place of a call that writes or syncs."""
    raise OSError(28, "No space left on device")


def of_fake(fake: Fake, root: Path, **changed: Any) -> Scene:
    """A scene that delivers to a fake server without TLS."""
    es = EsConfig(es_host=("127.0.0.1",), es_port=fake.port, secure=False, batch_size=100)
    return Scene(root, replace(es, **changed))


def write_config(scene: Scene, **changed: Any) -> Path:
    """The scene's configuration as a file, for the command line."""
    es = {"es_host": scene.es.es_host[0], "es_port": scene.es.es_port, "secure": scene.es.secure, "batch_size": scene.es.batch_size,
          "es_user": scene.es.es_user, "es_password": scene.es.es_password, "es_index": scene.es.es_index}  # fmt: skip
    if scene.es.ca_certs:
        es["ca_certs"] = str(scene.es.ca_certs)
    whole = {
        "events_dir": str(scene.log.directory), "output_dir": str(scene.root / "out"), "storage_type": "elasticsearch",
        "run_dir": str(scene.root / "run"), "es_config": es | changed.pop("es_config", {}), **changed,
    }  # fmt: skip
    path = scene.root / "config.json"
    path.write_text(json.dumps(whole))
    path.chmod(0o600)
    return path
