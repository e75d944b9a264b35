"""Each durable line becomes one document, whatever the log does meanwhile: rotation, compression, removal, restarts."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from monitor import events, logfiles
from monitor.frames import Unreadable
from monitor.logfiles import open_regular
from monitor.ship import tail
from monitor.ship.removed import records
from tests.elasticsearch.fake import Fake
from tests.elasticsearch.scene import EPOCHS, Scene, ids_of, of_fake

KINDS = ("minimal", "standard", "full", "trace")


@pytest.fixture
def scene(fake: Fake, tmp_path: Path) -> Iterator[Scene]:
    made = of_fake(fake, tmp_path / "scene")
    yield made
    made.end()


def test_all_that_is_durable_and_nothing_more(fake: Fake, scene: Scene) -> None:
    scene.log.append(1000)
    scene.log.append(50, durable=False)
    scene.deliver()
    assert len(fake.ids()) == 1000
    scene.log.sync()
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.counts()["created"] == 1050
    lines = {line for documents in fake.store.values() for line in documents.values()}
    assert lines == set(scene.log.live.read_bytes().splitlines())  # the log's own bytes
    assert all(len(request.documents) <= 100 for request in fake.bulks())
    assert all("?filter_path=errors," in request.path for request in fake.bulks())  # small replies


def test_the_index_is_the_events_own_day(fake: Fake, scene: Scene) -> None:
    scene.log.append(10)
    midnight = 1795363200 * 1_000_000_000  # 2026-11-22T16:00Z
    before = midnight + 8 * 3600 * 1_000_000_000
    scene.log.sequence = 10
    for number in range(20):
        scene.log.sequence += 1
        scene.log.write(scene.log.line(scene.log.sequence, time_ns=before - 10_000 + number * 1000))
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert {name: len(documents) for name, documents in fake.store.items()} == {
        "ebpf-events-2026.11.22": 20, "ebpf-events-2026.11.23": 10,
    }  # fmt: skip


def test_restarts_rotation_and_compression(fake: Fake, scene: Scene) -> None:
    log = scene.log
    for round_ in range(4):
        log.append(150)
        scene.deliver()
        log.append(150)
        log.restart()
        log.append(30)
        rotated = log.rotate(f"2026-{round_}")
        if round_ % 2:
            log.compress(rotated)
        log.append(5)
        log.restart()
        scene.deliver()
        if round_ == 2:
            scene.drop()
    log.append(3)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert records(scene.ship_dir, 0) == []


def test_compressed_while_it_is_read_and_found_again_after_a_kill(fake: Fake, scene: Scene) -> None:
    scene.log.append(3000)
    scene.deliver(until=lambda: len(fake.ids()) >= 500)
    scene.drop()
    rotated = scene.log.rotate("1")
    scene.log.append(10)
    scene.log.compress(rotated)
    scene.deliver()
    scene.exactly_once(fake.ids())


def test_a_torn_line_is_cut_and_the_rest_goes_on(fake: Fake, scene: Scene) -> None:
    scene.log.append(20)
    scene.log.write(b'{"@timestamp":"2026-11-22T1', durable=False)
    scene.log.rotate("1")
    scene.log.restart()
    scene.log.append(20)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert len(fake.ids()) == 40


def test_lines_of_others_are_dead_letters(fake: Fake, scene: Scene) -> None:
    scene.log.append(20)
    scene.log.write(b"\0\0\0 not ours\n" + b'{"a":1}\n')
    scene.log.append(20)
    scene.deliver()
    assert len(fake.ids()) == 40
    assert scene.letters() == ["", ""]
    assert scene.counts()["lag"] == 0


def test_what_was_removed_behind_is_told_with_its_range(fake: Fake, scene: Scene) -> None:
    log = scene.log
    log.append(300)
    scene.deliver()
    scene.end()
    kept = fake.ids()
    log.append(50)  # 301-350 with the rotated file
    gone = log.rotate("1")
    log.append(50)
    gone.unlink()
    log.restart()
    middle = log.epoch
    log.append(70)
    gone = log.rotate("2")
    gone.unlink()  # the rest of the first epoch, and the second
    log.restart()
    log.append(40)
    scene.deliver()
    scene.exactly_once(fake.ids(), log=[*kept, *ids_of(log.directory)])
    told = [(one.epoch, one.first, one.last) for _, one in records(scene.ship_dir, 0)]
    assert told == [(middle, 1, 70), (EPOCHS[0], 301, 0)]
    assert any("70 lines" in text for text in scene.said)


def test_a_gap_in_one_epoch(fake: Fake, scene: Scene) -> None:
    scene.log.append(100)
    scene.deliver()
    scene.end()
    first = fake.ids()
    scene.log.append(23)
    scene.log.rotate("1").unlink()
    scene.log.append(10)
    scene.deliver()
    assert [(number, one.first, one.last, one.count) for number, one in records(scene.ship_dir, 0)] == [
        (1, 101, 123, 23)
    ]
    assert scene.counts()["expired"] == 23
    scene.exactly_once(fake.ids(), log=first + ids_of(scene.log.directory))
    scene.start()
    scene.deliver()
    assert len(records(scene.ship_dir, 0)) == 1


def test_a_damaged_archive(fake: Fake, scene: Scene) -> None:
    scene.log.append(2000)
    packed = scene.log.compress(scene.log.rotate("1"))
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    scene.log.append(10)
    scene.deliver()
    found = [one for _, one in records(scene.ship_dir, 0)]
    assert len(found) == 1
    assert found[0].last == 2000
    assert "damaged" in found[0].reason
    assert len(fake.ids()) == 2010 - found[0].count
    assert scene.counts()["lag"] == 0


def test_copytruncate(fake: Fake, scene: Scene) -> None:
    scene.log.append(500)
    scene.deliver(until=lambda: len(fake.ids()) >= 100)
    copy = scene.log.live.with_name("events.jsonl.1")
    copy.write_bytes(scene.log.live.read_bytes())
    with scene.log.live.open("r+b") as file:
        file.truncate(0)
    scene.log.append(40)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert records(scene.ship_dir, 0) == []


def test_a_file_that_may_not_be_read_stops_and_loses_nothing(
    fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.ship.backoff.PAUSE_S", 0.3)
    scene.log.append(100)
    scene.log.rotate("1")
    scene.log.append(100)

    def refused(path: Path) -> tuple[int, os.stat_result]:
        if path.name.endswith("-1"):
            raise Unreadable("cannot be opened: Permission denied")
        return open_regular(path)

    with monkeypatch.context() as patch:
        patch.setattr(logfiles, "open_regular", refused)
        patch.setattr(tail, "open_regular", refused)
        scene.deliver(until=lambda: scene.said != [])
    assert "Permission denied" in scene.said[0]
    assert fake.ids() == []
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert records(scene.ship_dir, 0) == []


def test_the_shipping_profile(fake: Fake, scene: Scene) -> None:
    scene.es = replace(scene.es, profile="minimal")
    scene.log.append(50)
    scene.log.append(10, event="socket_connect", path=None)
    scene.log.append(50)
    scene.deliver()
    names = {
        line.split(b'"ebpf":{"event":"')[1].split(b'"')[0]
        for documents in fake.store.values()
        for line in documents.values()
    }
    assert names == {b"monitor_start", b"socket_connect"}
    counts = scene.counts()
    assert (counts["created"], counts["withheld"], counts["lag"]) == (11, 99, 0)
    scene.end()
    scene.log.append(7)
    scene.log.rotate("1").unlink()
    scene.log.append(3)  # the first line behind a gap is withheld like others
    scene.deliver()
    counts = scene.counts()
    assert (counts["created"], counts["withheld"], counts["expired"], counts["lag"]) == (11, 102, 7, 0)


@pytest.mark.parametrize("profile", ["same", *KINDS])
def test_a_shipping_profile_withholds_what_that_capture_profile_leaves_out(
    fake: Fake, scene: Scene, profile: str
) -> None:
    """Every event of the catalogue, and what is done to quiet objects, under names that look like marks."""
    scene.es = replace(scene.es, profile=profile)
    scene.log.append(1)
    forged = '/x","quiet":true,"ebpf":{"event":"socket_connect"'
    for kind in events.EVENTS:
        if kind.lane != "made":
            scene.log.append(2, event=kind.name, path=forged)
    for name in ("file_open", "file_read", "file_close"):
        scene.log.append(3, event=name, kf=events.QUIET)
    lines = [orjson.loads(line) for line in scene.log.live.read_bytes().splitlines()]
    withheld = [
        one["event"]["id"]
        for one in lines
        if profile != "same"
        and (profile not in events.EVENT[one["ebpf"]["event"]].profiles
             or (profile == "standard" and one["ebpf"].get("quiet") is True))
    ]  # fmt: skip
    assert len(withheld) == {"same": 0, "trace": 0, "full": 0, "standard": 9}.get(profile, len(withheld))
    assert len(withheld) > 50 or profile != "minimal"
    scene.deliver()
    scene.exactly_once(fake.ids(), withheld=withheld)
    assert scene.counts()["withheld"] == len(withheld)


def test_the_backlog_is_sent_in_order_and_two_at_a_time(fake: Fake, scene: Scene) -> None:
    scene.log.append(2000)
    busy: list[int] = []
    most: list[int] = []

    def slow(server: Fake, request: object) -> None:
        if "_bulk" in request.path:  # type: ignore[attr-defined]
            busy.append(1)
            most.append(len(busy))
            time.sleep(0.01)
            busy.pop()

    fake.fault = slow
    scene.deliver()
    assert max(most) == 2
    scene.exactly_once(fake.ids())


def test_a_gzip_of_many_members(fake: Fake, scene: Scene) -> None:
    scene.log.append(100)
    rotated = scene.log.rotate("1")
    data = rotated.read_bytes().splitlines(keepends=True)
    rotated.with_name(rotated.name + ".gz").write_bytes(
        gzip.compress(b"".join(data[:33])) + gzip.compress(b"".join(data[33:]))
    )
    rotated.unlink()
    scene.log.append(1)
    scene.deliver()
    scene.exactly_once(fake.ids())
