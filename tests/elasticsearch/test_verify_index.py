"""verify --elasticsearch: every missing id is named, of every day, and what is no fault is told apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor import provision, verify_index
from monitor.clock import rfc3339
from monitor.cluster import Cluster
from monitor.ship.checkpoint import Checkpoint
from monitor.ship.deadletters import DeadLetters, Letter
from monitor.ship.state import on_heartbeat
from monitor.verify import Report
from tests.conftest import ROOT
from tests.elasticsearch.server import PASSWORDS, Server
from tests.elasticsearch.story import EPOCH, goldens, numbered, store
from tests.fakes import HOST, WALL_NS

INDEX = "verified"
DAY_NS = 86_400_000_000_000
SECOND = "0000000000000009"
RUN, RUN2 = f"{HOST.agent_id}-{EPOCH}", f"{HOST.agent_id}-{SECOND}"
KIND = next(one for one in goldens() if one["ebpf"]["event"] == "file_open")
EXEC = next(one for one in goldens() if one["ebpf"]["event"] == "process_exec")


def log() -> list[dict[str, Any]]:
    """25 lines: 15 of one run over two days, 10 of a second run on the second day; each fifth line is an exec."""
    found = numbered([EXEC if number % 5 == 0 else KIND for number in range(1, 26)])
    for at, document in enumerate(found):
        document["@timestamp"] = rfc3339(WALL_NS + at * 1_000_000 + (DAY_NS if at >= 10 else 0))
        if at >= 15:
            document["event"]["sequence"] = at - 14
            document["event"]["id"] = f"{RUN2}-{at - 14:012x}"
    return found


@pytest.fixture
def cluster(elasticsearch: Server, tmp_path: Path) -> Iterator[Cluster]:
    """Indices with our template, empty; the log is in tmp_path/events."""
    (tmp_path / "events").mkdir()
    (tmp_path / "out" / "ship").mkdir(parents=True)
    (tmp_path / "events" / "events.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in log()))
    with Cluster(elasticsearch.config("admin")) as found:
        list(provision.install(found, INDEX))
        yield found
        for one in found.need("GET", f"/_resolve/index/{INDEX}-*")["indices"]:
            found.need("DELETE", f"/{one['name']}")


def ship(cluster: Cluster, documents: list[dict[str, Any]]) -> None:
    store(cluster, [(f"{INDEX}-{one['@timestamp'][:10].replace('-', '.')}", one) for one in documents])


def compared(cluster: Cluster, directory: Path, profile: str = "same") -> Report:
    report = Report(directory / "events")
    verify_index.compare(report, directory / "out" / "ship", cluster, f"{INDEX}-*", profile)
    return report


def texts(report: Report) -> list[str]:
    return [f"{one.kind} {one.where} {one.text}" for one in report.findings]


def test_log_and_index_agree(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_index, "_PAGE", 3)
    ship(cluster, log())
    report = compared(cluster, tmp_path)
    assert texts(report) == []
    assert [(one["day"], one["lines"], one["indexed"]) for one in report.index] == [
        ("2026-11-22", 10, 10),
        ("2026-11-23", 15, 15),
    ]
    assert report.exit_status == 0


def test_each_missing_id_is_named_under_its_day(cluster: Cluster, tmp_path: Path) -> None:
    gone = {0, 4, 5, 12, 15, 24}
    ship(cluster, [one for at, one in enumerate(log()) if at not in gone])
    report = compared(cluster, tmp_path)
    assert texts(report) == [
        f"missing 2026-11-22 not in the index: {RUN}-000000000001 (1)",
        f"missing 2026-11-22 not in the index: {RUN}-000000000005 to {RUN}-000000000006 (2)",
        f"missing 2026-11-23 not in the index: {RUN}-00000000000d (1)",
        f"missing 2026-11-23 not in the index: {RUN2}-000000000001 (1)",
        f"missing 2026-11-23 not in the index: {RUN2}-00000000000a (1)",
    ]
    assert [one["missing"] for one in report.index] == [3, 3]
    assert report.exit_status == 1


def test_a_whole_day_that_is_gone_is_a_range(cluster: Cluster, tmp_path: Path) -> None:
    ship(cluster, log()[10:])
    assert texts(compared(cluster, tmp_path)) == [
        f"missing 2026-11-22 not in the index: {RUN}-000000000001 to {RUN}-00000000000a (10)"
    ]


def test_a_document_without_a_line_is_told(cluster: Cluster, tmp_path: Path) -> None:
    ship(cluster, log())
    lines = (tmp_path / "events" / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events" / "events.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))
    report = compared(cluster, tmp_path)
    assert texts(report) == [f"extra 2026-11-22 {RUN}-000000000004 is in the index, but not in the log"]


def test_documents_of_other_hosts_do_not_count(cluster: Cluster, tmp_path: Path) -> None:
    others = [
        one | {"event": one["event"] | {"id": one["event"]["id"].replace(HOST.agent_id, "ffffffff")}} for one in log()
    ]
    ship(cluster, [*log(), *others])
    assert compared(cluster, tmp_path).exit_status == 0


def test_what_is_behind_the_checkpoint_is_not_delivered_yet(cluster: Cluster, tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "out" / "ship")
    kept.state.done = (EPOCH, 12)
    kept.write()
    ship(cluster, log()[:12])
    report = compared(cluster, tmp_path)
    assert texts(report) == []
    assert [one["waiting"] for one in report.index] == [0, 13]
    kept.state.done = (SECOND, 2)
    kept.write()
    report = compared(cluster, tmp_path)
    assert texts(report) == [
        f"missing 2026-11-23 not in the index: {RUN}-00000000000d to {RUN}-00000000000f (3)",
        f"missing 2026-11-23 not in the index: {RUN2}-000000000001 to {RUN2}-000000000002 (2)",
    ]


def test_rejected_and_withheld_documents_are_no_findings(cluster: Cluster, tmp_path: Path) -> None:
    ship(cluster, [one for at, one in enumerate(log()) if at not in (1, 2, 3)])
    rejected = [Letter(f"{RUN}-{number:012x}", "x", 400, "k", "r", b"{}\n") for number in (2, 4)]
    DeadLetters(tmp_path / "out" / "ship").add(rejected)
    report = compared(cluster, tmp_path)
    assert texts(report) == [f"missing 2026-11-22 not in the index: {RUN}-000000000003 (1)"]
    assert (report.index[0]["dead_letters"], report.index[0]["missing"]) == (2, 1)


def test_what_the_shipping_profile_leaves_out_is_withheld(cluster: Cluster, tmp_path: Path) -> None:
    ship(cluster, [one for one in log() if one["ebpf"]["event"] == "process_exec"])
    report = compared(cluster, tmp_path, "minimal")
    assert texts(report) == []
    assert [one["withheld"] for one in report.index] == [8, 12]
    assert compared(cluster, tmp_path, "full").counts["missing"] > 0


def test_the_command_names_them_and_fails(cluster: Cluster, elasticsearch: Server, tmp_path: Path) -> None:
    ship(cluster, log()[:-1])
    es = elasticsearch.config("ship")
    settings = {"es_config": {"es_port": es.es_port, "ca_certs": str(es.ca_certs), "es_index": INDEX},
                "events_dir": str(tmp_path / "events"), "output_dir": str(tmp_path / "out")}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    admin = tmp_path / "reader.env"
    admin.write_text(f"ES_USER=admin\nES_PASSWORD={PASSWORDS['admin']}\n")
    admin.chmod(0o600)
    command = [sys.executable, "-m", "monitor", "verify", "--config", str(tmp_path / "config.json"), "--elasticsearch"]
    done = subprocess.run([*command, "--credentials", str(admin)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert f"missing: 2026-11-23: not in the index: {RUN2}-00000000000a (1)" in done.stdout
    assert "2026-11-22: 10 lines, 10 in the index" in done.stdout
    assert done.stderr == "comparing 2026-11-22\ncomparing 2026-11-23\n"
    done = subprocess.run(
        [*command, "--json", "--credentials", str(admin)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert [one["missing"] for one in json.loads(done.stdout)["index"]] == [0, 1]


def test_a_heartbeat_tells_the_shipped_side_only_where_something_is_delivered(tmp_path: Path) -> None:
    ledger = {"logged": 10, "expired": 1, "balanced": True}
    assert on_heartbeat(tmp_path, EPOCH, ledger) == {"logged": 10, "expired": 1}
    kept = Checkpoint(tmp_path)
    kept.state.counts[EPOCH] = Counter({"created": 6, "dead_letter": 1})
    kept.write()
    told = on_heartbeat(tmp_path, EPOCH, ledger)
    assert (told["created"], told["dead_letter"], told["lag"], told["expired"]) == (6, 1, 3, 1)
