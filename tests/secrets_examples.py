"""The examples of command lines with secrets and without, as arguments: what tests of masking in memory and on the real kernel share."""

from __future__ import annotations

import re
import shlex
import string
from pathlib import Path

from monitor.redact import MASK

_EXAMPLES = Path(__file__).parent / "examples"
_ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "H": "0123456789abcdef",
    "U": string.ascii_uppercase + string.digits,
    "N": "7301946285",
}
_MACRO = re.compile(r"\{([AHUN])(\d+)\}")
MARKED = re.compile(r"«(.*?)»", re.DOTALL)


def _expand(match: re.Match[str]) -> str:
    letters = _ALPHABETS[match[1]]
    return "".join(letters[(7 * at + 11) % len(letters)] for at in range(int(match[2])))


def _examples(name: str) -> list[str]:
    lines = (_EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    return [_MACRO.sub(_expand, line) for line in lines if line and not line.startswith("#")]


def arguments(line: str) -> tuple[list[bytes], list[bytes]]:
    """(as they are given, as they have to be shown) of one example."""
    words = shlex.split(line)
    return [MARKED.sub(r"\1", word).encode() for word in words], [
        MARKED.sub(MASK.decode(), word).encode() for word in words
    ]


WITH, WITHOUT = _examples("arguments_with_secrets.txt"), _examples("arguments_without_secrets.txt")
