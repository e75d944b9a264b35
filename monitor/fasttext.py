"""Text primitives of the compiled pass: numbers, times, flags and paths written into byte arrays.

Owns the writing of single values; knows no record and no document. With NUMBA_DISABLE_JIT=1 the same code runs as Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from monitor.ahead import PLAIN, njit

if PLAIN:

    def memcpy(dst: Any, to: int, src: Any, start: int, count: int) -> None:
        """Copies `count` bytes between uint8 arrays."""
        dst[to : to + count] = src[start : start + count]

    def copy16(dst: Any, to: int, src: Any, start: int) -> None:
        """Copies 16 bytes between uint8 arrays."""
        dst[to : to + 16] = src[start : start + 16]

    def put8(dst: Any, to: int, value: int) -> None:
        """Stores 8 bytes, the lowest first, into a uint8 array."""
        dst[to : to + 8] = tuple(int(value).to_bytes(8, "little"))

    def load8(array: Any, at: int) -> int:
        """8 bytes of a uint8 array as a signed number, the lowest first."""
        return int.from_bytes(array[at : at + 8].tobytes(), "little", signed=True)

    def differ64(array: Any, at: int, other: int) -> int:
        """Which of 64 bytes of a uint8 array are not those at another place of it: bits of a signed number, the lowest first."""
        bits = np.packbits(array[at : at + 64] != array[other : other + 64], bitorder="little")
        return int.from_bytes(bits.tobytes(), "little", signed=True)

    def zeros_below(value: int) -> int:
        """Zero bits below the lowest one of a 64-bit number that is not 0."""
        return (value & -value).bit_length() - 1

    def highest(value: int) -> int:
        """Place of the highest one of a 64-bit number that is not 0, from the lowest bit on."""
        return (value & 0xFFFFFFFFFFFFFFFF).bit_length() - 1

    def word(array: Any, at: int) -> int:
        """The word `at` of an int64 array, its rows one behind the other."""
        return int(array.reshape(-1)[at])

    def cell(array: Any, row: int, column: int) -> int:
        """One word of an int64 array with two dimensions."""
        return int(array[row, column])
else:
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    ir: Any = cgutils.ir  # type: ignore[attr-defined]  # llvmlite's, as numba has it
    # Plain loads and stores: an index of numba's may be negative and counts from the end then, which each access looks at; with
    # the rows' length read from memory each time. With that and the digits eight at a time a line takes 123 ns instead of 226.

    def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
        return context.make_array(kind)(context, builder, array)

    def _words(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
        """Where the byte `at` of a uint8 array stands, as a place of 8-byte words."""
        place = builder.gep(_data(context, builder, kind, array).data, [at])
        return builder.bitcast(place, context.get_value_type(types.int64).as_pointer())

    @intrinsic
    def memcpy(_typing: Any, dst: Any, to: Any, src: Any, start: Any, count: Any) -> Any:  # noqa: ARG001 - numba takes the names from here
        """Copies `count` bytes between uint8 arrays: 6-9 times the speed of a loop."""
        signature = types.void(dst, types.int64, src, types.int64, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            target = _data(context, builder, made.args[0], args[0])
            source = _data(context, builder, made.args[2], args[2])
            cgutils.raw_memcpy(
                builder, builder.gep(target.data, [args[1]]), builder.gep(source.data, [args[3]]), args[4], 1
            )  # type: ignore[no-untyped-call]
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def copy16(_typing: Any, dst: Any, to: Any, src: Any, start: Any) -> Any:  # noqa: ARG001
        """Copies 16 bytes between uint8 arrays, without a call."""
        signature = types.void(dst, types.int64, src, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            target = _words(context, builder, made.args[0], args[0], args[1])
            source = _words(context, builder, made.args[2], args[2], args[3])
            steps = [[context.get_constant(types.int64, half)] for half in (0, 1)]
            halves = [builder.load(builder.gep(source, step), align=1) for step in steps]
            for step, half in zip(steps, halves, strict=True):
                builder.store(half, builder.gep(target, step), align=1)
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def put8(_typing: Any, dst: Any, to: Any, value: Any) -> Any:  # noqa: ARG001
        """Stores 8 bytes, the lowest first, into a uint8 array."""
        signature = types.void(dst, types.int64, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            builder.store(args[2], _words(context, builder, made.args[0], args[0], args[1]), align=1)
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def load8(_typing: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
        """8 bytes of a uint8 array as a signed number, the lowest first."""
        signature = types.int64(array, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            return builder.load(_words(context, builder, made.args[0], args[0], args[1]), align=1)

        return signature, generate

    @intrinsic
    def differ64(_typing: Any, array: Any, at: Any, other: Any) -> Any:  # noqa: ARG001
        """Which of 64 bytes of a uint8 array are not those at another place of it: bits of a signed number, the lowest first."""
        signature = types.int64(array, types.int64, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            vector, half, whole = ir.VectorType(ir.IntType(8), 16), ir.IntType(16), ir.IntType(64)
            places = [_words(context, builder, made.args[0], args[0], place) for place in args[1:]]
            places = [builder.bitcast(place, vector.as_pointer()) for place in places]
            found = []
            for step in range(4):
                spots = (builder.gep(place, [context.get_constant(types.int64, step)]) for place in places)
                found.append(builder.icmp_unsigned("!=", *(builder.load(spot, align=1) for spot in spots)))
            some = builder.or_(builder.or_(found[0], found[1]), builder.or_(found[2], found[3]))
            before = builder.block
            with builder.if_then(builder.icmp_unsigned("!=", builder.bitcast(some, half), half(0)), likely=False):
                bits = whole(0)
                for step, one in enumerate(found):
                    part = builder.zext(builder.bitcast(one, half), whole)
                    bits = builder.or_(bits, builder.shl(part, whole(16 * step)))
                there = builder.block
            result = builder.phi(whole)
            result.add_incoming(whole(0), before)
            result.add_incoming(bits, there)
            return result

        return signature, generate

    @intrinsic
    def zeros_below(_typing: Any, value: Any) -> Any:  # noqa: ARG001
        """Zero bits below the lowest one of a 64-bit number that is not 0."""

        def generate(_context: Any, builder: Any, _made: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.IntType(1)(1))

        return types.int64(types.int64), generate

    @intrinsic
    def highest(_typing: Any, value: Any) -> Any:  # noqa: ARG001
        """Place of the highest one of a 64-bit number that is not 0, from the lowest bit on."""

        def generate(context: Any, builder: Any, _made: Any, args: Any) -> Any:
            above = builder.ctlz(args[0], ir.IntType(1)(1))
            return builder.sub(context.get_constant(types.int64, 63), above)

        return types.int64(types.int64), generate

    @intrinsic
    def word(_typing: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
        """The word `at` of an int64 array, its rows one behind the other."""
        signature = types.int64(array, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            return builder.load(builder.gep(_data(context, builder, made.args[0], args[0]).data, [args[1]]))

        return signature, generate

    @intrinsic
    def cell(_typing: Any, array: Any, row: Any, column: Any) -> Any:  # noqa: ARG001
        """One word of an int64 array with two dimensions."""
        signature = types.int64(array, types.int64, types.int64)

        def generate(context: Any, builder: Any, made: Any, args: Any) -> Any:
            found = _data(context, builder, made.args[0], args[0])
            at = builder.add(builder.mul(args[1], builder.extract_value(found.shape, 1)), args[2])
            return builder.load(builder.gep(found.data, [at]))

        return signature, generate


@njit(nogil=True, cache=True)
def digits8(value: int) -> int:
    """The 8 decimal digits of a number below 10**8, the first in the lowest byte: two halves, four quarters, eight at once."""
    half = (value * 3518437209) >> 45
    both = half | (value - half * 10000) << 32
    quarter = (both * 10486) >> 20 & 0x7F0000007F
    both = quarter + ((both - 100 * quarter) << 16)
    tens = (both * 103) >> 10 & 0x000F000F000F000F
    return tens + ((both - 10 * tens) << 8) + 0x3030303030303030


@njit(nogil=True, cache=True)
def put_few(out: Any, at: int, value: int) -> int:
    """Writes a number below 10**8 in decimal; the position behind it. Up to 7 bytes behind that are overwritten."""
    count = 1
    if value >= 10:
        count = 2 + (value >= 100) + (value >= 1000) + (value >= 10000) + (value >= 100000) + (value >= 1000000)
        count += value >= 10000000
    put8(out, at, digits8(value) >> (64 - 8 * count))
    return at + count


@njit(nogil=True, cache=True)
def put_number(out: Any, at: int, value: int) -> int:
    """Writes a signed number in decimal; the position behind it. Up to 7 bytes behind that are overwritten."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    if value < 10:
        out[at] = 48 + value
        return at + 1
    if value < 100000000:
        return put_few(out, at, value)
    high = value // 100000000
    low = value - high * 100000000
    if high < 100000000:
        at = put_few(out, at, high)
    else:
        top = high // 100000000
        at = put_few(out, at, top)
        put8(out, at, digits8(high - top * 100000000))
        at += 8
    put8(out, at, digits8(low))
    return at + 8


@njit(nogil=True, cache=True)
def put_nine(out: Any, at: int, value: int) -> int:
    """Writes a number below 10**9 with nine digits."""
    first = value // 100000000
    out[at] = 48 + first
    put8(out, at + 1, digits8(value - first * 100000000))
    return at + 9


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
def hex8(value: int) -> int:
    """The 8 hexadecimal digits of a number below 2**32, the first in the lowest byte."""
    spread = value >> 16 & 0xFFFF | (value & 0xFFFF) << 32
    spread = spread >> 8 & 0x000000FF000000FF | (spread & 0x000000FF000000FF) << 16
    spread = spread >> 4 & 0x000F000F000F000F | (spread & 0x000F000F000F000F) << 8
    letters = (spread + 0x0606060606060606) >> 4 & 0x0101010101010101
    return spread + 0x3030303030303030 + letters * 39


@njit(nogil=True, cache=True)
def put_hex12(out: Any, at: int, value: int) -> int:
    """Writes 12 hexadecimal digits."""
    put8(out, at, hex8(value >> 32) >> 32)
    put8(out, at + 4, hex8(value & 0xFFFFFFFF))
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
def put_text(out: Any, at: int, text: Any) -> int:
    """Writes a whole array; the position behind it."""
    memcpy(out, at, text, 0, len(text))
    return at + len(text)


@njit(nogil=True, cache=True)
def put_path(out: Any, at: int, data: Any, start: int, count: int) -> int:
    """Writes the path that names (leaf first, each with its NUL) spell; the position behind it."""
    end = start + count - 1
    while end >= start:
        first = end
        while first > start and data[first - 1] != 0:
            first -= 1
        out[at] = 47
        memcpy(out, at + 1, data, first, end - first)
        at += 1 + end - first
        end = first - 1
    return at
