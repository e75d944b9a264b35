"""The types of the catalogue: what a field, a blob and an event are.

Owns only types and the layout rules that C and Python share; never does input or output and knows no event by name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

SCHEMA = 1
"""Version of the document format (`ebpf.schema`)."""

Lane = Literal["control", "bulk", "made"]
When = Literal["always", "success", "failure"]

SCALARS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s16": "h", "s32": "i", "s64": "q"}


@dataclass(frozen=True)
class Field:
    """One fixed-size member of an event's record and the place of its value in the document.

    `ctype` is a key of SCALARS or "u8[n]"; `path` is the ECS path, "" for a member that is not shown; `es` the Elasticsearch
    type; `form` the name of the rendering rule in `monitor.encode`; `when` says for which outcome the field is shown.
    """

    name: str
    ctype: str
    path: str = ""
    es: str = "long"
    doc: str = ""
    form: str = "int"
    when: When = "always"

    @property
    def count(self) -> int:
        """Number of array elements; 1 for a scalar."""
        return int(self.ctype[:-1].split("[")[1]) if "[" in self.ctype else 1

    @property
    def base(self) -> str:
        """The scalar type's name."""
        return self.ctype.split("[")[0]

    @property
    def align(self) -> int:
        """Alignment in bytes, as in C."""
        return struct.calcsize(SCALARS[self.base])

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.align * self.count

    @property
    def code(self) -> str:
        """The member's `struct` format code."""
        return f"{self.count}s" if "[" in self.ctype else SCALARS[self.base]


@dataclass(frozen=True)
class Blob:
    """One variable-size part of a control record: kind (u16), length (u16), bytes, padded to 8."""

    name: str
    kind: int
    path: str
    es: str
    doc: str


@dataclass(frozen=True)
class Shown:
    """A document field that is not one member's value: derived, enriched or made by the monitor."""

    path: str
    es: str
    doc: str


@dataclass(frozen=True)
class Layout:
    """A C struct: members with offsets, no implicit padding. `size` is a multiple of 8."""

    name: str
    fields: tuple[Field, ...]

    def offsets(self) -> dict[str, int]:
        """Offset in bytes of each member. Raises ValueError where C would pad: the catalogue must say it."""
        at, found = 0, {}
        for member in self.fields:
            if at % member.align:
                raise ValueError(f"{self.name}.{member.name}: offset {at} is not aligned to {member.align}")
            found[member.name] = at
            at += member.size
        return found

    @cached_property
    def size(self) -> int:
        """Size in bytes."""
        total = sum(member.size for member in self.fields)
        if total % 8:
            raise ValueError(f"{self.name}: size {total} is not a multiple of 8")
        return total

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The members' names in order."""
        return tuple(member.name for member in self.fields)

    @cached_property
    def struct(self) -> struct.Struct:
        """The little-endian `struct.Struct` of all members in order."""
        return struct.Struct("<" + "".join(member.code for member in self.fields))

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> dict[str, int | bytes]:
        """Member values by name. Raises struct.error when `data` is too short."""
        return dict(zip(self.names, self.struct.unpack_from(data, offset), strict=True))


@dataclass(frozen=True)
class EventType:
    """One kind of event: the single declaration from which everything about it is derived.

    `lane` says which way it leaves the kernel ("made": the monitor makes it itself). `fields` follow the lane's common
    header in the C struct. `blobs` name the variable parts of a control record. `shown` are further document fields.
    `action` is Elastic's word; `types` the ECS event.type of a successful act. `syscalls` feed it.
    """

    id: int
    name: str
    lane: Lane
    doc: str
    category: str
    types: tuple[str, ...]
    action: str
    probe: str = ""
    syscalls: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    blobs: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()
    object: Literal["", "file", "socket"] = ""
    edge: str = ""
    trigger: str = ""
    profiles: tuple[str, ...] = ("minimal", "standard", "full", "trace")
    failure_types: tuple[str, ...] = field(default=("info",))

    @property
    def dataset(self) -> str:
        """`event.dataset`: the family's name under the module's."""
        return "ebpf_monitor." + self.name.split("_", 1)[0]
