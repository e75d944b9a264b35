"""`make test-kernels`: boots each kernel that the project claims and runs the tests on the real kernel inside.

Writes docs/kernels.md from what happened. Arguments: the lines of packages.SUITES to boot (default: all).
"""

from __future__ import annotations

import json
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernels import guest, packages

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "var" / "kernels.json"
PAGE = ROOT / "docs" / "kernels.md"
TESTS = (
    "test_process_events test_process_acts test_file_events test_file_acts test_socket_events test_moves test_identity test_paths "
    "test_survival"
)
SECONDS = 3000.0
WARM = ".venv/bin/python -m pytest -q tests/test_fastpath.py tests/test_pipeline.py tests/test_order.py"
SCRIPT = """
.venv/bin/ebpf-monitor run --duration 3 || exit 2
.venv/bin/ebpf-monitor search --event monitor_start -o json >/tmp/start.json
exec .venv/bin/python -m pytest -q --junitxml=/tmp/report.xml {files}
"""


@dataclass
class Result:
    """What one kernel did. `tests` has a line of counts, `failed` the failed tests with their first line."""

    line: str
    release: str
    starts: bool = False
    problem: str = ""
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    seconds: int = 0

    @property
    def good(self) -> bool:
        """The monitor starts there and no test failed."""
        return self.starts and not self.failed


def _read_report(result: Result, report: bytes) -> None:
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = next((one for one in case if one.tag in ("failure", "error")), None)
        skip = case.find("skipped")
        if bad is not None:
            result.failed[name] = (bad.get("message") or "").splitlines()[0][:300] if bad.get("message") else bad.tag
        elif skip is not None:
            result.skipped[name] = skip.get("message") or ""
        else:
            result.passed += 1


def boot(line: str, disk: Path) -> Result:
    """Boots one kernel and reads what it left."""
    kernel = packages.fetch(line)
    result, begun = Result(line, kernel.release), time.monotonic()
    files = " ".join(f"tests/kernel/{name}.py" for name in TESTS.split() if (ROOT / f"tests/kernel/{name}.py").exists())
    try:
        outcome = guest.run(kernel, disk, SCRIPT.format(files=files), ("/tmp/start.json", "/tmp/report.xml"), SECONDS)
    except (TimeoutError, RuntimeError) as error:
        result.problem = str(error)
        return result
    result.seconds = round(time.monotonic() - begun)
    if start := outcome.files.get("/tmp/start.json"):
        result.starts, result.start = True, json.loads(start.splitlines()[-1])["ebpf"]["monitor"]
    else:
        said = re.search(r"^ebpf-monitor: (.*)$", outcome.text, re.MULTILINE)
        result.problem = said.group(1) if said else outcome.text[-1000:]
    if report := outcome.files.get("/tmp/report.xml"):
        _read_report(result, report)
    return result


def page(results: list[dict[str, Any]]) -> str:
    """docs/kernels.md."""
    lines = [
        "# Kernels",
        "",
        "<!-- made by `make test-kernels` from what ran; do not edit -->",
        "",
        "Each kernel below was booted (qemu, emulated, two processors) and the tests on the real kernel ran inside. Features are "
        "tried, never guessed from a version: what is missing stands in `monitor_start` on the host itself.",
        "",
        "| kernel | monitor | events | missing | tests passed | failed | skipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        start = one["start"]
        state = "runs" if one["starts"] else "does not start"
        missing = ", ".join(start.get("missing", [])) or "-"
        events = len(start.get("events", []))
        lines.append(
            f"| {one['release']} | {state} | {events} | {missing} | {one['passed']} | {len(one['failed'])} | {len(one['skipped'])} |"
        )
    for one in results:
        notes = [one["problem"]] if one["problem"] else []
        notes += [f"failed: `{name}`: {why}" for name, why in one["failed"].items()]
        notes += [f"skipped: `{name}`: {why}" for name, why in one["skipped"].items()]
        if notes:
            lines += ["", f"## {one['release']}", "", *(f"* {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def main(lines: list[str]) -> int:
    """Boots the kernels of `lines`; 0 if all are good."""
    unknown = [line for line in lines if line not in packages.SUITES]
    if unknown:
        print(f"no such kernel line: {', '.join(unknown)}; known: {', '.join(packages.SUITES)}", file=sys.stderr)
        return 64
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print("making the guest's disk", flush=True)
    disk = guest.image(WARM)
    good = True
    try:
        for line in lines or list(packages.SUITES):
            print(f"{line}: booting", flush=True)
            result = boot(line, disk)
            good = good and result.good
            kept[line] = vars(result)
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(kept, indent=1))
            print(
                f"{line}: {result.release}: {'runs' if result.starts else 'does not start'}; {result.passed} passed, "
                f"{len(result.failed)} failed, {len(result.skipped)} skipped in {result.seconds} s {result.problem}",
                flush=True,
            )
            for name, why in result.failed.items():
                print(f"  failed: {name}: {why}", flush=True)
    finally:
        disk.unlink(missing_ok=True)
    PAGE.write_text(page([kept[line] for line in packages.SUITES if line in kept]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
