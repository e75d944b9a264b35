"""The collector's side of delivery: a child that dies is started again, ever later, and capture never waits for it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from monitor import delivery
from monitor.config_keys import Config, EsConfig
from monitor.delivery import Delivery


def test_a_child_that_dies_at_once_is_started_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, said, started = [1000.0], list[str](), list[float]()
    monkeypatch.setattr(delivery.sys, "executable", "/bin/false")
    monkeypatch.setattr(delivery.time, "monotonic", lambda: clock[0])
    (tmp_path / "events").mkdir()
    config = Config(events_dir=tmp_path / "events", output_dir=tmp_path / "out", es_config=EsConfig())
    tested = Delivery(config, said.append)
    start = tested.start
    monkeypatch.setattr(tested, "start", lambda: (started.append(clock[0]), start()))
    while len(started) < 9:
        tested.poll()
        if tested._process is not None:
            tested._process.wait()
        clock[0] += 0.5
    tested.stop()
    pauses = [later - earlier for earlier, later in itertools.pairwise(started)]
    assert pauses == [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 60.5, 60.5]  # half a second until its end is seen
    assert "the shipper ended (status 1); capture goes on; another try in 1 s" in said[0]
