"""Derives from the catalogue everything that must agree with it: the C header, mapping, reference pages and samples.

Owns the texts of generated files and the check that the checked-in ones are not stale; never edits anything by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monitor import config, coverage, events
from monitor.config_keys import EsConfig
from monitor.model import SCHEMA, EventType, Field, Layout, Shown

WARNING = "generated from monitor/events/ by `make gen`; do not edit"
ROOT = Path(__file__).resolve().parent.parent
"""The checkout; an installed package has no generated files beside it."""
GOLDENS = ROOT / "tests" / "goldens"

_PATH_LIMIT, _ARGS_LIMIT, _TEXT_LIMIT = 4096, 8191, 1024  # characters; 8191 of 4 bytes are Lucene's longest term
_LONG = ("process.args", "process.command_line")
_PATHS = ("path", "executable", "working_directory", "peer_path")

# ---- the C header ----------------------------------------------------------------------------------------------------


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
    names = {
        "DEF_TASK": events.DEF_TASK,
        "DEF_FILE": events.DEF_FILE,
        "DEF_SOCKET": events.DEF_SOCKET,
        "DEF_SESSION": events.DEF_SESSION,
    }
    names |= {event.name.upper(): event.id for event in events.EVENTS if event.lane != "made" or event.blobs}
    names |= {f"KF_{name}": value for name, value in events.KF.items()}
    names |= {f"FILE_{name}": value for name, value in events.FILE_FLAGS.items()}
    names |= {f"BLOB_{blob.name.upper()}": blob.kind for blob in events.BLOBS}
    parts.append("\n".join(f"#define {name} {value}" for name, value in names.items()))
    return "\n\n".join(parts) + "\n"


# ---- the fields of documents -----------------------------------------------------------------------------------------


def _members(fields: Iterable[Field]) -> tuple[Shown, ...]:
    return tuple(Shown(member.path, member.es, member.doc) for member in fields if member.path)


def groups(kind: EventType) -> dict[str, tuple[Shown, ...]]:
    """The document fields that this event can carry, by what they are about; "own" are the event's own."""
    if kind.lane == "made" and not kind.blobs:
        return {"every document": events.COMMON, "own": kind.shown}
    control = kind.lane != "bulk"
    record = (events.CONTROL if control else events.BULK).fields
    shared = {member.name for member in events.TASK.fields}
    shared |= {"ts", "cpu", "ino", "dev", "mode"}  # events.COMMON, KERNEL_SHOWN and FILE_SHOWN have them
    lane = _members(member for member in record if member.name not in shared)
    task = _members(member for member in events.TASK.fields if control or not member.path.startswith("ebpf.login."))
    if control and kind.object != "socket":
        lane = tuple(shown for shown in lane if shown.path != "ebpf.fd")
    found = {
        "every document": events.COMMON,
        "kernel events": (*lane, *events.KERNEL_SHOWN),
        "process": (*task, *events.TASK_SHOWN),
    }
    if kind.object == "socket":
        found["socket"] = events.SOCKET_SHOWN
    elif kind.object == "file":
        claims_only = control and kind.name != "process_exec"
        found["file"] = events.CLAIM_SHOWN if claims_only else events.FILE_SHOWN
    blobs = tuple(events.BLOB[name] for name in kind.blobs if name in ("directory", "args"))
    if kind.lane == "made":  # of a process, without an act
        found["kernel events"] = tuple(shown for shown in events.KERNEL_SHOWN if shown.path == "ebpf.raw")
    found["own"] = (
        *_members(kind.fields),
        *(Shown(blob.path, blob.es, blob.doc) for blob in blobs),
        *kind.shown,
        *(events.BULK_SHOWN if not control else ()),
    )
    absent = events.ABSENT.get(kind.name, ())
    return {title: tuple(shown for shown in members if shown.path not in absent) for title, members in found.items()}


def paths(kind: EventType) -> dict[str, str]:
    """Every document field that this event can carry, with its Elasticsearch type."""
    found: dict[str, str] = {}
    for members in groups(kind).values():
        for shown in members:
            if found.setdefault(shown.path, shown.es) != shown.es:
                raise ValueError(f"{kind.name}: {shown.path} is declared as {found[shown.path]} and as {shown.es}")
    return found


def all_paths() -> dict[str, str]:
    """Every field of any event with its Elasticsearch type. Raises ValueError when two declarations disagree."""
    found: dict[str, str] = {}
    for kind in events.EVENTS:
        for path, es in paths(kind).items():
            if found.setdefault(path, es) != es:
                raise ValueError(f"{path} is declared as {found[path]} and, for {kind.name}, as {es}")
    return found


# ---- Elasticsearch ---------------------------------------------------------------------------------------------------


def _property(path: str, es: str) -> dict[str, Any]:
    if es == "keyword":
        limit = _ARGS_LIMIT if path in _LONG else _PATH_LIMIT if path.rpartition(".")[2] in _PATHS else _TEXT_LIMIT
        return {"type": es, "ignore_above": limit}
    if es == "object":
        return {"type": es, "enabled": False}
    return {"type": es}


def _place(properties: dict[str, Any], path: str, leaf: dict[str, Any]) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        properties = properties.setdefault(parent, {"properties": {}}).get("properties")
        if properties is None:
            raise ValueError(f"{path}: {parent} is a field and an object")
    if name in properties:
        raise ValueError(f"{path} is a field and an object")
    properties[name] = leaf


def mapping() -> dict[str, Any]:
    """The Elasticsearch mapping of all events: nothing dynamic, aliases for the original tool's flat names."""
    properties: dict[str, Any] = {}
    found = all_paths()
    for path in sorted(found):
        _place(properties, path, _property(path, found[path]))
    for alias, target in events.ALIASES.items():
        if target not in found:
            raise ValueError(f"alias {alias}: no event has a field {target}")
        _place(properties, alias, {"type": "alias", "path": target})
    return {"dynamic": False, "_meta": _meta(), "properties": properties}


def _meta() -> dict[str, Any]:
    return {"ebpf_monitor": {"schema": SCHEMA}}


def template() -> dict[str, Any]:
    """The composable index template for the default index name."""
    return {
        "index_patterns": [f"{EsConfig().es_index}-*"],
        "priority": 500,
        "version": SCHEMA,
        "_meta": _meta() | {"description": WARNING},
        "template": {
            "settings": {"index": {"codec": "best_compression", "number_of_shards": 1, "refresh_interval": "5s"}},
            "mappings": mapping(),
        },
    }


# ---- reference pages -------------------------------------------------------------------------------------------------

_TITLES = {
    "every document": "Fields of every document",
    "kernel events": "Fields of every kernel event",
    "process": "Fields of the process",
    "file": "Fields of files",
    "socket": "Fields of sockets",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(members: Iterable[Shown]) -> str:
    lines = ["| field | type | meaning |", "|---|---|---|"]
    unique = {shown.path: shown for shown in members}
    lines += [f"| `{path}` | {shown.es} | {_cell(shown.doc)} |" for path, shown in unique.items()]
    return "\n".join(lines)


def _facts(kind: EventType) -> str:
    lane = {"control": "control (its own ring)", "bulk": "bulk (the CPU's ring)", "made": "made by the monitor"}
    failed = "" if kind.lane == "made" else f"; of a failed call: {', '.join(kind.failure_types)}"
    rows = [
        ("lane", lane[kind.lane]),
        ("hooks", kind.probe),
        ("system calls", ", ".join(kind.syscalls)),
        ("ECS", f"category {kind.category}, type {', '.join(kind.types)}{failed}, action {kind.action}"),
        ("profiles", ", ".join(kind.profiles)),
        ("path source", next((_after(shown.doc) for shown in kind.shown if shown.path == "ebpf.path_source"), "")),
        ("graph edge", kind.edge),
        ("trigger", f"`{kind.trigger}`" if kind.trigger else ""),
    ]
    return "\n".join(f"* {name}: {value}" for name, value in rows if value)


def _after(doc: str) -> str:
    return doc.partition(": ")[2]


def _example(kind: EventType) -> str:
    golden = GOLDENS / f"{kind.name}.json"
    if not golden.is_file():  # an installed package
        return ""
    text = golden.read_text(encoding="utf-8").rstrip()
    return f"\nExample (`tests/goldens/{golden.name}`):\n\n```json\n{text}\n```\n"


def _section(kind: EventType, level: str, *, whole: bool) -> str:
    found = groups(kind)
    if found.get("file") == events.CLAIM_SHOWN:
        found["own"] = (*found.pop("file"), *found["own"])
    own = found.pop("own")
    parts = [f"{level} {kind.name}\n\n{kind.doc}\n\n{_facts(kind)}\n"]
    if whole:
        parts += [f"\n{level}# {_TITLES[title]}\n\n{_table(members)}\n" for title, members in found.items()]
        parts.append(f"\n{level}# Its own fields\n\n{_table(own)}\n" if own else "")
    else:
        links = ", the ".join(f"[{_TITLES[title].lower()}](#{_anchor(_TITLES[title])})" for title in found)
        parts.append(f"\nBeside the {links}:\n\n{_table(own)}\n" if own else f"\nNone beside the {links}.\n")
    return "".join(parts) + _example(kind)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _aliases() -> str:
    lines = ["| flat name | searches |", "|---|---|"]
    lines += [f"| `{alias}` | `{target}` |" for alias, target in events.ALIASES.items()]
    return "\n".join(lines)


def _overview() -> str:
    lines = ["| event | what it is | action |", "|---|---|---|"]
    lines += [f"| [{kind.name}](#{kind.name}) | {_cell(kind.doc)} | {kind.action} |" for kind in events.EVENTS]
    return "\n".join(lines)


def reference(name: str | None = None) -> str:
    """The event reference as Markdown: all events, or the one named. KeyError for a name that is not in the catalogue.

    An event's example is its golden document; where the tests are not installed there is none.
    """
    if name is not None:
        return _section(events.EVENT[name], "#", whole=True)
    parts = [
        "# Events\n",
        f"<!-- {WARNING} -->\n",
        "One line of the log is one document. A part that does not apply is left out, nothing is ever null. Names\n"
        "that are not clean text are escaped, with the exact bytes in `ebpf.raw`. New events: adding-an-event.md.\n",
        f"{_overview()}\n",
    ]
    shared: dict[str, dict[str, Shown]] = {}
    for kind in events.EVENTS:
        for title, members in groups(kind).items():
            if title != "own" and members != events.CLAIM_SHOWN:
                shared.setdefault(title, {}).update({shown.path: shown for shown in members})
    parts += [f"## {_TITLES[title]}\n\n{_table(members.values())}\n" for title, members in shared.items()]
    parts.append(f"## Flat names of the original tool\n\nThey are aliases in the index template.\n\n{_aliases()}\n")
    parts += [_section(kind, "##", whole=False) for kind in events.EVENTS]
    return "\n".join(parts)


def configuration_page() -> str:
    """`docs/configuration.md`."""
    warning = WARNING.replace("events/", "config_keys.py")
    return (
        f"# Configuration\n\n<!-- {warning} -->\n\n"
        "One JSON object. `--config PATH` names the file; without it `/var/config.json`, then\n"
        "`/etc/ebpf-monitor/config.json`. An unknown key, a duplicate key or a wrong value is an error (exit status\n"
        "78). `ebpf-monitor check-config` validates a file and shows what holds; `config/config.sample.json` has\n"
        f"every key with its default.\n\n{config.reference()}"
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """Every generated file: its path below the checkout, and its text."""
    return {
        "bpf/generated/events.h": c_header(),
        "config/config.sample.json": config.sample(),
        "config/index-template.json": json.dumps(template(), indent=2) + "\n",
        "docs/events.md": reference(),
        "docs/configuration.md": configuration_page(),
        "docs/coverage.md": coverage.page(WARNING.replace("events.py", "coverage.py")),
    }


def stale(root: Path = ROOT) -> list[str]:
    """The generated files below `root` that are missing or not what the catalogue says."""

    def fresh(name: str, text: str) -> bool:
        return (root / name).is_file() and (root / name).read_text(encoding="utf-8") == text

    return [name for name, text in files().items() if not fresh(name, text)]


def write(root: Path = ROOT) -> list[str]:
    """Writes what is stale below `root`; the names of these files."""
    changed, texts = stale(root), files()
    for name in changed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(texts[name], encoding="utf-8")
    return changed


def main(arguments: Sequence[str]) -> int:
    """`python -m monitor.generate [--check]`: 0; 1: --check found stale files; 64: usage."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m monitor.generate [--check]\n")
        return 64
    if not arguments:
        for name in write():
            sys.stdout.write(f"wrote {name}\n")
        return 0
    found = stale()
    for name in found:
        sys.stderr.write(f"{name} is stale: run `make gen`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
