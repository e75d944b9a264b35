"""Who else rotates the log: found in logrotate's own files, and refused together with rotate_bytes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from monitor import config, rotation
from monitor.config import ConfigError

ROOT = Path(__file__).resolve().parent.parent
LOG = Path("/var/monitoring/events/events.jsonl")


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for /etc/logrotate.d."""
    directory = tmp_path / "logrotate.d"
    directory.mkdir()
    monkeypatch.setattr(rotation, "RULES", (tmp_path / "logrotate.conf", directory))
    return directory


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{LOG} {{\n daily\n}}\n", 1),
        (f'weekly\n# {LOG}\n/var/log/x\n"{LOG}"\n{{\n}}\n', 5),
        ("/var/log/a {\n postrotate\n  } \n endscript\n}\n/var/monitoring/*/*.jsonl {\n}\n", 6),
        (f"/var/log/a {{\n postrotate\n  echo {LOG} {{\n endscript\n}}\n", 0),
        (f"{LOG}.old {{\n}}\n#{LOG} {{\n", 0),
        ('"/unclosed {\n', 0),
        ("", 0),
    ],
)
def test_a_section_is_found_by_the_names_before_its_brace(rules: Path, text: str, line: int) -> None:
    (rules / "x").write_text(text)
    found = rotation.rule_for(LOG)
    assert (found.line if found else 0) == line
    assert found is None or found.file == rules / "x"


def test_the_packages_own_rule_is_found_and_logrotate_itself_takes_it(rules: Path, tmp_path: Path) -> None:
    text = (ROOT / "logrotate/ebpf-monitor").read_text()
    (rules / "ebpf-monitor").write_text(text)
    assert rotation.rule_for(LOG) is not None
    # As another group: none of that name is on a host without the package.
    (tmp_path / "rule").write_text(re.sub(r"create .*", "create 0640", text))
    (tmp_path / "rule").chmod(0o644)
    command = ["/usr/sbin/logrotate", "--debug", "--state", tmp_path / "state", tmp_path / "rule"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    for word in ("copytruncate", "nocreate"):
        assert word not in text


def test_both_rotations_together_are_refused_and_both_are_named(rules: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"events_dir": str(LOG.parent), "rotate_bytes": 1 << 20}, indent=1))
    path.chmod(0o600)
    assert config.load(path).rotate_bytes == 1 << 20
    (rules / "mine").write_text(f"{LOG} {{\n daily\n}}\n")
    with pytest.raises(
        ConfigError, match=rf"config\.json:3: rotate_bytes: .* by logrotate's section at {rules}/mine:1"
    ):
        config.load(path)
    path.write_text(json.dumps({"events_dir": str(LOG.parent)}))
    assert config.load(path).rotate_bytes == 0
