"""monitor/kernel/loops.py: loops get a jump back or a may_goto, programs stay the same otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.kernel.loops import with_jumps_back, with_may_goto

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


MAY_GOTO, JEQ, JNE, LDX, STOP = 0xE5, 0x15, 0x55, 0x79, (CALL, 0, 0, 0x7FFF0007)


def test_a_marked_call_and_its_test_become_may_goto() -> None:
    code = program((MOV, 1, 0, 0), STOP, (JNE, 0, 2, 0), (ADD, 0, 0, 7), (GOTO, 0, -4, 0), (EXIT, 0, 0, 0))
    assert units(with_may_goto(code)) == [
        (MOV, 1, 0, 0), (MAY_GOTO, 0, 3, 0), (GOTO, 0, 0, 0), (ADD, 0, 0, 7), (GOTO, 0, -4, 0), (EXIT, 0, 0, 0),
    ]  # fmt: skip


def test_the_opposite_test_goes_on_by_its_jump() -> None:
    code = program(STOP, (JEQ, 0, 1, 0), (EXIT, 0, 0, 0), (GOTO, 0, -4, 0))
    assert units(with_may_goto(code)) == [(MAY_GOTO, 0, 1, 0), (GOTO, 0, 1, 0), (EXIT, 0, 0, 0), (GOTO, 0, -4, 0)]


def test_what_the_compiler_put_between_moves_before_them() -> None:
    code = program(STOP, (MOV, 2, 0, 4), (LDX, 0xA1, -16, 0), (JNE, 0, -4, 0), (EXIT, 0, 0, 0))
    assert units(with_may_goto(code)) == [
        (MOV, 2, 0, 4), (LDX, 0xA1, -16, 0), (MAY_GOTO, 0, -3, 0), (GOTO, 0, 0, 0), (EXIT, 0, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "between", [(MOV, 0, 0, 0), (LDX, 0xA0, 0, 0), (LDX, 0x01, 0, 0), (ADD, 1, 0, 1), (JLT, 1, 0, 5)]
)
def test_anything_else_between_is_refused(between: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="instruction 0 is may_stop"):
        with_may_goto(program(STOP, between, (JNE, 0, -3, 0), (EXIT, 0, 0, 0)))


def test_a_program_without_the_mark_stays_as_it_is() -> None:
    assert with_may_goto(BODY_FIRST) == BODY_FIRST
