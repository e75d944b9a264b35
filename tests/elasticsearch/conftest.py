"""What the tests of faults share: a server that injects them, and a shipper whose pauses are short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.ship import backoff, shipper
from tests.elasticsearch.fake import Fake
from tests.elasticsearch.scene import Scene, of_fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.down()


@pytest.fixture
def scene(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(shipper, "_FIRST_TIMEOUT_S", 1.0)
    monkeypatch.setattr(backoff, "LEAST_S", 0.05)  # the pauses of a long trouble, twenty times as fast
    monkeypatch.setattr(backoff, "PAUSE_S", 0.3)
    made = of_fake(fake, tmp_path / "scene")
    made.log.append(1000)
    yield made
    made.end()
