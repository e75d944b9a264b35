"""Derives from the catalogue everything that must agree with it: the C header, mapping, reference pages and samples.

Owns the texts of generated files and the check that the checked-in ones are not stale; never edits anything by hand.
"""

from __future__ import annotations

from monitor import events
from monitor.model import Layout

WARNING = "generated from monitor/events.py by `make gen`; do not edit"


def _c_struct(layout: Layout) -> str:
    lines = [f"struct {layout.name} {{"]
    for member in layout.fields:
        array = f"[{member.count}]" if "[" in member.ctype else ""
        comment = f"  /* {member.doc} */" if member.doc else ""
        lines.append(f"  {member.base} {member.name}{array};{comment}")
    lines.append("};")
    lines.append(f'_Static_assert(sizeof(struct {layout.name}) == {layout.size}, "{layout.name}");')
    lines += [
        f'_Static_assert(__builtin_offsetof(struct {layout.name}, {name}) == {offset}, "{layout.name}.{name}");'
        for name, offset in layout.offsets().items()
    ]
    return "\n".join(lines)


def c_header() -> str:
    """`bpf/generated/events.h`: structs with static asserts, ids and flags."""
    parts = [f"/* {WARNING} */"]
    parts += [_c_struct(layout) for layout in events.LAYOUTS]
    parts += [_c_struct(events.bulk_layout(event)) for event in events.EVENTS if event.lane == "bulk"]
    names = {"DEF_TASK": events.DEF_TASK, "DEF_FILE": events.DEF_FILE, "DEF_SOCKET": events.DEF_SOCKET, "DEF_SESSION": events.DEF_SESSION}
    names |= {event.name.upper(): event.id for event in events.EVENTS if event.lane != "made"}
    names |= {f"KF_{name}": value for name, value in events.KF.items()}
    names |= {f"FILE_{name}": value for name, value in events.FILE_FLAGS.items()}
    names |= {f"BLOB_{blob.name.upper()}": blob.kind for blob in events.BLOBS}
    parts.append("\n".join(f"#define {name} {value}" for name, value in names.items()))
    return "\n\n".join(parts) + "\n"
