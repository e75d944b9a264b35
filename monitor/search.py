"""Which lines of the log are asked for, and finding them: in what is there, and in what comes.

Owns the filter and the choice of files; never shows a line and never changes the log.
"""

from __future__ import annotations

import collections
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from monitor import events, parts, reader
from monitor.clock import rfc3339
from monitor.compact import part
from monitor.config_file import nearest
from monitor.frames import Unreadable, view
from monitor.logfiles import BLOCK_BYTES, LogFile, Problem, files, line_identity, tail_offset
from monitor.scan import Needles, Piece, Scan, pieces

FAMILIES = tuple(dict.fromkeys(name.split("_", 1)[0] for name in events.EVENT))
_STAMP = b'{"@timestamp":"'
_STAMP_END = len(_STAMP) + 30  # RFC 3339 in UTC with nine decimals has one length: bytes compare as times do
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
GLOB = re.compile(r"\[[!\]]?[^\]]*\]|[*?]")
_NAME = b'"name":"'
_IN_STRING = rb'[^"\\]*(?:\\.[^"\\]*)*'


class FilterError(ValueError):
    """A filter that cannot be; the message says why."""


class Found(NamedTuple):
    """A line that matched: its bytes without newline, and what was read of it, if anything was."""

    raw: bytes
    line: parts.Line | None


def event_names(words: Sequence[str]) -> tuple[str, ...]:
    """Checks names of events and families ("file") against the catalogue. Raises FilterError with the nearest one."""
    for word in words:
        if word not in events.EVENT and word not in FAMILIES:
            raise FilterError(unknown_event(word, FAMILIES))
    return tuple(words)


def unknown_event(word: str, families: Sequence[str] = ()) -> str:
    """What to say of a name that the catalogue does not have."""
    hint = nearest(word, [*events.EVENT, *families]) or "; all names: ebpf-monitor events"
    return f"{word!r} is no event{' and no family' if families else ''}{hint}"


def _quoted(text: str) -> bytes:
    """The text as it stands inside a JSON string, without the quotes."""
    return orjson.dumps(text)[1:-1]


def _literal(pattern: str, begin: bytes = b'"') -> bytes:
    """The longest part of a glob that every match contains, as bytes of the line, or b"". `begin`: what is before a match."""
    texts = [_quoted(one) for one in GLOB.split(pattern)]
    texts[0] = b'"' + texts[0]
    texts[-1] = texts[-1] + b'"'
    longest = max(texts, key=len)
    if len(longest) == 1:
        return b""
    return begin + longest[1:] if longest is texts[0] else longest


def _shape(begin: bytes, patterns: Sequence[str]) -> re.Pattern[bytes]:
    """What the bytes of a line contain in which a JSON string matches one of the globs: its first and its last part.

    Not those between: names are anybody's, and with several gaps some would take a regular expression ages.
    """
    ends = [(fixed[0], fixed[1:][-1:]) for fixed in map(GLOB.split, patterns)]
    globs = (_IN_STRING.join(re.escape(_quoted(one)) for one in (first, *last)) for first, last in ends)
    return re.compile(b"|".join(begin + one + b'"' for one in globs))


def _is_narrow(patterns: Sequence[str]) -> bool:
    """Whether the shape says more than the longest part; one that begins with a wildcard is looked for at every string."""
    begins = [match.start() for pattern in patterns if (match := GLOB.search(pattern))]
    return bool(begins) and all(begins)


@dataclass(frozen=True)
class Filter:
    """Which lines are wanted. Conditions of one kind are alternatives, different kinds must all hold.

    users: ids or names. names, paths: globs, where * matches / too. since_ns, until_ns: nanoseconds since 1970, both
    inclusive. events: names or families. containers: beginnings of ids. Raises FilterError for a pattern that cannot
    be a JSON text.
    """

    pids: tuple[int, ...] = ()
    users: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    failed: bool = False
    since_ns: int | None = None
    until_ns: int | None = None
    needles: tuple[Needles, ...] = field(init=False, compare=False)
    _tests: tuple[Callable[[dict[str, Any]], bool], ...] = field(init=False, compare=False)
    _sure: tuple[bytes, ...] = field(init=False, compare=False)
    """a line with one of them is wanted: it need not be read as a document"""
    _shapes: tuple[re.Pattern[bytes], ...] = field(init=False, compare=False)
    """every wanted line has them: most lines need not be read as documents"""
    _since: bytes = field(init=False, compare=False)
    _until: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        try:
            groups = list(self._groups())
        except orjson.JSONEncodeError:
            raise FilterError("a name, path, user or container to search for must be valid UTF-8") from None
        put = object.__setattr__  # the dataclass is frozen for everybody else
        put(self, "needles", tuple(group for group in groups if group and all(group)))
        put(self, "_tests", tuple(self._conditions()))
        put(self, "_sure", tuple(self._events(b'"ebpf":{"event":"')) if len(self._tests) == 1 else ())
        globs = ((b'"', self.paths), (_NAME, self.names))
        put(self, "_shapes", tuple(_shape(begin, some) for begin, some in globs if _is_narrow(some)))
        put(self, "_since", b"" if self.since_ns is None else rfc3339(self.since_ns).encode())
        put(self, "_until", b"\xff" if self.until_ns is None else rfc3339(self.until_ns).encode())

    def _groups(self) -> Iterator[Needles]:
        """What the bytes of a wanted line contain, rarest first. `"key":` never stands inside a JSON string."""
        yield tuple(b'"pid":%d' % pid for pid in self.pids)
        yield tuple(b'"container":{"id":"' + _quoted(one) for one in self.containers)
        yield tuple(_literal(pattern) for pattern in self.paths)
        yield tuple(_literal(pattern, _NAME) for pattern in self.names)
        yield tuple(_user_needle(one) for one in self.users)
        yield tuple(self._events(b'"event":"'))
        if self.failed:
            yield (b'"outcome":"failure"',)

    def _events(self, key: bytes) -> Iterator[bytes]:
        return (key + name.encode() + (b"_" if name in FAMILIES else b'"') for name in self.events)

    def _conditions(self) -> Iterator[Callable[[dict[str, Any]], bool]]:
        if self.pids:
            yield lambda document: part(document, "process").get("pid") in self.pids
        if self.containers:
            yield lambda document: str(part(document, "container").get("id", "")).startswith(self.containers)
        if self.paths:
            paths = _any_glob(self.paths)
            yield lambda document: any(paths(one) for one in _paths(document))
        if self.names:
            named = _any_glob(self.names)
            yield lambda document: _is_named(document, named)
        if self.users:
            yield lambda document: any(part(document, "user").get(key) in self.users for key in ("id", "name"))
        if self.events:
            exact, prefixes = set(self.events), tuple(f"{name}_" for name in self.events if name in FAMILIES)
            yield lambda document: _event(document) in exact or _event(document).startswith(prefixes)
        if self.failed:
            yield lambda document: part(document, "event").get("outcome") == "failure"

    def in_time(self, raw: bytes) -> bool:
        """Whether the line's time is wanted; one without a time is when no time was asked for."""
        if self.since_ns is None and self.until_ns is None:
            return True
        return raw.startswith(_STAMP) and self._since <= raw[len(_STAMP) : _STAMP_END] <= self._until

    def match(self, raw: bytes) -> Found | None:
        """The line if it is wanted. Raises ValueError for one that cannot be read as a document and might be."""
        if not self.in_time(raw):
            return None
        if not self._tests:
            return Found(raw, None)
        for one in self._sure:
            if one in raw:
                return Found(raw, None)
        for shape in self._shapes:
            if not shape.search(raw):
                return None
        line = parts.read(raw)
        document = orjson.loads(raw) if line is None else line.document
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        return Found(raw, line) if all(test(document) for test in self._tests) else None

    def has_needles(self, raw: bytes) -> bool:
        """Whether a line may match, by its bytes alone."""
        return all(any(needle in raw for needle in group) for group in self.needles)

    def skips(self, file: LogFile, following: str) -> bool:
        """Whether all of a file lies outside the wanted time, by the times of its first and last line.

        `following` is the first time in the file after it. A wall clock that was set back within the file can deceive
        this; the times of events that the monitor shows around it say so.
        """
        if self.until_ns is not None and _RFC3339.fullmatch(file.timestamp) and file.timestamp.encode() > self._until:
            return True
        if self.since_ns is None:
            return False
        last = last_time(file)
        if file.compression and file.mtime_ns < self.since_ns:
            last = following
        return bool(_RFC3339.fullmatch(last)) and last.encode() < self._since


def _user_needle(user: str) -> bytes:
    number = user.isascii() and user.isdecimal()
    return b'"user":{"id":"' + user.encode() + b'"' if number else b'"name":"' + _quoted(user) + b'"'


def _any_glob(patterns: Sequence[str]) -> Callable[[str], bool]:
    compiled = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    return lambda text: compiled.match(text) is not None


def _event(document: dict[str, Any]) -> str:
    return str(part(document, "ebpf").get("event", ""))


def _is_named(document: dict[str, Any], named: Callable[[str], bool]) -> bool:
    process = part(document, "process")
    name, thread = process.get("name"), part(process, "thread").get("name")
    return (isinstance(name, str) and named(name)) or (isinstance(thread, str) and named(thread))


def _paths(document: dict[str, Any]) -> Iterator[str]:
    file, about = part(document, "file"), part(part(document, "ebpf"), "socket")
    earlier = part(part(file, "Ext"), "original").get("path")
    program = part(document, "process").get("executable")
    every = (file.get("path"), earlier, program, about.get("path"), about.get("peer_path"))
    return (one for one in every if isinstance(one, str))


def last_time(file: LogFile) -> str:
    """The time of a file's last whole line, "" where that is not cheap to know."""
    if file.compression or file.unreadable:
        return ""
    try:
        with file.path.open("rb") as opened:
            last = view(opened.fileno(), file.framed).pread(BLOCK_BYTES, tail_offset(file, 1))
        identity = line_identity(last.partition(b"\n")[0])
    except (OSError, Unreadable):
        return ""
    return identity[3] if identity else ""


@dataclass
class Search:
    """Finds a filter's lines in a log directory. `on_problem` hears of files and lines that could not be read."""

    directory: Path
    wanted: Filter
    on_problem: Callable[[Problem], None]
    unreadable_lines: int = 0

    def _chosen(self) -> tuple[list[LogFile], LogFile | None]:
        """The files that may hold matches, and the newest file of all."""
        listed = files(self.directory)
        after = [file.timestamp for file in listed[1:]] + [""] * bool(listed)
        chosen = [file for file, next_time in zip(listed, after, strict=True) if not self.wanted.skips(file, next_time)]
        return chosen, listed[-1] if listed else None

    def _matching(self, scan: Scan) -> Iterator[Found]:
        for raw in scan.lines(self.wanted.needles):
            try:
                found = self.wanted.match(raw)
            except ValueError:
                self.unreadable_lines += 1
                continue
            if found is not None:
                yield found

    def pieces(self, size: int) -> list[Piece]:
        """What the log holds now and may match, oldest first, in pieces of about `size` bytes. Raises ReaderError."""
        return [piece for file in self._chosen()[0] for piece in pieces(file, size)]

    def of(self, piece: Piece) -> Iterator[Found]:
        """Every match in a piece."""
        return self._matching(Scan(piece.file, self.on_problem, piece.begin, piece.end))

    def last(self, count: int) -> tuple[list[Found], tuple[LogFile, int] | None]:
        """The last `count` matches, oldest first, and the place where `follow` goes on (None: nothing is there yet).

        Raises ReaderError.
        """
        chosen, newest = self._chosen()
        place = None if newest is None else (newest, 0)
        taken: list[Found] = []
        for file in reversed(chosen):
            left = count - len(taken)
            if left <= 0 and file is not newest:
                break
            scan = Scan(file, self.on_problem, self._from(file, left))
            taken = [*collections.deque(self._matching(scan), maxlen=left), *taken]
            if file is newest:
                place = file, scan.end
        return taken, place

    def _from(self, file: LogFile, count: int) -> int:
        """Where to begin reading: without a condition the last lines are simply at the end."""
        if file.compression or file.unreadable or (count and self.wanted != Filter()):
            return 0
        try:
            return tail_offset(file, count)
        except (OSError, Unreadable):
            return 0  # the scan meets the same error and tells it

    def follow(self, place: tuple[LogFile, int] | None, stop: Callable[[], bool] | None = None) -> Iterator[Found]:
        """Matches as they are written, from `place` on, until stop(). Raises ReaderError."""
        start, offset = place or (None, 0)
        for line in reader.lines(self.directory, True, stop, start=start, offset=offset, on_problem=self.on_problem):
            if line.torn or not self.wanted.has_needles(line.raw):
                continue
            try:
                found = self.wanted.match(line.raw)
            except ValueError:
                self.unreadable_lines += 1
                continue
            if found is not None:
                yield found
