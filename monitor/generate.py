"""Derives from the catalogue everything that must agree with it: the C header, mapping, reference pages and samples.

Owns the texts of generated files and the check that the checked-in ones are not stale; never edits anything by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from monitor import config, config_exclusions, coverage, events, fields, kibana, mapping, rules
from monitor.config_keys import EsConfig
from monitor.model import EventType, Layout, Shown

WARNING = "generated from monitor/events/ by `make gen`; do not edit"
ROOT = Path(__file__).resolve().parent.parent
"""The checkout; an installed package has no generated files beside it."""
GOLDENS = ROOT / "tests" / "goldens"

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
    found = fields.groups(kind)
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
        for title, members in fields.groups(kind).items():
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
        "every key with its default.\n\n"
        "Then `conf.d/*.json` beside the file (without `--config`: `/etc/ebpf-monitor/conf.d`), by name: a later file's value\n"
        "replaces an earlier one's; the members of `es_config` and `labels` are merged. `check-config` says which file and line\n"
        "each value comes from.\n\n"
        "A running monitor follows all these files. A change is taken as a whole, within a second, and is a `monitor_config`\n"
        "event with the keys that changed; one that is wrong, that touches a key that is not live, or that meets\n"
        "`locked` is refused as a whole: the reason is said, logged and shown by `status`, and the configuration before stays\n"
        "in effect. `systemctl reload` reads the files again.\n\n"
        f"{config.reference()}\n"
        f"{config_exclusions.reference()}"
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2) + "\n"


def files() -> dict[str, str]:
    """Every generated file: its path below the checkout, and its text."""
    index = EsConfig().es_index
    return {
        "bpf/generated/events.h": c_header(),
        "config/config.sample.json": config.sample(),
        "config/detection-rules.ndjson": kibana.ndjson(rules.documents(index)),
        "config/kibana-objects.ndjson": kibana.ndjson(kibana.objects(index)),
        "config/ilm-policy.json": _json(mapping.policy()),
        "config/index-template-minimal.json": _json(mapping.template(index, mapping.MINIMAL)),
        "config/index-template.json": _json(mapping.template(index)),
        "config/shipper-role.json": _json(mapping.role(index)),
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
