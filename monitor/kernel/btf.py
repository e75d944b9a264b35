"""Owns the reading of BPF type format (BTF): where a member lies, what a type's number is, what an enumerator means.

It never calls the kernel and never compares kernel versions: what it says comes from the given bytes alone.
"""

from __future__ import annotations

import os
import struct
from array import array
from pathlib import Path
from typing import Final, NamedTuple

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

# Kinds, Linux Documentation/bpf/btf.rst, "Type Encoding".
INT: Final = 1
PTR: Final = 2
ARRAY: Final = 3
STRUCT: Final = 4
UNION: Final = 5
ENUM: Final = 6
FWD: Final = 7
TYPEDEF: Final = 8
VOLATILE: Final = 9
CONST: Final = 10
RESTRICT: Final = 11
FUNC: Final = 12
FUNC_PROTO: Final = 13
VAR: Final = 14
DATASEC: Final = 15
FLOAT: Final = 16
DECL_TAG: Final = 17
TYPE_TAG: Final = 18
ENUM64: Final = 19

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_VLEN_AND_KIND: Final = 0x1F00FFFF  # the bits of btf_type.info that decide how long a type is
_COMMON: Final = 3  # words of struct btf_type: name_off, info, size_or_type

# Words behind struct btf_type: a fixed number of each kind, and so many for each of the vlen entries.
_FIXED: Final = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_EACH: Final = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
_TRANSPARENT: Final = frozenset((TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG))
_SIZED: Final = frozenset((INT, STRUCT, UNION, ENUM, ENUM64, FLOAT, DATASEC))
_COMPOSITE: Final = (STRUCT, UNION, TYPEDEF)
_MAX_DEPTH: Final = 64  # typedefs in a row, or anonymous members in each other; real BTF stays below ten


class BtfError(ValueError):
    """BTF that cannot be read, or a question it has no answer to.

    `byte` is the offset in the BTF of what is wrong, None where no single byte is.
    """

    def __init__(self, message: str, byte: int | None = None, source: str = "BTF") -> None:
        self.byte = byte
        super().__init__(f"{source}: {message}" if byte is None else f"{source}: byte {byte}: {message}")


class BitField(NamedTuple):
    """Where a member's bits are: little endian value >> `bit` of the bytes from `byte`, `bits` of them."""

    byte: int
    bit: int
    bits: int


class _Member(NamedTuple):
    bit_offset: int
    type_id: int
    bits: int  # 0: not a bit-field
    referrer: int  # the word that names the type


class _Steps(dict[int, int]):
    """Words of a whole type by the bits of its info word; filled as combinations are met."""

    def __missing__(self, info: int) -> int:
        kind = info >> 24
        if not INT <= kind <= ENUM64:
            raise KeyError(kind)
        words = _COMMON + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
        self[info] = words
        return words


class Btf:
    """BTF of a kernel, little endian, without a base (module BTF is not read).

    One pass notes name, kind and place of each type; everything else is decoded when it is asked for. Names are C
    names; where two types of a kind share one, the first counts, as in the kernel's own look-up.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes = VMLINUX) -> None:
        """Read `source`: a file, or the bytes themselves.

        Raises BtfError for anything that is not whole, well-formed BTF, and OSError if the file cannot be read.
        """
        if isinstance(source, bytes):
            self._source, raw = "BTF", source
        else:
            self._source = os.fspath(source)
            raw = Path(source).read_bytes()
        self._words, self._strings = self._sections(raw)
        self._positions, self._keys = self._scan()
        self._first: dict[int, int] | None = None
        self._named: dict[str, tuple[int, ...]] = {}
        self._members: dict[tuple[int, str], _Member | None] = {}

    # -- public questions ---------------------------------------------------------------------------------------------

    def offset(self, struct_name: str, path: str) -> int | None:
        """Byte offset of the member `path` ("f_path.dentry") in a struct, union or typedef of one; None if there is no
        such type or member. Members of anonymous structs and unions count as members. Pointers are not followed.

        Raises BtfError if the member is a bit-field that does not begin at a byte or fill whole ones.
        """
        found = self._find(struct_name, path)
        if found is None:
            return None
        if found.bit_offset % 8 or found.bits % 8:
            raise BtfError(f"{struct_name}.{path} is a bit-field, it has no byte offset", source=self._source)
        return found.bit_offset // 8

    def bitfield(self, struct_name: str, path: str) -> BitField | None:
        """(byte offset, bit offset in that byte, number of bits) of any member, a plain one has bit 0 and all its bits;
        None if there is no such type or member."""
        found = self._find(struct_name, path)
        if found is None:
            return None
        bits = found.bits or 8 * self._type_size(found.type_id, found.referrer)
        return BitField(found.bit_offset // 8, found.bit_offset % 8, bits)

    def size(self, struct_name: str) -> int | None:
        """Bytes of a struct, union or typedef; None if there is no such type."""
        type_id = self._composite(struct_name)
        return None if type_id is None else self._type_size(type_id, self._positions[type_id - 1])

    def type_id(self, name: str, kind: int = STRUCT) -> int | None:
        """The kernel's number of the type `name` of `kind` (a constant of this module); None if there is none."""
        if self._first is None:  # backwards, so that the first of equal names stays
            count = len(self._keys)
            self._first = dict(zip(reversed(self._keys), range(count, 0, -1), strict=True))
        for name_offset in self._name_offsets(name):
            type_id = self._first.get(name_offset << 5 | kind)
            if type_id is not None:
                return type_id
        return None

    def func_id(self, name: str) -> int | None:
        """Number of the kernel function `name`, as a kfunc call needs it; None if the kernel has no such function."""
        return self.type_id(name, FUNC)

    def typedef_id(self, name: str) -> int | None:
        """Number of the typedef `name`; `btf_trace_<tracepoint>` is what a tp_btf program is loaded against."""
        return self.type_id(name, TYPEDEF)

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments the tracepoint `name` has (TP_PROTO); 0 when this kernel has no such tracepoint."""
        type_id = self.typedef_id("btf_trace_" + name)
        if type_id is None:
            return 0
        _, pointer, _ = self._resolve(type_id, 0)
        _, function, _ = self._resolve(self._words[pointer + 2], pointer + 2)
        return max(0, (self._words[function + 1] & 0xFFFF) - 1)  # vlen, less the tracepoint's own first parameter

    def enum_value(self, enum_name: str | None, value_name: str) -> int | None:
        """Value of the enumerator `value_name` of the enum `enum_name` (None: of any enum); None if there is none.

        32-bit values are signed where the enum says so (kind_flag, Linux 6.0); older kernels wrote all as unsigned.
        """
        wanted = frozenset(self._name_offsets(value_name))
        if not wanted:
            return None
        if enum_name is None:
            type_ids = [number for number, key in enumerate(self._keys, 1) if key & 31 in (ENUM, ENUM64)]
        else:
            found = (self.type_id(enum_name, kind) for kind in (ENUM, ENUM64))
            type_ids = [number for number in found if number is not None]
        for type_id in type_ids:
            value = self._enumerator(type_id, wanted)
            if value is not None:
                return value
        return None

    # -- reading ------------------------------------------------------------------------------------------------------

    def _error(self, message: str, byte: int) -> BtfError:
        return BtfError(message, byte, self._source)

    def _sections(self, raw: bytes) -> tuple[array[int], bytes]:
        """The type section as 32-bit words and the string section."""
        if len(raw) < _HEADER.size:
            raise self._error(f"the header needs {_HEADER.size} bytes, here are {len(raw)}", len(raw))
        magic, version, _flags, header, *sections = _HEADER.unpack_from(raw)
        type_offset, type_length, string_offset, string_length = sections
        if magic != _MAGIC:
            raise self._error(f"magic number {magic:#06x} is not {_MAGIC:#06x}", 0)
        if version != 1:
            raise self._error(f"version {version} is not known, only 1", 2)
        if not _HEADER.size <= header <= len(raw):
            raise self._error(f"header length {header} is not possible", 4)
        self._types_at: int = header + type_offset
        strings_at = header + string_offset
        if type_length % 4 or self._types_at + type_length > len(raw):
            raise self._error(f"type section {self._types_at}+{type_length} does not fit {len(raw)} bytes", 8)
        if strings_at + string_length > len(raw):
            raise self._error(f"string section {strings_at}+{string_length} does not fit {len(raw)} bytes", 16)
        strings = raw[strings_at : strings_at + string_length]
        if not strings or strings[0]:
            raise self._error("the string section does not begin with the empty string", strings_at)
        if strings[-1]:
            raise self._error("the string section does not end with a NUL", strings_at + string_length - 1)
        words = array("I")
        words.frombytes(raw[self._types_at : self._types_at + type_length])
        if struct.pack("=H", 1) != struct.pack("<H", 1):
            words.byteswap()
        return words, strings

    def _scan(self) -> tuple[list[int], list[int]]:
        """Word position of each type, and its name offset << 5 | kind; index 0 is type 1 (0 is void)."""
        words, end = self._words, len(self._words)
        positions: list[int] = []
        keys: list[int] = []
        note_position, note_key, steps = positions.append, keys.append, _Steps()
        position = 0
        try:
            while position < end:
                information = words[position + 1]
                step = steps[information & _VLEN_AND_KIND]
                note_position(position)
                note_key(words[position] << 5 | (information >> 24 & 31))
                position += step
        except KeyError as unknown:
            raise self._error(f"kind {unknown.args[0]} is not known", self._byte(position + 1)) from None
        except IndexError:
            raise self._error("a type is cut off by the end of its section", self._byte(position)) from None
        if position != end:
            raise self._error("a type is cut off by the end of its section", self._byte(positions[-1]))
        if keys and max(keys) >> 5 >= len(self._strings):
            worst = positions[keys.index(max(keys))]
            raise self._error("a type's name is outside the string section", self._byte(worst))
        return positions, keys

    def _byte(self, word: int) -> int:
        return self._types_at + 4 * word

    def _name_offsets(self, name: str) -> tuple[int, ...]:
        """All places in the string section where `name` and a NUL stand; writers may share the ends of strings."""
        known = self._named.get(name)
        if known is not None:
            return known
        needle, places, at = name.encode() + b"\0", [], -1
        while name and (at := self._strings.find(needle, at + 1)) >= 0:
            places.append(at)
        self._named[name] = tuple(places)
        return self._named[name]

    def _at(self, type_id: int, referrer: int) -> tuple[int, int]:
        """(word position, kind) of a type; `referrer` is the word that names it."""
        if not 1 <= type_id <= len(self._positions):
            raise self._error(f"type {type_id} does not exist", self._byte(referrer))
        return self._positions[type_id - 1], self._keys[type_id - 1] & 31

    def _resolve(self, type_id: int, referrer: int) -> tuple[int, int, int]:
        """(type, word position, kind) behind typedefs, qualifiers and tags; (0, referrer, 0) for void."""
        for _ in range(_MAX_DEPTH):
            if type_id == 0:
                return 0, referrer, 0
            position, kind = self._at(type_id, referrer)
            if kind not in _TRANSPARENT:
                return type_id, position, kind
            referrer = position + 2
            type_id = self._words[referrer]
        raise self._error("a type refers to itself", self._byte(referrer))

    def _composite(self, name: str) -> int | None:
        for kind in _COMPOSITE:
            type_id = self.type_id(name, kind)
            if type_id is not None:
                return type_id
        return None

    def _type_size(self, type_id: int, referrer: int) -> int:
        elements = 1
        for _ in range(_MAX_DEPTH):
            type_id, position, kind = self._resolve(type_id, referrer)
            if kind == ARRAY:
                elements *= self._words[position + 5]
                referrer = position + 3
                type_id = self._words[referrer]
            elif kind == PTR:
                return elements * 8
            elif kind in _SIZED:
                return elements * self._words[position + 2]
            else:
                raise self._error(f"a type of kind {kind} has no size", self._byte(position))
        raise self._error("an array refers to itself", self._byte(referrer))

    # -- members ------------------------------------------------------------------------------------------------------

    def _find(self, struct_name: str, path: str) -> _Member | None:
        type_id = self._composite(struct_name)
        if type_id is None:
            return None
        found = _Member(0, type_id, 0, self._positions[type_id - 1])
        for name in path.split("."):
            inner, _position, kind = self._resolve(found.type_id, found.referrer)
            if kind not in (STRUCT, UNION):
                return None
            member = self._member(inner, name)
            if member is None:
                return None
            found = member._replace(bit_offset=found.bit_offset + member.bit_offset)
        return found

    def _member(self, type_id: int, name: str) -> _Member | None:
        key = (type_id, name)
        if key not in self._members:
            self._members[key] = self._search_member(type_id, name.encode() + b"\0", 0) if name else None
        return self._members[key]

    def _search_member(self, type_id: int, wanted: bytes, depth: int) -> _Member | None:
        """The member named `wanted` (with its NUL), in declaration order, anonymous members searched in place."""
        position = self._positions[type_id - 1]
        words, strings = self._words, self._strings
        flagged = words[position + 1] >> 31
        first = position + _COMMON
        if depth > _MAX_DEPTH:
            raise self._error("an anonymous member contains itself", self._byte(position))
        for at in range(first, first + 3 * (words[position + 1] & 0xFFFF), 3):
            name_offset, placed = words[at], words[at + 2]
            offset, bits = (placed & 0xFFFFFF, placed >> 24) if flagged else (placed, 0)
            if strings.startswith(wanted, name_offset):
                return self._plain_bitfield(_Member(offset, words[at + 1], bits, at + 1), bool(flagged))
            if strings.startswith(b"\0", name_offset):
                inner, _position, kind = self._resolve(words[at + 1], at + 1)
                if kind in (STRUCT, UNION):
                    found = self._search_member(inner, wanted, depth + 1)
                    if found is not None:
                        return found._replace(bit_offset=offset + found.bit_offset)
            elif name_offset >= len(strings):
                raise self._error("a member's name is outside the string section", self._byte(at))
        return None

    def _plain_bitfield(self, member: _Member, flagged: bool) -> _Member:
        """Without kind_flag a bit-field's width and shift are in its integer type (BTF_INT_BITS, BTF_INT_OFFSET)."""
        if flagged:
            return member
        _type_id, position, kind = self._resolve(member.type_id, member.referrer)
        if kind != INT:
            return member
        encoding = self._words[position + _COMMON]
        bits, shift = encoding & 0xFF, encoding >> 16 & 0xFF
        if bits == 8 * self._words[position + 2] and not shift:
            return member
        return member._replace(bit_offset=member.bit_offset + shift, bits=bits)

    def _enumerator(self, type_id: int, wanted: frozenset[int]) -> int | None:
        position, kind = self._positions[type_id - 1], self._keys[type_id - 1] & 31
        words, width = self._words, 3 if kind == ENUM64 else 2
        signed, count = words[position + 1] >> 31, words[position + 1] & 0xFFFF
        first = position + _COMMON
        for at in range(first, first + width * count, width):
            if words[at] in wanted:
                value = words[at + 1] | (words[at + 2] << 32 if kind == ENUM64 else 0)
                top = 1 << (63 if kind == ENUM64 else 31)
                return value - 2 * top if signed and value & top else value
        return None
