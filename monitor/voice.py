"""What a running monitor or shipper says of itself, and how important it must be to be said (`log_level`).

Owns the order of the levels; where it is said is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from monitor.config_keys import LogLevel

_ORDER: tuple[LogLevel, ...] = get_args(LogLevel)


@dataclass
class Voice:
    """Says on `out` what is at least as important as `level`, which may change at any time. What ends a trouble is as
    important as the trouble: who was told of the one hears of the other."""

    out: Callable[[str], None]
    level: LogLevel = "info"

    def _say(self, level: LogLevel, text: str) -> None:
        if _ORDER.index(level) >= _ORDER.index(self.level):
            self.out(text)

    def debug(self, text: str) -> None:
        """For who looks for a fault of the monitor."""
        self._say("debug", text)

    def info(self, text: str) -> None:
        """As it should be."""
        self._say("info", text)

    def warning(self, text: str) -> None:
        """Somebody may have to do something; nothing is lost yet."""
        self._say("warning", text)

    def error(self, text: str) -> None:
        """Something is lost, or cannot be done."""
        self._say("error", text)
