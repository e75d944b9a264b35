"""Metrics say what the status says, in promtool's eyes too; each alert fires on its trouble and has a page for it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor import metrics
from monitor.events import EVENT
from monitor.ship.state import Shipped
from monitor.status import Status, StatusError
from tests.test_status import document, ledger

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "config" / "prometheus"
PROMTOOL = Path(sys.executable).parent / "promtool"


def status(**changes: Any) -> Status:
    last = document(7, cpu_seconds=1.5, resident_bytes=1 << 20, config_problem="", log_problem="", **changes)
    return Status(True, 7, 60.0, 0.5, last)


def values(read: Callable[[], Status]) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text(read).decode()):
        for sample in family.samples:
            labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
            found[sample.name.removeprefix("ebpf_monitor_") + (f"[{labels}]" if labels else "")] = sample.value
    return found


def test_every_count_of_the_ledger_is_a_metric() -> None:
    names = {path.split(".")[0] for path in _ledger_paths()}
    assert names - {"refused", "suppressed", "in_flight", "lag"} == set(metrics.LEDGER)
    found = values(status)
    assert found["events_seen_total"] == 110
    assert found["lines_logged_total"] == 91
    assert found["events_refused_total[ring_full]"] == 7
    assert found["events_suppressed_total[self]"] == 13
    assert found["events_in_flight"] == 2
    delivering = values(lambda: status(ledger=ledger(created=80, lag=11)))
    assert (delivering["documents_created_total"], delivering["delivery_lag_lines"]) == (80, 11)


def test_whether_it_is_delivered_is_told_where_it_should_be() -> None:
    def shipped(state: str, seconds: float) -> Shipped:
        return Shipped({"state": state, "time": time.time(), "lag": {"seconds": seconds}}, {})

    def told(found: Shipped | None, storage: str = "elasticsearch") -> tuple[float | None, float | None]:
        every = values(lambda: replace(status(storage_type=storage), shipped=found))
        return every.get("delivering"), every.get("delivery_lag_seconds")

    assert told(shipped("delivering", 1.5)) == (1, 1.5)
    assert told(shipped("waiting", 300.0)) == told(shipped("paused", 300.0)) == (0, 300)
    assert told(shipped("stopped", 2.0)) == (0, 2)
    assert told(None) == (0, None), "the shipper was never started"
    assert told(shipped("stopped", 2.0), "local") == (None, None)


def _ledger_paths() -> list[str]:
    prefix = "ebpf.ledger."
    return [one.path.removeprefix(prefix) for one in EVENT["monitor_heartbeat"].shown if one.path.startswith(prefix)]


def test_state_lag_cpu_and_memory_are_there(tmp_path: Path) -> None:
    found = values(lambda: status(events_dir=str(tmp_path)))
    assert found["up"] == found["ledger_balanced"] == found["log_writable"] == found["configuration_taken"] == 1
    assert (found["ring_fill_ratio"], found["lines_not_durable"], found["log_bytes_total"]) == (0.25, 11, 100_000)
    assert (found["cpu_seconds_total"], found["resident_memory_bytes"], found["uptime_seconds"]) == (1.5, 1 << 20, 60)
    assert 0 < found["disk_free_ratio"] < 1


def test_trouble_shows() -> None:
    last = document(7, config_problem="x", log_problem="ENOSPC", ledger=ledger(balanced=False))
    found = values(lambda: Status(True, 7, 60.0, 99.0, last))
    assert found["ledger_balanced"] == found["log_writable"] == found["configuration_taken"] == 0
    assert found["status_age_seconds"] == 99


def test_a_monitor_that_does_not_run_is_down_and_no_error() -> None:
    def unreadable() -> Status:
        raise StatusError("cannot read /run")

    assert values(lambda: Status(False, None, None, None, document(7))) == {"up": 0}
    assert values(unreadable) == {"up": 0}


def test_metrics_are_served_until_the_server_is_shut_down() -> None:
    server, thread = metrics.serve(status, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            assert answer.read() == metrics.text(status)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
    assert threading.current_thread() is not thread
    assert not thread.is_alive()


def test_a_textfile_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "ebpf-monitor.prom"
    path.write_text("old")
    metrics.textfile(status, path)
    assert path.read_bytes() == metrics.text(status)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def promtool(*arguments: str, data: bytes | None = None) -> str:
    done = subprocess.run([PROMTOOL, *arguments], input=data, capture_output=True, cwd=RULES, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


def test_promtool_has_nothing_to_say_about_names_and_types() -> None:
    assert promtool("check", "metrics", data=metrics.text(status)) == ""


def test_rules_are_valid_and_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "rules", "ebpf-monitor.rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "ebpf-monitor.test.yml")


@pytest.fixture
def rules() -> str:
    return (RULES / "ebpf-monitor.rules.yml").read_text()


def test_each_alert_is_tested_and_has_a_row_in_the_operators_page(rules: str) -> None:
    alerts = re.findall(r"alert: (\w+)", rules)
    tested = (RULES / "ebpf-monitor.test.yml").read_text()
    page = (ROOT / "docs" / "operations.md").read_text()
    assert len(alerts) > 10
    for alert in alerts:
        assert f"alertname: {alert}\n" in tested
        assert f"| {alert} |" in page


def test_rules_speak_of_metrics_that_exist(rules: str) -> None:
    every = metrics.text(lambda: status(events_dir="/", storage_type="elasticsearch", ledger=ledger(lag=1))).decode()
    shown = set(re.findall(r"^# TYPE (\w+)", every, re.MULTILINE))
    used = set(re.findall(r"\bebpf_monitor_\w+", rules))
    assert used <= shown
