"""Where in a bulk record the compiled pass finds what: words of 8 bytes, by events.BULK, and the values that share one.

Owns these places for compiled code; Python reads the same records with monitor/decode.py.
"""

from __future__ import annotations

from typing import Any

from monitor.ahead import njit

TS, SEQ_GENERATION, RET_FD, CALL_SESSION, KEY, REASON = 1, 2, 3, 4, 5, 9
"""Words. The first is the head: type, units, thread id. `REASON`: of a close."""
DEFINITION_KEY = 3
"""of a definition, but for a session's: events.RECORD"""


@njit(nogil=True, cache=True)
def returned(both: int) -> int:
    """The return value, of the word that has the descriptor above it."""
    low = both & 0xFFFFFFFF
    return low - (low >> 31 << 32)


@njit(nogil=True, cache=True)
def sequence(C: Any, c: int, expected: int, low: int) -> int:
    """A record's number on CPU `c`, of which it has the low half: the one nearest to what is expected there."""
    nearest = C[c, expected]
    ahead_by = (low - nearest) & 0xFFFFFFFF
    return int(nearest + ahead_by - (ahead_by >> 31 << 32))
