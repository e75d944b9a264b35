"""`make test-kernels`: boots each kernel that the project claims and runs the tests on the real kernel inside.

Leaves what happened in results.json, from which page.py makes docs/kernels.md and the README's table. Arguments: the lines of
packages.SUITES to boot (default: all).
"""

from __future__ import annotations

import json
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitor import events
from monitor.doctor import FEATURES
from tests.kernels import guest, packages, page

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "late_cpu test_true_names test_file_events test_file_acts test_process_events test_process_acts test_socket_events test_moves "
    "test_identity test_paths test_exclusion test_maps test_passing test_io_uring"
)
"""What each event says and how it is named, served by one monitor (one_monitor.py); before it, that a late CPU is covered."""
SECONDS = 3000.0
WARM = ".venv/bin/python -m pytest -q tests/test_fastpath.py tests/test_pipeline.py tests/test_order.py"
SCRIPT = """
.venv/bin/ebpf-monitor run --duration 3 || exit 2
.venv/bin/ebpf-monitor search --event monitor_start -o json >/tmp/start.json
tests=".venv/bin/python -m pytest -q -p tests.kernels.one_monitor"
$tests --durations=10 --junitxml=/tmp/report.xml {files} && exit 0
exec $tests --last-failed --junitxml=/tmp/again.xml {files}
"""
FILES = ("/tmp/start.json", "/tmp/report.xml", "/tmp/again.xml")


@dataclass
class Result:
    """What one kernel did. `tests` are the modules that ran, `failed` and `skipped` have the tests with the first line of why, `again`
    those that passed only when they were run once more, `catalogue` the events of that day, `start` the members of its monitor_start,
    `why` what each feature is for."""

    line: str
    release: str
    day: str
    catalogue: list[str]
    tests: str = TESTS
    starts: bool = False
    problem: str = ""
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=lambda: dict(FEATURES))
    seconds: int = 0

    @property
    def good(self) -> bool:
        """The monitor starts there and no test failed; or it refuses to start where it must, and says why."""
        if self.line in packages.REFUSED:
            return not self.starts and "lacks what the programs cannot do without" in self.problem
        return self.starts and self.passed > 0 and not self.failed and not self.problem

    def read_report(self, report: bytes) -> None:
        """Takes what pytest wrote with --junitxml."""
        for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            bad = next((one for one in case if one.tag in ("failure", "error")), None)
            skip = case.find("skipped")
            if bad is not None:
                self.failed[name] = ((bad.get("message") or "").splitlines() or [bad.tag])[0][:300]
            elif skip is not None:
                self.failed.pop(name, None)
                self.skipped[name] = skip.get("message") or ""
            else:
                self.passed += 1
                if self.failed.pop(name, None) is not None:
                    self.again.append(name)


def boot(line: str, disk: Path) -> Result:
    """Boots one kernel and reads what it left."""
    kernel, begun = packages.fetch(line), time.monotonic()
    result = Result(line, kernel.release, datetime.now(UTC).date().isoformat(), list(events.EVENT))
    files = " ".join(f"tests/kernel/{name}.py" for name in TESTS.split())
    try:
        outcome = guest.run(kernel, disk, SCRIPT.format(files=files), FILES, SECONDS)
    except (TimeoutError, RuntimeError) as error:
        result.problem = str(error)
        return result
    finally:
        result.seconds = round(time.monotonic() - begun)
    if start := outcome.files.get("/tmp/start.json"):
        result.starts, result.start = True, json.loads(start.splitlines()[-1])["ebpf"]["monitor"]
    else:
        said = re.search(r"^ebpf-monitor: (.*)$", outcome.text, re.MULTILINE)
        result.problem = said.group(1) if said else outcome.text[-1000:]
    reports = [found for name in FILES[1:] if (found := outcome.files.get(name))]
    for report in reports:
        result.read_report(report)
    if result.starts and not reports:
        result.problem = f"the tests left no report: {outcome.text[-1000:]}"
    return result


def _keep(result: Result) -> None:
    kept: dict[str, Any] = page.results() if page.KEPT.exists() else {}
    kept[result.line] = vars(result)
    ordered = {line: kept[line] for line in packages.SUITES if line in kept}
    page.KEPT.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def main(lines: list[str]) -> int:
    """Boots the kernels of `lines`; 0 if all are good."""
    unknown = [line for line in lines if line not in packages.SUITES]
    if unknown:
        print(f"no such kernel line: {', '.join(unknown)}; known: {', '.join(packages.SUITES)}", file=sys.stderr)
        return 64
    print("making the guest's disk", flush=True)
    disk = guest.image(WARM)
    good = True
    try:
        for line in lines or list(packages.SUITES):
            print(f"{line}: booting", flush=True)
            result = boot(line, disk)
            good = good and result.good
            _keep(result)
            print(
                f"{line}: {result.release}: {'runs' if result.starts else 'does not start'}; {result.passed} passed, "
                f"{len(result.failed)} failed, {len(result.skipped)} skipped in {result.seconds} s {result.problem}",
                flush=True,
            )
            for name, why in result.failed.items():
                print(f"  failed: {name}: {why}", flush=True)
    finally:
        disk.unlink(missing_ok=True)
    page.main()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
