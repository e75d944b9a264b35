"""What delivery costs and how fast it is: against a server that only answers, and against the real one beside a plain loop."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.config_keys import EsConfig
from monitor.sinks.credentials import Credentials
from monitor.sinks.elasticsearch import NDJSON, Connection, EsError
from tests.elasticsearch.scene import Log, Scene, write_config
from tests.elasticsearch.server import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
FULL = os.environ.get("EBPF_MONITOR_BENCH") == "full"
OUTAGE_S = float(os.environ.get("EBPF_MONITOR_SHIP_OUTAGE", "5" if FULL else "1"))
pytestmark = pytest.mark.elasticsearch


def once(scene: Scene) -> tuple[float, float, int]:
    """(seconds, CPU seconds, most memory in kB) of `ship --once`, the first two less what an empty one takes."""
    command = [sys.executable, "-m", "monitor", "ship", "--once", "--config", str(write_config(scene))]
    found = []
    for _ in range(2):  # the second finds everything delivered: that is the start and the end
        before, most = os.times(), 0
        started = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            while process.poll() is None:  # not ru_maxrss: that counts the parent's memory before exec
                most = max(most, high_water(process.pid))
                time.sleep(0.01)
            seconds = time.monotonic() - started
            assert process.returncode == 0, process.stderr.read() if process.stderr else b""
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        found.append((seconds, spent, most))
    return found[0][0] - found[1][0], found[0][1] - found[1][1], found[0][2]


def high_water(pid: int) -> int:
    """The most memory that a process had, in kB; 0 when it is gone or has not become the program yet."""
    try:
        if b"\0monitor\0ship\0" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return 0
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def filled(log: Log, count: int) -> None:
    log.append(1)
    for _ in range(count // 10_000):
        log.append(10_000)


def test_a_server_that_only_answers(tmp_path: Path) -> None:
    count, rounds = (400_000, 3) if FULL else (40_000, 1)
    port = free_port()
    server = subprocess.Popen([sys.executable, str(ROOT / "tests" / "bench" / "answering.py"), str(port)])
    try:
        results = []
        for round_ in range(rounds):
            scene = Scene(
                tmp_path / str(round_), EsConfig(es_host=("127.0.0.1",), es_port=port, secure=False, batch_size=2000)
            )
            filled(scene.log, count)
            results.append(once(scene))
            size = scene.log.live.stat().st_size / scene.log.sequence
            assert scene.counts()["lag"] == 0
        rate = count / min(seconds for seconds, _, _ in results)
        cpu = statistics.median(spent for _, spent, _ in results) / count * 1e6
        memory = max(most for _, _, most in results) // 1024
        print(
            f"\nanswering server: {rate:,.0f} documents/s, {cpu:.2f} us CPU each ({size:.0f} bytes), {memory} MB at most"
        )
        assert memory <= 128
        if FULL:
            assert rate >= 100_000
            assert cpu <= 5.0
    finally:
        server.kill()
        server.wait()


def test_a_backlog_of_a_long_outage(tmp_path: Path) -> None:
    """20,000 lines a second while nothing listens; then each is delivered once, in bounded memory, from within 10 s on."""
    port, count = free_port(), int(20_000 * OUTAGE_S)
    scene = Scene(tmp_path / "s", EsConfig(es_host=("127.0.0.1",), es_port=port, secure=False, batch_size=2000))
    scene.log.append(1)
    command = [sys.executable, "-m", "monitor", "ship", "--config", str(write_config(scene))]
    with (tmp_path / "said").open("wb") as said:
        shipper = subprocess.Popen(command, cwd=ROOT, stderr=said, stdout=said)
    server = None
    try:
        started = time.monotonic()
        while scene.log.sequence < count:
            scene.log.append(min(4000, count - scene.log.sequence))
            time.sleep(max(0.0, started + scene.log.sequence / 20_000 - time.monotonic()))
        answering = [sys.executable, str(ROOT / "tests" / "bench" / "answering.py"), str(port), str(count)]
        server = subprocess.Popen(answering)
        connection, up, healthy, most = Connection(scene.es, Credentials("", "")), time.monotonic(), 0.0, 0
        told = {"once": 0, "again": 0}
        while told["once"] < count:
            time.sleep(0.2)
            with contextlib.suppress(EsError):
                told = orjson.loads(connection.perform("GET", "/seen").body)
            healthy = healthy or (time.monotonic() - up if told["once"] else 0.0)
            assert shipper.poll() is None
            assert time.monotonic() - up < 60 + count / 10_000, told
            most = max(most, high_water(shipper.pid))
        seconds = time.monotonic() - up
        shipper.terminate()
        assert shipper.wait(30) == 0
        print(
            f"\n{up - started:.0f} s away, {count:,} lines: delivering again after {healthy:.1f} s, {count / seconds:,.0f}/s, "
            f"{most // 1024} MB at most, {scene.counts()}"
        )
        assert told == {"once": count, "again": 0}
        assert scene.counts()["created"] == count
        assert healthy < 10
        assert most <= 128 * 1024
        assert b"Traceback" not in (tmp_path / "said").read_bytes()
    finally:
        for process in (shipper, server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def prepared(server: Server, *names: str) -> Iterator[None]:
    """With a template for each name; other tests' server has neither template nor documents of it afterwards."""
    for name in names:
        prepare(server, name)
    try:
        yield
    finally:
        for name in names:
            server.ask("DELETE", f"/{name}-2026.11.22")
            server.json("DELETE", f"/_index_template/{name}")


def prepare(server: Server, name: str) -> None:
    found = orjson.loads((ROOT / "config" / "index-template-minimal.json").read_bytes())
    found["index_patterns"] = [f"{name}-*"]
    found["template"]["settings"] = {"index": {"number_of_replicas": 0, "refresh_interval": "1s"}}
    server.json("PUT", f"/_index_template/{name}", found)


def plain(server: Server, log: Log, name: str, size: int) -> float:
    """Seconds of the loop that everybody writes: one bulk after the other, uncompressed."""
    connection = server.connection("ship")
    lines = log.live.read_bytes().splitlines(keepends=True)
    identities = [orjson.loads(line)["event"]["id"].encode() for line in lines]
    started = time.monotonic()
    for first in range(0, len(lines), size):
        body = b"".join(
            b'{"create":{"_id":"%b"}}\n%b' % pair
            for pair in zip(identities[first : first + size], lines[first : first + size], strict=True)
        )
        path = f"/{name}-2026.11.22/_bulk?filter_path=errors,items.*.status,items.*.error.type"
        reply = connection.perform("POST", path, body, {"content-type": NDJSON})
        assert reply.status == 200
        assert not json.loads(reply.body)["errors"]
    return time.monotonic() - started


@pytest.fixture(scope="module")
def big(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with memory enough to be measured against; for the smoke run the one that all tests share."""
    if not FULL:
        yield request.getfixturevalue("elasticsearch")
        return
    server = Server.make(heap_mb=1024, fast=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_beside_a_plain_bulk_loop(tmp_path: Path, big: Server) -> None:
    """The ratio counts in the full run only; the smoke run shows that both deliver every line."""
    count, sizes, rounds = (40_000, (500, 2000), 3) if FULL else (10_000, (2000,), 1)
    for size in sizes:
        ratios = []
        for round_ in range(rounds):  # the first one warms the server up
            names = [f"ebpf-events-p{size}{round_}", f"ebpf-events-s{size}{round_}"]
            with prepared(big, *names):
                scene = Scene(tmp_path / f"{size}-{round_}", big.config("ship", es_index=names[1], batch_size=size))
                filled(scene.log, count)
                seconds = [0.0, 0.0]
                for place in (0, 1) if round_ % 2 else (1, 0):
                    seconds[place] = once(scene)[0] if place else plain(big, scene.log, names[0], size)
                if round_:
                    ratios.append(seconds[0] / seconds[1])
                    print(f"\nbulks of {size}: plain {count / seconds[0]:,.0f}/s, shipper {count / seconds[1]:,.0f}/s")
                for name in names:
                    big.ask("POST", f"/{name}-2026.11.22/_refresh")
                    assert searchable(big, name) == scene.log.sequence
        assert not FULL or statistics.median(ratios) >= 0.9, ratios


def test_from_event_to_searchable(tmp_path: Path, big: Server) -> None:
    """5,000 lines a second, synced each 0.5 s as the collector does with commit_interval_ms 500; p99 under 2 s."""
    if FULL:  # a server that has just started is slow at first
        with prepared(big, "ebpf-events-warm"):
            scene = Scene(tmp_path / "warm", big.config("ship", es_index="ebpf-events-warm", batch_size=2000))
            filled(scene.log, 60_000)
            once(scene)
    with prepared(big, "ebpf-events-late"):
        delays = _delays(tmp_path, big, "ebpf-events-late")
    assert delays, "nothing became searchable"
    late = statistics.quantiles(delays[20:] if FULL else [*delays, delays[-1]], n=100)
    print(f"\nevent to searchable at 5,000/s: median {late[49]:.2f} s, p99 {late[98]:.2f} s")
    assert not FULL or late[98] < 2.0


def _delays(tmp_path: Path, big: Server, name: str) -> list[float]:
    """Seconds from a line's writing to its being found, each line once."""
    scene = Scene(tmp_path / "scene", replace(big.config("ship", es_index=name), batch_size=2000))
    written: dict[int, float] = {}
    scene.log.append(1)
    command = [sys.executable, "-m", "monitor", "ship", "--config", str(write_config(scene))]
    process = subprocess.Popen(command, cwd=ROOT)
    stop = threading.Event()

    def write() -> None:
        at = time.monotonic()
        while not stop.is_set():
            at += 0.1
            scene.log.append(500, durable=len(written) % 5 == 4)
            written[scene.log.sequence] = time.monotonic()
            time.sleep(max(0.0, at - time.monotonic()))

    writer = threading.Thread(target=write)
    writer.start()
    delays: list[float] = []
    seen, began = 0, time.monotonic()
    ends = began + (11 if FULL else 4)
    while time.monotonic() < (ends if delays else began + 60):
        count = searchable(big, name)
        now = time.monotonic()
        delays += [now - at for sequence, at in list(written.items()) if seen < sequence <= count]
        seen = max(seen, count)
        time.sleep(0.02)
    stop.set()
    writer.join()
    process.terminate()
    assert process.wait(30) == 0
    return delays


def searchable(server: Server, name: str) -> int:
    found: Any = server.ask("GET", f"/{name}-*/_count")
    return int(orjson.loads(found.body).get("count", 0))
