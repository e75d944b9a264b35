"""The shipper and the real server: kills, outages and index troubles as they are, each ending with log equal to index.

EBPF_MONITOR_SHIP_KILLS (default 8): how often the shipper is killed. EBPF_MONITOR_SHIP_BACKLOG (default 10000): events
that gather while the server is down; EBPF_MONITOR_SHIP_OUTAGE (default 1): seconds for which it stays down.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from monitor import events
from monitor.ship import state
from tests.elasticsearch.scene import Scene, ids_of, write_config
from tests.elasticsearch.server import ROLES, Server

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("EBPF_MONITOR_SHIP_KILLS", "8"))
BACKLOG = int(os.environ.get("EBPF_MONITOR_SHIP_BACKLOG", "10000"))
OUTAGE_S = float(os.environ.get("EBPF_MONITOR_SHIP_OUTAGE", "1"))
pytestmark = pytest.mark.elasticsearch


def template(server: Server, name: str, *, schema: int = 1) -> None:
    """The project's own template, for another index name."""
    found = orjson.loads((ROOT / "config" / "index-template.json").read_bytes())
    found["index_patterns"] = [f"{name}-*"]
    found["template"]["mappings"]["_meta"]["ebpf_monitor"]["schema"] = schema
    found["template"]["settings"] = {"index": {"number_of_replicas": 0, "refresh_interval": "1s"}}
    found["template"]["mappings"].pop("properties")
    server.json("PUT", f"/_index_template/{name}", found)


@pytest.fixture
def scene(
    elasticsearch: Server, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr("monitor.ship.backoff.PAUSE_S", 1.0)
    name = f"ebpf-events-{abs(hash(request.node.name)) % 10**8}"
    template(elasticsearch, name)
    made = Scene(tmp_path / "scene", elasticsearch.config("ship", es_index=name, batch_size=200))
    yield made
    while Process.running:  # of a test that failed
        Process.running.pop().kill()
    made.end()
    elasticsearch.ask("DELETE", f"/_index_template/{name}")
    for index in elasticsearch.json("GET", f"/{name}-*/_settings?filter_path=*.settings.index.uuid"):
        elasticsearch.ask("DELETE", f"/{index}")


def stored(server: Server, name: str) -> list[str]:
    """Every _id of the indices of this name."""
    server.json("POST", f"/{name}-*/_refresh")
    found: list[str] = []
    after: list[Any] = []
    while True:
        body = {"size": 10_000, "_source": False, "sort": ["_doc"]}
        if not after:
            reply = server.json("POST", f"/{name}-*/_search?scroll=1m", body)
        else:
            reply = server.json("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": after[0]})
        hits = reply["hits"]["hits"]
        after = [reply["_scroll_id"]]
        if not hits:
            return found
        found += [hit["_id"] for hit in hits]


class Process:
    """`ebpf-monitor ship` as a process."""

    running: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, scene: Scene, *words: str) -> None:
        self.config = write_config(scene)
        self.output = scene.root / "said"
        with self.output.open("ab") as said:
            command = [sys.executable, "-m", "monitor", "ship", "--config", str(self.config), *words]
            self.popen = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.running.append(self.popen)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self, seconds: float = 90.0) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(seconds) == 0, self.output.read_text()
        assert "Traceback" not in self.output.read_text()


def drained(scene: Scene, seconds: float = 120.0) -> None:
    process = Process(scene, "--once")
    assert process.popen.wait(seconds) == 0, process.output.read_text()
    assert "Traceback" not in process.output.read_text()


def test_the_shippers_own_rights_are_enough(elasticsearch: Server, scene: Scene) -> None:
    scene.log.append(2500)
    drained(scene)
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))
    assert scene.counts()["created"] == 2500


def test_killed_at_random_moments(elasticsearch: Server, scene: Scene) -> None:
    scene.log.append(100)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            scene.log.append(200)
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    moments = random.Random(4)
    try:
        for _ in range(KILLS):
            process = Process(scene)
            deadline = time.monotonic() + 60
            while state.read_json(scene.ship_dir / state.STATUS_NAME).get("pid") != process.popen.pid:
                assert time.monotonic() < deadline, process.output.read_text()
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 1.2))
            process.kill()
    finally:
        stop.set()
        writer.join()
    drained(scene)
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))
    print(f"{KILLS} kills, {scene.log.sequence} lines, {scene.counts()}")


def test_the_server_is_killed_and_stays_away(elasticsearch: Server, scene: Scene) -> None:
    scene.log.append(2000)
    process = Process(scene)
    time.sleep(2.0)
    elasticsearch.kill()
    try:
        down = time.monotonic()
        for _ in range(max(1, BACKLOG // 5000)):
            scene.log.append(min(5000, BACKLOG))
        time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - down)))
    finally:
        elasticsearch.start()
    up = time.monotonic()
    first = len(stored(elasticsearch, scene.es.es_index))
    while len(stored(elasticsearch, scene.es.es_index)) == first:
        assert time.monotonic() - up < 10, process.output.read_text()
        time.sleep(0.2)
    healthy = time.monotonic() - up
    rss = 0
    deadline = time.monotonic() + 300
    while (scene.counts()["lag"]) > 0:
        assert time.monotonic() < deadline
        text = Path(f"/proc/{process.popen.pid}/status").read_text()
        rss = max(rss, int(text.split("VmHWM:")[1].split()[0]))
        time.sleep(0.2)
    process.end()
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))
    assert rss < 128 * 1024
    print(
        f"down {up - down:.0f} s, {scene.log.sequence} lines, delivering again after {healthy:.1f} s, {rss // 1024} MB at most"
    )


def test_read_only_and_no_longer(elasticsearch: Server, scene: Scene) -> None:
    scene.log.append(500)
    scene.deliver()
    index = next(iter(elasticsearch.json("GET", f"/{scene.es.es_index}-*/_settings")))
    elasticsearch.json("PUT", f"/{index}/_settings", {"index.blocks.write": True})
    scene.log.append(500)
    scene.deliver(until=lambda: any("takes no documents" in text for text in scene.said))
    assert scene.letters() == []
    elasticsearch.json("PUT", f"/{index}/_settings", {"index.blocks.write": None})
    repaired = time.monotonic()
    scene.deliver()
    assert time.monotonic() - repaired < 10
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))


def test_no_template(elasticsearch: Server, scene: Scene) -> None:
    elasticsearch.json("DELETE", f"/_index_template/{scene.es.es_index}")
    scene.log.append(100)
    scene.deliver(until=lambda: scene.said != [])
    assert "setup-elasticsearch" in scene.said[0]
    assert elasticsearch.ask("GET", f"/{scene.es.es_index}-2026.11.22").status == 404  # nothing was made
    template(elasticsearch, scene.es.es_index, schema=77)
    scene.deliver(until=lambda: "format 77" in scene.runner.status()["reason"])  # type: ignore[union-attr]
    template(elasticsearch, scene.es.es_index)
    scene.deliver()
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))


def test_an_index_of_somebody_else(elasticsearch: Server, scene: Scene) -> None:
    elasticsearch.json("DELETE", f"/_index_template/{scene.es.es_index}")
    elasticsearch.json(
        "PUT", f"/{scene.es.es_index}-2026.11.22", {"mappings": {"properties": {"a": {"type": "keyword"}}}}
    )
    template(elasticsearch, scene.es.es_index)
    scene.log.append(100)
    scene.deliver(until=lambda: scene.said != [])
    assert "exists with another mapping" in scene.said[0]
    assert stored(elasticsearch, scene.es.es_index) == []
    elasticsearch.json("DELETE", f"/{scene.es.es_index}-2026.11.22")
    scene.deliver()
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))


def test_credentials_and_rights_that_are_taken_and_given_back(
    elasticsearch: Server, scene: Scene, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    word.write_text("wrong")
    word.chmod(0o600)
    scene.es = replace(scene.es, es_password="", password_file=word)
    scene.log.append(300)
    scene.deliver(until=lambda: scene.said != [])
    assert "credentials" in scene.said[0]
    word.write_text("shippw12")
    repaired = time.monotonic()
    scene.deliver()
    assert time.monotonic() - repaired < 10
    elasticsearch.set_role(ROLES.replace("ebpf-events-*", "other-*", 1))
    deadline = time.monotonic() + 60  # the server looks at its files each second
    there = f"/{scene.es.es_index}-2026.11.22/_create/{ids_of(scene.log.directory)[0]}"
    while elasticsearch.ask("PUT", there, {}, user="ship").status != 403:  # 409 until then
        assert time.monotonic() < deadline
        time.sleep(0.1)
    scene.log.append(300)
    try:
        scene.deliver(until=lambda: any("permit" in text or "grant" in text for text in scene.said))
    finally:
        elasticsearch.set_role(ROLES)
    scene.deliver(60)
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))
    assert scene.letters() == []


def test_squatted_ids(elasticsearch: Server, scene: Scene) -> None:
    scene.log.append(50)
    scene.deliver()
    scene.log.append(300)
    identity = ids_of(scene.log.directory)[200]
    elasticsearch.json("PUT", f"/{scene.es.es_index}-2026.11.22/_create/{identity}", {"mine": True})
    scene.deliver()
    assert scene.letters() == [identity]
    assert scene.counts()["conflict"] == 1
    scene.exactly_once([one for one in stored(elasticsearch, scene.es.es_index) if one != identity])


def test_dead_letters_are_sent_again_once_the_mapping_takes_them(elasticsearch: Server, scene: Scene) -> None:
    name = scene.es.es_index
    found = elasticsearch.json("GET", f"/_index_template/{name}")["index_templates"][0]["index_template"]
    found["template"]["mappings"]["properties"] = {
        "file": {"properties": {"path": {"type": "integer"}}}
    }  # takes no text
    elasticsearch.json("PUT", f"/_index_template/{name}", found)
    scene.log.append(2)
    bad = scene.log.sequence + 1
    scene.log.append(3, path="/a/path")
    drained(scene)
    assert [int(one[-12:], 16) for one in scene.letters()] == [2, bad, bad + 1, bad + 2]
    template(elasticsearch, name)
    elasticsearch.json("DELETE", f"/{name}-2026.11.22")
    process = Process(scene, "--retry-dead-letters")
    assert process.popen.wait(60) == 0, process.output.read_text()
    assert scene.letters() == []
    assert sorted(int(one[-12:], 16) for one in stored(elasticsearch, name)) == [2, bad, bad + 1, bad + 2]
    counts = scene.counts()
    assert (counts["created"], counts["dead_letter"], counts["lag"]) == (5, 0, 0)


def test_a_back_fill_of_what_was_withheld(elasticsearch: Server, scene: Scene) -> None:
    scene.es = replace(scene.es, profile="standard")
    scene.log.append(1)
    for number in range(3):  # opens of quiet objects, but for the last
        scene.log.append(333, kf=events.QUIET if number < 2 else 0)
    scene.deliver()
    quiet = ids_of(scene.log.directory)[1:667]
    scene.exactly_once(stored(elasticsearch, scene.es.es_index), withheld=quiet)
    assert scene.counts()["withheld"] == 666
    back = range(100, 301)  # line 1 is of 16:52:01.123456789, each other a millisecond later
    times = ["--since", "2026-11-22T16:52:01.222456Z", "--until", "2026-11-22T16:52:01.422457Z", "--profile", "full"]
    for _ in range(2):  # again: they are there already
        process = Process(scene, *times)
        assert process.popen.wait(60) == 0, process.output.read_text()
        numbers = sorted(int(one[-12:], 16) for one in stored(elasticsearch, scene.es.es_index))
        assert numbers == [1, *back, *range(668, 1001)]
    assert f"0 sent, {len(back)} were there already" in process.output.read_text()
    assert scene.counts()["withheld"] == 666


def test_what_documents_can_hold(elasticsearch: Server, scene: Scene) -> None:
    """Long, strange and many: the real server takes them, and gives back the log's own bytes."""
    args = [
        "x" * 32_767,
        "é\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "ignore"),
        "\\x00\\xff",
        *["a"] * 10_000,
    ]
    scene.log.append(1)
    scene.log.append(1, sections={"process": {"args": args, "args_count": len(args)}}, ebpf={"timestamp_ns": 2**63 - 1})
    scene.log.append(1, path="/" + "long/" * 800 + "\\x80\\n")
    drained(scene)
    scene.exactly_once(stored(elasticsearch, scene.es.es_index))
    hits = elasticsearch.json("POST", f"/{scene.es.es_index}-*/_search", {"size": 10})["hits"]["hits"]
    lines = {orjson.loads(line)["event"]["id"]: orjson.loads(line) for line in scene.log.live.read_bytes().splitlines()}
    assert {hit["_id"]: hit["_source"] for hit in hits} == lines
