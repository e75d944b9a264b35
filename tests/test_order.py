"""The merge of both lanes, the check of each CPU's numbering, and when ring space is freed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import events, fastpath
from monitor.kernel import rings
from monitor.order import Gap
from tests import fakes, scenes
from tests.fakes import BOOT_NS, Bench


def unnamed(bench: Bench, cpu: int, ret: int = 0, **members: Any) -> bool:
    return bench.kernel.bulk(cpu, "file_read", ret=ret, fd=3, kf=events.UNNAMED, **members)


def order_of(documents: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    return [(one["ebpf"]["timestamp_ns"], one["ebpf"]["cpu"], one["ebpf"]["ret"]) for one in documents]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_both_lanes_are_merged_by_time_cpu_and_sequence(seed: int) -> None:
    bench, choose, wanted = Bench(), random.Random(seed), []
    for cpu in (0, 1):
        bench.kernel.task(cpu, ts=BOOT_NS)
    now = [BOOT_NS, BOOT_NS]
    for number in range(60):
        cpu = choose.randrange(2)
        now[cpu] += choose.choice((0, 0, 1, 7))
        wanted.append((now[cpu], cpu, number))
        if choose.random() < 0.4:
            bench.kernel.control(cpu, "process_fork", ret=number, ts=now[cpu])
        else:
            unnamed(bench, cpu, number, ts=now[cpu])
    assert order_of(bench.documents()) == sorted(wanted)
    assert bench.losses == []


def test_nothing_behind_a_program_in_flight_is_written_before_it_ends() -> None:
    bench = Bench()
    bench.kernel.task(0)
    unnamed(bench, 0, 1, ts=BOOT_NS + 10_000)
    bench.kernel.control(0, "process_fork", ret=2, ts=BOOT_NS + 20_000)
    bench.capture.now = BOOT_NS + 100_000
    bench.capture.accounts[1, rings.BUSY] = BOOT_NS + 15_000
    assert [one["ebpf"]["ret"] for one in fakes.documents(bench.batch())] == [1]
    assert bench.order.pending
    bench.capture.accounts[1, rings.BUSY] = 0
    assert [one["ebpf"]["ret"] for one in bench.documents()] == [2]
    assert not bench.order.pending


@pytest.mark.parametrize("busy", [1, BOOT_NS])
def test_a_program_that_never_ends_is_not_waited_for(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "_STUCK_NS", 10_000_000)
    bench = Bench()
    bench.kernel.task(0)
    unnamed(bench, 0, 1)
    bench.capture.now = BOOT_NS + 3600 * 10**9
    bench.capture.accounts[1, rings.BUSY] = busy
    assert [one["ebpf"]["ret"] for one in bench.documents()] == [1]


@pytest.mark.parametrize("lane", ["ring", "control"])
def test_a_refused_event_is_a_gap_with_its_place(lane: str) -> None:
    bench = Bench()
    bench.kernel.task(0)
    unnamed(bench, 0)
    bench.kernel.refuse(0, lane=lane)
    bench.kernel.refuse(0, lane=lane)
    unnamed(bench, 0, ts=BOOT_NS + 99_000)
    bench.order.look()
    bench.pipeline.fill()
    gaps = bench.order.take_gaps()
    assert gaps == [Gap(0, 1, 2, BOOT_NS + 99_000)]
    assert gaps[0].count == 2
    assert bench.order.take_gaps() == []


def test_what_was_refused_behind_the_last_event_is_found_once_all_is_quiet() -> None:
    bench = Bench()
    bench.kernel.task(0)
    unnamed(bench, 0)
    bench.kernel.refuse(0)
    bench.capture.accounts[0, rings.BUSY] = 1 << 61  # a program runs: its number may be the one that is missing
    bench.batch()
    assert bench.losses == []
    bench.capture.accounts[0, rings.BUSY] = 0
    bench.batch()
    assert [(one["first"], one["last"], one["count"]) for one in bench.losses] == [(1, 1, 1)]


def test_events_that_are_still_to_come_in_the_other_lane_are_no_gap() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_fork", ret=1, ts=BOOT_NS + 1000)
    bench.kernel.task(0, ts=BOOT_NS + 2000)
    unnamed(bench, 0, 2, ts=BOOT_NS + 2000)
    bench.kernel.control(0, "process_fork", ret=3, ts=BOOT_NS + 3000)
    assert [one["ebpf"]["ret"] for one in bench.documents()] == [1, 2, 3]
    assert bench.losses == []


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_losses_sum_exactly_whatever_is_refused_where(seed: int) -> None:
    bench, choose = Bench(), random.Random(seed)
    for cpu in (0, 1):
        bench.kernel.task(cpu)
    lines = 0
    for _ in range(choose.randrange(1, 6)):
        for _ in range(choose.randrange(120)):
            cpu, what = choose.randrange(2), choose.randrange(4)
            if what == 0:
                bench.kernel.refuse(cpu, choose.choice(rings.CLASSES), lane=choose.choice(("ring", "control")))
            elif what == 1:
                bench.kernel.control(cpu, "process_fork", ret=1)
            else:
                unnamed(bench, cpu)
        lines += len([one for one in bench.documents() if one["ebpf"]["event"] != "monitor_loss"])
    numbered = int(bench.capture.accounts[:, rings.SEQ].sum())
    for cpu in (0, 1):
        assert sum(one["count"] for one in bench.losses if one["cpu"] == cpu) == bench.kernel.refused[cpu]
    assert lines + sum(bench.kernel.refused) == numbered
    assert all(one["class"] in rings.CLASSES for one in bench.losses)
    assert bench.ledger.balance()["balanced"]
    assert bench.ledger.balance()["in_flight"] == 0


def test_ring_space_is_freed_when_the_batch_is_in_the_log_and_not_before() -> None:
    bench = Bench()
    bench.kernel.task(0)
    unnamed(bench, 0)
    bench.kernel.control(0, "process_fork", ret=1)
    bench.order.look()
    bench.pipeline.fill()
    assert (bench.capture.accounts[0, rings.TAIL], bench.capture.list_lane.released) == (0, 0)
    bench.pipeline.committed()
    assert bench.capture.accounts[0, rings.TAIL] == bench.capture.accounts[0, rings.HEAD]
    assert bench.capture.list_lane.released == 1


def test_control_space_waits_for_the_last_record_that_was_read_with_it() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_fork", ret=1, ts=BOOT_NS)
    bench.kernel.control(0, "process_fork", ret=2, ts=BOOT_NS + 1_000_000)
    bench.capture.now = BOOT_NS + 500_000
    assert len(fakes.documents(bench.batch())) == 1
    assert bench.capture.list_lane.released == 0
    bench.capture.now = 1 << 62
    bench.batch()
    assert bench.capture.list_lane.released == 2


def test_an_undecodable_control_record_is_a_loss_without_a_class() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_fork", ret=1)
    bench.capture.list_lane.submit(b"garbage")
    bench.capture.accounts[0, rings.SEQ] += 1
    bench.kernel.control(0, "process_fork", ret=2)
    assert [one["ebpf"].get("ret") for one in bench.documents()] == [1, 2, None]
    assert bench.order.undecodable == 1
    assert [(one["class"], one["reason"], one["count"]) for one in bench.losses] == [("unknown", "undecodable", 1)]
    assert bench.capture.list_lane.released == 3


def test_many_gaps_take_several_batches_and_none_is_forgotten() -> None:
    bench = Bench()
    for _ in range(3 * fastpath.MAX_GAPS):
        bench.kernel.task(0)
        bench.kernel.refuse(0)
        unnamed(bench, 0)
        if bench.capture.fill() > 0.9:
            break
    bench.drain()
    assert sum(one["count"] for one in bench.losses) == bench.kernel.refused[0]
    assert sum(bench.kernel.refused) > fastpath.MAX_GAPS


def test_a_tap_sees_what_is_taken() -> None:
    bench, seen = Bench(), []
    bench.order.tap = lambda cut, cpus, raws: seen.append((cut, int(cpus[0, fastpath.HEAD]), len(raws)))
    scenes.process(bench.kernel)
    bench.kernel.control(0, "process_fork")
    bench.batch()
    assert seen == [(bench.capture.now - 20_000, int(bench.capture.accounts[0, rings.HEAD]), 1)]


def test_a_control_record_that_is_still_being_written_hides_no_other_one() -> None:
    """Behind it in the ring may stand whole records of other CPUs: those are not refused."""
    bench = Bench()
    bench.kernel.control(0, "process_fork", ret=1)
    bench.capture.list_lane.hidden = 1
    bench.batch()
    assert bench.losses == []
    bench.capture.list_lane.hidden = 0
    assert [one["ebpf"]["ret"] for one in bench.documents()] == [1]
    assert bench.losses == []


def test_a_gap_before_a_control_record_still_fits_when_the_compiled_pass_has_used_all_places() -> None:
    bench = Bench()
    bench.kernel.task(0)
    for _ in range(fastpath.MAX_GAPS):
        bench.kernel.refuse(0)
        unnamed(bench, 0)
    bench.kernel.refuse(0)
    bench.kernel.control(0, "process_fork", ret=1)
    bench.drain()
    assert sum(one["count"] for one in bench.losses) == bench.kernel.refused[0] == fastpath.MAX_GAPS + 1


COMES: dict[str, Callable[[Bench], object]] = {
    "a bulk event": lambda bench: unnamed(bench, 1),
    "a control event": lambda bench: bench.kernel.control(1, "process_fork"),
    "a definition": lambda bench: bench.kernel.task(1),
    "a refused event": lambda bench: bench.kernel.refuse(1),
}


@pytest.mark.parametrize("what", COMES)
def test_all_is_settled_once_everything_is_taken_and_until_something_comes(what: str) -> None:
    bench = Bench()
    assert not bench.order.settled()
    bench.kernel.task(0)
    unnamed(bench, 0)
    bench.batch()
    assert bench.order.settled()
    COMES[what](bench)
    assert not bench.order.settled()
    bench.batch()
    assert bench.order.settled()


def test_nothing_is_settled_while_something_is_on_its_way() -> None:
    bench = Bench()
    bench.kernel.control(0, "process_fork", ret=1)
    bench.capture.list_lane.hidden = 1  # numbered, and not in the ring yet
    bench.batch()
    assert not bench.order.settled()
    bench.capture.list_lane.hidden = 0
    bench.batch()
    assert bench.order.settled()
    unnamed(bench, 0, ts=BOOT_NS + 50_000)
    bench.capture.now = BOOT_NS + 40_000  # behind the cut
    bench.batch()
    assert not bench.order.settled()
    bench.capture.now = 1 << 62
    bench.batch()
    assert bench.order.settled()
