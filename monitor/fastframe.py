"""Lines as a zstd frame (RFC 8878), made with the knowledge of where most of their bytes stood before.

Owns the search for what repeats and the form of frames and blocks; their sequences as bits: monitor/fastbits.py. The compiled
pass notes while it writes lines from which distance a piece repeats (`hint`). A note is no more than that: the bytes are
compared, so a frame decodes to the lines whatever the notes say. With NUMBA_DISABLE_JIT=1 the same code runs as Python.
"""

from __future__ import annotations

from typing import Any

from monitor import ahead
from monitor.ahead import njit
from monitor.fastbits import LONGEST_OFFSET, MOST, put_bits
from monitor.fasttext import copy16, differ64, highest, load8, memcpy, put8, word, zeros_below

# members of the state array of `seal`
BEGIN, END, BASE, NOTE, RECENT = range(5)
STATE = 8
PLACES = 4096
"""places of fragments that are remembered: a frame has some thousand lines"""
TABLE = 8192
"""words of the table in which `seal` looks for repetitions that nobody noted"""
WINDOW = 1 << 20
"""bytes of a frame, about: what stands farther back is in another"""
SEQUENCES = MOST >> 3
"""sequences of a block at most: no match is shorter than 8 bytes"""
FARTHEST = LONGEST_OFFSET - 3
"""bytes from a repetition back to what it repeats, at most"""
_FAR = 1 << 30
_UNKNOWN = 24
"""bytes without a match that are looked up in the table: the digits of a number are not"""


def room(count: int) -> int:
    """Bytes that a frame of so many bytes takes at most while it is made."""
    return count + (count >> 6) + 3 * MOST


@njit(nogil=True, cache=True)
def hint(notes: Any, places: Any, slot: int, base: int, at: int, last: int, fragment: bool) -> int:
    """What stands from `at` on in the batch was last written for the same `slot`: notes how far back if it is not as far as
    that of the piece before (`last`). The distance. A fragment that is not of this frame repeats what a piece of its place
    does. `base` counts the bytes of all batches before, so that nothing needs to be cleared.
    """
    place = base + at
    distance = place - word(places, slot)
    places[slot] = place
    if distance == last or (fragment and distance > WINDOW):
        return last
    count = word(notes, 0)
    if count + 1 < notes.shape[0]:
        notes[count + 1] = at | min(distance, _FAR) << 32
        notes[0] = count + 1
    return distance


@njit(nogil=True, cache=True)
def equal(lines: Any, at: int, other: int, until: int) -> int:
    """How many bytes from `at` on, below `until`, are those from `other` on."""
    p, q = at, other
    while p + 8 <= until:
        differ = load8(lines, p) ^ load8(lines, q)
        if differ != 0:
            return p + (zeros_below(differ) >> 3) - at
        p += 8
        q += 8
    while p < until and lines[p] == lines[q]:
        p += 1
        q += 1
    return p - at


@njit(nogil=True, cache=True)
def put_literals(lines: Any, out: Any, to: int, at: int, count: int) -> int:
    """Writes bytes of the lines to the block's literals; the position behind them. Up to 15 bytes there are overwritten."""
    if count <= 16 and at + 16 <= lines.shape[0]:
        copy16(out, to, lines, at)
    else:
        memcpy(out, to, lines, at, count)
    return to + count


@njit(nogil=True, cache=True)
def match(lines: Any, sequences: Any, out: Any, done: Any, at: int, distance: int, count: int) -> Any:
    """`count` bytes from `at` on repeat those `distance` before; what stands between the match before and this is literal.

    `done`: where the match before ends, where the literals end, how many sequences there are, and the last three distances,
    as the decoder has them. The same behind this one. One of them is written as a number from 1 to 3 (3.1.1.5).
    """
    anchor, to, number, first, second, third = done
    literals = at - anchor
    value = distance + 3
    if literals > 0:
        to = put_literals(lines, out, to, anchor, literals)
        if distance == first:
            value = 1
    if value != 1:
        if distance == second:
            value = 2 if literals > 0 else 1
        else:
            if distance == third:
                value = 3 if literals > 0 else 2
            third = second
        first, second = distance, first
    sequences[number] = literals | (count - 3) << 18 | value << 36
    return at + count, to, number + 1, first, second, third


@njit(nogil=True, cache=True)
def look_up(lines: Any, state: Any, table: Any, sequences: Any, out: Any, done: Any, until: int) -> Any:
    """Looks in what stands without a match before `until` for something that was already looked up, as zstd's fast levels do."""
    at, begin, base = done[0], word(state, BEGIN), word(state, BASE)
    while at + 8 <= until:
        eight = load8(lines, at)
        low, high = eight & 0xFFFFFFFF, eight >> 32 & 0xFFFFFFFF
        row = ((low * 0x1B873593) ^ (high * 0x6A09E667)) >> 27 & (TABLE - 1)
        found = word(table, row) - base
        table[row] = base + at
        if found >= begin and load8(lines, found) == eight and at - found < FARTHEST:
            count = 8 + equal(lines, at + 8, found + 8, until)
            done = match(lines, sequences, out, done, at, at - found, count)
            at += count
        else:
            at += 1 + ((at - done[0]) >> 6)
    return done


@njit(nogil=True, cache=True)
def compare(lines: Any, runs: Any, count: int, begin: int, at: int, until: int, distance: int) -> int:
    """Lists what repeats the bytes `distance` before, between `at` and `until`: each time 8 bytes or more. How many `runs` there
    are then. Each is one word: place behind `begin` | bytes << 17 | distance << 35. 64 bytes behind `until` are read.
    """
    same = at  # from here on nothing differs
    while at < until:
        differ = differ64(lines, at, at - distance)
        if until - at < 64:
            differ |= -1 << (until - at)
        if differ != 0:
            many = differ | differ << 1
            many |= many << 2
            many |= many << 4  # a bit that is not set: it and the seven below are not set in `differ`
            while differ != 0:
                place = zeros_below(differ)
                if at + place - same >= 8:
                    runs[count] = same - begin | (at + place - same) << 17 | distance << 35
                    count += 1
                clear = ~(many >> place)
                if clear == 0:
                    same = at + highest(differ) + 1
                    break
                place += zeros_below(clear)
                same = at + place - 7
                differ &= -1 << place
        at += 64
    if until - same >= 8:  # the last 64 bytes end where the piece ends
        runs[count] = same - begin | (until - same) << 17 | distance << 35
        count += 1
    return count


@njit(nogil=True, cache=True)
def compare_noted(lines: Any, notes: Any, state: Any, runs: Any, begin: int, end: int) -> int:
    """Lists what repeats as it is noted, between `begin` and `end`; how many runs."""
    note, spot, count = word(state, NOTE), begin, 0
    while spot < end:
        while note < word(notes, 0) and word(notes, note + 1) & 0xFFFFFFFF <= spot:
            note += 1
        until = min(end, word(notes, note + 1) & 0xFFFFFFFF) if note < word(notes, 0) else end
        distance = word(notes, note) >> 32 if note > 0 else 0
        if 8 <= distance <= spot - word(state, BEGIN) and distance < FARTHEST and until + 64 <= lines.shape[0]:
            count = compare(lines, runs, count, begin, spot, until, distance)
        spot = until
    state[NOTE] = note
    return count


@njit(nogil=True, cache=True)
def put_matches(
    lines: Any, state: Any, table: Any, runs: Any, sequences: Any, out: Any, done: Any, number: int, end: int
) -> Any:
    """Makes sequences of the `number` runs of a block, and of what is found in the bytes between them. See `match`."""
    begin = done[0]
    for index in range(number):
        run = word(runs, index)
        at = begin + (run & 0x1FFFF)
        if at - done[0] >= _UNKNOWN:
            done = look_up(lines, state, table, sequences, out, done, at)
        done = match(lines, sequences, out, done, at, run >> 35, run >> 17 & 0x3FFFF)
    if end - done[0] >= _UNKNOWN:
        done = look_up(lines, state, table, sequences, out, done, end)
    return done


@njit(nogil=True, cache=True)
def put_block(
    lines: Any, notes: Any, state: Any, table: Any, runs: Any, sequences: Any, out: Any, begin: int, at: int
) -> int:
    """Writes the lines' bytes from `begin` on as one block (3.1.1.2); the position behind it."""
    end = min(begin + MOST, word(state, END))
    number = compare_noted(lines, notes, state, runs, begin, end)
    done = (begin, at + 6, 0, word(state, RECENT), word(state, RECENT + 1), word(state, RECENT + 2))
    done = put_matches(lines, state, table, runs, sequences, out, done, number, end)
    anchor, to, count, first, second, third = done
    to = put_literals(lines, out, to, anchor, end - anchor)
    literals, last = to - at - 6, 1 if end == word(state, END) else 0
    out[to] = 0
    if count > 0:  # their number in one to three bytes, and how: by the tables of the format
        if count < 128:
            out[to] = count
        elif count < 0x7F00:
            out[to] = 128 + (count >> 8)
            out[to + 1] = count & 255
            to += 1
        else:
            put8(out, to, 255 | (count - 0x7F00) << 8)
            to += 2
        out[to + 1] = 0
        to = put_bits(out, to + 2, sequences, count)
    else:
        to += 1
    size = to - at - 3
    if size >= end - begin:  # as it is; the decoder sees no distances
        put8(out, at, last | (end - begin) << 3)
        memcpy(out, at + 3, lines, begin, end - begin)
        return at + 3 + end - begin
    state[RECENT], state[RECENT + 1], state[RECENT + 2] = first, second, third
    head = last | 2 << 1 | size << 3 | (3 << 2 | literals << 4) << 24
    for i in range(6):
        out[at + i] = head >> 8 * i & 255
    return to


@njit(nogil=True, cache=True)
def seal(lines: Any, notes: Any, state: Any, table: Any, runs: Any, sequences: Any, out: Any) -> int:
    """Writes the bytes state[BEGIN] to state[END] of `lines` as one frame; its size. `out` has `room` for it.

    `notes`: how many, then each as `hint` made it, in order; those before state[NOTE] are of earlier frames, and when all are
    used they are taken away. state[BASE] must be more than what was ever looked up in the same `table`, and goes on here.
    """
    begin, end = word(state, BEGIN), word(state, END)
    put8(out, 0, 0xA0FD2FB528)  # the magic number; one segment, its size in four bytes (3.1.1.1)
    put8(out, 5, end - begin)
    state[RECENT], state[RECENT + 1], state[RECENT + 2] = 1, 4, 8
    at, spot = 9, begin
    while True:
        at = put_block(lines, notes, state, table, runs, sequences, out, spot, at)
        spot += MOST
        if spot >= end:
            break
    if word(state, NOTE) >= word(notes, 0):
        state[NOTE], notes[0] = 0, 0
    state[BASE] = word(state, BASE) + end
    return at


seal = ahead.compiled(seal)
