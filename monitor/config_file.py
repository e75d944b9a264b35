"""Owns how a configuration file becomes values with line numbers: safe opening, strict JSON, checks by type.

It never knows which keys exist or what they mean, and repeats no text of the file in an error but a wrong choice.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 4096
MAX_STRING_CHARACTERS = 16384
MAX_INTEGER_DIGITS = 20  # 2**64 has 20
MAX_NUMBER_CHARACTERS = 64
MAX_TEXT_BYTES = 4096


def printable(text: str, limit: int = 64) -> str:
    """`text` on one line of printable characters, cut after `limit` of them; anything else as a backslash escape."""
    cut = text[:limit]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return shown + "..." if len(text) > limit else shown


class ConfigError(Exception):
    """A configuration that is refused. `str()` is one line: `file:line: key: message`, without the parts that are None.

    file: the name as it was given. line: from 1, or None when no line is at fault. key: dotted, as in
    `es_config.es_host[1]`, or None. message: what is wrong and what is allowed; never the value of a secret.
    """

    def __init__(self, message: str, *, file: str, line: int | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.key = key

    def __str__(self) -> str:
        place = printable(self.file, 4096) if self.line is None else f"{printable(self.file, 4096)}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


Value: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"


@dataclass(frozen=True, slots=True)
class Node:
    """One JSON value: `line` is where it begins, `key_line` where its member's name stands (its own line elsewhere)."""

    value: Value
    line: int
    key_line: int


# --- reading the bytes ------------------------------------------------------------------------------------------------

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def read_trusted(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file that only root and the current user can change, with its stat result.

    Symbolic links are followed. Never blocks on a FIFO or device. Raises ConfigError, with the command that helps.
    """
    name = str(path)
    try:
        _require_regular(os.stat(path), name)  # before the open: opening a device can have effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0):
            status = os.fstat(descriptor)
            _require_regular(status, name)  # again: what was opened may be another file
            require_trusted(status, name)
            content = _read_bounded(descriptor, name)
    except FileNotFoundError:
        dangling = " (a symbolic link to nothing)" if path.is_symlink() else ""
        problem = f"no such file{dangling}"
    except ValueError:  # a NUL character, or text that no encoding of names can give
        problem = "not a possible file name"
    except PermissionError:
        problem = "this user may not read it; run as root, or give the file to this user"
    except OSError as error:
        problem = f"cannot be read: {os.strerror(error.errno) if error.errno else 'input/output error'}"
    else:
        return content, status
    raise ConfigError(problem, file=name)


def _read_bounded(descriptor: int, name: str) -> bytes:
    content = b""
    while len(content) <= MAX_FILE_BYTES:  # st_size is not believed: it is 0 in /proc, and the file may grow
        chunk = os.read(descriptor, MAX_FILE_BYTES + 1 - len(content))
        if not chunk:
            return content
        content += chunk
    raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes: not a configuration file", file=name)


def _require_regular(status: os.stat_result, name: str) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise ConfigError(f"is {_KINDS.get(kind, 'a special file')}, not a regular file", file=name)


def require_trusted(status: os.stat_result, name: str) -> None:
    """Raises ConfigError for a file or directory that another user than root and the present one can change."""
    shown = printable(name, 4096)
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"belongs to user id {status.st_uid}, who could change it; give it to root: chown root {shown}", file=name
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "others" if status.st_mode & stat.S_IWOTH else "its group"
        raise ConfigError(f"{who} can write to it; take that away: chmod go-w {shown}", file=name)


# --- strict JSON ------------------------------------------------------------------------------------------------------

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_NOT_PLAIN = re.compile(r'["\\\x00-\x1f]')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_$]\w*")
_HEX4 = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
# Words people write by habit. Only these are repeated in an error: any other may be a password without its quotes.
_FOREIGN = dict.fromkeys(("true", "yes", "on"), "true") | dict.fromkeys(("false", "no", "off"), "false")
_FOREIGN |= dict.fromkeys(("null", "none", "nil"), "null")


def parse(data: bytes, file: str, sections: Collection[str] = ()) -> Node:
    """The one JSON value in `data` (RFC 8259, no extensions, no duplicate names), with the line of every value.

    Raises ConfigError, and nothing else, for any other bytes. Depth, number of values and lengths are bounded. An error
    names members of the whole and of its members `sections`; a name further down may be part of a misplaced secret.
    """
    return _Parser(_decode(data, file), file, sections).document()


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes: not a configuration file", file=file)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise ConfigError(
                f"begins with a {encoding} byte order mark (BOM); save it as UTF-8 without one", file=file, line=1
            )
    offset = data.find(0)
    if offset >= 0:
        line = data.count(b"\n", 0, offset) + 1
        raise ConfigError(f"NUL byte at byte offset {offset}: not a text file in UTF-8", file=file, line=line)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start
    # Raised outside the handler: the decoding error carries the whole file, secrets included.
    line = data.count(b"\n", 0, offset) + 1
    raise ConfigError(f"not UTF-8 text at byte offset {offset}", file=file, line=line)


class _Parser:
    """Recursive descent over the text; recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str, file: str, sections: Collection[str]) -> None:
        self.text = text
        self.file = file
        self.sections = sections
        self.at = 0
        self.path: list[str] = []  # names of the members around the position
        self.values = 0
        self.line_at = 0  # `line` is the line of this position
        self.line = 1

    def document(self) -> Node:
        self.skip_space()
        if self.at == len(self.text):
            raise ConfigError("the file is empty; write {} for the defaults", file=self.file)
        node = self.value(0)
        self.skip_space()
        if self.at < len(self.text):
            self.fail(f"trailing data: expected nothing after the end of the value, found {self.found()}")
        return node

    def line_of(self, position: int) -> int:
        if position < self.line_at:
            return self.text.count("\n", 0, position) + 1
        self.line += self.text.count("\n", self.line_at, position)
        self.line_at = position
        return self.line

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        position = self.at if position is None else position
        column = position - self.text.rfind("\n", 0, position)
        key = dotted(self.path[: self.named_depth()])
        raise ConfigError(f"{message} (column {column})", file=self.file, line=self.line_of(position), key=key)

    def named_depth(self) -> int:
        return 2 if self.path and self.path[0] in self.sections else 1

    def skip_space(self) -> None:
        match = _NOT_SPACE.search(self.text, self.at)
        self.at = match.start() if match else len(self.text)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def found(self) -> str:
        """What stands at the position, in words that repeat none of the file's values."""
        character = self.peek()
        if not character:
            return "the end of the file"
        if character == "#" or self.text.startswith(("//", "/*"), self.at):
            return "a comment, which JSON does not have"
        if character in "'`\u2018\u2019\u201c\u201d":
            return 'a wrong kind of quote; JSON strings stand in "double quotes"'
        if character in "{}[]:,":
            return f"'{character}'"
        if character == '"':
            return "a string"
        if character.isspace() or not character.isprintable():
            return f"the character U+{ord(character):04X}"
        return "a number" if character in "-0123456789" else "text without quotes"

    def value(self, depth: int, key_line: int = 0) -> Node:
        line = self.line_of(self.at)
        self.values += 1
        if self.values > MAX_VALUES:
            self.fail(f"more than {MAX_VALUES} values: not a configuration file")
        character = self.peek()
        content: Value
        if character in ("{", "["):
            if depth >= MAX_DEPTH:
                self.fail(f"nested deeper than {MAX_DEPTH} levels")
            content = self.members(depth + 1) if character == "{" else self.elements(depth + 1)
        elif character == '"':
            content = self.string()
        elif character and character in "-0123456789":
            content = self.number()
        else:
            content = self.literal()
        return Node(content, line, key_line or line)

    def members(self, depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        self.at += 1
        self.skip_space()
        if self.peek() == "}":
            self.at += 1
            return result
        while True:
            if self.peek() != '"':
                if self.peek() == "}":
                    self.fail("a comma stands before '}'; remove it")
                self.fail(f"expected the name of a key in double quotes, found {self.found()}")
            start = self.at
            name = self.string()
            key_line = self.line_of(start)
            self.skip_space()
            if self.peek() != ":":
                self.fail(f"expected ':' after the name of the key, found {self.found()}")
            self.path.append(name)  # only now: without the colon it may be a secret that strayed
            if name in result:
                where = " inside it" if len(self.path) > self.named_depth() else ""
                self.fail(f"duplicate key{where}: it stands on line {result[name].key_line} already", start)
            self.at += 1
            self.skip_space()
            result[name] = self.value(depth, key_line)
            self.path.pop()
            if self.closed("}"):
                return result

    def elements(self, depth: int) -> list[Node]:
        result: list[Node] = []
        self.at += 1
        self.skip_space()
        if self.peek() == "]":
            self.at += 1
            return result
        while True:
            if result and self.peek() == "]":
                self.fail("a comma stands before ']'; remove it")
            result.append(self.value(depth))
            if self.closed("]"):
                return result

    def closed(self, bracket: str) -> bool:
        """After a value: True at the closing bracket, False after a comma."""
        self.skip_space()
        character = self.peek()
        if character != bracket and character != ",":
            self.fail(f"expected ',' or '{bracket}', found {self.found()}")
        self.at += 1
        self.skip_space()
        return character == bracket

    def string(self) -> str:
        start = self.at
        parts: list[str] = []
        length = 0
        self.at += 1
        while True:
            match = _NOT_PLAIN.search(self.text, self.at)
            end = match.start() if match else len(self.text)
            parts.append(self.text[self.at : end])
            length += end - self.at
            self.at = end
            character = self.peek()
            if character == "\\":
                parts.append(self.escape())
                length += 1
            if length > MAX_STRING_CHARACTERS:
                self.fail(f"a string of more than {MAX_STRING_CHARACTERS} characters", start)
            if character == '"':
                self.at += 1
                return "".join(parts)
            if character in ("", "\n", "\r"):
                self.fail("a string begins here and its closing double quote is missing", start)
            if character != "\\":
                self.fail(f"control character U+{ord(character):04X} in a string; write it as an escape")

    def escape(self) -> str:
        code = self.text[self.at + 1 : self.at + 2]
        if code != "u":
            if code not in _ESCAPES:
                self.fail('in a string, a backslash must be followed by one of " \\ / b f n r t u')
            self.at += 2
            return _ESCAPES[code]
        unit = self.code_unit()
        if 0xDC00 <= unit <= 0xDFFF:
            self.fail("a \\u escape with the second half of a surrogate pair, without the first", self.at - 6)
        if not 0xD800 <= unit <= 0xDBFF:
            return chr(unit)
        start = self.at - 6
        low = self.code_unit() if self.text.startswith("\\u", self.at) else 0
        if not 0xDC00 <= low <= 0xDFFF:
            self.fail("a \\u escape with the first half of a surrogate pair, without the second", start)
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))

    def code_unit(self) -> int:
        match = _HEX4.match(self.text, self.at + 2)
        if match is None:
            self.fail("\\u must be followed by four hexadecimal digits")
        self.at += 6
        return int(match.group(), 16)

    def number(self) -> int | float:
        start = self.at
        match = _NUMBER.match(self.text, start)
        if match is None:
            self.fail("'-' must be followed by a digit (NaN and Infinity are not JSON)")
        self.at = match.end()
        following = self.peek()
        if following.isalnum() or (following and following in "._+-"):
            if match.group() in ("0", "-0") and following.isdigit():
                self.fail("a number must not begin with 0", start)
            self.fail("not a JSON number: only decimal digits, without units, signs or separators", start)
        text = match.group()
        if match.group(1) is None and match.group(2) is None:
            if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
                self.fail(f"an integer of more than {MAX_INTEGER_DIGITS} digits is too large", start)
            return int(text)
        if len(text) > MAX_NUMBER_CHARACTERS:
            self.fail(f"a number of more than {MAX_NUMBER_CHARACTERS} characters", start)
        number = float(text)
        if math.isinf(number):
            self.fail("the number is too large", start)
        return number

    def literal(self) -> bool | None:
        match = _WORD.match(self.text, self.at)
        if match is None:
            self.fail(f"expected a value, found {self.found()}")
        word = match.group()
        if word in _LITERALS:
            self.at = match.end()
            return _LITERALS[word]
        if word in ("NaN", "Infinity"):
            self.fail(f"{word} is not JSON; only finite numbers are allowed")
        if word.lower() not in _FOREIGN:
            self.fail("expected a value, found text without quotes; strings stand in double quotes")
        return self.fail(f"{word} is not JSON; write {_FOREIGN[word.lower()]}")


def dotted(path: Sequence[str]) -> str | None:
    """`["es_config", "es_port"]` as `es_config.es_port`, printable; None for an empty path."""
    return ".".join(printable(part) or '""' for part in path) or None


# --- checks by type ---------------------------------------------------------------------------------------------------


class Refused(Exception):
    """A value that is not allowed, in words; whoever catches it knows file, line and key."""


def described(value: object) -> str:
    """The type of a JSON value in words; never the value."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float):
        return "a number with a fraction or exponent"
    kinds = {type(None): "null", int: "an integer", str: "a string", list: "a list", dict: "an object"}
    return kinds[type(value)]


def mismatch(expected: str, value: object) -> Refused:
    """The refusal of a value of the wrong type."""
    return Refused(f"expected {expected}, found {described(value)}")


def boolean(value: object) -> bool:
    """`value` as true or false."""
    if not isinstance(value, bool):
        raise mismatch("true or false", value)
    return value


def integer(value: object, minimum: int | None, maximum: int | None) -> int:
    """`value` as an integer within the bounds (inclusive); neither a bool nor 1.0 is one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise mismatch("an integer", value)
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise Refused(f"{value} is out of range: {minimum} to {maximum}")
    return value


def text(value: object) -> str:
    """`value` as a string without control characters, of at most MAX_TEXT_BYTES bytes of UTF-8."""
    if not isinstance(value, str):
        raise mismatch("a string", value)
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise Refused("a control character (such as a line break or NUL) is not allowed")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise Refused(f"longer than {MAX_TEXT_BYTES} bytes")
    return value


def choice(value: object, choices: Sequence[str]) -> str:
    """`value` as one of `choices`; an error repeats it, so never for a secret."""
    if not isinstance(value, str):
        raise mismatch(f"one of the strings {', '.join(choices)}", value)
    if value not in choices:
        raise Refused(f'"{printable(value, 40)}" is not one of {", ".join(choices)}{nearest(value, choices)}')
    return value


def nearest(word: str, choices: Sequence[str]) -> str:
    """A question that ends an error: `; did you mean X?`, or nothing when no choice is near."""
    near = difflib.get_close_matches(word.strip().lower().replace("-", "_"), choices, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def absolute_path(value: str) -> Path:
    """An absolute path below the root, without `..`; doubled slashes and `.` are dropped."""
    if not value.startswith("/"):
        raise Refused("expected an absolute path, beginning with '/'")
    parts = value.split("/")
    if ".." in parts:
        raise Refused("a path must not have '..' in it")
    kept = [part for part in parts if part not in ("", ".")]
    if not kept:
        raise Refused("the root directory is not allowed here")
    if any(len(part.encode()) > 255 for part in kept) or len(value.encode()) > 4095:
        raise Refused("a path has at most 4095 bytes, and 255 between two slashes")
    return Path("/" + "/".join(kept))
