"""A batch from records to lines: numbering, hand-backs, what is not known, and a reader that takes over from a killed one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import events, fastpath
from monitor.kernel import rings
from monitor.mirror import Mirror
from monitor.order import Order
from monitor.pipeline import Pipeline
from tests import fakes, scenes
from tests.acts import Acts
from tests.fakes import ORIGIN, Bench, FakeCapture, clock, facts, spelled, tasks


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_sequences_are_dense_over_batches_and_ids_match(seed: int) -> None:
    bench = Bench()
    acts, found = Acts(bench.kernel, random.Random(seed)), []
    for _ in range(4):
        for _ in range(80):
            acts.one()
        found += bench.documents()
    assert [one["event"]["sequence"] for one in found] == list(range(1, len(found) + 1))
    assert [int(one["event"]["id"][-12:], 16) for one in found] == list(range(1, len(found) + 1))
    assert bench.pipeline.counts.logged == len(found)


def test_a_batch_that_was_dropped_gives_its_numbers_back() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    scenes.opened(bench.kernel)
    bench.order.look()
    bench.pipeline.fill()
    assert bench.pipeline.dropped() == 1
    assert bench.pipeline.counts.unwritten == 1
    bench.kernel.bulk(0, "file_read", ret=1, fd=3, session=1, generation=7)
    found = bench.documents()
    assert [one["event"]["sequence"] for one in found] == [1]
    assert found[0]["file"]["path"] == "/etc/passwd", "what the dropped batch defined is still known"


def taken_over(capture: FakeCapture, before: Bench) -> Bench:
    """The bench of the next reader: positions and numbers as of the last commit, the mirror undone to it."""
    bench = Bench.__new__(Bench)
    bench.__dict__.update(before.__dict__)
    bench.capture = capture.reopen()
    bench.order = Order(bench.capture)
    bench.order.cpus[:, fastpath.POS] = bench.capture.accounts[:, rings.TAIL]
    bench.pipeline = Pipeline(bench.order, ORIGIN, tasks(), clock(), sequence=before.pipeline.sequence)
    bench.ledger.counts = bench.pipeline.counts
    return bench


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_a_reader_killed_before_its_commit_is_followed_by_one_that_writes_the_same(seed: int) -> None:
    def stream(killed: bool) -> bytes:
        bench, choose = Bench(), random.Random(seed)
        acts, found = Acts(bench.kernel, choose), []
        for _ in range(4):
            for _ in range(60):
                acts.one()
            kill = choose.random() < 0.5
            if killed and kill:
                expected = bench.order.cpus[:, fastpath.EXPECTED].copy()
                bench.order.look()
                bench.pipeline.fill()
                bench.pipeline.mirror.roll_back()
                bench = taken_over(bench.capture, bench)
                Mirror(bench.capture.memory()).roll_back()
                bench.order.cpus[:, fastpath.EXPECTED] = expected
                acts.kernel.capture = bench.capture
            found.append(bench.drain())
        return b"".join(found)

    # names too long for an entry stand in their short form after a kill: compare all but those
    def kept(batch: bytes) -> list[tuple[int, str, object]]:
        return [
            (one["event"]["sequence"], one["ebpf"]["event"], one["ebpf"].get("ret")) for one in fakes.documents(batch)
        ]

    assert kept(stream(killed=True)) == kept(stream(killed=False))


def test_what_is_not_known_is_counted_and_says_so() -> None:
    bench = Bench()
    bench.kernel.bulk(0, "file_read", fd=3, session=1, generation=7)
    (found,) = bench.documents()
    assert found["ebpf"]["unresolved"] is True
    assert found["process"] == {"thread": {"id": 101}}
    assert bench.pipeline.counts.unresolved == 2


def test_another_object_in_the_same_place_is_never_taken_for_the_one_before() -> None:
    bench = Bench()
    sent = bench.capture.shape.sent
    scenes.process(bench.kernel)
    bench.kernel.file(0, 5, b"/first")
    bench.kernel.bulk(0, "file_open", key=5, fd=3, kf=events.BEGIN, session=1, generation=7)
    bench.kernel.file(0, 5 + sent, b"/second")
    bench.kernel.bulk(0, "file_open", key=5 + sent, fd=4, kf=events.BEGIN, session=2, generation=9)
    bench.kernel.bulk(0, "file_read", fd=3, session=1, generation=7)
    bench.kernel.bulk(0, "file_read", fd=4, session=2, generation=9)
    bench.kernel.bulk(0, "file_open", key=5, fd=5, kf=events.BEGIN, session=3, generation=11)
    assert [one.get("file", {}).get("path") for one in bench.documents()] == [
        "/first",
        "/second",
        "/first",
        "/second",
        None,
    ]


def test_an_exec_is_in_force_for_the_next_record() -> None:
    bench = Bench()
    bench.kernel.file(0, 1, b"/bin/old")
    bench.kernel.file(0, 2, b"/bin/new")
    bench.kernel.task(0, facts(exe_key=1))
    bench.kernel.bulk(0, "file_read", fd=3, kf=events.UNNAMED)
    bench.kernel.control(0, "process_exec", {"executable": spelled(b"/bin/new")})
    bench.kernel.task(0, facts(exe_key=2, exec_id=2))
    bench.kernel.bulk(0, "file_read", fd=3, kf=events.UNNAMED)
    assert [one["process"]["executable"] for one in bench.documents()] == ["/bin/old", "/bin/new", "/bin/new"]


def test_an_exit_keeps_the_program_that_the_kernel_has_given_up() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_exec", {"executable": spelled(b"/bin/new")})
    bench.kernel.control(0, "process_exit")
    bench.kernel.control(0, "process_exit", exec_id=9)  # of a program whose exec was lost: not the one before
    assert [one["process"].get("executable") for one in bench.documents()] == ["/bin/new", "/bin/new", None]


def test_a_program_s_file_that_was_exchanged_changes_nothing_until_the_next_exec() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_exec", {"executable": spelled(b"/bin/new")}, exec_id=3)
    bench.kernel.control(0, "file_mkdir", {"executable": spelled(b"/bin/ls"), "name": b"/d"}, exec_id=3)
    bench.kernel.file(0, 2, b"/bin/ls")
    bench.kernel.task(0, facts(exe_key=2, exec_id=3))
    bench.kernel.bulk(0, "file_read", fd=3, kf=events.UNNAMED)
    bench.kernel.control(0, "process_exec", {"executable": spelled(b"/bin/ls")}, exec_id=4)
    assert [one["process"]["executable"] for one in bench.documents()] == ["/bin/new"] * 3 + ["/bin/ls"]


def test_an_exit_ends_what_the_kernel_did_not_sweep() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    bench.kernel.file(0, 5, b"/srv/far")
    bench.kernel.bulk(0, "file_open", key=5, ret=300, fd=300, kf=events.BEGIN, session=1, generation=7)
    bench.drain()
    bench.capture.sessions[1, [0, 3, 5, 7]] = 100 << 32 | 1 << 20 | 300, 4096, 2, 7 << 32
    bench.kernel.control(0, "process_exit", kf=events.MANY, nr=0xFFFF)
    found = bench.documents()
    assert [one["ebpf"]["event"] for one in found] == ["process_exit", "file_close"]
    assert found[1]["ebpf"]["close"] == {"reason": "exit"}
    assert found[1]["ebpf"]["read"] == {"count": 2, "bytes": 4096}
    assert bench.ledger.balance()["balanced"]


@pytest.mark.parametrize("address", [b"\2\0", b"\2\0\0", b"\x0a\0" + bytes(9), b"\0", b"\xff" * 112])
@pytest.mark.parametrize("name", ["socket_connect", "socket_bind"])
def test_an_odd_address_of_any_program_does_not_stop_the_monitor(name: str, address: bytes) -> None:
    bench = Bench()
    bench.kernel.control(0, name, {"address": address, "socket": fakes.socket_definition()}, ret=-22)
    assert len(bench.documents()) == 1


def test_a_batch_that_is_full_goes_on_in_the_next() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    name = b"/" + b"n" * 4000
    written = 0
    while bench.kernel.bulk(0, "file_open", name, ret=-2, fd=-1, kf=events.CLAIMED, session=len(name)):
        written += 1
    journal = bench.capture.memory()["J"]
    journal[0] = len(bench.capture.memory()["J8"])  # no room to note changes of the mirror: a full batch
    bench.order.look()
    assert bench.pipeline.fill() is False
    bench.pipeline.committed()
    found = bench.documents()
    assert [one["ebpf"]["event"] for one in found[:-1]] == ["file_open"] * written
    assert found[-1]["ebpf"]["loss"]["count"] == 1


def test_documents_of_the_monitor_are_made_and_counted() -> None:
    bench = Bench()
    bench.pipeline.make("monitor_stop", {"monitor": {"reason": "SIGTERM"}})
    (found,) = fakes.documents(bench.batch())
    assert found["ebpf"]["monitor"] == {"reason": "SIGTERM"}
    assert bench.pipeline.counts.made == bench.pipeline.counts.logged == 1
