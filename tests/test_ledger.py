"""The equations of the ledger, its loss records, and the state that survives a killed reader."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import events, fastpath
from monitor.kernel import rings
from monitor.ledger import CpuState, Ledger, State, retold, unwritten
from monitor.order import Gap
from monitor.pipeline import Counts
from tests import scenes
from tests.acts import Acts
from tests.fakes import EPOCH, Bench, FakeCapture

WORD = st.integers(-(2**63), 2**63 - 1)


def equations(bench: Bench) -> None:
    """DESIGN's equations, on the ledger as it says itself."""
    found, accounts = bench.ledger.balance(), bench.capture.accounts
    assert found["kernel_seen"] == found["submitted"] + sum(found["refused"].values()) + sum(
        found["suppressed"].values()
    )
    assert found["kernel_seen"] == int(
        accounts[:, rings.SEQ].sum() + accounts[:, [rings.SELF, rings.PROFILE, rings.QUIET]].sum()
    )
    assert found["submitted"] == found["received"] + found["in_flight"] + found["died"]
    assert (
        found["received"] + found["made"]
        == found["logged"] + found["filtered"] + found["quarantined"] + found["unwritten"]
    )
    assert found["balanced"]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_the_equations_hold_after_every_batch(seed: int) -> None:
    bench, choose = Bench(), random.Random(seed)
    acts = Acts(bench.kernel, choose)
    for _ in range(6):
        for _ in range(choose.randrange(150)):
            acts.one()
            if choose.random() < 0.05:
                bench.kernel.refuse(
                    choose.randrange(2), choose.choice(rings.CLASSES), lane=choose.choice(("ring", "control"))
                )
            if choose.random() < 0.05:
                bench.capture.accounts[
                    choose.randrange(2), choose.choice((rings.SELF, rings.PROFILE, rings.QUIET, rings.FOLDED))
                ] += 1
        equations(bench)
        if choose.random() < 0.2:
            bench.order.look()
            bench.pipeline.fill()
            bench.pipeline.dropped()
        else:
            bench.batch()
        equations(bench)
    bench.drain()
    assert bench.ledger.balance()["in_flight"] == 0
    assert sum(one["count"] for one in bench.losses) == sum(bench.kernel.refused)


def test_a_ring_that_overflows_loses_exactly_what_the_records_say() -> None:
    bench, written, lines = Bench(), 0, 0
    scenes.process(bench.kernel)
    for _ in range(3):
        for _ in range(2000):
            written += 1
            bench.kernel.bulk(0, "file_read", fd=3, kf=events.UNNAMED)
        lines += sum(one["ebpf"]["event"] == "file_read" for one in bench.documents())
        equations(bench)
    lost = sum(one["count"] for one in bench.losses)
    assert 0 < lost == written - lines == bench.kernel.refused[0]
    assert {(one["class"], one["reason"], one["cpu"]) for one in bench.losses} == {("file", "ring_full", 0)}


def test_losses_are_split_by_class_and_lane_and_keep_their_place() -> None:
    capture = FakeCapture()
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], Counts())
    capture.accounts[0, rings.REFUSED_RING : rings.REFUSED_RING + 3] = 0, 4, 1
    capture.accounts[0, rings.REFUSED_CONTROL : rings.REFUSED_CONTROL + 3] = 2, 0, 0
    found = [one["loss"] for one in ledger.losses([Gap(0, 10, 14, 1), Gap(0, 20, 21, 2)], EPOCH)]
    assert [(one["class"], one["count"], one["reason"]) for one in found] == [
        ("file", 4, "ring_full"),
        ("socket", 1, "ring_full"),
        ("process", 2, "control_full"),
    ]
    assert all((one["cpu"], one["first"], one["last"], one["epoch"]) == (0, 10, 21, EPOCH) for one in found)
    assert ledger.losses([], EPOCH) == []


def test_a_gap_that_the_counters_do_not_explain_is_told_all_the_same() -> None:
    ledger = Ledger(FakeCapture().accounts, [CpuState(), CpuState()], Counts())
    assert [(one["loss"]["class"], one["loss"]["count"]) for one in ledger.losses([Gap(1, 5, 9, 1)], EPOCH)] == [
        ("unknown", 5)
    ]


def test_refusals_whose_gap_is_not_seen_yet_are_kept_for_it() -> None:
    capture = FakeCapture()
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], Counts())
    capture.accounts[0, rings.REFUSED_RING + 1] = 5
    assert [one["loss"]["count"] for one in ledger.losses([Gap(0, 0, 1, 1)], EPOCH)] == [2]
    assert ledger.counters(0)[1] == 2, "the state says how many were told"
    assert [one["loss"]["count"] for one in ledger.losses([Gap(0, 7, 9, 1)], EPOCH)] == [3]


def test_each_change_of_pressure_is_told_once() -> None:
    capture = FakeCapture()
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], Counts())
    assert ledger.degraded() == []
    capture.accounts[1, rings.LEVEL] = 2
    assert [(one["loss"]["cpu"], one["loss"]["reason"], one["loss"]["count"]) for one in ledger.degraded()] == [
        (1, "degraded", 0)
    ]
    assert ledger.degraded() == []
    capture.accounts[1, rings.LEVEL] = 0
    assert [one["loss"]["reason"] for one in ledger.degraded()] == ["restored"]


def test_runs_that_the_kernel_skipped_are_told_once_and_a_successor_goes_on_from_there() -> None:
    capture = FakeCapture()
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], Counts(), skipped=4)
    told = [ledger.preempted(runs, "e") for runs in (4, 7, 7, 6, 9)]
    assert [[one["loss"]["count"] for one in found] for found in told] == [[], [3], [], [], [2]]
    assert told[1][0]["loss"] | {"count": 0} == {
        "class": "unknown", "cpu": 0, "count": 0, "reason": "preempted", "epoch": "e", "exact": False,
    }  # fmt: skip
    assert ledger.skipped == 9
    found = ledger.balance()
    assert found["refused"] == {"ring_full": 0, "control_full": 0, "preempted": 5}
    assert (found["kernel_seen"], found["submitted"], found["in_flight"], found["balanced"]) == (5, 0, 0, True)


def test_an_epoch_counts_from_where_it_began() -> None:
    bench = Bench()
    scenes.process(bench.kernel)
    scenes.opened(bench.kernel)
    bench.kernel.refuse(0)
    bench.drain()
    base = [CpuState(0, int(bench.order.cpus[cpu, fastpath.EXPECTED]), bench.ledger.counters(cpu)) for cpu in range(2)]
    later = Ledger(bench.capture.accounts, base, Counts())
    assert {key: value for key, value in later.balance().items() if isinstance(value, int) and value} == {
        "balanced": True
    }


@given(
    st.lists(WORD, min_size=6, max_size=6),
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(WORD, WORD, st.lists(WORD, min_size=11, max_size=11)), min_size=1, max_size=128),
)
@settings(max_examples=30)
def test_state_survives_the_commit_page(head: list[int], epoch: int, rows: list[tuple[int, int, list[int]]]) -> None:
    device, inode, offset, length, sequence, logged = head
    state = State(
        device,
        inode,
        offset,
        length,
        epoch,
        sequence,
        Counts(logged=logged, unresolved=3),
        [CpuState(*row) for row in rows],
        skipped=head[0] ^ 1,
    )
    page = FakeCapture().commit
    page.write(State().words())
    page.write(state.words())
    assert State.from_words(page.read()) == state
    assert State.from_words(page.read_before()) == State()


def test_state_that_does_not_fit_is_refused() -> None:
    page = FakeCapture().commit
    with pytest.raises(ValueError, match="do not fit"):
        page.write(State(cpus=[CpuState()] * 4096).words())
    assert not page.used


def test_counts_are_all_kept() -> None:
    counts = Counts(*range(1, len(asdict(Counts())) + 1))
    assert State.from_words(State(counts=counts).words()).counts == counts


def test_what_died_in_a_buffer_is_not_in_flight_for_ever() -> None:
    capture = FakeCapture()
    counts = Counts(received=2, logged=2)
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], counts)
    capture.accounts[0, rings.SEQ] = 7
    assert ledger.balance()["in_flight"] == 5
    assert [one["loss"]["count"] for one in ledger.losses([Gap(0, 2, 6, 1)], EPOCH)] == [5]
    balance = ledger.balance()
    assert (balance["in_flight"], balance["died"], balance["balanced"]) == (0, 5, True)


def test_pressure_that_came_and_went_between_two_looks_is_told() -> None:
    capture = FakeCapture()
    ledger = Ledger(capture.accounts, [CpuState(), CpuState()], Counts())
    capture.accounts[1, rings.SWITCHES] = 3
    assert [(one["loss"]["reason"], one["loss"]["cpu"]) for one in ledger.degraded()] == [
        ("degraded", 1),
        ("restored", 1),
    ]
    assert ledger.degraded() == []
    base = [CpuState(0, 0, ledger.counters(cpu)) for cpu in range(2)]
    assert Ledger(capture.accounts, base, Counts()).degraded() == [], "the epoch before has told it"


def test_losses_in_a_batch_that_was_given_up_are_told_again_and_lines_add_up() -> None:
    ring = {
        "loss": {"class": "file", "cpu": 1, "first": 3, "last": 9, "count": 7, "reason": "ring_full", "epoch": EPOCH}
    }
    first = retold([ring], 100, "ENOSPC", EPOCH)
    assert first == [ring, unwritten(100, "ENOSPC", EPOCH)]
    second = retold(first, 12, "ENOSPC", EPOCH)
    assert second == [ring, unwritten(112, "ENOSPC", EPOCH)]
    third = retold(second, 5, "EIO", EPOCH)
    assert [one["loss"]["count"] for one in third] == [7, 5, 112]


def test_counts_of_own_rules_stay_with_their_names_and_add_up_over_a_kill() -> None:
    capture = FakeCapture()
    capture.accounts[0, rings.EXCLUDED] = 5
    state = State(cpus=[CpuState(), CpuState()], excluded=[5, *[0] * 7])
    assert State.from_words(state.words()).excluded == state.excluded
    ledger = Ledger(capture.accounts, state.cpus, Counts(), excluded=state.excluded, names=["a", *[""] * 7])
    capture.accounts[:, rings.EXCLUDED] += 2
    assert ledger.exclusions() == {"a": 4}
    ledger.rename(["b", "a"])
    capture.accounts[1, rings.EXCLUDED] += 10
    capture.accounts[1, rings.EXCLUDED + 1] += 1
    assert ledger.exclusions() == {"a": 5, "b": 10}
    ledger.rename([])
    balance = ledger.balance()
    assert ledger.exclusions() == {"a": 5, "b": 10}
    assert (balance["suppressed"]["exclusions"], balance["kernel_seen"]) == (15, 15)
