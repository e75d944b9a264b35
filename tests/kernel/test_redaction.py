"""A secret in real arguments is in no byte that the monitor writes: neither log, `ebpf.raw`, status nor recording."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import compiled
from tests.kernel.monitor_process import ROOT
from tests.secrets_examples import WITH, WITHOUT, arguments

SECRET, OWN = "Zx81secretvalue", "staff-77123456"


def _few() -> None:
    subprocess.run(["/bin/true", f"--token={SECRET}", OWN, b"\xff\n"], check=True)
    subprocess.run(["/bin/sh", "-c", f"true mysql -p{SECRET} db"], check=True)
    subprocess.run(["/bin/true", "mysql", f"-p{SECRET}", b"\xff"], check=True)


def _run(
    tmp_path: Path, settings: dict[str, object], acts: Callable[[], None] = _few
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Documents of our programs, and the bytes of each file that the monitor wrote."""
    keys = {
        "events_dir": str(tmp_path / "events"),
        "output_dir": str(tmp_path / "out"),
        "run_dir": str(tmp_path / "run"),
        "pin_dir": f"/sys/fs/bpf/ebpf-monitor-redact-{os.getpid()}",
        "profile": "minimal",
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(keys | settings))
    config.chmod(0o600)
    compiled.lend(tmp_path / "out")
    recording, ready = tmp_path / "out-recording", tmp_path / "ready"
    command = [sys.executable, "-m", "monitor", "run", "--config", str(config), "--ready-file", str(ready)]
    before = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :", f"--password={SECRET}"])  # the scan at start finds it
    try:
        with subprocess.Popen([*command, "--record", str(recording)], cwd=ROOT) as running:
            while not ready.exists():
                assert running.poll() is None, "the monitor ended before it was ready"
            acts()
            running.terminate()
        assert running.returncode == 0
    finally:
        before.kill()
        before.wait()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != config]
    lines = (tmp_path / "events" / "events.jsonl").read_bytes().splitlines()
    documents = [json.loads(line) for line in lines]
    ours = [
        one for one in documents if one.get("process", {}).get("executable", "").endswith(("/true", "/sh", "/dash"))
    ]
    return ours, {str(path): path.read_bytes() for path in written}


EXAMPLES = [arguments(line) for line in (*WITH, *WITHOUT)]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What is written of the few, and of each example with one argument more, which is not text: so all are in `ebpf.raw`, too."""

    def acts() -> None:
        _few()
        for given, _ in EXAMPLES:
            subprocess.run([*given, b"\xfe"], executable="/bin/true", check=True)

    return _run(tmp_path_factory.mktemp("masked"), {"redact_patterns": ["staff-([0-9]{8})"]}, acts)


def test_no_byte_of_a_secret_is_written(masked: tuple[list[dict[str, Any]], dict[str, bytes]]) -> None:
    documents, written = masked
    flagged = [one for one in documents if one["ebpf"].get("redacted")]
    assert {one["ebpf"]["event"] for one in flagged} == {"process_exec", "process_found"}
    assert sum(one["ebpf"]["event"] == "process_exec" for one in flagged) >= 3
    assert len(written) >= 4
    holders = [name for name, content in written.items() if b"mysql" in content and b"[redacted]" in content]
    assert any(name.endswith("events.jsonl") for name in holders)
    assert any(name.endswith("out-recording") for name in holders)
    for name, content in written.items():
        for secret in (SECRET, "77123456", *_encoded(SECRET)):
            assert secret.encode() not in content, name


def test_each_example_is_masked_in_log_raw_bytes_and_recording_and_no_other_is(
    masked: tuple[list[dict[str, Any]], dict[str, bytes]],
) -> None:
    documents, written = masked
    execs = [one for one in documents if one["ebpf"]["event"] == "process_exec"]
    execs = [one for one in execs if one["process"].get("args", [""])[-1] == r"\xfe"]
    assert len(execs) == len(EXAMPLES)
    for one, (given, wanted) in zip(execs, EXAMPLES, strict=True):
        assert base64.b64decode(one["ebpf"]["raw"]["process_args"]) == _joined(wanted)
        assert one["process"]["args"][:-1] == [name.decode() for name in wanted]
        assert ("redacted" in one["ebpf"]) == (given != wanted)
    recorded = next(content for name, content in written.items() if name.endswith("out-recording"))
    for given, wanted in EXAMPLES:
        assert _joined(wanted) in recorded
        assert given == wanted or not any(_joined(given) in content for content in written.values())


def _joined(words: list[bytes]) -> bytes:
    return b"\0".join([*words, b"\xfe", b""])


def _encoded(secret: str) -> list[str]:
    """Parts of the base64 of the secret at each of its three alignments."""
    return [base64.b64encode(b"x" * shift + secret.encode())[4:-4].decode() for shift in range(3)]


def test_redaction_can_be_switched_off(tmp_path: Path) -> None:
    documents, written = _run(tmp_path, {"redact": False})
    assert not [one for one in documents if one["ebpf"].get("redacted")]
    assert any(f"--token={SECRET}".encode() in content for content in written.values())
