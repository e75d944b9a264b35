"""What is derived from the catalogue agrees with it, and the checked-in files are not stale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from monitor import events, fields, generate
from monitor.config_keys import KEYS


def test_no_checked_in_file_is_stale(repository: Path) -> None:
    assert generate.stale(repository) == []


def test_check_names_each_stale_file_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.write(tmp_path) == list(generate.files())
    assert generate.stale(tmp_path) == []
    (tmp_path / "docs/events.md").write_text("old")
    (tmp_path / "config/config.sample.json").unlink()
    assert generate.stale(tmp_path) == ["config/config.sample.json", "docs/events.md"]
    assert generate.write(tmp_path) == ["config/config.sample.json", "docs/events.md"]
    monkeypatch.setattr(generate, "stale", lambda: ["docs/events.md"])
    assert generate.main(["--check"]) == 1
    assert "docs/events.md" in capsys.readouterr().err


def test_command_line_knows_check_and_nothing_else(repository: Path) -> None:
    def run(*arguments: str) -> int:
        command = [sys.executable, "-m", "monitor.generate", *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, timeout=60).returncode

    assert run("--check") == 0
    assert run("--chekc") == 64


def test_header_has_every_layout_event_and_flag() -> None:
    header = generate.c_header()
    for layout in events.LAYOUTS:
        assert f"_Static_assert(sizeof(struct {layout.name}) == {layout.size}," in header
        for name, offset in layout.offsets().items():
            assert f"__builtin_offsetof(struct {layout.name}, {name}) == {offset}," in header
    for kind in events.EVENTS:
        assert (f"#define {kind.name.upper()} {kind.id}\n" in header) == (kind.lane != "made" or bool(kind.blobs))
    for name, value in events.KF.items():
        assert f"#define KF_{name} {value}\n" in header


def test_header_compiles_as_c(tmp_path: Path) -> None:
    types = (
        "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32; typedef unsigned long long u64;\n"
    )
    types += "typedef signed char s8; typedef short s16; typedef int s32; typedef long long s64;\n"
    source = tmp_path / "layouts.c"
    source.write_text(types + generate.c_header())
    try:
        found = subprocess.run(
            ["cc", "-std=c11", "-fsyntax-only", "-Wall", "-Werror", "-Wpadded", str(source)],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("needs a C compiler (cc)")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", events.EVENT)
def test_reference_of_an_event_names_each_of_its_fields_and_an_example(name: str) -> None:
    text = generate.reference(name)
    assert text.startswith(f"# {name}\n")
    for path, es in fields.paths(events.EVENT[name]).items():
        assert f"| `{path}` | {es} | " in text
    example = text.partition("```json\n")[2].partition("```")[0]
    assert json.loads(example)["ebpf"]["event"] == name


def test_whole_reference_has_every_event_once() -> None:
    text = generate.reference()
    for kind in events.EVENTS:
        assert text.count(f"\n## {kind.name}\n") == 1
    for alias, target in events.ALIASES.items():
        assert f"| `{alias}` | `{target}` |" in text


def test_reference_of_an_unknown_event_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        generate.reference("file_teleport")


def test_configuration_page_has_every_key() -> None:
    text = generate.configuration_page()
    for key in KEYS:
        assert f"| `{key.name}` |" in text
