"""The rhythm of the loop, with fakes for what it calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from monitor import app, config, instance, startup
from tests.fakes import SHAPE


class _Pipeline:
    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []

    def make(self, name: str, members: dict[str, Any]) -> None:
        self.made.append((name, members))


@pytest.fixture
def monitor(tmp_path: Path) -> app.Monitor:
    made = app.Monitor(config.loads(b"{}", "test"), startup.Options(say=lambda _text: None))
    made.pipeline = cast(Any, _Pipeline())
    made.clock = cast(Any, SimpleNamespace(sample=lambda: None))
    made.ledger = cast(Any, SimpleNamespace(degraded=list, preempted=lambda _skipped, _epoch: []))
    made.capture = cast(Any, SimpleNamespace(skipped=lambda: 0))
    made.log = cast(Any, SimpleNamespace(poll=list))
    made.retention = cast(Any, SimpleNamespace(look=lambda _percent: [], remove=list, problem=""))
    made._write_status = lambda: None  # type: ignore[method-assign]
    made.configure = lambda: None  # type: ignore[method-assign]
    return made


def test_a_step_of_the_wall_clock_is_a_recorded_event(monitor: app.Monitor) -> None:
    stepped: list[tuple[int, int]] = []
    monitor.clock = cast(Any, SimpleNamespace(sample=lambda: -2_000_000_000))
    monitor.settled = cast(Any, SimpleNamespace(step=lambda now, before: stepped.append((now, before))))
    monitor._each_second()
    assert cast(Any, monitor.pipeline).made == [("monitor_config", {"clock": {"step_ns": -2_000_000_000}})]
    assert [before - now for now, before in stepped] == [2]


def test_a_notice_of_the_log_is_a_recorded_event_and_is_said(monitor: app.Monitor) -> None:
    said: list[str] = []
    monitor.voice.out = said.append
    monitor.log = cast(Any, SimpleNamespace(poll=lambda: ["renamed"]))
    monitor._each_second()
    assert cast(Any, monitor.pipeline).made == [("monitor_config", {"log": {"notice": "renamed"}})]
    assert said == ["renamed"]


def test_a_quiet_second_records_nothing(monitor: app.Monitor) -> None:
    monitor._each_second()
    assert cast(Any, monitor.pipeline).made == []


def test_the_status_says_which_events_are_off_and_why(monitor: app.Monitor) -> None:
    monitor.shape = replace(SHAPE, uring=True)
    monitor.config = replace(monitor.config, profile="full")
    assert monitor.off() == {}
    monitor.shape = SHAPE
    hooks = "tp_btf/io_uring_submit_req, tp_btf/io_uring_cqe_overflow"
    assert monitor.off() == {"kernel_io_uring_request": f"not in this kernel: {hooks}"}
    monitor.config = replace(monitor.config, profile="minimal")
    assert monitor.off()["file_read"] == "profile minimal"
    assert "process_exec" not in monitor.off()


def test_a_second_monitor_is_refused_with_the_first_one_s_pid(tmp_path: Path) -> None:
    first = instance.Lock(tmp_path)
    with pytest.raises(instance.StartError, match=r"another monitor runs: process [0-9]+") as caught:
        instance.Lock(tmp_path)
    assert caught.value.status == instance.EXIT_RUNNING
    first.release()
    instance.Lock(tmp_path).release()


def test_a_defect_in_the_loop_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: app.Monitor) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(app.Monitor, "start", fail)
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    with pytest.raises(instance.StartError, match=r"internal error: ZeroDivisionError: inside \(test_app.py:"):
        app.run(config.loads(b"{}", "test"), startup.Options())
