"""The mirror of the kernel's direct-mapped tables, against a plain model: what it says is true, and a batch can be undone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor import events, fastpath, mirror, names, naming
from monitor.encode import Names
from monitor.mirror import Mirror
from tests import fakes
from tests.fakes import SHAPE, FakeCapture, facts, spelled

KEYS = (1, 2, 1 + SHAPE.sent, 1 + 2 * SHAPE.sent, -7, 0x7FFF_FFFF_FFFF_FFFF)
TIDS = (1, 2, 1 + SHAPE.tasks, 4_000_000)


def file(path: bytes, flags: int = 0, ino: int = 9) -> Names:
    return naming.file({"flags": flags, "ino": ino, "dev": 8 << 20, "mode": 0o100644}, spelled(path))


def sock(local: bytes = b"", remote: bytes = b"", family: int = 1) -> Names:
    values = {
        "family": family,
        "kind": 1,
        "protocol": 0,
        "ino": 5,
        "cookie": (1 << 64) - 1,
        "peer": (1 << 64) - 1,
        "local_port": 65535,
        "remote_port": 65535,
        "local": b"\xfe" * 16,
        "remote": b"\xfd" * 16,
        "local_bytes": len(local),
        "remote_bytes": len(remote),
    }
    return naming.endpoint(values, local + remote)


def task(tid: int, executable: bytes = b"/usr/bin/cat", comm: bytes = b"cat") -> tuple[dict[str, Any], dict[str, str]]:
    raw: dict[str, str] = {}
    return fakes.tasks().parts(facts(tid=tid, comm=comm), executable, b"", raw, full=False), raw


OBJECTS = (
    file(b"/etc/passwd"),
    file(b"/srv/caf\xe9"),
    file(b"/srv/" + b"l" * 700, 1),
    file(b'/a"b\\c'),
    file(b"/srv/" + b"\xff" * 200),
    file(b"/"),
    file(b"/srv/" + "日".encode() * 300),
    sock(b"/run/x\0"),
    sock(b"\xff" * 108, b"\x01" * 108),
    sock(family=10),
    sock(family=2),
)
PROGRAMS = (b"/usr/bin/cat", b"/opt/caf\xe9", b"/opt/" + b"x" * 900, b"/opt/" + b"\xe9" * 300)


class Model:
    """What the mirror should say: a dict for each table, direct-mapped."""

    def __init__(self) -> None:
        self.files: dict[tuple[int, int], tuple[int, Names]] = {}
        self.tasks: dict[tuple[int, int], tuple[int, Any]] = {}
        self.sessions: dict[int, tuple[int, Names, Any]] = {}

    def file(self, cpu: int, key: int) -> Names | None:
        kept = self.files.get((cpu, key & (SHAPE.sent - 1)))
        return kept[1] if kept is not None and kept[0] == key else None

    def task(self, cpu: int, tid: int) -> Any:
        kept = self.tasks.get((cpu, tid & (SHAPE.tasks - 1)))
        return kept[1] if kept is not None and kept[0] == tid else None


def step(found: Mirror, model: Model, choose: random.Random, generation: int) -> None:
    """One random change of both."""
    cpu, key, tid = choose.randrange(2), choose.choice(KEYS), choose.choice(TIDS)
    what = choose.randrange(3)
    if what == 0:
        about = choose.choice(OBJECTS)
        found.put_file(cpu, key, about)
        model.files[cpu, key & (SHAPE.sent - 1)] = key, about
    elif what == 1:
        who = task(tid, choose.choice(PROGRAMS), choose.choice((b"cat", b"\xff")))
        found.put_task(cpu, tid, *who)
        model.tasks[cpu, tid & (SHAPE.tasks - 1)] = tid, who
    else:
        slot, known = choose.randrange(4), model.file(cpu, key)
        found.put_session(slot, generation, cpu, key, tid)
        if known is None:
            model.sessions.pop(slot, None)
        else:
            model.sessions[slot] = generation, known, model.task(cpu, tid) or ({}, {})


def check(found: Mirror, model: Model) -> None:
    for cpu in range(2):
        for key in KEYS:
            assert found.file(cpu, key) == model.file(cpu, key)
        for tid in TIDS:
            assert found.task(cpu, tid) == model.task(cpu, tid)
    for slot in range(4):
        kept = model.sessions.get(slot)
        for generation in range(1, 60):
            said = found.session(slot, generation)
            if kept is None or kept[0] != generation:
                assert said is None
            else:
                assert said is not None
                assert said[:3] == (kept[1], *kept[2])


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40))
@settings(max_examples=50)
def test_mirror_says_what_a_dict_would(seed: int, steps: int) -> None:
    found, model, choose = Mirror(FakeCapture().memory()), Model(), random.Random(seed)
    for number in range(steps):
        step(found, model, choose, number + 1)
    check(found, model)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_roll_back_restores_every_byte(seed: int) -> None:
    capture, choose, model = FakeCapture(), random.Random(seed), Model()
    found = Mirror(capture.memory())
    for number in range(20):
        step(found, model, choose, number + 1)
    found.committed()
    before = capture.mirror.tobytes()
    for number in range(20, 20 + choose.randrange(1, 20)):
        step(found, model, choose, number + 1)
        if choose.random() < 0.3:
            found.report(choose.randrange(4), [1, 2, 3, 4])
    Mirror(capture.memory()).roll_back()
    assert capture.mirror.tobytes() == before
    assert int(capture.memory()["J"][0]) == 0


def test_roll_back_undoes_what_the_compiled_pass_changed() -> None:
    bench = fakes.Bench()
    bench.kernel.file(0, 1, b"/a")
    bench.kernel.task(0)
    bench.drain()
    before = bench.capture.mirror.tobytes()
    bench.kernel.bulk(0, "file_open", key=1, fd=3, kf=events.BEGIN, session=1, generation=7)
    bench.order.look()
    bench.pipeline.fill()
    assert bench.capture.mirror.tobytes() != before
    assert Mirror(bench.capture.memory()).roll_back() > 0
    assert bench.capture.mirror.tobytes() == before


def test_commit_makes_the_changes_stand() -> None:
    capture = FakeCapture()
    found = Mirror(capture.memory())
    found.put_file(0, 1, file(b"/a"))
    found.committed()
    assert found.roll_back() == 0
    assert found.file(0, 1) == file(b"/a")


def test_totals_reported_are_kept_for_the_same_generation_only() -> None:
    found = Mirror(FakeCapture().memory())
    found.put_file(0, 1, file(b"/a"))
    found.put_session(0, 7, 0, 1, 1)
    found.report(0, [1, 2, 3, 4])
    found.put_session(0, 7, 0, 1, 1)
    assert found.session(0, 7)[3] == [1, 2, 3, 4]  # type: ignore[index]
    found.put_session(0, 9, 0, 1, 1)
    assert found.session(0, 9)[3] == [0, 0, 0, 0]  # type: ignore[index]


@pytest.mark.parametrize("about", OBJECTS, ids=range(len(OBJECTS)))
def test_an_object_survives_the_reader_whole_or_in_a_short_form_that_says_so(about: Names) -> None:
    capture = FakeCapture()
    Mirror(capture.memory()).put_file(0, 1, about)
    said = Mirror(capture.memory()).file(0, 1)
    assert said is not None
    if len(mirror.object_fragment(about)) <= fastpath.FILE_ROOM:
        assert said == about
        return
    assert said.ebpf["truncated"] is True
    if "file" in about.sections:
        whole, short = about.sections["file"], said.sections["file"]
        assert whole["path"].startswith(short["path"])
        assert short["path"]
        assert said.ebpf["original_bytes"] == len(names.original(whole["path"], about.raw.get("file_path")))
        assert {key: short[key] for key in ("inode", "device", "mode", "type")} == {
            key: whole[key] for key in ("inode", "device", "mode", "type")
        }
        assert said.ebpf.get("path_flags") == about.ebpf.get("path_flags")
    else:
        assert said.sections == about.sections
        assert said.ebpf["socket"]["inode"] == about.ebpf["socket"]["inode"]


@example("\U0001f600".encode() * 200)
@given(st.binary(min_size=300, max_size=4000).filter(lambda name: name.strip(b"/\0")))
@settings(max_examples=50)
def test_a_long_name_never_writes_beyond_its_entry(name: bytes) -> None:
    capture = FakeCapture()
    found = Mirror(capture.memory())
    for key in (1, 2, 3):
        found.put_file(0, key, file(b"/neighbour"))
    found.put_file(0, 2, file(b"/" + name.replace(b"\0", b"0"), flags=31, ino=(1 << 64) - 1))
    fresh = Mirror(capture.memory())
    assert fresh.file(0, 1) == fresh.file(0, 3) == file(b"/neighbour")
    assert fresh.file(0, 2) is not None


@pytest.mark.parametrize("executable", PROGRAMS)
def test_a_process_survives_the_reader_with_its_identity(executable: bytes) -> None:
    capture = FakeCapture()
    whole, raw = task(1, executable)
    Mirror(capture.memory()).put_task(0, 1, whole, raw)
    said = Mirror(capture.memory()).task(0, 1)
    assert said is not None
    sections, _ = said
    for key in ("pid", "entity_id", "thread", "parent"):
        assert sections["process"][key] == whole["process"][key]
    assert sections["user"] == whole["user"]
    assert sections["process"].get("executable", whole["process"]["executable"]) == whole["process"]["executable"]


def test_what_an_entry_held_before_does_not_come_back() -> None:
    """A long name is kept in the process; the compiled pass then gives the slot to another object."""
    bench = fakes.Bench()
    bench.kernel.task(0)
    bench.kernel.file(0, 1, b"/long/" + b"l" * 900)
    bench.kernel.file(0, 2, b"/short")
    for key, generation in ((1, 7), (2, 9)):
        bench.kernel.bulk(0, "file_open", key=key, fd=3, kf=events.BEGIN, session=1, generation=generation)
    bench.kernel.bulk(
        0, "socket_send", fakes.sockaddr("192.0.2.1", 1), fd=3, session=1, generation=9, kf=events.ADDRESS, extra=16
    )
    found = bench.documents()
    assert [one["file"]["path"][:6] for one in found] == ["/long/", "/short", "/short"]


def test_a_session_of_an_unknown_object_begins_nothing() -> None:
    found = Mirror(FakeCapture().memory())
    found.put_file(0, 1, file(b"/a"))
    found.put_session(0, 7, 0, 1 + SHAPE.sent, 1)
    assert found.session(0, 7) is None
    found.put_session(0, 7, 0, 1, 1)
    found.put_task(0, 1, *task(1))
    found.put_session(0, 9, 0, 1, 1 + SHAPE.tasks)
    assert found.session(0, 9) == (file(b"/a"), {}, {}, [0, 0, 0, 0])


@given(st.binary(min_size=1, max_size=300))
def test_fragments_are_read_back(name: bytes) -> None:
    about = file(b"/" + name.replace(b"\0", b""))
    assert mirror.parse_object(mirror.object_fragment(about)) == about
    unix = sock(name[:100])
    assert mirror.parse_object(mirror.object_fragment(unix)) == unix
