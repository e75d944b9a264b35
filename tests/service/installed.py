"""The installed service on a machine: its configuration, its log and its ledger, seen from outside.

Owns how the tests here reach these; asserts nothing but that what was performed is logged exactly once.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor import logfiles, scan, verify
from tests.kernel.harness import Acts, wait_for
from tests.service.machine import Machine

UNIT = "ebpf-monitor.service"


@dataclass
class Installed:
    """The package's service; `directory` is a private place on the host for acts."""

    machine: Machine
    directory: Path
    installed: str = ""
    _acts: int = field(default=0)

    @property
    def events_dir(self) -> Path:
        """The log, as the host sees it."""
        return self.inside("/var/monitoring/events")

    def inside(self, path: str) -> Path:
        """A path as processes inside see it, mounts of the machine included."""
        return Path(f"/proc/{self.machine.leader}/root{path}")

    def systemctl(self, *words: str, seconds: float = 240.0) -> str:
        """Must succeed."""
        return self.machine.run("systemctl", *words, seconds=seconds, check=True).text

    def show(self, name: str) -> str:
        """One property of the unit."""
        return self.machine.show(UNIT, name)[name]

    @property
    def main_pid(self) -> int:
        """The main process's number inside."""
        return int(self.show("MainPID"))

    def configure(self, **values: Any) -> None:
        """Writes the configuration and restarts with it."""
        path = self.inside("/etc/ebpf-monitor/config.json")
        path.write_text(json.dumps({"profile": "standard", "storage_type": "local"} | values))
        self.systemctl("restart", UNIT)

    def drop_in(self, text: str) -> None:
        """A local change of the unit, as `systemctl edit` makes it; "" takes it away."""
        directory = self.inside(f"/etc/systemd/system/{UNIT}.d")
        directory.mkdir(exist_ok=True)
        (directory / "test.conf").write_text(f"[Service]\n{text}\n")
        self.systemctl("daemon-reload")

    def status(self) -> dict[str, Any]:
        """`status --json`, whatever its exit status."""
        found: dict[str, Any] = json.loads(self.machine.run("ebpf-monitor", "status", "--json").text)
        return found

    def balanced(self) -> dict[str, Any]:
        """Waits until what is in the rings is logged; the ledger, whose equations hold."""
        since = time.time()

        def settled() -> bool:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(self.inside("/run/ebpf-monitor/status.json").read_bytes())
                return bool(found["time"] > since and found["ledger"]["in_flight"] <= 200)
            return False

        wait_for(settled, 120, "the rings are read")
        found = self.status()
        assert found["balanced"], found
        ledger: dict[str, Any] = found["ledger"]
        return ledger

    def load(self, program: Path, rate: int = 5000) -> Acts:
        """Failing opens of numbered names: each is one event of its own, whatever is folded."""
        self._acts += 1
        return Acts(program, self.directory / f"acts-{self._acts}", "missing", rate=rate)

    def under_load(self, program: Path, do: Callable[[], object], rate: int = 5000) -> int:
        """Performs acts before, while and after `do`; returns how many, each of which is in the log exactly once."""
        acts = self.load(program, rate)
        wait_for(lambda: acts.performed > rate // 5, what="the load runs")
        do()
        until = acts.performed + rate // 2
        wait_for(lambda: acts.performed > until, what="the load goes on")
        performed = acts.stop()
        self.balanced()
        self.check(acts, performed)
        return performed

    def logged(self, acts: Acts) -> Counter[int]:
        """How often each act of `acts` is in the log, which is whole."""
        wanted = re.compile(re.escape(f"{acts.directory}/none/").encode() + rb'(\d+)"')
        seen: Counter[int] = Counter()
        for line in self.lines(f"{acts.directory}/none/".encode()):
            seen[int(wanted.search(line)[1])] += 1  # type: ignore[index]
        return seen

    def check(self, acts: Acts, performed: int) -> None:
        """Each act of `acts` is in the log exactly once, and the log is whole."""
        seen = self.logged(acts)
        missing = [number for number in range(performed) if number not in seen]
        assert not missing, (len(missing), missing[:5], missing[-5:], performed)
        twice = [number for number, times in seen.items() if times > 1]
        assert not twice, (len(twice), twice[:5])

    def lines(self, needle: bytes) -> Iterator[bytes]:
        """The whole lines with `needle` in all files of the log, one after the other; damage is an AssertionError at the end."""
        problems: list[logfiles.Problem] = []
        for file in logfiles.files(self.events_dir):
            yield from scan.Scan(file, problems.append).lines(((needle,),))
        assert not problems, problems

    def verify(self) -> None:
        """No torn line, no hole, every ledger balanced."""
        report = verify.check(self.events_dir)
        assert not report.findings, report.findings[:5]
