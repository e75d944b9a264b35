"""Kernel strings: bytes from the kernel to text of a document, and back.

Owns the one rule by which a name becomes text (what stands as it is, what is escaped, when the exact bytes go beside
it); never guesses an encoding, never normalises, and never drops a byte.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import AnyStr

# Control characters (C0, DEL, C1), and the two separators that JavaScript, Python's splitlines and many viewers take
# for the end of a line: nothing in a name may break a line, whoever reads it. Invisible and bidirectional characters
# are text.
_OFFENDING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class RawNameError(ValueError):
    """`ebpf.raw` of a document is not what `put` writes; the message says why and at which byte."""


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode())


def text(raw: bytes) -> tuple[str, bool]:
    r"""The text shown for the bytes `raw`, and whether it is exact.

    Exact: `raw` is UTF-8 without control characters (Unicode C0, DEL, C1, and the separators U+2028, U+2029), and the
    text is it. Otherwise each byte that is not UTF-8 and each byte of such a character is shown as `\xNN` in lower
    case; a backslash of the name stays as it is, so that text alone cannot be turned back: keep the bytes beside it
    (`put`).
    """
    if raw.isascii():
        shown = raw.decode("ascii")
        if shown.isprintable():
            return shown, True
    else:
        shown = raw.decode("utf-8", "backslashreplace")
    escaped = _OFFENDING.sub(_escape, shown)
    # The decoder lengthens what it escapes and the substitution too, so equal bytes mean that nothing was escaped.
    return escaped, escaped.encode() == raw


def put(doc_raw: dict[str, str], path: str, raw: bytes) -> str:
    """The text for `raw`; if it is not exact, base64 of `raw` goes into `doc_raw`.

    `doc_raw` becomes `ebpf.raw` of the document; the key is `path`, the field's path, with _ for each dot.
    """
    shown, exact = text(raw)
    if not exact:
        doc_raw[path.replace(".", "_")] = base64.b64encode(raw).decode("ascii")
    return shown


def put_list(doc_raw: dict[str, str], path: str, raws: Sequence[bytes]) -> list[str]:
    """The texts for `raws`; if any is not exact, base64 of all of them, each followed by a NUL, goes into `doc_raw`.

    That is the form of /proc/PID/cmdline. An element with a NUL in it is a ValueError: no string of the kernel has one.
    """
    shown, inexact = [], False
    for raw in raws:
        one, exact = text(raw)
        shown.append(one)
        inexact = inexact or not exact
    if inexact:
        doc_raw[path.replace(".", "_")] = base64.b64encode(_terminated(raws)).decode("ascii")
    return shown


def original(shown: str, raw_b64: str | None) -> bytes:
    """The kernel's bytes of a field: inverse of `put`. `raw_b64` is the field's entry in `ebpf.raw`, None if it has
    none.

    RawNameError if the entry is not base64.
    """
    return shown.encode() if raw_b64 is None else _decoded(raw_b64)


def original_list(shown: Sequence[str], raw_b64: str | None) -> list[bytes]:
    """The kernel's bytes of a field that is a list: inverse of `put_list`. RawNameError as `original`."""
    if raw_b64 is None:
        return [one.encode() for one in shown]
    raw = _decoded(raw_b64)
    if not raw.endswith(b"\0"):
        raise RawNameError(f"ebpf.raw of a list does not end with a NUL (byte {len(raw)})")
    return raw[:-1].split(b"\0")


def basename(path: AnyStr) -> AnyStr:
    """The last name of a path, by POSIX basename(3): without trailing slashes, "/" for the root, empty for an empty
    path.

    Works on bytes and on shown text alike, as an escape never contains a slash.
    """
    slash = _slash(path)
    stripped = path.rstrip(slash)
    if not stripped:
        return path[:1]
    return stripped[stripped.rfind(slash) + 1 :]


def _slash(like: AnyStr) -> AnyStr:
    """A slash of the type of `like`."""
    if isinstance(like, bytes):
        return b"/"
    return "/"


def _terminated(raws: Iterable[bytes]) -> bytes:
    parts = []
    for raw in raws:
        if b"\0" in raw:
            raise ValueError("a kernel string cannot contain a NUL")
        parts.append(raw + b"\0")
    return b"".join(parts)


def _decoded(raw_b64: str) -> bytes:
    try:
        return base64.b64decode(raw_b64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RawNameError(f"ebpf.raw is not base64: {error}") from error
