"""Man pages and shell completion: made from the commands, complete, and taken by man and by the shells' own rules."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from monitor.cli import main as program

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """scripts/command_files.py as a module."""
    spec = importlib.util.spec_from_file_location("command_files", ROOT / "scripts/command_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_every_option_has_its_place_in_a_page(made: ModuleType) -> None:
    pages = made.pages()
    assert set(pages) == {"ebpf-monitor.1", *(f"ebpf-monitor-{name}.1" for name in program.commands)}
    for name, command in program.commands.items():
        assert f"ebpf-monitor-{name} (1)" in pages["ebpf-monitor.1"]
        for option in (one for one in command.params if isinstance(one, click.Option) and not one.hidden):
            for word in option.opts:
                assert word.replace("-", "\\-") in pages[f"ebpf-monitor-{name}.1"], (name, word)


def test_groff_takes_every_page_without_a_word(made: ModuleType, tmp_path: Path) -> None:
    for name, text in made.pages().items():
        (tmp_path / name).write_text(text)
        command = ["groff", "-man", "-Tutf8", "-ww", tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert "EXIT STATUS" in re.sub(".\x08", "", done.stdout)


@pytest.mark.parametrize("text", [".TH is a request", "'quote", "back\\slash", "a-b"])
def test_no_text_becomes_a_request(made: ModuleType, text: str) -> None:
    shown = made.escaped(text)
    assert shown[0] not in ".'"
    assert shown.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\") == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shells_script_calls_the_program(made: ModuleType, shell: str) -> None:
    assert f"_EBPF_MONITOR_COMPLETE={shell}_complete" in made.completion(shell)


def test_bash_completes_commands_and_options(made: ModuleType, tmp_path: Path) -> None:
    """The script in a real bash, with the command as `make setup` leaves it."""
    (tmp_path / "completion").write_text(made.completion("bash"))
    text = """
    . ./completion
    for line in "se" "search --ev"; do
        COMP_WORDS=(ebpf-monitor $line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
        _ebpf_monitor_completion ebpf-monitor
        echo "${COMPREPLY[@]}"
    done
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert {"search", "setup-elasticsearch"} == set(first.split())
    assert second == "--event"
