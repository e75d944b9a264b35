"""When to try again. Owns the state of not delivering: why, since when, how often tried, when next."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from monitor.ship.bulk import Trouble

LEAST_S, PAUSE_S = 1.0, 5.0
UNREACHABLE_MOST_S, BUSY_MOST_S = 60.0, 8.0
"""A server that does not answer is left alone for up to a minute; one that answers is asked more often."""


@dataclass
class Backoff:
    """Exponential with full jitter, never more than one try a second; a pause that needs a person is looked at each 5 s."""

    trouble: Trouble | None = None
    since: float = 0.0
    """seconds since 1970"""
    tries: int = 0
    retry_at: float = 0.0
    """monotonic"""
    _random: random.Random = field(default_factory=random.SystemRandom)

    def fail(self, trouble: Trouble) -> bool:
        """Another failed try; True when it is a new kind of trouble, which should be told."""
        fresh = self.trouble is None or self.trouble.check != trouble.check
        if self.trouble is None:
            self.since, self.tries = time.time(), 0
        self.trouble = trouble
        self.tries += 1
        delay = PAUSE_S
        if trouble.wait:
            most = UNREACHABLE_MOST_S if trouble.unreachable else BUSY_MOST_S
            delay = max(LEAST_S, self._random.uniform(0, min(most, LEAST_S * 2.0**self.tries)))
        self.retry_at = time.monotonic() + delay
        return fresh

    def over(self) -> float | None:
        """A try succeeded: how long it took, in seconds, None when there was no trouble."""
        if self.trouble is None:
            return None
        self.trouble = None
        return time.time() - self.since

    @property
    def waiting(self) -> bool:
        """Whether it is too early for a try."""
        return self.trouble is not None and time.monotonic() < self.retry_at


@dataclass
class Breaker:
    """Whether rejections have become the rule: 100 in a row, or 1 % of the last 10,000 documents (of at least 1,000)."""

    in_row: int = 0
    _window: list[tuple[int, int]] = field(default_factory=list)

    def add(self, accepted: int, rejected: int) -> bool:
        """Counts what became of a bulk, True when it is too much. Rejections are taken to come last."""
        self.in_row = self.in_row + rejected if not accepted else rejected
        self._window.append((accepted + rejected, rejected))
        while sum(total for total, _ in self._window) - self._window[0][0] >= 10_000:
            self._window.pop(0)
        total, bad = (sum(column) for column in zip(*self._window, strict=True))
        return rejected > 0 and (self.in_row >= 100 or (total >= 1000 and bad * 100 >= total))

    def reset(self) -> None:
        """Begins anew."""
        self.in_row = 0
        self._window.clear()
