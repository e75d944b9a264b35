"""The compiled pass: bulk records of all CPUs, in order of time, become lines of the log.

Owns the loop over the mapped rings and the small machine that writes a template; whatever it cannot write (definitions,
names that are not clean text, unknown objects) it hands back to Python, record by record. Runs as plain Python with
NUMBA_DISABLE_JIT=1, same bytes. Cost with the JIT: docs/decisions.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from monitor import events

Array = Any
"""A numpy array; numba knows its type."""

# reasons to return
DONE, LIMIT, DEFINITION, SLOW, FULL = range(5)
# members of the state array
OUT, SEQUENCE, LINES, CPU, LIMIT_TS, LIMIT_CPU, LIMIT_SEQ, CUT, SECOND, OFFSET, GAPS, RECEIVED, REPEATED, JOURNAL = range(14)
STATE = 16
# columns of the per-CPU array
POS, HEAD, EXPECTED = range(3)
# operations of a template
LIT, TIME, SEQ, HEX, WORD, TABLE, FLAGS, OBJECT, TASK, FD, CPU_NUMBER, TOTAL, ERRNO, PATH, BASENAME = range(15)
# what a TABLE operation looks up
BY_CALL, BY_ERROR, BY_WORD = range(3)
# variants of a template
FAILED, CLAIMED, UNNAMED, NO_TASK, CREATED, NO_CALL = 1, 2, 4, 8, 16, 32
VARIANTS = 64
# entries of the mirror: words of the header, bytes before the data
FILE_DATA, TASK_DATA, SESSION_OBJECT, SESSION_TASK = 32, 32, 64, 544
FILE_ROOM, TASK_ROOM = 480, 736
SLOW_ENTRY = 1
LINE_ROOM = 8192
MAX_GAPS = 256
NOTHING = 0xFFFFFFFF

_CLOSES = (events.EVENT["file_close"].id, events.EVENT["socket_close"].id)
_FILE_CLOSE, _SOCKET_CLOSE = _CLOSES
_DEF_SESSION = events.DEF_SESSION
_KF_CLAIMED, _KF_BEGIN, _KF_RELATIVE, _KF_ADDRESS, _KF_UNNAMED, _KF_COMPAT, _KF_CREATED = (
    events.CLAIMED, events.BEGIN, events.RELATIVE, events.ADDRESS, events.UNNAMED, events.COMPAT, events.CREATED)

if config.DISABLE_JIT:  # type: ignore[attr-defined]

    def memcpy(dst: Any, to: int, src: Any, start: int, count: int) -> None:
        """Copies `count` bytes between uint8 arrays."""
        dst[to:to + count] = src[start:start + count]
else:

    @intrinsic
    def memcpy(_typing: Any, dst: Any, to: Any, src: Any, start: Any, count: Any) -> Any:
        """Copies `count` bytes between uint8 arrays: 6-9 times the speed of a loop."""
        signature = types.void(dst, types.int64, src, types.int64, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            target = context.make_array(made.args[0])(context, builder, args[0])
            source = context.make_array(made.args[2])(context, builder, args[2])
            cgutils.raw_memcpy(builder, builder.gep(target.data, [args[1]]), builder.gep(source.data, [args[3]]), args[4], 1)  # type: ignore[no-untyped-call]
            return context.get_dummy_value()

        return signature, generate


@njit(nogil=True, cache=True)
def put_number(out: Any, at: int, value: int) -> int:
    """Writes a signed number in decimal; the position behind it."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    if value < 10:
        out[at] = 48 + value
        return at + 1
    digits, rest = 0, value
    while rest > 0:
        rest //= 10
        digits += 1
    end = at + digits
    spot = end - 1
    while value > 0:
        tenth = value // 10
        out[spot] = 48 + (value - tenth * 10)
        value = tenth
        spot -= 1
    return end


@njit(nogil=True, cache=True)
def put_fixed(out: Any, at: int, value: int, digits: int) -> int:
    """Writes a number with exactly so many decimal digits."""
    spot = at + digits - 1
    for _ in range(digits):
        tenth = value // 10
        out[spot] = 48 + (value - tenth * 10)
        value = tenth
        spot -= 1
    return at + digits


@njit(nogil=True, cache=True)
def put_hex12(out: Any, at: int, value: int) -> int:
    """Writes 12 hexadecimal digits."""
    for i in range(12):
        digit = (value >> (44 - 4 * i)) & 15
        out[at + i] = 48 + digit if digit < 10 else 87 + digit
    return at + 12


@njit(nogil=True, cache=True)
def put_second(out: Any, seconds: int) -> None:
    """Writes "YYYY-MM-DDTHH:MM:SS." for seconds since 1970 at the start of `out`."""
    days = seconds // 86400
    rest = seconds - days * 86400
    z = days + 719468  # days since 0000-03-01
    era = z // 146097
    doe = z - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (1 if month <= 2 else 0)
    put_fixed(out, 0, year, 4)
    out[4] = 45
    put_fixed(out, 5, month, 2)
    out[7] = 45
    put_fixed(out, 8, doy - (153 * mp + 2) // 5 + 1, 2)
    out[10] = 84
    put_fixed(out, 11, rest // 3600, 2)
    out[13] = 58
    put_fixed(out, 14, rest // 60 % 60, 2)
    out[16] = 58
    put_fixed(out, 17, rest % 60, 2)
    out[19] = 46


@njit(nogil=True, cache=True)
def save(S: Any, M8: Any, J: Any, J8: Any, offset: int, size: int) -> None:
    """Keeps the bytes of the mirror that are about to change, so that a batch that was never written can be undone."""
    end = J[0]
    J[1 + (end >> 3)] = offset | size << 32
    memcpy(J8, end + 16, M8, offset, size)
    J[0] = end + 8 + ((size + 7) & ~7)


@njit(nogil=True, cache=True)
def begin_session(S: Any, M: Any, M8: Any, J: Any, J8: Any, entry: int, generation: int, obj: int, task: int, key: int) -> None:
    """The session's slot stands for this object and this task from now on; the same generation keeps what was reported."""
    save(S, M8, J, J8, entry, 1280)
    w = entry >> 3
    olen, tlen = M[(obj >> 3) + 1], M[(task >> 3) + 1]
    if M[w] != generation:
        M[w + 4] = 0
        M[w + 5] = 0
        M[w + 6] = 0
        M[w + 7] = 0
    M[w] = generation
    M[w + 1] = olen
    M[w + 2] = tlen
    M[w + 3] = key
    memcpy(M8, entry + SESSION_OBJECT, M8, obj + FILE_DATA, olen & 0xFFFFFFFF)
    memcpy(M8, entry + SESSION_TASK, M8, task + TASK_DATA, tlen & 0xFFFFFFFF)


@njit(nogil=True, cache=True)
def put_flags(out: Any, at: int, value: int, flags: Any, lit: Any) -> int:
    """Writes open flags by name, joined by "|". `flags`: rows (mask, value, offset, length) in order."""
    first, left = True, value
    for i in range(flags.shape[0]):
        mask = flags[i, 0]
        if left & mask == flags[i, 1]:
            if not first:
                out[at] = 124
                at += 1
            memcpy(out, at, lit, flags[i, 2], flags[i, 3])
            at += flags[i, 3]
            first = False
            left &= ~mask
    if left:
        return -1
    return at


@njit(nogil=True, cache=True)
def clean(data: Any, start: int, count: int) -> bool:
    """True when the bytes stand in JSON as they are."""
    for i in range(start, start + count):
        b = data[i]
        if b < 32 or b > 126 or b == 34 or b == 92:
            return False
    return True


@njit(nogil=True, cache=True)
def write_line(
    S: Any, R: Any, R8: Any, M: Any, M8: Any, c: int, w: int, template: int, obj: int, obj_len: int, task: int, task_len: int,
    session: int, base: int, ops: Any, index: Any, lit: Any, tab: Any, flags: Any, second: Any, out: Any,
) -> int:
    """Runs the template for the record at word `w` of CPU `c`; the end of the line, -1: this record is not for it."""
    at = S[OUT]
    word5 = R[c, w + 5]
    for o in range(index[template, 0], index[template, 1]):
        code, a, b = ops[o, 0], ops[o, 1], ops[o, 2]
        if code == LIT:
            memcpy(out, at, lit, a, b)
            at += b
        elif code == WORD:
            at = put_number(out, at, R[c, w + a])
        elif code == TASK:
            memcpy(out, at, M8, task, task_len)
            at += task_len
        elif code == OBJECT:
            memcpy(out, at, M8, obj, obj_len)
            at += obj_len
        elif code == TIME:
            wall = R[c, w + 1] + S[OFFSET]
            seconds = wall // 1000000000
            if seconds != S[SECOND]:
                S[SECOND] = seconds
                put_second(second, seconds)
            memcpy(out, at, second, 0, 20)
            at = put_fixed(out, at + 20, wall - seconds * 1000000000, 9)
            out[at] = 90
            at += 1
        elif code == SEQ:
            at = put_number(out, at, S[SEQUENCE])
        elif code == HEX:
            at = put_hex12(out, at, S[SEQUENCE])
        elif code == TABLE:
            if b == BY_CALL:
                row = a + (word5 & 511) + (512 if (word5 >> 16) & _KF_COMPAT else 0)
            elif b == BY_ERROR:
                row = a + min(-R[c, w + 4], 4095)
            else:
                row = a + R[c, w + ops[o, 3]]
            memcpy(out, at, lit, tab[row, 0], tab[row, 1])
            at += tab[row, 1]
        elif code == FD:
            at = put_number(out, at, word5 >> 32)
        elif code == CPU_NUMBER:
            at = put_number(out, at, c)
        elif code == ERRNO:
            at = put_number(out, at, -R[c, w + 4])
        elif code == TOTAL:
            at = put_number(out, at, R[c, w + a] - (M[(session >> 3) + 4 + b] if session >= 0 else 0))
        elif code == FLAGS:
            at = put_flags(out, at, R[c, w + a], flags, lit)
            if at < 0:
                return -1
        elif code == PATH or code == BASENAME:
            count = R[c, w + 6] & 0xFFFFFFFF
            start = (w << 3) + 64
            if count == 0:
                return -1
            if code == PATH:
                if not clean(R8[c], start, count):
                    return -1
                if base >= 0 and R8[c, start] != 47:  # a name that was changed between the program's two looks is absolute
                    size = M[(base >> 3) + 2]
                    memcpy(out, at, M8, base + FILE_DATA + M[(base >> 3) + 3], size)
                    at += size
                    if size > 1:
                        out[at] = 47
                        at += 1
            else:
                i = start + count - 1
                if R8[c, i] == 47:
                    return -1
                while i > start and R8[c, i - 1] != 47:
                    i -= 1
                count -= i - start
                start = i
            memcpy(out, at, R8[c], start, count)
            at += count
    return int(at)


@njit(nogil=True, cache=True)
def run(
    S: Any, C: Any, G: Any, R: Any, R8: Any, M: Any, M8: Any, J: Any, J8: Any, where: Any,
    ops: Any, index: Any, lit: Any, tab: Any, flags: Any, second: Any, out: Any,
) -> int:
    """Writes lines until a reason to stop; returns it. Records are taken in order of (time, CPU, sequence) below S[CUT].

    `where` holds the mirror's geometry: file entries per CPU, task entries per CPU, byte offsets of tasks and sessions,
    ring mask. `C` per CPU: position, head, expected sequence. `G` rows of gaps: CPU, first, last missing, time.
    """
    nfile, ntask, tasks, sessions, mask = where[0], where[1], where[2], where[3], where[4]
    ncpu = C.shape[0]
    while True:
        best, best_ts, next_ts, next_cpu = -1, S[CUT], S[CUT], ncpu
        for c in range(ncpu):
            if C[c, POS] < C[c, HEAD]:
                ts = R[c, ((C[c, POS] & mask) >> 3) + 1]
                if ts < best_ts:
                    next_ts, next_cpu = best_ts, best if best >= 0 else ncpu
                    best, best_ts = c, ts
                elif ts < next_ts:
                    next_ts, next_cpu = ts, c
        if best < 0:
            return DONE if S[LIMIT_TS] >= S[CUT] else LIMIT
        c = best
        S[CPU] = c
        while C[c, POS] < C[c, HEAD]:
            w = (C[c, POS] & mask) >> 3
            ts = R[c, w + 1]
            if ts >= S[CUT] or ts > next_ts or (ts == next_ts and next_cpu < c):
                break
            word0, seq = R[c, w], R[c, w + 2]
            kind, units = word0 & 0xFFFF, (word0 >> 16) & 0xFFFF
            defines = kind < 16
            if ts > S[LIMIT_TS] or (ts == S[LIMIT_TS] and (c > S[LIMIT_CPU] or (c == S[LIMIT_CPU] and (seq > S[LIMIT_SEQ] or (seq == S[LIMIT_SEQ] and not defines))))):
                return LIMIT
            if S[OUT] + LINE_ROOM > out.shape[0] or J[0] + 4096 > J8.shape[0] or S[GAPS] >= G.shape[0]:
                return FULL
            tid = word0 >> 32 & 0xFFFFFFFF
            key, word5, word6 = R[c, w + 3], R[c, w + 5], R[c, w + 6]
            slot, generation = word6 & 0xFFFFFFFF, word6 >> 32 & 0xFFFFFFFF
            kf = word5 >> 16 & 0xFFFF
            task = tasks + (c * ntask + (tid & (ntask - 1))) * 768
            if defines and kind != _DEF_SESSION:
                return DEFINITION
            if not defines:
                if seq < C[c, EXPECTED]:  # already in the log: a killed reader had not freed it
                    S[REPEATED] += 1
                    C[c, POS] += units << 6
                    continue
                if kf & _KF_ADDRESS:
                    return SLOW
            known_task = M[task >> 3] == (tid | 1 << 32) and not (M[(task >> 3) + 1] >> 32) & SLOW_ENTRY
            obj = (c * nfile + (key & (nfile - 1))) * 512
            known_object = M[obj >> 3] == key and not (M[(obj >> 3) + 1] >> 32) & SLOW_ENTRY
            if defines:
                if not known_task or not known_object:
                    return SLOW
                begin_session(S, M, M8, J, J8, sessions + slot * 1280, generation, obj, task, key)
                C[c, POS] += units << 6
                continue
            variant, session, base, object_at, object_len = 0, -1, -1, 0, 0
            task_at, task_len = task + TASK_DATA, M[(task >> 3) + 1] & 0xFFFFFFFF
            closes = kind == _FILE_CLOSE or kind == _SOCKET_CLOSE
            owner = closes and R[c, w + 11] >= 2  # exec, exit, evict: the process that began the session
            if R[c, w + 4] < 0:
                variant |= FAILED
            if kf & _KF_UNNAMED:
                variant |= UNNAMED
                if owner:
                    variant |= NO_TASK
            elif kf & _KF_CLAIMED:
                variant |= CLAIMED
                if kf & _KF_RELATIVE:
                    if not known_object or M[(obj >> 3) + 2] == 0:
                        return SLOW
                    base = obj
            elif kf & _KF_BEGIN:
                if not known_object:
                    return SLOW
                object_at, object_len = obj + FILE_DATA, M[(obj >> 3) + 1] & 0xFFFFFFFF
            else:
                session = sessions + slot * 1280
                sw = session >> 3
                if slot == NOTHING or generation == 0 or M[sw] != generation or ((M[sw + 1] | M[sw + 2]) >> 32) & SLOW_ENTRY:
                    return SLOW
                object_at, object_len = session + SESSION_OBJECT, M[sw + 1] & 0xFFFFFFFF
                if owner:
                    task_at, task_len = session + SESSION_TASK, M[sw + 2] & 0xFFFFFFFF
            if not owner and not known_task:
                return SLOW
            if kf & _KF_CREATED:
                variant |= CREATED
            if word5 & 0xFFFF == 0xFFFF:
                variant |= NO_CALL
            end = write_line(S, R, R8, M, M8, c, w, kind * VARIANTS + variant, object_at, object_len, task_at, task_len,
                             session, base, ops, index, lit, tab, flags, second, out)
            if end < 0:
                return SLOW
            if kf & _KF_BEGIN:
                begin_session(S, M, M8, J, J8, sessions + slot * 1280, generation, obj, task, key)
            if seq > C[c, EXPECTED]:
                G[S[GAPS], 0], G[S[GAPS], 1], G[S[GAPS], 2], G[S[GAPS], 3] = c, C[c, EXPECTED], seq - 1, ts
                S[GAPS] += 1
            C[c, EXPECTED] = seq + 1
            C[c, POS] += units << 6
            S[OUT] = end
            S[SEQUENCE] += 1
            S[LINES] += 1
            S[RECEIVED] += 1
