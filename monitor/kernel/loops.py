"""Makes the loops of a program ones that the verifier accepts, or accepts sooner: jumps back, may_goto.

Owns these two rewritings of instructions; never loads a program.
"""

from __future__ import annotations

import struct

_INSN = struct.Struct("<BBhi")
_WIDE, _CALL, _EXIT, _GOTO = 0x18, 0x85, 0x95, 0x05
_JUMP_CLASSES = (0x05, 0x06)
_MAY_GOTO, _MAY_STOP = 0xE5, 0x7FFF0007
_SETS, _MOVES, _LOADS = (0xB7, 0xB4), (0xBF, 0xBC), (0x61, 0x69, 0x71, 0x79)
_IF_ZERO, _IF_NOT_ZERO = 0x15, 0x55
_UNSEEN, _ON_PATH, _DONE = range(3)


def _successors(code: list[tuple[int, int]], at: int) -> tuple[int, ...]:
    """Where the instruction `at` may lead, the step to the next one first, as the verifier walks."""
    opcode, offset = code[at]
    if opcode == _EXIT:
        return ()
    if opcode == _GOTO:
        return (at + 1 + offset,)
    if _is_branch(opcode):
        return at + 1, at + 1 + offset
    return (at + (2 if opcode == _WIDE else 1),)


def _is_branch(opcode: int) -> bool:
    return opcode & 7 in _JUMP_CLASSES and opcode not in (_CALL, _EXIT)


def _steps_back(code: list[tuple[int, int]]) -> list[int]:
    """The last (or only) unit of each instruction that closes a loop by stepping to its head, in order."""
    state, found = bytearray(len(code)), []
    path = [(0, iter(_successors(code, 0)))]
    state[0] = _ON_PATH
    while path:
        at, rest = path[-1]
        target = next(rest, None)
        if target is None:
            state[at] = _DONE
            path.pop()
        elif state[target] == _ON_PATH:
            if not _is_branch(code[at][0]):
                found.append(at + (code[at][0] == _WIDE))
        elif state[target] == _UNSEEN:
            state[target] = _ON_PATH
            path.append((target, iter(_successors(code, target))))
    return sorted(found)


def with_jumps_back(insns: bytes) -> bytes:
    """The program with `goto +0` where a loop is closed by stepping to its head.

    Compilers put a loop's test behind its body and jump to the test first. Before Linux v6.8 (commit 10e14e9652bf, "bpf:
    fix control-flow graph checking in privileged mode") the verifier called the step from body to test an endless loop
    ("back-edge from insn N to N+1"), while a jump there was fine. A `goto +0` costs nothing: the verifier takes it out.

    `insns` is whole instructions of 8 bytes without calls of subprograms. Raises ValueError if an offset leaves 16 bits.
    """
    units = [_INSN.unpack_from(insns, at) for at in range(0, len(insns), _INSN.size)]
    code = [(opcode, offset) for opcode, _registers, offset, _immediate in units]
    behind = set(_steps_back(code))
    if not behind:
        return insns
    place, added = [], 0
    for at in range(len(units) + 1):
        place.append(at + added)
        added += at in behind
    made = bytearray()
    for at, (opcode, registers, offset, immediate) in enumerate(units):
        if _is_branch(opcode):
            offset = place[at + 1 + offset] - place[at] - 1
            if not -(1 << 15) <= offset < 1 << 15:
                raise ValueError(f"the jump of instruction {at} would be {offset} instructions long")
        made += _INSN.pack(opcode, registers, offset, immediate)
        if at in behind:
            made += _INSN.pack(_GOTO, 0, 0, 0)
    return bytes(made)


def _moves_beside(opcode: int, registers: int) -> bool:
    """A move or load that neither writes nor reads r0."""
    if opcode in _SETS:
        return registers != 0
    return opcode in _MOVES + _LOADS and registers & 15 != 0 and registers >> 4 != 0


def with_may_goto(insns: bytes) -> bytes:
    """The program with may_goto for each marked call `may_stop` (bpf/common.h) and the test of its answer.

    may_goto (Linux v6.9, commit 011832b97b31) leaves the loop once a budget is spent that no loop here comes near, and
    the verifier stops walking the loop when a turn shows nothing new. What the compiler put between call and test moves
    before them. Raises ValueError if that is more than moves and loads, or no test of r0 follows.
    """
    made, size = bytearray(insns), _INSN.size
    for at in range(0, len(made), size):
        opcode, _registers, _offset, immediate = _INSN.unpack_from(made, at)
        if (opcode, immediate) != (_CALL, _MAY_STOP):
            continue
        behind = at + size
        while _moves_beside(made[behind], made[behind + 1]):
            behind += size
        test, registers, offset, against = _INSN.unpack_from(made, behind)
        if test not in (_IF_ZERO, _IF_NOT_ZERO) or registers or against:
            raise ValueError(f"instruction {at // size} is may_stop, and no test of its answer follows")
        made[at : behind - size] = made[at + size : behind]
        stop, go_on = (offset + 1, 0) if test == _IF_NOT_ZERO else (1, offset)
        _INSN.pack_into(made, behind - size, _MAY_GOTO, 0, stop, 0)
        _INSN.pack_into(made, behind, _GOTO, 0, go_on, 0)
    return bytes(made)
