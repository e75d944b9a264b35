"""A shipper that goes on where another one was: what the checkpoint says, and ids that are taken already."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from monitor.ship import checkpoint, results
from monitor.ship.checkpoint import Checkpoint, State
from tests.elasticsearch.fake import Answer, Fake, Request
from tests.elasticsearch.scene import Scene, disk_full

# ---- ids that somebody else took ----


def squat(fake: Fake, scene: Scene, numbers: list[int], *, equal: bool = False) -> None:
    lines = scene.log.live.read_bytes().splitlines()
    index = fake.store.setdefault("ebpf-events-2026.11.22", {})
    for number in numbers:
        index[orjson.loads(lines[number - 1])["event"]["id"]] = lines[number - 1] if equal else b'{"mine":true}'


@pytest.mark.parametrize("readable", [False, True])
def test_squatted_ids_are_conflicts(readable: bool, fake: Fake, scene: Scene) -> None:
    fake.readable = readable
    scene.deliver()
    scene.log.append(1000)
    numbers = [1500, 1501, 1777]
    squat(fake, scene, numbers)
    scene.deliver()
    assert [int(identity[-12:], 16) for identity in scene.letters()] == numbers
    counts = scene.counts()
    assert (counts["conflict"], counts["dead_letter"], counts["duplicate"], counts["created"]) == (3, 3, 0, 1997)
    assert any("another document has" in text for text in scene.said)


@pytest.mark.parametrize("readable", [False, True])
def test_a_copy_of_this_host_is_found(readable: bool, fake: Fake, scene: Scene, tmp_path: Path) -> None:
    """Two clones of one running machine go on with the same numbers and other events."""
    fake.readable = readable
    scene.deliver()
    scene.log.append(300, path="/only/here")  # what the clone does is another thing
    clone = fake.store["ebpf-events-2026.11.22"]
    for number in range(1001, 1201):
        clone[f"a1b2c3d4-{scene.log.epoch}-{number:012x}"] = scene.log.line(number, path="/only/there")
    scene.deliver()
    counts = scene.counts()
    assert (counts["conflict"], counts["created"], counts["lag"]) == (200, 1100, 0)


def test_when_taken_ids_are_the_rule_it_pauses(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_CONFLICTS", 150)
    scene.deliver()
    scene.log.append(500)
    squat(fake, scene, list(range(1001, 1501)))
    scene.deliver(until=lambda: any("150 documents in a row" in text for text in scene.said))
    assert len(scene.letters()) == 100  # the first bulk
    assert scene.runner.status()["state"] == "paused"  # type: ignore[union-attr]


def test_what_was_sent_before_a_kill_is_a_duplicate(fake: Fake, scene: Scene) -> None:
    scene.deliver(until=lambda: len(fake.ids()) >= 500)
    scene.drop()
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.counts()["conflict"] == 0


def test_a_kill_while_an_earlier_bulk_is_to_be_sent_again(fake: Fake, scene: Scene) -> None:
    """The third bulk fails when the fourth is there already: what is behind a hole must not count as done."""

    def refused(server: Fake, request: Request) -> Answer | None:
        if not any(int(identity[-12:], 16) == 250 for identity, _ in request.documents):
            return None
        deadline = time.monotonic() + 20
        while len(server.bulks()) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        return Answer(503)

    fake.fault = refused
    ship = scene.start().shipper
    assert ship is not None
    scene.deliver(until=lambda: ship.counts.bulks >= 4)
    ship._save(force=True)
    assert len(fake.ids()) >= 300
    assert ship.checkpoint.state.done is not None
    assert ship.checkpoint.state.done[1] == 200
    fake.fault = None
    scene.drop()
    scene.deliver()
    scene.exactly_once(fake.ids())


def test_without_a_checkpoint_a_squatted_id_is_still_found_when_it_may_be_read(fake: Fake, scene: Scene) -> None:
    fake.readable = True
    squat(fake, scene, [400], equal=False)
    squat(fake, scene, [401], equal=True)
    scene.deliver()
    assert [int(identity[-12:], 16) for identity in scene.letters()] == [400]
    assert scene.counts()["duplicate"] == 1


# ---- the checkpoint ----


@pytest.mark.parametrize("readable", [False, True])
def test_no_checkpoint(readable: bool, fake: Fake, scene: Scene) -> None:
    fake.readable = readable
    scene.deliver()
    scene.end()
    (scene.ship_dir / "checkpoint").unlink()
    scene.log.append(100)
    scene.deliver()
    scene.exactly_once(fake.ids())
    counts = scene.counts()
    assert (counts["duplicate"], counts["created"], counts["conflict"]) == (1000, 100, 0)


@pytest.mark.parametrize("damage", [b"", b"\0" * 40_000, b"garbage", b"0" * 20])
def test_a_torn_checkpoint(damage: bytes, fake: Fake, scene: Scene) -> None:
    scene.deliver()
    scene.end()
    (scene.ship_dir / "checkpoint").write_bytes(damage)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.counts()["conflict"] == 0


def test_one_torn_slot_leaves_the_state_before(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path)
    for number in range(1, 6):
        file.state.done = ("e" * 16, number)
        file.write()
    file.close()
    whole = (tmp_path / "checkpoint").read_bytes()
    newest = 5 % 2 * checkpoint.SLOT_BYTES
    for cut in range(0, 300, 7):
        torn = bytearray(whole)
        torn[newest + cut : newest + checkpoint.SLOT_BYTES] = b"\0" * (checkpoint.SLOT_BYTES - cut)
        (tmp_path / "checkpoint").write_bytes(torn)
        found = checkpoint.read(tmp_path)
        assert found is not None
        assert found.done == ("e" * 16, 4)
    rotten = bytearray(whole)  # one digit, and still JSON
    rotten[whole.index(b'",5]', newest) + 2] = ord("9")
    (tmp_path / "checkpoint").write_bytes(rotten)
    found = checkpoint.read(tmp_path)
    assert found is not None
    assert found.done == ("e" * 16, 4)


def test_a_checkpoint_from_the_future(fake: Fake, scene: Scene) -> None:
    scene.deliver()
    scene.end()
    file = Checkpoint(scene.ship_dir)
    file.state.done = file.state.sent = (scene.log.epoch, 5_000_000)
    file.write()
    file.close()
    scene.log.append(100)
    scene.deliver()
    assert any("ahead of the log" in text for text in scene.said)
    scene.exactly_once(fake.ids())
    assert scene.counts()["conflict"] == 0


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 99)
        file = Checkpoint(tmp_path)
        file.write()
        file.close()
    with pytest.raises(checkpoint.CheckpointError, match="version 99"):
        checkpoint.read(tmp_path)


def test_disk_full_at_the_checkpoint(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.deliver()
    sent = len(fake.ids())
    scene.log.append(5000)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fdatasync", disk_full)
        scene.deliver(until=lambda: scene.said != [])
        assert "No space left" in scene.said[0]
        assert len(fake.ids()) < sent + 5000
    scene.deliver()
    scene.exactly_once(fake.ids())


def test_counts_of_many_epochs_fit_in_a_slot() -> None:
    state = State(done=("f" * 16, 1 << 47), sent=("f" * 16, 1 << 47), unknown=("f" * 16, 1 << 47), file_id="f" * 38)
    for number in range(100):
        state.add(__import__("collections").Counter({(f"{number:016x}", word): 1 << 47 for word in checkpoint.WORDS}))
    assert len(state.encoded(1 << 40)) == checkpoint.SLOT_BYTES
