"""A recording of real events, replayed, gives the lines that the monitor wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import compiled
from tests.kernel.monitor_process import ROOT


def _kernel_events(lines: list[bytes]) -> list[dict[str, Any]]:
    """Documents without what depends on lines of the monitor in between."""
    found = []
    for line in lines:
        document = json.loads(line)
        if "cpu" not in document["ebpf"]:
            continue  # made by the monitor itself: not in a recording
        del document["event"]["id"], document["event"]["sequence"]
        found.append(document)
    return found


def test_replay_gives_the_lines_of_the_log(tmp_path: Path) -> None:
    pins = f"/sys/fs/bpf/ebpf-monitor-record-{os.getpid()}"
    keys = {
        "events_dir": str(tmp_path / "events"),
        "output_dir": str(tmp_path / "out"),
        "run_dir": str(tmp_path / "run"),
        "pin_dir": pins,
        "profile": "full",
    }
    config, recording = tmp_path / "config.json", tmp_path / "recording"
    config.write_text(json.dumps(keys))
    config.chmod(0o600)
    compiled.lend(tmp_path / "out")
    command = [
        sys.executable,
        "-m",
        "monitor",
        "run",
        "--config",
        str(config),
        "--ready-file",
        str(tmp_path / "ready"),
        "--record",
        str(recording),
        "--duration",
        "3",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        while not (tmp_path / "ready").exists():
            assert running.poll() is None, "the monitor ended before it was ready"
        odd = tmp_path / 'new\nline"\xff'
        odd.write_bytes(b"x")
        odd.unlink()
        for _ in range(17):
            subprocess.run(["/bin/true"], check=True)
        shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    assert running.returncode == 0
    assert recording.stat().st_mode & 0o777 == 0o640
    log = _kernel_events((tmp_path / "events" / "events.jsonl").read_bytes().splitlines())
    assert sum(one["ebpf"]["event"] == "process_exec" for one in log) >= 17
    replayed = subprocess.run(
        [sys.executable, "-m", "monitor", "replay", "-o", "json", str(recording)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert _kernel_events(replayed.stdout.splitlines()) == log


def test_a_file_that_is_no_recording_is_an_error_that_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x00not a recording\n")
    answer = subprocess.run(
        [sys.executable, "-m", "monitor", "replay", str(bad)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert str(bad) in answer.stderr
    assert "Traceback" not in answer.stderr
