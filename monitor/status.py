"""Whether a monitor runs, how far behind it is, what it lost: read from the files that it leaves in its run_dir.

Owns the reading and the judgement; never talks to the monitor and never changes anything of it.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from monitor.compact import neutral
from monitor.logfiles import LIVE_NAME, LogFile, ReaderError, files, is_log_name, line_identity, open_regular
from monitor.retention import free_percent
from monitor.ship import state

EXIT_BALANCED, EXIT_UNBALANCED, EXIT_STOPPED = 0, 1, 3
STALE_S = 5.0
_DAY_S = 86_400
AT_MOST = ("preempted",)
"""reasons whose count is an upper bound"""
_MAX_BYTES = 1 << 20


class StatusError(Exception):
    """The state of the monitor cannot be seen; the text says why."""


@dataclass(frozen=True)
class Status:
    """What is known of the monitor of one run_dir. `last` is its status.json, {} if there is none of this run.

    age_s: seconds since status.json was written. uptime_s, gb_per_day: None when unknown. today: gb_per_day is from
    the bytes logged since midnight, not from the whole run.
    """

    running: bool
    pid: int | None
    uptime_s: float | None
    age_s: float | None
    last: dict[str, Any]
    gb_per_day: float | None = None
    today: bool = False
    shipped: state.Shipped | None = None

    @property
    def stale(self) -> bool:
        """It runs, and has written no status for longer than it should."""
        return self.running and (self.age_s is None or self.age_s > STALE_S)

    @property
    def balanced(self) -> bool:
        """The last ledger's equations hold."""
        return member(self.last, "ledger").get("balanced") is True

    @property
    def log_problem(self) -> str:
        """Why the log cannot be written at the moment; "" when it can."""
        return str(self.last.get("log_problem") or "")

    @property
    def exit_status(self) -> int:
        """As the commands' contract has it."""
        if not self.running:
            return EXIT_STOPPED
        return EXIT_BALANCED if self.balanced and not self.stale and not self.log_problem else EXIT_UNBALANCED

    def document(self) -> dict[str, Any]:
        """For `status --json`."""
        last, ledger = self.last, member(self.last, "ledger")
        return {
            "running": self.running, "pid": self.pid, "epoch": last.get("epoch"), "profile": last.get("profile"),
            "uptime_s": None if self.uptime_s is None else round(self.uptime_s, 1),
            "status_age_s": None if self.age_s is None else round(self.age_s, 1),
            "balanced": self.balanced, "stale": self.stale, "log_problem": self.log_problem,
            "config_problem": str(last.get("config_problem") or ""), "off": member(last, "off"),
            "cpu_seconds": last.get("cpu_seconds"), "resident_bytes": last.get("resident_bytes"),
            "events_dir": last.get("events_dir"), "sequence": last.get("sequence"),
            "lag": {"in_rings": ledger.get("in_flight"), "not_durable": self._not_durable(),
                    "ring_fill": last.get("ring_fill")},
            "loss": losses(ledger), "sync_failures": last.get("sync_failures"),
            "bytes_written": last.get("bytes_written"),
            "gb_per_day": None if self.gb_per_day is None else round(self.gb_per_day, 3),
            "gb_per_day_from": None if self.gb_per_day is None else "today" if self.today else "this run",
            "ledger": ledger | self._shipped_side(), "delivery": self.delivery,
            "exclusions": member(last, "exclusions"),
        }  # fmt: skip

    @property
    def delivery(self) -> dict[str, Any] | None:
        """The shipper's status.json with its age; None where nothing is delivered."""
        found = None if self.shipped is None else self.shipped.status
        if not found:
            return {"state": "not started"} if self.last.get("storage_type") == "elasticsearch" else None
        written = found.get("time")
        age = round(time.time() - written, 1) if isinstance(written, int | float) else None
        stopped = found.get("state") != "stopped" and (age is None or age > 3 * STALE_S)
        return found | {"age_s": age} | ({"state": "not running"} if stopped else {})

    def _shipped_side(self) -> dict[str, int]:
        """What became of the logged lines of this epoch: with `torn`, their sum is `logged`."""
        ledger = member(self.last, "ledger")
        logged, epoch = ledger.get("logged"), self.last.get("epoch")
        if self.running and "created" in ledger:
            return {}  # the monitor's own look, at the moment of its other figures
        if self.shipped is None or not isinstance(logged, int) or not isinstance(epoch, str):
            return {}
        return self.shipped.ledger(epoch, logged)

    def _not_durable(self) -> int | None:
        written, durable = self.last.get("sequence"), self.last.get("durable_sequence")
        return max(0, written - durable) if isinstance(written, int) and isinstance(durable, int) else None


def member(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The member `name` if it is an object, else an empty one: the file may be of another version."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def losses(ledger: dict[str, Any]) -> dict[str, int]:
    """Events that were seen and are not in the log, by reason, with their `total`."""
    found = {name: count for name, count in member(ledger, "refused").items() if isinstance(count, int)}
    found |= {name: ledger[name] for name in ("died", "quarantined", "unwritten") if isinstance(ledger.get(name), int)}
    return found | {"total": sum(found.values())}


def read(run_dir: Path, now: float | None = None) -> Status:
    """The state of the monitor whose run_dir this is. `now`: seconds since 1970. Raises StatusError."""
    now = time.time() if now is None else now
    try:
        pid, began = _lock(run_dir / "lock")
        found, written = _document(run_dir / "status.json")
    except OSError as error:
        raise StatusError(f"cannot read {run_dir}: {error.strerror}") from None
    if pid is None:
        return Status(False, None, None, None if written is None else now - written, found, shipped=_shipped(found))
    uptime = None if began is None else max(0.0, now - began)
    if found.get("pid") != pid:  # an earlier run's: this one has not written its own yet
        return Status(True, pid, uptime, None, {})
    rate, today = _gb_per_day(found, uptime, now)
    age = None if written is None else now - written
    return Status(True, pid, uptime, age, found, rate, today, _shipped(found))


def _shipped(found: dict[str, Any]) -> state.Shipped | None:
    where = found.get("output_dir")
    return state.read(Path(where) / state.DIRECTORY) if isinstance(where, str) else None


def _lock(path: Path) -> tuple[int | None, float | None]:
    """(pid of the holder, time of its start); (None, None) if nobody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, None
    try:
        about = os.fstat(descriptor)
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        pid = int(text) if text.isdecimal() else 0
        if not _held(descriptor, about, pid):
            return None, None
        return pid, about.st_mtime
    finally:
        os.close(descriptor)


def _held(descriptor: int, about: os.stat_result, pid: int) -> bool:
    """Whether somebody holds the lock. Trying it would, for a moment, be in the way of a monitor that starts: so the
    kernel's list is asked first, and the lock is only tried when a process of that number lives (which may be another).
    """
    wanted = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with (
        contextlib.suppress(OSError),
        open("/proc/locks", encoding="ascii") as locks,
    ):  # not there: the lock itself tells
        if any(line.split()[-3] == wanted for line in locks if " FLOCK " in line and " -> " not in line):
            return True
    if pid and not Path(f"/proc/{pid}").exists():
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _document(path: Path) -> tuple[dict[str, Any], float | None]:
    """(content, time of writing) of status.json; ({}, None) if there is none that can be understood."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}, None
    try:
        found = orjson.loads(os.read(descriptor, _MAX_BYTES))
        written = os.fstat(descriptor).st_mtime
    except orjson.JSONDecodeError:
        return {}, None
    finally:
        os.close(descriptor)
    return (found, written) if isinstance(found, dict) else ({}, None)


# ---- how much a day costs --------------------------------------------------------------------------------------------


def _gb_per_day(last: dict[str, Any], uptime: float | None, now: float) -> tuple[float | None, bool]:
    written, where = last.get("bytes_written"), last.get("events_dir")
    if uptime is None or uptime < 1 or not isinstance(written, int):
        return None, False
    local = datetime.datetime.fromtimestamp(now).astimezone()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = (local - midnight).total_seconds()
    if uptime > seconds > 60 and isinstance(where, str):
        logged = _bytes_since(Path(where), midnight.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        if logged is not None:
            return logged / seconds * _DAY_S / 1e9, True
    return written / uptime * _DAY_S / 1e9, False


def _bytes_since(directory: Path, moment: str) -> int | None:
    """Bytes of lines from `moment` on (the beginning of an RFC 3339 time); None when a compressed file has some."""
    total = 0
    try:
        for file in reversed(files(directory)):
            if file.timestamp >= moment:
                if file.compression or file.framed:
                    return None
                total += file.size
            elif file.compression or file.framed:
                break  # rotated before: how much of it is from today is not worth decompressing it
            else:
                total += file.size - _first_from(file, moment)
                break
    except (ReaderError, OSError):
        return None
    return total


def _first_from(file: LogFile, moment: str) -> int:
    """Offset of the first line that is not before `moment`, by bisection: lines are in the order of time."""
    descriptor, _ = open_regular(file.path)
    try:
        low, high = 0, file.size
        while high - low > 1 << 16:
            middle = (low + high) // 2
            block = os.pread(descriptor, 1 << 20, middle)
            begin = block.find(b"\n") + 1
            identity = line_identity(block[begin : block.find(b"\n", begin)]) if begin else None
            if identity is None or identity[3] >= moment:
                high = middle
            else:
                low = middle
        return low
    finally:
        os.close(descriptor)


# ---- for people ------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """ "3 d 4 h", "5 min 2 s"."""
    left, parts = int(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def table(status: Status) -> str:
    """The status as lines for a person, ending in a newline."""
    rows = list(_rows(status))
    left = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{left}}  {neutral(text)}\n" for name, text in rows)


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    last, found = status.last, status.document()
    if not status.running:
        yield "monitor", "not running"
        if status.age_s is None:
            return
        yield "last seen", f"{duration(status.age_s)} ago, as process {last.get('pid')}"
    else:
        since = ""
        if status.uptime_s is not None:
            began = datetime.datetime.fromtimestamp(time.time() - status.uptime_s).astimezone()
            since = f" since {began:%Y-%m-%d %H:%M:%S} ({duration(status.uptime_s)})"
        yield "monitor", f"running as process {status.pid}{since}"
        if status.age_s is None:
            yield "status", "not written yet"
            return
        if status.stale:
            yield "status", f"STALE: written {duration(status.age_s)} ago, should be each second"
    yield "log", f"{last.get('events_dir')}/{last.get('log', LIVE_NAME)}{_size(last.get('events_dir'))}"
    yield "profile", f"{last.get('profile')}, epoch {last.get('epoch')}"
    off = member(last, "off")
    if off:
        reasons = {str(why): [name for name in off if off[name] == why] for why in off.values()}
        yield "off", "; ".join(f"{_few(names)} ({why})" for why, names in reasons.items())
    lag, loss, ledger = found["lag"], found["loss"], found["ledger"]
    fill = lag["ring_fill"] if isinstance(lag["ring_fill"], int | float) else 0.0
    yield "logged", f"{_number(last.get('sequence'))} lines, {_number(last.get('bytes_written'))} bytes in this run"
    rings = f"{_number(lag['in_rings'])} events in the rings ({100 * fill:.1f} % full)"
    yield "lag", f"{rings}, {_number(lag['not_durable'])} lines not durable yet"
    parts = ", ".join(
        f"{'at most ' if name in AT_MOST else ''}{name} {count:,}"
        for name, count in loss.items()
        if count and name != "total"
    )
    yield "lost", f"{loss['total']:,} events" + (f" ({parts})" if parts else "")
    if status.gb_per_day is not None:
        yield "volume", f"{status.gb_per_day:.2f} GB per day at the rate of {found['gb_per_day_from']}"
    for name, rule in member(last, "exclusions").items():
        yield "exclusion", f"{name}: {_number(rule.get('count'))} acts left out" + (
            f"; NOT IN EFFECT: {rule['waiting']}" if rule.get("waiting") else ""
        )
    if last.get("sync_failures"):
        yield "disk", f"{_number(last['sync_failures'])} syncs failed"
    if last.get("config_problem"):
        yield "config", f"NOT TAKEN: {last['config_problem']}"
    if status.log_problem:
        yield "log", f"CANNOT BE WRITTEN: {status.log_problem}"
    if found["delivery"] is not None:
        yield from _delivery_rows(found["delivery"])
    yield "ledger", "balanced" if status.balanced else "NOT BALANCED"
    yield from _ledger_rows(ledger)


_EQUATIONS = (
    ("  kernel", ("kernel_seen",), ("submitted", "refused", "suppressed")),
    ("  rings", ("submitted",), ("received", "in_flight", "died")),
    ("  log", ("received", "made"), ("logged", "filtered", "quarantined", "unwritten")),
)


def _ledger_rows(ledger: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The equations, and in a last line what stands beside them; terms that are 0 are left out."""
    told = {"balanced"}
    for name, left, right in _EQUATIONS:
        told.update(left, right)
        sides = []
        for side in (left, right):
            terms = [_term(term, ledger.get(term), keep=term in (*left, right[0])) for term in side]
            sides.append(" + ".join(filter(None, terms)))
        yield name, " = ".join(sides)
    beside = [text for term, value in ledger.items() if term not in told and (text := _term(term, value))]
    if beside:
        yield "  beside", ", ".join(beside)


def _term(name: str, value: object, *, keep: bool = False) -> str:
    """`refused 7` ; "" for nothing."""
    if isinstance(value, dict):
        value = sum(count for count in value.values() if isinstance(count, int))
    return f"{name} {_number(value)}" if value or keep else ""


def _size(directory: object) -> str:
    """How big the log is on the disk, and what is left there."""
    if not isinstance(directory, str):
        return ""
    try:
        with os.scandir(directory) as entries:
            sizes = [entry.stat().st_blocks * 512 for entry in entries if is_log_name(entry.name)]
        free = free_percent(Path(directory))
    except OSError:
        return ""
    return f", {sum(sizes) / 1e9:.2f} GB in {len(sizes)} files, {free:.0f} % of the disk free"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _delivery_rows(delivery: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether Elasticsearch gets what is logged, how far it is behind, and since when and why not."""
    lag, text = member(delivery, "lag"), str(delivery.get("state"))
    if lag:
        seconds = lag.get("seconds")
        behind = duration(seconds) if isinstance(seconds, int | float) else "?"
        text += f", behind by {_number(lag.get('events'))} events, {_number(lag.get('bytes'))} bytes, {behind}"
    yield "delivery", text
    since = delivery.get("since")
    if delivery.get("reason") and isinstance(since, int | float):
        yield "", f"NOT DELIVERING for {duration(max(0.0, time.time() - since))}: {delivery['reason']}"
    if delivery.get("insecure"):
        yield "", "INSECURE: the server's certificate is not verified"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"
