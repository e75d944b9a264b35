"""The state of the monitor as Prometheus metrics, from the same files that `status` reads.

Owns names and meanings of the metrics; the collector has no part in it, and needs no network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitor import __version__
from monitor.retention import free_percent
from monitor.status import Status, StatusError, member

PREFIX = "ebpf_monitor"
LEDGER: dict[str, tuple[str, str]] = {
    "kernel_seen": ("events_seen", "Events that the programs saw: submitted, refused and suppressed."),
    "submitted": ("events_submitted", "Events that the kernel put into a ring."),
    "received": ("events_received", "Events taken out of the rings."),
    "died": ("events_died", "Events in buffers that could not be recovered."),
    "quarantined": ("events_quarantined", "Events that could not be decoded."),
    "filtered": ("events_filtered", "Events dropped by a rule of the configuration."),
    "folded": ("operations_folded", "Reads and writes that stand in totals only."),
    "made": ("documents_made", "Documents of the monitor itself."),
    "logged": ("lines_logged", "Lines written to the log."),
    "unwritten": ("lines_unwritten", "Lines that could not be written to the log."),
    "expired": ("lines_expired", "Lines removed by log_min_free before they were shipped."),
    "torn": ("lines_torn", "Lines cut after a crash."),
    "created": ("documents_created", "Lines that are documents in Elasticsearch now."),
    "duplicate": ("documents_duplicate", "Lines that were there already when they were sent (again)."),
    "conflict": ("documents_conflict", "Dead letters whose id belongs to another document."),
    "dead_letter": ("documents_dead_letter", "Lines that Elasticsearch refuses; they are in dead-letter.jsonl."),
    "withheld": ("lines_withheld", "Lines that es_config.profile does not deliver."),
    "redacted": ("lines_redacted", "Lines in which secrets were masked."),
}
"""Member of the ledger: name of the counter, and its meaning. Counters begin at 0 with each start of the monitor."""


class _Found(Collector):
    """Reads the state anew at each scrape."""

    def __init__(self, read: Callable[[], Status]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All metrics that are known at the moment; `up` always."""
        try:
            found = self._read()
        except StatusError:
            yield _gauge("up", "Whether the monitor runs: 1 yes, 0 no (or its state cannot be read).", 0)
            return
        yield _gauge("up", "Whether the monitor runs: 1 yes, 0 no (or its state cannot be read).", found.running)
        if not found.last or not found.running:
            return
        info = GaugeMetricFamily(
            f"{PREFIX}_info", "Always 1: the version and the profile.", labels=["version", "profile"]
        )
        info.add_metric([__version__, str(found.last.get("profile"))], 1)
        yield info
        yield from _state(found)
        yield from _ledger(found)


def _gauge(name: str, doc: str, value: float | None) -> Metric:
    metric = GaugeMetricFamily(f"{PREFIX}_{name}", doc)
    if value is not None:
        metric.add_metric([], float(value))
    return metric


def _counter(name: str, doc: str, value: object) -> Metric:
    metric = CounterMetricFamily(f"{PREFIX}_{name}", doc)
    if isinstance(value, int | float):
        metric.add_metric([], value)
    return metric


def _state(found: Status) -> Iterator[Metric]:
    last, about = found.last, found.document()
    lag = about["lag"]
    yield _gauge("uptime_seconds", "Time since the monitor started.", found.uptime_s)
    yield _gauge(
        "status_age_seconds", "Time since the monitor last wrote its state; each second when all is well.", found.age_s
    )
    yield _gauge("ledger_balanced", "Whether every event is accounted for: 1 yes, 0 no.", found.balanced)
    yield _gauge("log_writable", "Whether the log can be written: 1 yes, 0 no.", not found.log_problem)
    yield _gauge("configuration_taken", "Whether the configuration files are in effect: 0 when a change was refused.",
                 not last.get("config_problem"))  # fmt: skip
    yield _gauge("ring_fill_ratio", "How full the fullest ring is, 0 to 1.", lag["ring_fill"])
    yield _gauge("events_in_flight", "Events in the rings, not read yet.", lag["in_rings"])
    yield _gauge("lines_not_durable", "Lines written, and not synced to the disk yet.", lag["not_durable"])
    yield _counter("log_bytes", "Bytes written to the log.", last.get("bytes_written"))
    yield _counter("log_sync_failures", "Syncs of the log that failed.", last.get("sync_failures"))
    yield _counter("cpu_seconds", "CPU time of the collector, user and system.", last.get("cpu_seconds"))
    yield _gauge("resident_memory_bytes", "Resident memory of the collector.", last.get("resident_bytes"))
    try:
        yield _gauge(
            "disk_free_ratio",
            "Free part of the log's file system, 0 to 1.",
            free_percent(Path(last["events_dir"])) / 100,
        )
    except (OSError, KeyError, TypeError):
        return


def _ledger(found: Status) -> Iterator[Metric]:
    ledger = found.document()["ledger"]
    for name, (metric, doc) in LEDGER.items():
        yield _counter(metric, doc, ledger.get(name))
    if isinstance(ledger.get("lag"), int):
        yield _gauge("delivery_lag_lines", "Lines in the log that are not delivered yet.", ledger["lag"])
    delivery = found.document()["delivery"]
    if delivery is not None and found.last.get("storage_type") == "elasticsearch":
        yield _gauge("delivering", "Whether Elasticsearch takes what it is sent: 1 yes, 0 no, or no shipper runs.",
                     delivery.get("state") == "delivering")  # fmt: skip
        yield _gauge("delivery_lag_seconds", "Age of the oldest line that is not delivered yet.",
                     member(delivery, "lag").get("seconds"))  # fmt: skip
    for name, label, doc in (
        ("refused", "reason", "Events without room in a ring, or (preempted: at most) whose program did not run: lost and told."),
        ("suppressed", "rule", "Events that the configuration or the monitor's own identity keeps out."),
    ):
        family = CounterMetricFamily(f"{PREFIX}_events_{name}", doc, labels=[label])
        for key, value in member(ledger, name).items():
            family.add_metric([key], value)
        yield family
    doc = "Acts that an own rule has left out: the parts of suppressed exclusions."
    family = CounterMetricFamily(f"{PREFIX}_events_excluded", doc, labels=["exclusion"])
    for name, rule in member(found.last, "exclusions").items():
        family.add_metric([name], rule["count"])
    yield family


def registry(read: Callable[[], Status]) -> CollectorRegistry:
    """A registry whose metrics are read from `read` at each scrape."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Found(read))
    return made


def text(read: Callable[[], Status]) -> bytes:
    """The metrics in the text exposition format."""
    return generate_latest(registry(read))


def textfile(read: Callable[[], Status], path: Path) -> None:
    """The metrics into a file for node_exporter's textfile collector, replaced as a whole. Raises OSError."""
    write_to_textfile(str(path), registry(read))
    path.chmod(0o644)  # node_exporter runs as a user of its own


def serve(read: Callable[[], Status], address: str, port: int) -> tuple[Any, threading.Thread]:
    """Serves /metrics in a thread; `shutdown()` of the server ends it. Raises OSError."""
    return start_http_server(port, address, registry(read))
