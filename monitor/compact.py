"""One document as one readable line: columns, colours, and nothing that could lie on a terminal.

Owns what a person sees of an event; never decides which events are shown and never reads or writes a file.
"""

from __future__ import annotations

import datetime
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from monitor import parts

Part = Mapping[str, Any]

_EVENT, _OUTCOME, _PID, _NAME, _USER = 15, 6, 7, 15, 8
_LEAST_OBJECT = 16
_NO_TIME = "--:--:--.---"
_TRANSFERS = frozenset({"file_read", "file_write", "socket_send", "socket_receive"})
_RESET = "\x1b[0m"
_DIM, _RED, _ALARM = "\x1b[2m", "\x1b[31m", "\x1b[1;37;41m"
_FAMILY = {"process": "\x1b[32m", "file": "\x1b[36m", "socket": "\x1b[35m", "kernel": "\x1b[33m", "monitor": "\x1b[34m"}


def neutral(text: str) -> str:
    r"""`text` with everything that does not stand on the line as one visible character replaced by its escape.

    Control, bidirectional, invisible and unassigned characters, line separators and spaces that are not " " become
    `\uNNNN` (`\UNNNNNNNN` above U+FFFF): an escape of our own, told apart from `\xNN`, which the log itself uses.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def width(text: str) -> int:
    """Columns that `text`, made neutral, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


@lru_cache(maxsize=4096)
def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """`text` in at most `columns` (at least 1), its middle replaced by "…" where it is longer."""
    if width(text) <= columns:
        return text
    left = _taken(text, (columns - 1) // 2)
    right = _taken(text[::-1], columns - 1 - width(left))[::-1]
    return f"{left}…{right}"


def _taken(text: str, columns: int) -> str:
    """The longest beginning that fits."""
    used = 0
    for index, char in enumerate(text):
        used += _columns(char)
        if used > columns:
            return text[:index]
    return text


@lru_cache(maxsize=4096)
def _local(second: str) -> tuple[str, str]:
    """(date, time) in local time of an RFC 3339 second in UTC, without its zone. Raises ValueError."""
    moment = datetime.datetime.fromisoformat(second).replace(tzinfo=datetime.UTC).astimezone()
    return moment.strftime("%A %Y-%m-%d"), moment.strftime("%H:%M:%S")


def part(document: Part, name: str) -> Part:
    """The member `name` if it is an object, else an empty one: a document of a log may hold anything."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return neutral(value) if isinstance(value, str) else "" if value is None else neutral(str(value))


class Compact:
    """Renders documents. `columns` is the terminal's width (None: never cut), `colour` allows escape sequences."""

    def __init__(self, *, columns: int | None = None, colour: bool = False) -> None:
        self._columns = columns
        self._colour = colour
        self.day = datetime.datetime.now().astimezone().strftime("%A %Y-%m-%d")
        """the day that was named last: today's need not be"""

    def afresh(self) -> Compact:
        """The same rendering, for which no day is named yet."""
        other = Compact(columns=self._columns, colour=self._colour)
        other.day = ""
        return other

    def heading(self, day: str) -> str:
        """The line before the first event of a day."""
        return self.notice(day)

    def raw(self, line: bytes, read: parts.Line | None = None) -> str:
        """The text for one line of the log, ending in a newline, as `document` gives it. `read`: the line, if that is known."""
        if (read := read or parts.read(line)) is not None:
            return self._row(*_when(read.timestamp), read.document, _actor(read.actor))
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            return self._alarm("not a document: " + neutral(line[:200].decode("utf-8", "backslashreplace"))) + "\n"
        return self.document(found)

    def document(self, document: Part) -> str:
        """The text for one document, ending in a newline. Where another day begins, a line before it names the day."""
        return self._row(*_when(_text(document.get("@timestamp"))), document, _who(document))

    def _row(self, day: str, time: str, document: Part, who: str) -> str:
        head = ""
        if day and day != self.day:
            self.day = day
            head = self.heading(day)
        ebpf = part(document, "ebpf")
        event = _text(ebpf.get("event")) or "?"
        if event == "monitor_loss":
            return head + self._alarm(f"{time}  {event:<{_EVENT}} {_lost(part(ebpf, 'loss'))}") + "\n"
        outcome = _text(part(document, "error").get("code")) if "error" in document else ""
        outcome = outcome or ("ok" if "outcome" in part(document, "event") else "-")
        thing, more = _teller(event)(document, ebpf)
        if ebpf.get("claimed") is True and "error" not in document:
            more = f"{more} (claimed)".lstrip()
        left = f"{time}  {event.ljust(_EVENT)} {outcome.ljust(_OUTCOME)} {who} "
        if self._columns is not None:
            thing, more = self._fitted(self._columns - width(left), thing, more)
        if self._colour:
            shade = _FAMILY.get(event.split("_", 1)[0], "")
            failed = _RED if outcome not in ("ok", "-") else ""
            left = f"{_DIM}{time}{_RESET}  {shade}{event:<{_EVENT}}{_RESET} "
            left += f"{failed}{outcome:<{_OUTCOME}}{_RESET} {who} "
            more = self._paint(_DIM, more) if more else ""
        return f"{head}{left}{thing}{'  ' if thing and more else ''}{more}".rstrip(" ") + "\n"

    @staticmethod
    def _fitted(room: int, thing: str, more: str) -> tuple[str, str]:
        """Both parts in what the terminal has left: the object loses its middle first, then the details their end."""
        room = max(_LEAST_OBJECT, room)
        gap = 2 if thing and more else 0
        if width(thing) + gap + width(more) <= room:
            return thing, more
        thing = cut(thing, max(_LEAST_OBJECT, room - gap - width(more)))
        left = room - gap - width(thing)
        return thing, cut(more, left) if left > 0 else ""

    def _paint(self, style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if self._colour else text

    def _alarm(self, text: str) -> str:
        return f"{_ALARM}{text}{_RESET}" if self._colour else f"*** {text}"

    def notice(self, text: str) -> str:
        """A line of the display itself, that no event has."""
        return self._paint(_DIM, f"-- {text} --") + "\n"


def _when(timestamp: str) -> tuple[str, str]:
    """(date, time to the millisecond) of a document's time, ("", dashes) if it is none."""
    try:
        day, time = _local(timestamp[:19])
    except ValueError:
        return "", _NO_TIME
    fraction = timestamp[20:23] if timestamp[19:20] == "." else ""
    return day, f"{time}.{fraction:<03}" if not fraction or fraction.isdecimal() else f"{time}.000"


@lru_cache(maxsize=4096)
def _actor(members: bytes) -> str:
    return _who(parts.sections(members) or {})


def _who(document: Part) -> str:
    process, user = part(document, "process"), part(document, "user")
    name = _text(process.get("name")) or _text(part(process, "thread").get("name")) or "-"
    owner, pid = _text(user.get("name")) or _text(user.get("id")) or "-", _text(process.get("pid")) or "-"
    return f"{pid:>{_PID}} {_padded(name, _NAME)} {_padded(owner, _USER)}"


def _padded(text: str, columns: int) -> str:
    return f"{text:<{columns}}" if text.isascii() else text + " " * max(0, columns - width(text))


# ---- what each kind of event is about --------------------------------------------------------------------------------


Teller = Callable[[Part, Part], tuple[str, str]]
"""Of a document and its section `ebpf`: (object, details)."""


@lru_cache(maxsize=256)
def _teller(event: str) -> Teller:
    if event in _TOLD:
        return _TOLD[event]
    return _socket if event.startswith("socket_") else _monitor if event.startswith("monitor_") else _file


def _file(document: Part, ebpf: Part) -> tuple[str, str]:
    details = _amounts(ebpf)
    if "requested" in ebpf:
        details += [f"{name} {_text(value)}" for name, value in part(ebpf, "requested").items()]
    if "xattr" in ebpf and (attribute := part(ebpf, "xattr").get("name")):
        details.append(_text(attribute))
    path = _text(part(document, "file").get("path")) or (f"descriptor {_text(ebpf['fd'])}" if "fd" in ebpf else "")
    return path, ", ".join(details) if details else _text(ebpf.get("flags"))


def _symlink(document: Part, _: Part) -> tuple[str, str]:
    file = part(document, "file")
    return f"{_text(file.get('path')) or '?'} -> {_text(file.get('target_path')) or '?'}", ""


def _renamed(document: Part, _: Part) -> tuple[str, str]:
    file = part(document, "file")
    before = part(part(file, "Ext"), "original").get("path")
    return f"{_text(before) or '?'} -> {_text(file.get('path')) or '?'}", ""


def _fork(document: Part, _: Part) -> tuple[str, str]:
    if "error" in document:
        return "", ""
    return f"child of {_text(part(part(document, 'process'), 'parent').get('pid')) or '?'}", ""


def _exec(document: Part, _: Part) -> tuple[str, str]:
    process, file = part(document, "process"), part(document, "file")
    arguments = process.get("args")
    if isinstance(arguments, list) and all(isinstance(one, str) for one in arguments):
        thing = neutral(shlex.join(arguments))
    else:
        thing = _text(process.get("command_line"))
    program, where = _text(file.get("path")), _text(process.get("working_directory"))
    details = [program] if thing and program and not thing.startswith(program) else []
    return thing or program, " ".join([*details, *([f"in {where}"] if where else [])])


def _exit(document: Part, ebpf: Part) -> tuple[str, str]:
    signal = part(ebpf, "signal")
    if signal:
        return f"killed by {_text(signal.get('name')) or _text(signal.get('number'))}", ""
    return f"exit code {_text(part(document, 'process').get('exit_code')) or '?'}", ""


def _amounts(ebpf: Part) -> list[str]:
    """Totals of a close; the bytes of a single read, write, send or receive."""
    found = []
    for name, word in (("read", "read"), ("write", "written")):
        if name in ebpf and (count := part(ebpf, name).get("count")):
            found.append(f"{word} {_text(part(ebpf, name).get('bytes'))} B in {_text(count)}")
    if "close" in ebpf and (reason := part(ebpf, "close").get("reason")) not in (None, "close"):
        found.append(f"by {_text(reason)}")
    if _text(ebpf.get("event")) in _TRANSFERS and isinstance(ret := ebpf.get("ret"), int) and ret >= 0:
        found.append(f"{ret} B")
    return found


def _end(document: Part, name: str) -> str:
    end = part(document, name)
    address, port = _text(end.get("ip")), _text(end.get("port"))
    return (f"[{address}]" if ":" in address else address) + (f":{port}" if port else "")


def _socket(document: Part, ebpf: Part) -> tuple[str, str]:
    about = part(ebpf, "socket")
    here = _end(document, "source") or _text(about.get("path"))
    there = _end(document, "destination") or _text(about.get("peer_path"))
    arrow = "<-" if ebpf.get("event") in ("socket_accept", "socket_receive") else "->"
    thing = f"{here} {arrow} {there}".lstrip() if there else here
    kind = _text(part(document, "network").get("transport")) or _text(about.get("family"))
    waiting = ["in progress"] if ebpf.get("in_progress") is True else []
    return thing or kind, ", ".join([*([kind] if thing and kind else []), *waiting, *_amounts(ebpf)])


def _lost(loss: Part) -> str:
    cpu, first, last, count, reason = (
        _text(loss.get(name)) or "?" for name in ("cpu", "first", "last", "count", "reason")
    )
    where = f"on CPU {cpu}, numbers {first} to {last}"
    if loss.get("class") == "log":
        where = f"lines {first} to {last} of epoch {_text(loss.get('epoch'))}" if "first" in loss else "not written"
    if loss.get("count") == 0:
        return f"detail {reason}: nothing lost, {where}"
    most = "at most" if loss.get("reason") in ("layout", "preempted") else "at least"
    bound = f"{most} " if loss.get("exact") is False else ""
    return f"LOST {bound}{count} {_text(loss.get('class'))} events ({reason}), {where}"


def _started(_: Part, ebpf: Part) -> tuple[str, str]:
    about, before = part(ebpf, "monitor"), part(ebpf, "previous")
    missing = about.get("missing")
    told = [f"profile {_text(about.get('profile'))}", f"kernel {_text(about.get('kernel'))}"]
    if isinstance(missing, list) and missing:
        told.append("without " + " ".join(_text(name) for name in missing))
    if before:
        told.append(f"after epoch {_text(before.get('epoch'))}, line {_text(before.get('sequence'))}")
    return "recording begins", ", ".join(told)


def _beat(_: Part, ebpf: Part) -> tuple[str, str]:
    ledger = part(ebpf, "ledger")
    refused = sum(value for value in part(ledger, "refused").values() if isinstance(value, int))
    return f"{_text(ledger.get('logged')) or '?'} lines logged, {refused} events refused", ""


def _monitor(_: Part, ebpf: Part) -> tuple[str, str]:
    reason = part(ebpf, "monitor").get("reason")
    if reason is not None:
        return f"recording ends: {_text(reason)}", ""
    notice, step = part(ebpf, "log").get("notice"), part(ebpf, "clock").get("step_ns")
    if isinstance(step, int):
        return f"the wall clock was set by {step / 1e9:+.3f} s", ""
    return _text(notice) or _text(", ".join(sorted(map(str, part(ebpf, "config"))))), ""


_TOLD: dict[str, Teller] = {
    "file_rename": _renamed, "file_link": _renamed, "file_symlink": _symlink,
    "process_fork": _fork, "process_exec": _exec, "process_found": _exec,
    "process_exit": _exit,
    "monitor_start": _started, "monitor_heartbeat": _beat,
}  # fmt: skip
