"""monitor/kernel/loops.py: loops get a jump back, programs stay the same otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.kernel.loops import with_jumps_back

MOV, ADD, GOTO, JLT, CALL, EXIT, WIDE = 0xB7, 0x07, 0x05, 0xA5, 0x85, 0x95, 0x18


def program(*units: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<BBhi", *unit) for unit in units)


def units(code: bytes) -> list[tuple[int, int, int, int]]:
    return [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]  # type: ignore[misc]


def run(code: bytes) -> tuple[int, list[int]]:
    """r0 and the immediates of all `add`s in the order in which they ran: r0 += imm, r1 counts."""
    made, registers, at, seen = units(code), [0] * 11, 0, []
    for _step in range(10_000):
        opcode, register, offset, immediate = made[at]
        target = register & 15
        at += 1
        if opcode == EXIT:
            return registers[0], seen
        if opcode == WIDE:
            registers[target] = immediate
            at += 1
        elif opcode == MOV:
            registers[target] = immediate
        elif opcode == ADD:
            registers[target] += immediate
            seen.append(immediate)
        elif opcode == GOTO or (opcode == JLT and registers[target] < immediate):
            at += offset
    raise AssertionError("does not end")


def steps_back(code: bytes) -> list[int]:
    """Instructions that step onto an instruction the walk from the start is just in: what old verifiers refuse."""
    made, found = units(code), []

    def walk(at: int, path: tuple[int, ...], done: set[int]) -> None:
        opcode, _register, offset, _immediate = made[at]
        follow = {EXIT: [], GOTO: [at + 1 + offset], JLT: [at + 1, at + 1 + offset], WIDE: [at + 2]}.get(
            opcode, [at + 1]
        )
        for target in follow:
            if target in (*path, at):
                if opcode not in (GOTO, JLT):
                    found.append(at)
            elif target not in done:
                walk(target, (*path, at), done)
        done.add(at)

    walk(0, (), set())
    return found


BODY_FIRST = program(
    (MOV, 0, 0, 0), (MOV, 1, 0, 0), (GOTO, 0, 2, 0),  # jump to the test, over the body
    (ADD, 0, 0, 7), (ADD, 1, 0, 1),
    (JLT, 1, -3, 5), (EXIT, 0, 0, 0),
)  # fmt: skip


def test_a_step_back_to_the_test_becomes_a_jump() -> None:
    assert steps_back(BODY_FIRST) == [4]
    made = with_jumps_back(BODY_FIRST)
    assert steps_back(made) == []
    assert len(made) == len(BODY_FIRST) + 8
    assert run(made) == run(BODY_FIRST) == (35, [7, 1] * 5)


def test_a_wide_instruction_is_not_split() -> None:
    code = program(
        (MOV, 1, 0, 0), (GOTO, 0, 3, 0), (ADD, 1, 0, 1), (WIDE, 0, 0, 9), (0, 0, 0, 0), (JLT, 1, -4, 3), (EXIT, 0, 0, 0)
    )
    made = with_jumps_back(code)
    assert steps_back(code) == [3]
    assert steps_back(made) == []
    assert run(made) == run(code)


def test_a_program_without_such_a_loop_is_left_alone() -> None:
    code = program((MOV, 0, 0, 0), (ADD, 0, 0, 1), (JLT, 0, -2, 5), (EXIT, 0, 0, 0))
    assert with_jumps_back(code) is code


def test_a_jump_that_grows_too_long_is_refused() -> None:
    filler = [(ADD, 2, 0, 1)] * 32_763
    code = program(
        (JLT, 3, 32_767, -1), (MOV, 1, 0, 0), (GOTO, 0, 1, 0), (ADD, 1, 0, 1), (JLT, 1, -2, 5), *filler, (EXIT, 0, 0, 0)
    )
    with pytest.raises(ValueError, match="the jump of instruction 0 would be 32768 instructions long"):
        with_jumps_back(code)


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 4)), max_size=6))
def test_any_row_of_loops_does_the_same_afterwards(loops: list[tuple[int, bool, int]]) -> None:
    rows: list[tuple[int, int, int, int]] = [(MOV, 0, 0, 0)]
    for register, (length, body_first, times) in enumerate(loops, 1):
        body = [(ADD, 0, 0, register)] * length + [(ADD, register, 0, 1)]
        rows.append((MOV, register, 0, 0))
        if body_first:
            rows += [(GOTO, 0, len(body), 0), *body, (JLT, register, -len(body) - 1, times)]
        else:
            rows += [*body, (JLT, register, -len(body) - 1, times)]
    code = program(*rows, (EXIT, 0, 0, 0))
    made = with_jumps_back(code)
    assert steps_back(made) == []
    assert run(made) == run(code)
