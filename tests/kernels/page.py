"""docs/kernels.md and the README's table of kernels, from what the last boots left in results.json.

`python -m tests.kernels.page` writes both anew. Owns the words of both; boots nothing (boot.py does).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from monitor import events

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("results.json")
PAGE, README = ROOT / "docs" / "kernels.md", ROOT / "README.md"
BEGIN, END = "<!-- kernels: made by `make test-kernels` -->", "<!-- /kernels -->"
_INTRODUCTION = """# Kernels

<!-- made by `make test-kernels` from what ran; do not edit -->

Each kernel below was booted (qemu, emulated, two processors), and the tests on the real kernel that one monitor with profile `full`
serves ran inside: what each event says, names under attack, identities, the monitor's own exclusion; before them, with one processor
still offline, that all that is done on it is logged once it is there (`late_cpu`). Not run there, because an
emulated machine takes a minute to start a monitor: the tests that start monitors of their own (survival, logs, profiles, redaction,
tampering) and the other ways of running the same tests (`trace`, the perf lane, without bpf_rdonly_cast); `make test` runs them on
the machine's own kernel. Features are tried, never guessed from a version: `ebpf-monitor doctor` and `monitor_start` say them on
each host. Layouts and the compiler are checked for all of them, and for arm64, on each `make test` without booting
(`tests/kernels/test_layouts.py`).
"""
_ARM = """
## arm64

The members of Debian's 6.12 kernel for arm64 lie where the programs read them, and the programs compile for it. Nothing has run there:
no arm64 kernel was booted, and the only table of system calls is x86-64's, so that the monitor refuses to start.
"""


def results() -> dict[str, Any]:
    """Line of packages.SUITES -> what boot.Result says of it, from the last boot."""
    found: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def absent(one: dict[str, Any]) -> list[str]:
    """Events of today's catalogue that this kernel does not give (boots of before an event was there: not counted)."""
    return [name for name in events.EVENT if name in one["catalogue"] and name not in one["start"]["events"]]


def untried(one: dict[str, Any]) -> list[str]:
    """Events that came to the catalogue after this boot."""
    return [name for name in events.EVENT if name not in one["catalogue"]]


def _by_word(one: dict[str, Any]) -> list[str]:
    return [
        name for name, _, source in (text.partition(": ") for text in one["start"]["name_sources"]) if source != "hook"
    ]


def _row(one: dict[str, Any]) -> str:
    if not one["starts"]:
        return f"| {one['release']} | does not start | - | {'; '.join(_lacks(one)) or one['problem']} |"
    gives = len(events.EVENT) - len(absent(one)) - len(untried(one))
    told = [f"no {name}" for name in absent(one)]
    told += [one["why"][name] for name in one["start"]["missing"]]
    if later := untried(one):
        told.append(f"not tried there: {', '.join(later)}")
    tests = f"{one['passed']} passed, {len(one['failed'])} failed, {len(one['skipped'])} skipped"
    return f"| {one['release']} | {gives} of {len(events.EVENT)} | {tests} | {'; '.join(told) or '-'} |"


def _lacks(one: dict[str, Any]) -> list[str]:
    """What a kernel that was refused lacks, from the monitor's own sentence."""
    _, _, told = one["problem"].partition("cannot do without: ")
    return [part.partition(": ")[0] for part in told.split("; ") if part]


def table(found: dict[str, Any]) -> str:
    """The README's table."""
    lines = ["| kernel | events | tests in it | missing |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_row(one) for one in found.values())])


def _section(one: dict[str, Any]) -> list[str]:
    notes = [f"booted {one['day']}, {one['seconds'] / 60:.0f} minutes"]
    if one["starts"]:
        notes.append(f"ran: {one['tests']}")
    if one["problem"]:
        notes.append(f"it says: {one['problem']}")
    if one["starts"]:
        notes += [f"not given: `{name}`" for name in absent(one)]
        notes += [f"in the catalogue since, not tried: `{name}`" for name in untried(one)]
        notes += [f"missing: `{name}`: {one['why'][name]}" for name in one["start"]["missing"]]
        word = ", ".join(f"`{name}`" for name in _by_word(one)) or "none"
        notes.append(f"acts by name whose name is the caller's word: {word}")
        notes.append("hooks: " + ", ".join(f"`{hook}`" for hook in one["start"]["hooks"]))
    notes += [f"failed: `{name}`: {why}" for name, why in one["failed"].items()]
    notes += [f"passed when it was run once more: `{name}`" for name in one["again"]]
    notes += [f"skipped: `{name}`: {why}" for name, why in one["skipped"].items()]
    return ["", f"## {one['release']}", "", *(f"* {note}" for note in notes)]


def page(found: dict[str, Any]) -> str:
    """docs/kernels.md."""
    sections = [line for one in found.values() for line in _section(one)]
    return "\n".join([_INTRODUCTION, table(found), *sections]) + "\n" + _ARM


def readme(text: str, found: dict[str, Any]) -> str:
    """The README with its table replaced. Raises ValueError when it has no place for one."""
    made, count = re.subn(
        f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", lambda _: table(found) + "\n", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"README.md: {BEGIN} ... {END} stands there {count} times")
    return made


def main() -> None:
    """Writes both."""
    found = results()
    PAGE.write_text(page(found), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
