"""Whether logrotate rotates the log too: two rotators of one file lose track of each other.

Owns the reading of logrotate's configuration as far as this question needs it (logrotate(8): paths and globs before each
`{`); never judges what the rules are.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

RULES = (Path("/etc/logrotate.conf"), Path("/etc/logrotate.d"))
_SCRIPTS = re.compile(r"(?:pre|post)rotate|(?:first|last)action|preremove")


@dataclass(frozen=True)
class Rule:
    """A section of logrotate's configuration: the file, the line of its opening brace."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def rule_for(log: Path) -> Rule | None:
    """The first section that rotates `log`; None when there is none, or logrotate's files cannot be read."""
    for place in RULES:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        for file in files:
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            found = _section(text, str(log))
            if found:
                return Rule(file, found)
    return None


def _section(text: str, log: str) -> int:
    """The line on which a section that names `log` opens; 0 for none."""
    names: list[str] = []
    inside = script = False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if script:
            script = words != "endscript"
        elif words.startswith("#") or not words:
            continue
        elif inside:
            script = bool(_SCRIPTS.fullmatch(words))
            inside = words != "}"
        else:
            head, brace, _ = words.partition("{")
            names += _split(head)
            if brace:
                if any(fnmatch.fnmatchcase(log, name) for name in names if name.startswith("/")):
                    return number
                names, inside = [], True
    return 0


def _split(head: str) -> list[str]:
    try:
        return shlex.split(head)
    except ValueError:  # an unclosed quote: logrotate refuses the file itself
        return head.split()
