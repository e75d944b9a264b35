"""Masks secrets in arguments before anything keeps them: the log, `ebpf.raw` and recordings see the masked form only.

Owns how the rules of monitor/redact_rules.py and the configuration's own patterns are applied to arguments and to raw exec
records. When in doubt it masks; what it masks is gone, no digest of it stays. Its time is linear in the length of the
arguments: whoever starts a program chooses them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence

from monitor import events
from monitor import redact_rules as rules
from monitor.redact_rules import Habit

MASK = b"[redacted]"
_EXEC = events.EVENT["process_exec"].id
_OFFSETS = events.CONTROL.offsets()
_BLOB = struct.Struct("<II")
_ARGS = events.BLOB["args"].kind
_OPTION = re.compile(rb"(-{1,2}|/)?([A-Za-z][\w.:-]{0,127}?)(=)", re.DOTALL)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DIVIDERS = re.compile(r"[-_.:]+")
_FOR_A_SHELL = re.compile(rb"-[a-z]{0,3}c")
_SPACE = re.compile(rb"\s")
_SHELL_WORD = re.compile(rb"(?:[^\s'\"\\;|&()<>]++|\\.?|'[^']*+'?|\"(?:[^\"\\]|\\.)*+\"?)++|[;|&()\n]", re.DOTALL)
_VERSION = re.compile(rb"\d+(?:\.\d+)*(?:[-+.][A-Za-z].*)?\Z")
_IPV4 = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}\Z")
_HINTS = (
    *(
        b"pass",
        b"pw",
        b"secret",
        b"token",
        b"key",
        b"auth",
        b"credential",
        b"psk",
        b"cookie",
        b"@",
        b"sig",
        b"assertion",
        b"code=",
    ),
    *(
        b"-----begin",
        b"gh",
        b"gl",
        b"akia",
        b"asia",
        b"abia",
        b"acca",
        b"aiza",
        b"ya29",
        b"gocspx",
        b"1//0",
        b"xox",
        b"xapp",
        b"k_",
    ),
    *(
        b"whsec_",
        b"eyj",
        b"npm_",
        b"pypi-",
        b"rubygems_",
        b"cio",
        b"_v1_",
        b"hv",
        b"atlasv1",
        b"sg.",
        b"sk",
        b"hf_",
        b"shp",
        b"dapi",
    ),
    *(
        b"nrak",
        b"dckr",
        b"dp.",
        b"lin_",
        b"atatt",
        b"atbb",
        b"atctt",
        b"sq0",
        b"pmak",
        b"sntry",
        b"pul-",
        b"eaa",
        b":aa",
        b"figd",
    ),
    *(
        b"ntn_",
        b"xkeysib",
        b"ltai",
        b"aq",
        b"pscale",
        b"fo1_",
        b"fm1",
        b"fm2",
        b"nvapi",
        b"gsk_",
        b"r8_",
        b"v2.",
        b"slack",
        b"discord",
        b"bearer",
    ),
    *(b"hooks", b"telegram", b"webhook"),
)
_KNOWN = frozenset(rules.PROGRAMS.keys() | rules.FOLLOWED_PROGRAMS)
_NOT_IN_A_NAME = re.compile(rb"[\0\s;|&()'\"/]+")
_DOTTED = re.compile(rb"[\w-]{24}\.[\w-]{6}\.[\w-]{27}")

Hide = Callable[[bytes], bytes]


class Redactor:
    """The rules and the patterns of one configuration. Without state: the same arguments give the same answer."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        """`own`: regular expressions; what group 1 matches is masked, without a group the whole match. Raises re.error."""
        self._own = [re.compile(pattern.encode()) for pattern in own]

    def arguments(self, given: Sequence[bytes], *, cut: bool = False) -> list[bytes] | None:
        """The arguments with secrets masked; None when there is none. `cut`: the last one may go on behind what is here."""
        found = list(given)
        if self._suspicious(found):
            _words(found)
            found = [_inside(word) for word in found]
            if cut and found:
                found[-1] = rules.URL_CUT.sub(_unless_port, found[-1])
        for pattern in self._own:
            found = [pattern.sub(_own_mask, word) for word in found]
        return found if found != list(given) else None

    @staticmethod
    def _suspicious(arguments: list[bytes]) -> bool:
        text = b"\0".join(arguments).lower()
        for hint in _HINTS:
            if hint in text:
                return True
        return not _KNOWN.isdisjoint(_NOT_IN_A_NAME.split(text)) or _DOTTED.search(text) is not None

    def block(self, raw: bytes, *, cut: bool = False) -> bytes | None:
        """As `arguments`, for a NUL separated block."""
        closed = raw.endswith(b"\0")
        masked = self.arguments((raw[:-1] if closed else raw).split(b"\0"), cut=cut and not closed)
        return None if masked is None else b"\0".join(masked) + (b"\0" if closed else b"")

    def record(self, raw: bytes) -> bytes:
        """A raw control record as it may be kept: of an exec the arguments are masked, and `kf` says so.

        An exec record whose parts cannot be told apart keeps its fixed part only; the decoder refuses it.
        """
        if len(raw) < events.CONTROL.size or int.from_bytes(raw[4:6], "little") != _EXEC:
            return raw
        try:
            parts = list(_blobs(raw))
        except ValueError:
            return raw[: events.CONTROL.size] + bytes(len(raw) - events.CONTROL.size)
        kf_at = _OFFSETS["kf"]
        kf = int.from_bytes(raw[kf_at : kf_at + 2], "little")
        for at, size in ((at, size) for kind, at, size in parts if kind == _ARGS):
            masked = self.block(raw[at : at + size], cut=bool(kf & events.TRUNCATED))
            if masked is None:
                return raw
            rest = raw[at + size + (-(at + size) % 8) : int.from_bytes(raw[:4], "little")]
            body = raw[: at - 8] + _BLOB.pack(_ARGS, len(masked)) + masked
            changed = bytearray(body + bytes(-len(body) % 8) + rest)
            changed[0:4] = len(changed).to_bytes(4, "little")
            changed[kf_at : kf_at + 2] = (kf | events.REDACTED).to_bytes(2, "little")
            return bytes(changed)
        return raw


def _blobs(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, offset, size) of each blob. Raises ValueError."""
    at, end = events.CONTROL.size, int.from_bytes(raw[:4], "little")
    if not at <= end <= len(raw):
        raise ValueError
    while at < end:
        if at + 8 > end:
            raise ValueError
        kind, size = _BLOB.unpack_from(raw, at)
        if at + 8 + size > end:
            raise ValueError
        yield kind, at + 8, size
        at = (at + 8 + size + 7) & ~7


# ---- values -----------------------------------------------------------------------------------------------------------
def _hide(value: bytes) -> bytes:
    if len(value) > 1 and value[:1] in (b"'", b'"') and value.endswith(value[:1]):
        return value[:1] + _hide(value[1:-1]) + value[:1]
    bare = value.strip(b"\"'")
    if bare.lower() in rules.HARMLESS_VALUES or not bare.strip(b"*") or bare.startswith(rules.REFERENCES):
        return value
    if bare.startswith(b"pass:"):  # as openssl takes it
        return b"pass:" + MASK
    return MASK


def _hide_unless_path(value: bytes) -> bytes:
    return value if value.strip(b"\"'").startswith((b"/", b"./", b"../", b"~", b"$", b"%")) else _hide(value)


def _behind(divider: bytes) -> Hide:
    def hide(value: bytes) -> bytes:
        user, found, rest = value.partition(divider)
        return user + divider + _hide(rest) if found and not user.endswith(b"\\") else value

    return hide


def _own_mask(match: re.Match[bytes]) -> bytes:
    if not match.re.groups:
        return MASK if match[0] else b""
    whole, (begin, end) = match[0], match.span(1)
    if begin < 0 or begin == end:
        return whole
    return whole[: begin - match.start()] + MASK + whole[end - match.start() :]


def _kind_of(name: bytes) -> Hide | None:
    """How the value of an option or variable of this name is hidden; None when it is no secret."""
    shown = _CAMEL.sub("-", name.decode("latin-1")).lower()
    parts = [part for part in _DIVIDERS.split(shown) if part]
    if not parts:
        return None
    last, whole = parts[-1], "-".join(parts)
    secret = last.endswith(rules.ENDINGS) or last in rules.LAST_WORDS or tuple(parts[-2:]) in rules.LAST_PAIRS
    secret = secret or (last.endswith("pass") and last not in rules.HARMLESS_PASS)
    if not secret:
        return None
    return _hide_unless_path if whole in rules.HARMLESS_NAMES else _hide


def _is_question(name: bytes) -> bool:
    return _DIVIDERS.split(_CAMEL.sub("-", name.decode("latin-1")).lower().lstrip("-"))[0] in rules.QUESTIONS


# ---- words: options, programs' habits ----------------------------------------------------------------------------------
def _words(words: list[bytes]) -> None:
    """Masks in place what stands behind options, and inside words that are command lines themselves."""
    state = _State()
    for at, word in enumerate(words):
        if at and _SPACE.search(word) and (_FOR_A_SHELL.fullmatch(words[at - 1]) or not _names_a_secret(word)):
            words[at] = _command_line(word)
            if words[at] != word:
                state.expected = None
                continue
        words[at] = state.word(word)


def _names_a_secret(word: bytes) -> bool:
    match = _OPTION.match(word)
    return match is not None and _kind_of(match[2]) is not None


class _State:
    """What the words so far say of the next one."""

    def __init__(self) -> None:
        self.expected: Hide | None = None
        self.firm = False  # the next word is the value even if it looks like an option
        self.program = b""
        self.habit: Habit | None = None
        self.begun = False  # the habit's `after` was seen
        self.bare = 0

    def word(self, word: bytes) -> bytes:
        hide, self.expected = self.expected, None
        if hide is not None and (self.firm or not word.startswith(b"-")):
            return hide(word)
        name = word.rsplit(b"/", 1)[-1].lower()
        if name in rules.PROGRAMS or name in rules.FOLLOWED_PROGRAMS:
            self.program, self.habit, self.bare = name, rules.PROGRAMS.get(name), 0
            self.begun = self.habit is not None and not self.habit.after
            return word
        if self.habit is not None and word == self.habit.after:
            self.begun = True
        return self._habitual(word) if self.program else self._general(word)

    def _habitual(self, word: bytes) -> bytes:
        if any(self.program == program and pattern.search(word) for program, pattern in rules.FOLLOWED):
            self.expected, self.firm = _hide, False
            return word
        habit = self.habit
        if habit is None or not self.begun:
            return self._general(word)
        for option in habit.userpass:
            hide = _behind(habit.divider)
            if word == option and option:
                self.expected, self.firm = hide, True
                return word
            glued = option if len(option) == 2 else option + b"="
            if option and word.startswith(glued):
                return glued + hide(word[len(glued) :])
            if not option and not word.startswith((b"-", habit.divider)) and word.count(habit.divider) == 1:
                account, at, database = word.partition(b"@")
                return hide(account) + at + database
        if word in habit.next:
            self.expected, self.firm = _hide if word not in (b"-b", b"--cookie") else _cookie, True
            return word
        for option in habit.glued:
            if word.startswith(option) and len(word) > len(option):
                return option + _hide(word[len(option) :])
        if not word.startswith(b"-"):
            self.bare += 1
            if self.bare - 1 in habit.places:
                return _hide(word)
        return self._general(word)

    def _general(self, word: bytes) -> bytes:
        match = _OPTION.match(word)
        if match:
            hide = _kind_of(match[2])
            return match[0] + hide(word[match.end() :]) if hide is not None else word
        if word.startswith(b"-") and len(word) < 128:
            hide = _kind_of(word.lstrip(b"-"))
            if hide is not None and not _is_question(word):
                self.expected, self.firm = hide, False
        elif word.startswith((b"/p:", b"/password:", b"/pass:", b"/token:")):
            head, _, value = word.partition(b":")
            return head + b":" + _hide(value) if head != b"/p" or b"/" not in value else word
        return word


def _cookie(value: bytes) -> bytes:
    return MASK if b"=" in value else value


def _command_line(text: bytes) -> bytes:
    """A word with blanks in it is a command for a shell as a rule: its own words are looked at alike."""
    state, parts, at = _State(), [], 0
    for match in _SHELL_WORD.finditer(text):
        word = match[0]
        if word in (b";", b"|", b"&", b"(", b")", b"\n"):
            state = _State()
            continue
        quote = word[:1] if len(word) > 1 and word[:1] in (b"'", b'"') and word.endswith(word[:1]) else b""
        inner = word[1:-1] if quote else word
        masked = state.word(inner)
        if masked == inner and quote and _SPACE.search(inner) and len(inner) < len(text) - 1:
            masked = _command_line(inner)
        parts += [text[at : match.start()], quote + masked + quote]
        at = match.end()
    return b"".join(parts) + text[at:]


# ---- inside a word -----------------------------------------------------------------------------------------------------
def _second(match: re.Match[bytes]) -> bytes:
    value = match[2]
    if MASK.startswith(value) or value.startswith(MASK[:-1]):
        return match[0]
    quote = value[:1] if value[:1] in (b'"', b"'") else b'\\"' if value.startswith(b'\\"') else b""
    closed = quote if len(value) > len(quote) and value.endswith(quote) else b""
    hidden = _hide(value[len(quote) : len(value) - len(closed)])
    return match[1] + quote + hidden + closed


def _unless_port(match: re.Match[bytes]) -> bytes:
    return match[0] if match[2].isdigit() and len(match[2]) < 6 else match[1] + MASK


def _plain_user(match: re.Match[bytes]) -> bytes:
    user, password, host = match[1][:-1], match[2], match[4]
    harmless = user.lower() in rules.NO_USERS or host.lower() in rules.NO_HOSTS or password == MASK
    if harmless or (_VERSION.match(host) and not _IPV4.match(host)):
        return match[0]
    return match[1] + MASK + match[3] + host


def _after_first(match: re.Match[bytes]) -> bytes:
    return match[1] + MASK


def _inside(word: bytes) -> bytes:
    """Masks what says by itself that it is a secret, wherever in the word it stands."""
    word = rules.HEADER.sub(_after_first, word)
    word = rules.NAMED_HEADER.sub(_after_first, word)
    word = rules.URL.sub(lambda match: match[1] + MASK + b"@", word)
    word = rules.URL_TOKEN.sub(lambda match: match[1] + MASK + match[3], word)
    word = rules.PLAIN_USER.sub(_plain_user, word)
    word = rules.WEBHOOK.sub(_after_first, word)
    word = rules.PEM.sub(_after_first, word)
    word = rules.TOKENS.sub(MASK, word)
    word = rules.SIGNATURE.sub(_after_first, word)
    word = rules.MEMBER.sub(_second, word)
    return rules.ASSIGNED.sub(_second, word)
