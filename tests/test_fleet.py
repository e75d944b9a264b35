"""The simulated fleet: what an Elasticsearch sees when it comes back."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from monitor.ship import backoff

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "fleet.py"


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fleet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fleet", made)
    monkeypatch.setattr(backoff, "time", cast(Any, backoff).time)  # the simulation puts its own clock there
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("profile", ["calm", "build"])
@pytest.mark.parametrize("outage_s", [10.0, 60.0, 300.0])
def test_a_reconnect_storm_is_at_most_twice_the_mean_load(fleet: ModuleType, profile: str, outage_s: float) -> None:
    found = fleet.simulate(40, profile, outage_s, 2.0, 500)
    assert 0 < found.peak(found.requests) <= 2 * found.mean_requests
    assert 0 < found.peak(found.documents) <= 2 * found.mean_documents * 1.05


def test_while_the_server_is_away_it_is_asked_less_than_before(fleet: ModuleType) -> None:
    found = fleet.simulate(40, "calm", 300.0, 2.0, 500)
    away = found.requests[found.end - int(200 / fleet.STEP_S) : found.end]
    assert 0 < sum(away) / 200 < found.mean_requests / 2


def test_all_is_delivered_and_nothing_twice(fleet: ModuleType) -> None:
    """What was indexed is what was made, but for the bulks that are not full yet."""
    found = fleet.simulate(40, "calm", 60.0, 2.0, 500)
    seconds = len(found.documents) * fleet.STEP_S
    made = 40 * seconds * sum(fleet.PROFILES["calm"]) / len(fleet.PROFILES["calm"])
    assert 0.95 * made - 40 * 500 < sum(found.documents) < 1.03 * made


def test_without_jitter_the_storm_is_there(fleet: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound can be broken: hosts that come back together, with small bulks."""
    monkeypatch.setattr(backoff, "UNREACHABLE_MOST_S", 0.0)
    monkeypatch.setattr(fleet.shipper, "IN_FLIGHT", 50)
    found = fleet.simulate(40, "calm", 300.0, 20.0, 20)
    assert found.peak(found.requests) > 2 * found.mean_requests
