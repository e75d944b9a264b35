"""Capture survives the monitor: killed at any moment, started again, everything is in the log once and under its own name."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, check_chain, check_mixed, compiled, paced, wait_for

KILLS = int(os.environ.get("EBPF_MONITOR_KILLS", "15"))
"""How often the monitor is killed; 100 take two minutes."""
RATE = 5000


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compiled(tmp_path)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    made = MonitorRun(
        tmp_path / "monitor", BPFFS / f"ebpf-monitor-survival-{os.getpid()}", {"profile": "trace"}, runner=ONLY_OURS
    )
    with paced():
        yield made
        made.finish()


def _kill_often(monitor: MonitorRun, kills: int, seed: int) -> list[float]:
    """Kills it `kills` times: while it runs, and while it starts; the seconds that the undisturbed starts took."""
    chance: random.Random = random.Random(seed)
    starts: list[float] = []
    for _ in range(kills):
        monitor.kill()
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 0.4))
        if chance.random() < 0.35:
            monitor.launch()
            time.sleep(chance.uniform(0.0, 0.9))  # the moment of the kill is what is tried, not a wait for something
        else:
            starts.append(monitor.start())
            if chance.random() < 0.2:
                monitor.signal(signal.SIGHUP)
            time.sleep(chance.choice((0.0, 0.0, 0.01, 0.05, 0.3)) * chance.random())
    monitor.kill()
    return starts


def _survives(monitor: MonitorRun, program: Path, directory: Path, kills: int, compression: str) -> None:
    monitor.settings["log_compression"] = compression
    monitor.start()
    acts = Acts(program, directory / "acts", "mixed", rate=RATE)
    try:
        seed = random.SystemRandom().getrandbits(32)
        print("seed", seed)
        starts = _kill_often(monitor, kills, seed)
        monitor.start()
        count = acts.stop()
    finally:
        acts.process.kill()
        acts.process.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    found = check_chain(monitor)
    assert found.lost() == 0, (found.losses[:4], monitor.output)
    assert check_mixed(monitor, acts, count) == count
    assert not monitor.captures()
    took = f"median {statistics.median(starts):.2f} s, longest {max(starts):.2f} s"
    print(f"{count} acts, {kills} kills, {len(found.epochs)} epochs, {found.lines} lines; starts: {took}")


@pytest.mark.parametrize(("compression", "kills"), [("none", KILLS - KILLS // 3), ("zstd", KILLS // 3)])
def test_killed_at_random_moments_every_act_is_in_the_log_once_under_its_own_names(
    monitor: MonitorRun, program: Path, tmp_path: Path, compression: str, kills: int
) -> None:
    _survives(monitor, program, tmp_path, kills, compression)


def test_a_regular_stop_under_load_drains_detaches_and_leaves_nothing_behind(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "mixed", rate=RATE)
    wait_for(lambda: acts.performed > RATE, what="the load runs")
    performed = acts.performed
    assert monitor.stop() == 0
    acts.stop()
    assert not monitor.pin_dir.exists()
    found = check_chain(monitor)
    assert found.lost() == 0, found.losses
    assert found.made[-1]["monitor"] == {"reason": "SIGTERM"}
    assert check_mixed(monitor, acts, performed, more=True) >= performed


@pytest.mark.parametrize("numbers", [(), (signal.SIGUSR1,)], ids=["keep_capture", "SIGUSR1"])
def test_a_stop_that_keeps_capture_goes_on_recording_and_the_next_start_goes_on(
    monitor: MonitorRun, program: Path, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    """By configuration, or by the signal of a restart: the SIGTERM that follows it must not undo it."""
    monitor.settings["keep_capture"] = not numbers
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "mixed", rate=RATE)
    for number in range(3):
        wait_for(lambda mark=RATE // 5 * (number + 1): acts.performed > mark, what="the load runs")
        began = time.monotonic()
        for number in numbers:
            monitor.signal(number)
        assert monitor.stop() == 0
        assert time.monotonic() - began < 5, "what comes after the signal is not waited for"
        assert len(monitor.captures()) == 1
        monitor.start()
    count = acts.stop()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    assert len(monitor.captures()) == len(numbers) ^ 1, "a stop without the signal takes the capture away"
    found = check_chain(monitor)
    assert len(found.epochs) == 4
    assert [made["monitor"]["adopted"] for made in found.made if made["event"] == "monitor_start"] == [
        False,
        True,
        True,
        True,
    ]
    assert found.lost() == 0, found.losses
    assert check_mixed(monitor, acts, count) == count


def test_a_program_name_too_long_for_the_pinned_tables_is_told_as_cut_after_a_kill(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    """What does not fit an entry lives in the reader alone: the next one says that it has only the beginning."""
    deep = tmp_path / "/".join(["d" * 200] * 4)
    monitor.start()
    acts = Acts(program, deep, "mixed", rate=1000)
    wait_for(lambda: monitor.seen(f"{'d' * 200}/open/"), what="the load is logged")
    monitor.kill()
    before = acts.performed
    monitor.start()
    wait_for(lambda: acts.performed > before + 200)
    acts.stop()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    check_chain(monitor)
    for document in monitor.documents(b'"event":"file_write"'):
        path, shown = document["file"]["path"], document["ebpf"]
        if path.startswith(str(tmp_path)):
            whole = path.startswith(f"{deep}/null-") and "truncated" not in shown
            cut = (
                shown.get("truncated") is True
                and str(deep).startswith(path)
                and shown["original_bytes"] > len(str(deep))
            )
            assert whole or cut, document


def test_what_a_stop_cannot_take_in_time_waits_for_the_next_start(monitor: MonitorRun, program: Path, tmp_path: Path) -> None:
    monitor.runner = ONLY_OURS + "\napp.DRAIN_S = 0\n"
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "mixed", rate=RATE)
    wait_for(lambda: acts.performed > RATE // 5, what="the load runs")
    monitor.signal(signal.SIGSTOP)
    wait_for(lambda mark=acts.performed + RATE // 5: acts.performed > mark, what="there is something in the rings")
    assert monitor.process is not None
    monitor.process.terminate()
    monitor.signal(signal.SIGCONT)
    assert monitor.process.wait(60) == 0
    assert "the next start takes the rest" in monitor.output
    assert len(monitor.captures()) == 1
    performed = acts.performed  # since the stop nobody records
    acts.stop()
    monitor.runner = ONLY_OURS
    monitor.start()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    assert not monitor.captures()
    found = check_chain(monitor)
    assert found.lost() == 0, found.losses
    logged = [document["ebpf"]["ret"] for document in monitor.documents(b'"event":"file_write"')]
    seen = [number for number in range(performed) if number % 4 > 1]
    assert logged == seen[: len(logged)]
    assert len(logged) > RATE // 5
