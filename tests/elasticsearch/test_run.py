"""`run` with storage_type elasticsearch on the real kernel: an unprivileged child delivers, and nothing of it reaches capture."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import compiled
from tests.elasticsearch.fake import Answer, Fake, Request
from tests.elasticsearch.scene import ids_of
from tests.elasticsearch.server import certificate

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
HIDE = f"""
mount -t tmpfs none "$1" && mkdir "$1/upper" "$1/work" &&
mount -t overlay overlay -o "lowerdir={ROOT},upperdir=$1/upper,workdir=$1/work" "{ROOT}" &&
chmod 0700 "{ROOT}" && cd "{ROOT}" && shift && exec "$@"
"""
"""Runs a command with this checkout (its .venv too) under a mode of 0700, in a mount namespace of its own."""


class Run:
    """A monitor in directories that only root may enter, its program included, and its child."""

    def __init__(self, root: Path, fake: Fake) -> None:
        self.root, self.fake = root, fake
        self.pins = Path(f"/sys/fs/bpf/ebpf-monitor-ship-{os.getpid()}-{root.parent.name}"[:90])
        self.config = root / "config.json"
        self.password = root / "password"
        self.password.write_text("first\n")
        self.password.chmod(0o600)
        self.write()
        self.ready = root / "ready"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, **es: Any) -> None:
        section = {
            "es_host": "127.0.0.1",
            "es_port": self.fake.port,
            "ca_certs": str(self.root / "ca.pem"),
            "es_user": "ship",
            "password_file": str(self.password),
        }
        paths = {name: str(self.root / name) for name in ("events_dir", "output_dir", "run_dir")}
        whole = paths | {
            "pin_dir": str(self.pins),
            "storage_type": "elasticsearch",
            "profile": "minimal",
            "commit_interval_ms": 100,
        }
        fresh = self.config.with_name("fresh")
        fresh.write_text(json.dumps(whole | {"es_config": section | es}))
        fresh.chmod(0o600)
        fresh.rename(self.config)

    def start(self, *words: str) -> None:
        command = [
            sys.executable,
            "-m",
            "monitor",
            "run",
            "--config",
            str(self.config),
            "--ready-file",
            str(self.ready),
        ]
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        command = ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(scratch), *command, *words]
        with (self.root / "stderr").open("ab") as said:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + 90
        while not self.ready.exists() or self.ready.read_text() != f"{self.process.pid}\n":
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return (self.root / "stderr").read_text()

    def child(self) -> int:
        """The pid of the shipper; 0 when there is none."""
        assert self.process is not None
        text = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            if self.process.poll() is None
            else ""
        )
        found = []
        for pid in text.split():
            with contextlib.suppress(OSError):  # it has ended since
                if b"monitor.ship.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found[0] if found else 0

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "monitor", "status", "--json", "--config", str(self.config)]
        found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=False).stdout)
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) == 0, self.said()
            assert "Traceback" not in self.said()
            self.process = None

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for link in self.pins.glob("*/link_*"):
            link.unlink()
        shutil.rmtree(self.pins, ignore_errors=True)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "place").mkdir(mode=0o700)  # nobody but root may pass: the child works with descriptors it was given
    fake = Fake(certificate(tmp_path / "place"))
    made = Run(tmp_path / "place", fake)
    compiled.lend(tmp_path / "place" / "output_dir")
    yield made
    compiled.keep(tmp_path / "place" / "output_dir")
    made.clean()
    fake.down()


def act() -> None:
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)


def delivered(run: Run) -> bool:
    return set(run.fake.ids()) == set(ids_of(run.root / "events_dir"))


def test_an_unprivileged_child_delivers_everything(run: Run, wait_until: Callable[..., None]) -> None:
    run.start()
    wait_until(lambda: run.child() != 0, 30)
    act()
    wait_until(lambda: len(run.fake.ids()) > 40, 60, "documents")
    child = Path(f"/proc/{run.child()}")
    facts = dict(line.split(":\t", 1) for line in (child / "status").read_text().splitlines() if ":\t" in line)
    assert 0 not in map(int, facts["Uid"].split() + facts["Gid"].split())
    assert facts["CapPrm"] == facts["CapEff"] == "0" * 16
    assert facts["NoNewPrivs"] == "1"
    assert facts["Groups"].split() == facts["Gid"].split()[:1]
    command = (child / "cmdline").read_bytes() + (child / "environ").read_bytes()
    assert b"first" not in command
    assert int(facts["VmRSS"].split()[0]) < 128 * 1024
    wait_until(lambda: (run.status()["delivery"] or {}).get("state") == "delivering", 30)
    ledger = run.status()["ledger"]
    parts = ("created", "duplicate", "dead_letter", "withheld", "expired", "lag")
    assert sum(ledger[name] for name in parts) == ledger["logged"]
    run.stop()
    assert delivered(run)  # what was logged last too
    assert (run.root / "events_dir").stat().st_mode & 0o7 == 0
    assert run.status()["ledger"]["lag"] == 0


def test_its_death_is_no_matter(run: Run, wait_until: Callable[..., None]) -> None:
    run.start()
    wait_until(lambda: run.child() != 0, 30)
    first = run.child()
    wait_until(lambda: len(run.fake.ids()) > 0, 60)
    os.kill(first, signal.SIGKILL)
    act()
    wait_until(lambda: run.child() not in (0, first), 30)
    assert "the shipper ended (signal 9); capture goes on" in run.said()
    wait_until(lambda: run.status()["delivery"].get("lag", {}).get("events") == 0, 60)
    run.stop()
    assert delivered(run)


def test_the_child_goes_with_the_monitor(run: Run, wait_until: Callable[..., None]) -> None:
    run.start()
    wait_until(lambda: run.child() != 0, 30)
    child = run.child()
    assert run.process is not None
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not Path(f"/proc/{child}").exists(), 20)
    run.start()
    act()
    run.stop()
    assert delivered(run)


def test_credentials_and_servers_change_while_it_runs(run: Run, wait_until: Callable[..., None]) -> None:
    def only_second(_server: Fake, request: Request) -> Answer | None:
        return None if request.authorization == "Basic c2hpcDpzZWNvbmQ=" else Answer(401)  # ship:second

    run.fake.fault = only_second
    run.start()
    wait_until(lambda: run.child() != 0, 30)
    wait_until(lambda: (run.status()["delivery"] or {}).get("state") == "paused", 60)
    assert "credentials" in run.status()["delivery"]["reason"]
    run.password.write_text("second\n")  # repaired; nobody is told
    repaired = time.monotonic()
    wait_until(lambda: len(run.fake.ids()) > 0, 30)
    assert time.monotonic() - repaired < 12
    other = Fake((run.root / "node.pem", run.root / "node.key"))
    try:
        run.write(es_port=other.port, batch_size=50)
        act()
        wait_until(lambda: len(other.ids()) > 0, 60)
        run.stop()
        assert set(run.fake.ids()) | set(other.ids()) == set(ids_of(run.root / "events_dir"))
        assert not set(run.fake.ids()) & set(other.ids())
    finally:
        other.down()


def test_what_was_removed_behind_is_a_loss_record(run: Run, wait_until: Callable[..., None]) -> None:
    run.start()
    act()
    wait_until(lambda: len(run.fake.ids()) > 40, 60)
    run.fake.fault = lambda _server, _request: Answer(reset=True)
    act()
    wait_until(lambda: (run.status()["delivery"] or {}).get("state") == "waiting", 60)
    live = run.root / "events_dir" / "events.jsonl"
    rotated = live.rename(live.with_name("events.jsonl-1"))
    assert run.process is not None
    os.kill(run.child(), signal.SIGKILL)  # it holds the file open, and would read it to its end
    run.process.send_signal(signal.SIGHUP)
    wait_until(lambda: (live.exists() and live.stat().st_size > 0) or act(), 30)
    missing = [number for number in map(number_of, rotated.read_bytes().splitlines()) if f"{number:012x}" not in
               {identity[-12:] for identity in run.fake.ids()}]  # fmt: skip
    rotated.unlink()
    run.fake.fault = None
    losses: list[dict[str, Any]] = []

    def told() -> bool:
        documents = [orjson.loads(line)["ebpf"] for line in live.read_bytes().splitlines()]
        losses[:] = [
            one["loss"] for one in documents if one["event"] == "monitor_loss" and one["loss"]["class"] == "log"
        ]
        return bool(losses)

    wait_until(told, 90, "a monitor_loss")
    time.sleep(2.5)
    told()
    assert [(one["first"], one["last"], one["count"], one["reason"]) for one in losses] == [
        (missing[0], missing[-1], len(missing), "expired")
    ]
    run.stop()
    assert set(ids_of(run.root / "events_dir")) <= set(run.fake.ids())


def number_of(line: bytes) -> int:
    number: int = orjson.loads(line)["event"]["sequence"]
    return number


def test_no_ship_leaves_it_to_others(run: Run, wait_until: Callable[..., None]) -> None:
    run.start("--no-ship")
    act()
    time.sleep(1.5)
    assert run.child() == 0
    assert run.fake.requests == []
    run.stop()
    command = [sys.executable, "-m", "monitor", "ship", "--once", "--config", str(run.config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert delivered(run)


def test_a_wrong_credential_is_told_at_the_start(run: Run) -> None:
    run.password.chmod(0o644)
    with pytest.raises(AssertionError, match="chmod o-rwx"):
        run.start()
    assert run.process is not None
    assert run.process.wait(10) == 78
