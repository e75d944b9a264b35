"""The compiled pass: bulk records of all CPUs, in order of time, become lines of the log.

Owns the loop over the mapped rings and the small machine that writes a template; whatever it cannot write (definitions,
names that are not clean text, unknown objects) it hands back to Python, record by record. Runs as plain Python with
NUMBA_DISABLE_JIT=1, same bytes. Cost with the JIT, and what it must not do: monitor/ahead.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from monitor import ahead, events
from monitor.ahead import njit
from monitor.fastframe import PLACES, hint
from monitor.fastrecords import (
    CALL_SESSION,
    DEFINITION_KEY,
    KEY,
    REASON,
    RET_FD,
    SEQ_GENERATION,
    TS,
    returned,
    sequence,
)
from monitor.fasttext import (
    cell,
    clean,
    copy16,
    memcpy,
    put_flags,
    put_hex12,
    put_nine,
    put_number,
    put_path,
    put_second,
    put_text,
    word,
)

Array = Any
"""A numpy array; numba knows its type."""

# reasons to return
DONE, LIMIT, DEFINITION, SLOW, FULL = range(5)
# members of the state array
OUT, SEQUENCE, LINES, CPU, LIMIT_TS, LIMIT_CPU, LIMIT_SEQ, CUT, SECOND, OFFSET, GAPS, RECEIVED, REPEATED, BASE = range(14)
STATE = 16
# columns of the per-CPU array
POS, HEAD, EXPECTED = range(3)
# operations of a template: a literal and what follows it
OPERATION = 6
"""words of one: code, three numbers of its own, place and length of the literal before it"""
LIT, TIME, SEQ, HEX, WORD, RET, TABLE, FLAGS, OBJECT, TASK, FD, CPU_NUMBER, TOTAL, ERRNO, PATH, BASENAME = range(16)
# what a TABLE operation looks up
BY_CALL, BY_ERROR, BY_WORD, BY_QUIET = range(4)
# variants of a template
FAILED, CLAIMED, UNNAMED, NO_TASK, CREATED, NO_CALL = 1, 2, 4, 8, 16, 32
VARIANTS = 64
# entries of the mirror: words of the header, bytes before the data
FILE_DATA, TASK_DATA, SESSION_OBJECT, SESSION_TASK = 32, 32, 64, 544
FILE_ROOM, TASK_ROOM = 480, 736
SLOW_ENTRY = 1
LINE_ROOM = 16384
MAX_GAPS = 256
NOTHING = 0xFFFFFFFF
NOTED = 1
"""dimensions of `P` when it is noted what repeats: with two the compiled pass has no trace of it, and takes 5 ns less a line"""

_CLOSES = (events.EVENT["file_close"].id, events.EVENT["socket_close"].id)
_FILE_CLOSE, _SOCKET_CLOSE = _CLOSES
_REASONS = len(events.CLOSE_REASONS)
_DEF_SESSION, _DEF_FILE = events.DEF_SESSION, events.DEF_FILE
_KF_CLAIMED, _KF_BEGIN, _KF_RELATIVE, _KF_ADDRESS = events.CLAIMED, events.BEGIN, events.RELATIVE, events.ADDRESS
_KF_UNNAMED, _KF_COMPAT, _KF_CREATED, _KF_TRUNCATED = events.UNNAMED, events.COMPAT, events.CREATED, events.TRUNCATED
_KF_URING, _KF_QUIET, _KF_WIDE = events.URING, events.QUIET, events.WIDE


@njit(nogil=True, cache=True)
def save(M8: Any, J: Any, J8: Any, offset: int, size: int) -> None:
    """Keeps the bytes of the mirror that are about to change, so that a batch that was never written can be undone."""
    end = J[0]
    J[1 + (end >> 3)] = offset | size << 32
    memcpy(J8, end + 16, M8, offset, size)
    J[0] = end + 8 + ((size + 7) & ~7)


@njit(nogil=True, cache=True)
def begin_session(M: Any, M8: Any, J: Any, J8: Any, entry: int, generation: int, obj: int, task: int, key: int) -> None:
    """The session's slot stands for this object and this task from now on; the same generation keeps what was reported."""
    save(M8, J, J8, entry, 1280)
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
def place_of(fragment: int) -> int:
    """Where the places have the fragment at this byte of the mirror; entries are at least 480 bytes apart."""
    return fragment >> 9 & PLACES - 1


@njit(nogil=True, cache=True)
def take_places(P: Any, session: int, obj: int, task: int) -> None:
    """What a session's entry has stands where the entries that it was copied from were last written."""
    if P.ndim == NOTED:
        P[place_of(session + SESSION_OBJECT)] = P[place_of(obj + FILE_DATA)]
        P[place_of(session + SESSION_TASK)] = P[place_of(task + TASK_DATA)]


@njit(nogil=True, cache=True)
def put_claim(out: Any, at: int, R8: Any, M: Any, M8: Any, c: int, w: int, count: int, base: int, whole: bool) -> int:
    """Writes the caller's name, whole behind the path of its base directory or the base name alone; -1: not for this pass."""
    start = (w << 3) + 64
    if count == 0 or not clean(R8[c], start, count) or R8[c, start + count - 1] == 47:
        return -1
    if whole:
        if base >= 0 and R8[c, start] != 47:  # a name that was changed between the program's two looks may be absolute
            size = M[(base >> 3) + 2]
            memcpy(out, at, M8, base + FILE_DATA + M[(base >> 3) + 3], size)
            at += size
            if size > 1:
                out[at] = 47
                at += 1
    else:
        i = start + count - 1
        while i > start and R8[c, i - 1] != 47:
            i -= 1
        count -= i - start
        start = i
    memcpy(out, at, R8[c], start, count)
    return at + count


@njit(nogil=True, cache=True)
def put_time(out: Any, at: int, wall: int, S: Any, second: Any) -> int:
    """Writes the wall time, RFC 3339 with nine decimals; the text of the second is kept in `second`."""
    seconds = wall // 1000000000
    if seconds != S[SECOND]:
        S[SECOND] = seconds
        put_second(second, seconds)
    copy16(out, at, second, 0)
    copy16(out, at + 16, second, 16)
    at = put_nine(out, at + 20, wall - seconds * 1000000000)
    out[at] = 90
    return at + 1


@njit(nogil=True, cache=True)
def table_row(R: Any, c: int, w: int, base: int, by: int, word: int) -> int:
    """The row of the table that a TABLE operation shows."""
    if by == BY_CALL:
        call = cell(R, c, w + CALL_SESSION)
        row = (call & 511) + (512 if (call >> 16) & _KF_COMPAT else 1024 if (call >> 16) & _KF_URING else 0)
    elif by == BY_ERROR:
        row = min(-returned(cell(R, c, w + RET_FD)), 4095)
    elif by == BY_QUIET:
        row = 1 if cell(R, c, w + CALL_SESSION) >> 16 & _KF_QUIET else 0
    else:
        row = cell(R, c, w + word)
    return base + int(row)


@njit(nogil=True, cache=True)
def put_literal(out: Any, at: int, lit: Any, place: int, count: int) -> int:
    """Writes a piece of the pool; the position behind it."""
    if count <= 16:  # most are
        copy16(out, at, lit, place)
    else:
        memcpy(out, at, lit, place, count)
    return at + count


@njit(nogil=True, cache=True)
def write_line(
    S: Any, R: Any, R8: Any, M: Any, M8: Any, c: int, w: int, template: int, parts: Any, ops: Any, index: Any, lit: Any,
    tab: Any, flags: Any, second: Any, out: Any, N: Any, P: Any,
) -> int:  # fmt: skip
    """Runs the template for the record at word `w` of CPU `c`; the end of the line, -1: this record is not for it.
    `parts`: places and lengths of object and task, the session's and the base directory's entry.
    """
    obj, obj_len, task, task_len, session, base = parts
    at, before, far = word(S, OUT), word(S, BASE), word(N, word(N, 0)) >> 32
    for number in range(cell(index, template, 0), cell(index, template, 1)):
        o = number * OPERATION
        code, a, b, count = word(ops, o), word(ops, o + 1), word(ops, o + 2), word(ops, o + 5)
        if P.ndim == NOTED:  # noqa: SIM102 - alone it is constant for numba, which leaves the branch out
            if count >= 8 or (code != TASK and code != OBJECT and code != LIT):  # a piece of 8 bytes or more
                far = hint(N, P, PLACES + number, before, at, far, False)
        at = put_literal(out, at, lit, word(ops, o + 4), count)
        if code == WORD:
            at = put_number(out, at, cell(R, c, w + a))
        elif code == TASK:
            if P.ndim == NOTED:
                far = hint(N, P, place_of(task), before, at, far, True)
            memcpy(out, at, M8, task, task_len)
            at += task_len
        elif code == OBJECT:
            if P.ndim == NOTED:
                far = hint(N, P, place_of(obj), before, at, far, True)
            memcpy(out, at, M8, obj, obj_len)
            at += obj_len
        elif code == TIME:
            at = put_time(out, at, cell(R, c, w + TS) + word(S, OFFSET), S, second)
        elif code == SEQ:
            at = put_number(out, at, word(S, SEQUENCE))
        elif code == HEX:
            at = put_hex12(out, at, word(S, SEQUENCE))
        elif code == TABLE:
            row = table_row(R, c, w, a, b, word(ops, o + 3))
            at = put_literal(out, at, lit, cell(tab, row, 0), cell(tab, row, 1))
        elif code == FD:  # the plain encoder leaves -1 out
            fd = cell(R, c, w + RET_FD) >> 32
            at = put_number(out, at, fd) if fd >= 0 else -1
        elif code == CPU_NUMBER:
            at = put_number(out, at, c)
        elif code in (RET, ERRNO):
            at = put_number(out, at, returned(cell(R, c, w + RET_FD)) * (1 if code == RET else -1))
        elif code == TOTAL:
            at = put_number(out, at, cell(R, c, w + a) - (word(M, (session >> 3) + 4 + b) if session >= 0 else 0))
        elif code == FLAGS:
            at = put_flags(out, at, cell(R, c, w + a), flags, lit)
        elif code != LIT:
            at = put_claim(out, at, R8, M, M8, c, w, cell(R, c, w + CALL_SESSION) >> 32 & 0xFFFFFFFF, base, code == PATH)
        if at < 0:
            break
    return int(at)


_FILE_HEAD = np.frombuffer(b',"path_source":"file"},"file":{"path":"', np.uint8)
_FILE_NAME = np.frombuffer(b'","name":"', np.uint8)
_FILE_INODE = np.frombuffer(b'","inode":"', np.uint8)
_FILE_DEVICE = np.frombuffer(b'","device":"', np.uint8)
_FILE_MODE = np.frombuffer(b'","mode":"', np.uint8)
_FILE_FILE = np.frombuffer(b'","type":"file"}', np.uint8)
_FILE_DIR = np.frombuffer(b'","type":"dir"}', np.uint8)


@njit(nogil=True, cache=True)
def define_file(R: Any, R8: Any, M: Any, M8: Any, J: Any, J8: Any, c: int, w: int, entry: int) -> bool:
    """Fills the entry of a file definition as `mirror.Mirror.put_file` does, if its names are clean and short; else False.

    It saves 15 us for each new file (measured with `find`): the definitions are most of what such a workload costs.
    """
    count, mode, inode = R[c, w + 8] >> 32 & 0xFFFFFFFF, R[c, w + 6] & 0xFFFFFFFF, R[c, w + 4]
    kind, device = mode >> 12 & 15, R[c, w + 5] & 0xFFFFFFFF
    start = (w << 3) + 72
    if R[c, w + 7] >> 32 != 0 or count < 2 or count > 150 or inode < 0 or (kind != 8 and kind != 4):
        return False
    leaf = 0
    for i in range(start, start + count):
        b = R8[c, i]
        if b == 0:
            if leaf == 0:
                leaf = i - start
        elif b < 32 or b > 126 or b == 34 or b == 92:
            return False
    save(M8, J, J8, entry, 512)
    word, begin = entry >> 3, entry + FILE_DATA
    M[word] = 0
    at = put_text(M8, begin, _FILE_HEAD)
    path = at
    at = put_path(M8, at, R8[c], start, count)
    M[word + 2] = at - path
    M[word + 3] = path - begin
    at = put_text(M8, at, _FILE_NAME)
    memcpy(M8, at, R8[c], start, leaf)
    at = put_number(M8, put_text(M8, at + leaf, _FILE_INODE), inode)
    at = put_number(M8, put_text(M8, at, _FILE_DEVICE), device >> 20)
    M8[at] = 58
    at = put_text(M8, put_number(M8, at + 1, device & 0xFFFFF), _FILE_MODE)
    for i in range(4):
        M8[at + i] = 48 + (mode >> (9 - 3 * i) & 7)
    at = put_text(M8, at + 4, _FILE_FILE if kind == 8 else _FILE_DIR)
    M[word + 1] = at - begin
    M[word] = R[c, w + 3]
    return True


@njit(nogil=True, cache=True)
def choose(S: Any, C: Any, R: Any, mask: int) -> Any:
    """The CPU with the earliest record below the cut (-1: none), and time and CPU of the next one."""
    best, best_ts, next_ts, next_cpu = -1, S[CUT], S[CUT], C.shape[0]
    for c in range(C.shape[0]):
        if C[c, POS] < C[c, HEAD]:
            ts = cell(R, c, ((C[c, POS] & mask) >> 3) + 1)
            if ts < best_ts:
                if best >= 0:
                    next_ts, next_cpu = best_ts, best
                best, best_ts = c, ts
            elif ts < next_ts:
                next_ts, next_cpu = ts, c
    return best, next_ts, next_cpu


@njit(nogil=True, cache=True)
def behind_limit(S: Any, c: int, ts: int, seq: int, defines: bool) -> bool:
    """The next control record comes before this one. A definition with the same number belongs before it."""
    if ts != S[LIMIT_TS]:
        return bool(ts > S[LIMIT_TS])
    if c != S[LIMIT_CPU]:
        return bool(c > S[LIMIT_CPU])
    return bool(seq > S[LIMIT_SEQ] or (seq == S[LIMIT_SEQ] and not defines))


@njit(nogil=True, cache=True)
def resolve(
    R: Any, M: Any, c: int, w: int, kind: int, obj: int, task: int, known_task: bool, known_object: bool, sessions: int
) -> Any:
    """What a record refers to: (template variant, parts for `write_line`); variant -1: something is not known or not clean."""
    unknown = (-1, (0, 0, 0, 0, -1, -1))
    call = cell(R, c, w + CALL_SESSION)
    kf, slot = call >> 16 & 0xFFFF, call >> 32 & 0xFFFFFFFF
    generation = cell(R, c, w + SEQ_GENERATION) >> 32 & 0xFFFFFFFF
    closes = kind in (_FILE_CLOSE, _SOCKET_CLOSE)
    if closes and not 0 <= cell(R, c, w + REASON) < _REASONS:
        return unknown
    owner = closes and cell(R, c, w + REASON) >= 2  # exec, exit, evict: who began the session
    variant = (
        (FAILED if returned(cell(R, c, w + RET_FD)) < 0 else 0)
        | (CREATED if kf & _KF_CREATED else 0)
        | (NO_CALL if call & 0xFFFF == 0xFFFF else 0)
    )
    session, base, object_at, object_len = -1, -1, 0, 0
    task_at, task_len = task + TASK_DATA, word(M, (task >> 3) + 1) & 0xFFFFFFFF
    if kf & _KF_UNNAMED:
        variant |= UNNAMED | (NO_TASK if owner else 0)
    elif kf & _KF_CLAIMED:
        variant |= CLAIMED
        if kf & _KF_RELATIVE:
            if not known_object or word(M, (obj >> 3) + 2) == 0:
                return unknown
            base = obj
    elif kf & _KF_BEGIN:
        if not known_object:
            return unknown
        object_at, object_len = obj + FILE_DATA, word(M, (obj >> 3) + 1) & 0xFFFFFFFF
    else:
        session = sessions + slot * 1280
        sw = session >> 3
        if slot == NOTHING or generation == 0 or word(M, sw) != generation:
            return unknown
        about_object, about_task = word(M, sw + 1), word(M, sw + 2)
        if (about_object | about_task) >> 32 & SLOW_ENTRY:
            return unknown
        object_at, object_len = session + SESSION_OBJECT, about_object & 0xFFFFFFFF
        if owner:
            task_at, task_len = session + SESSION_TASK, about_task & 0xFFFFFFFF
    if not owner and not known_task:
        return unknown
    return variant, (object_at, object_len, task_at, task_len, session, base)


@njit(nogil=True, cache=True)
def count_event(S: Any, C: Any, G: Any, c: int, seq: int, ts: int) -> None:
    """One event of this CPU is written; a gap before it is noted."""
    if seq > C[c, EXPECTED]:
        g = S[GAPS]
        G[g, 0], G[g, 1], G[g, 2], G[g, 3] = c, C[c, EXPECTED], seq - 1, ts
        S[GAPS] += 1
    C[c, EXPECTED] = seq + 1
    S[SEQUENCE] += 1
    S[LINES] += 1
    S[RECEIVED] += 1


@njit(nogil=True, cache=True)
def step(
    S: Any, C: Any, G: Any, R: Any, R8: Any, M: Any, M8: Any, J: Any, J8: Any, where: Any, c: int, w: int, ops: Any,
    index: Any, lit: Any, tab: Any, flags: Any, second: Any, out: Any, N: Any, P: Any,
) -> int:
    """Handles one record: DONE when that was all, else the reason why Python must."""
    nfile, ntask, tasks, sessions = where[0], where[1], where[2], where[3]
    head, call = cell(R, c, w), cell(R, c, w + CALL_SESSION)
    kind, tid, kf = head & 0xFFFF, head >> 32 & 0xFFFFFFFF, call >> 16 & 0xFFFF
    defines = kind < 16 and kind != _DEF_SESSION
    key = cell(R, c, w + (DEFINITION_KEY if defines else KEY))
    obj = (c * nfile + (key & (nfile - 1))) * 512
    if defines:
        return DONE if kind == _DEF_FILE and define_file(R, R8, M, M8, J, J8, c, w, obj) else DEFINITION
    task = tasks + (c * ntask + (tid & (ntask - 1))) * 768
    known_task = word(M, task >> 3) == (tid | 1 << 32) and not (word(M, (task >> 3) + 1) >> 32) & SLOW_ENTRY
    known_object = word(M, obj >> 3) == key and not (word(M, (obj >> 3) + 1) >> 32) & SLOW_ENTRY
    slot, generation = call >> 32 & 0xFFFFFFFF, cell(R, c, w + SEQ_GENERATION) >> 32 & 0xFFFFFFFF
    if kind == _DEF_SESSION:
        if not known_task or not known_object:
            return SLOW
        begin_session(M, M8, J, J8, sessions + slot * 1280, generation, obj, task, key)
        take_places(P, sessions + slot * 1280, obj, task)
        return DONE
    seq = sequence(C, c, EXPECTED, cell(R, c, w + SEQ_GENERATION))
    if seq < C[c, EXPECTED]:  # already in the log: a killed reader had not freed it
        S[REPEATED] += 1
        return DONE
    if kf & (_KF_ADDRESS | _KF_TRUNCATED | _KF_WIDE):
        return SLOW
    variant, parts = resolve(R, M, c, w, kind, obj, task, known_task, known_object, sessions)
    if variant < 0:
        return SLOW
    end = write_line(S, R, R8, M, M8, c, w, kind * VARIANTS + variant, parts, ops, index, lit, tab, flags, second, out, N, P)
    if end < 0:
        return SLOW
    if kf & _KF_BEGIN:
        begin_session(M, M8, J, J8, sessions + slot * 1280, generation, obj, task, key)
        take_places(P, sessions + slot * 1280, obj, task)
    count_event(S, C, G, c, seq, cell(R, c, w + TS))
    S[OUT] = end
    return DONE


@njit(nogil=True, cache=True)
def run(
    S: Any,
    C: Any,
    G: Any,
    R: Any,
    R8: Any,
    M: Any,
    M8: Any,
    J: Any,
    J8: Any,
    where: Any,
    ops: Any,
    index: Any,
    lit: Any,
    tab: Any,
    flags: Any,
    second: Any,
    out: Any,
    N: Any,
    P: Any,
) -> int:
    """Writes lines until a reason to stop; returns it. Records are taken in order of (time, CPU, sequence) below S[CUT].

    `where` holds the mirror's geometry: file entries per CPU, task entries per CPU, byte offsets of tasks and sessions,
    ring mask. `C` per CPU: position, head, expected sequence. `G` rows of gaps: CPU, first, last missing, time. `N` and `P`:
    what is noted for `fastframe.seal`, where the log is compressed.
    """
    mask = where[4]
    while True:
        c, next_ts, next_cpu = choose(S, C, R, mask)
        if c < 0:
            return DONE if S[LIMIT_TS] >= S[CUT] else LIMIT
        S[CPU] = c
        while C[c, POS] < C[c, HEAD]:
            w = (C[c, POS] & mask) >> 3
            ts, word0 = cell(R, c, w + 1), cell(R, c, w)
            if ts >= S[CUT] or ts > next_ts or (ts == next_ts and next_cpu < c):
                break
            if behind_limit(S, c, ts, sequence(C, c, EXPECTED, cell(R, c, w + SEQ_GENERATION)), word0 & 0xFFFF < 16):
                return LIMIT
            if S[OUT] + LINE_ROOM > out.shape[0] or J[0] + 4096 > J8.shape[0] or S[GAPS] >= G.shape[0]:
                return FULL
            if word0 >> 16 & 0xFFFF == 0:  # no record has no length: what follows cannot be found
                return SLOW
            reason = step(S, C, G, R, R8, M, M8, J, J8, where, c, w, ops, index, lit, tab, flags, second, out, N, P)
            if reason != DONE:
                return reason
            C[c, POS] += (word0 >> 16 & 0xFFFF) << 3


run_noted = ahead.compiled(run, "run_noted")
run = ahead.compiled(run)
