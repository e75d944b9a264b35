"""The sequences of a zstd block as bits, with the tables that the format itself defines (RFC 8878, 3.1.1.3.2 and 4.1).

Owns the codes of lengths and offsets and the state machines that write them; knows nothing of what the sequences copy. With
NUMBA_DISABLE_JIT=1 the same code runs as Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.ahead import njit
from monitor.fasttext import highest, put8, word

MOST = 1 << 17
"""bytes of a block when it is decoded, and so of any length in it"""

# Appendix A and 3.1.1.3.2.2 of the RFC: how often each code is expected, -1: less than once
_LITERALS = (4, 3, *([2] * 11), 1, 1, 1, *([2] * 9), 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1)
_MATCHES = (1, 4, 3, *([2] * 6), *([1] * 37), *([-1] * 7))
_OFFSETS = (*([1] * 6), 2, 2, 2, *([1] * 15), *([-1] * 5))
_LITERAL_LOG, _MATCH_LOG, _OFFSET_LOG = 6, 6, 5
# 3.1.1.3.2.1.1: bits behind each code
_LITERAL_EXTRA = (*([0] * 16), 1, 1, 1, 1, 2, 2, 3, 3, 4, *range(6, 17))
_MATCH_EXTRA = (*([0] * 32), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, *range(7, 17))
LONGEST_OFFSET = (1 << 27) - 1
"""the largest offset value that fits the word of a sequence; the tables have codes for more"""

Words = npt.NDArray[np.int64]


def _spread(counts: tuple[int, ...], log: int) -> list[int]:
    """Which code each state of the table stands for (4.1.1)."""
    size = 1 << log
    states, last = [0] * size, size - 1
    for code, count in enumerate(counts):
        if count < 0:
            states[last] = code
            last -= 1
    at = 0
    for code, count in enumerate(counts):
        for _ in range(max(count, 0)):
            states[at] = code
            at = (at + (size >> 1) + (size >> 3) + 3) & (size - 1)
            while at > last:
                at = (at + (size >> 1) + (size >> 3) + 3) & (size - 1)
    return states


def _table(counts: tuple[int, ...], log: int) -> Words:
    """What is written, in each state, for each code, and the state behind it: bits | how many << 8 | state << 16, a row for each
    code; at the end of each row the state behind it where it is the first. As in zstd's encoder (fse_compress.c), which has the
    numbers that these are computed from: this is one look instead of two, and 3 ns less of 8 for a sequence.
    """
    size = 1 << log
    following: list[list[int]] = [[] for _ in counts]
    for state, code in enumerate(_spread(counts, log)):
        following[code].append(state)
    rows = []
    for states in following:
        count = len(states)
        most = log - (count - 1).bit_length() + 1 if count > 1 else log
        for state in range(size, 2 * size):
            bits = most - (state < count << most)
            rows.append(state & ((1 << bits) - 1) | bits << 8 | states[(state >> bits) - count] << 16)
        rows.append(states[0] << 16)
    return np.array(rows, np.int64)


_LITERAL_TABLE = _table(_LITERALS, _LITERAL_LOG)
_MATCH_TABLE = _table(_MATCHES, _MATCH_LOG)
_OFFSET_TABLE = _table(_OFFSETS, _OFFSET_LOG)
_LITERAL_BITS, _MATCH_BITS = np.array(_LITERAL_EXTRA, np.int64), np.array(_MATCH_EXTRA, np.int64)


def _codes(extra: tuple[int, ...], count: int) -> Words:
    """The code of each length below `count`."""
    found = [code for code, bits in enumerate(extra) for _ in range(1 << bits)]
    return np.array(found[:count], np.int64)


_MASKS = np.array([(1 << bits) - 1 for bits in range(32)], np.int64)
_LITERAL_CODES, _MATCH_CODES = _codes(_LITERAL_EXTRA, 64), _codes(_MATCH_EXTRA, 128)


@njit(nogil=True, cache=True)
def literal_code(length: int) -> int:
    """The code of a number of literals."""
    return word(_LITERAL_CODES, length) if length < 64 else highest(length) + 19


@njit(nogil=True, cache=True)
def match_code(length: int) -> int:
    """The code of a match's length less 3."""
    return word(_MATCH_CODES, length) if length < 128 else highest(length) + 36


@njit(nogil=True, cache=True)
def put_bits(out: Any, at: int, sequences: Any, count: int) -> int:
    """Writes `count` sequences, at least one, the last one first, as the format has it; the position behind them.

    Each is one word: literals | match length less 3 << 18 | offset value << 36. Up to 8 bytes behind are overwritten.
    """
    bits, used, literal_state, match_state, offset_state = 0, 0, 1 << _LITERAL_LOG, 1 << _MATCH_LOG, 1 << _OFFSET_LOG
    for number in range(count - 1, -1, -1):
        sequence = word(sequences, number)
        literals, match, offset = sequence & 0x3FFFF, sequence >> 18 & 0x3FFFF, sequence >> 36
        literal, matched, far = literal_code(literals), match_code(match), highest(offset)
        move = word(_OFFSET_TABLE, ((1 << _OFFSET_LOG) + 1) * far + offset_state)
        bits, used, offset_state = bits | (move & 255) << used, used + (move >> 8 & 255), move >> 16
        move = word(_MATCH_TABLE, ((1 << _MATCH_LOG) + 1) * matched + match_state)
        bits, used, match_state = bits | (move & 255) << used, used + (move >> 8 & 255), move >> 16
        move = word(_LITERAL_TABLE, ((1 << _LITERAL_LOG) + 1) * literal + literal_state)
        bits, used, literal_state = bits | (move & 255) << used, used + (move >> 8 & 255), move >> 16
        size = word(_LITERAL_BITS, literal)
        bits, used = bits | (literals & word(_MASKS, size)) << used, used + size
        size = word(_MATCH_BITS, matched)
        if used + size + far > 62:  # at most 7 + 17 + 16 bits wait here, and what follows takes 43 at most
            put8(out, at, bits)
            at, bits, used = at + (used >> 3), bits >> (used & ~7), used & 7
        bits, used = bits | (match & word(_MASKS, size)) << used, used + size
        bits, used = bits | (offset & word(_MASKS, far)) << used, used + far
        put8(out, at, bits)
        at, bits, used = at + (used >> 3), bits >> (used & ~7), used & 7
    bits |= match_state << used | offset_state << (used + 6) | literal_state << (used + 11) | 1 << (used + 17)
    put8(out, at, bits)
    return at + (used + 25 >> 3)
