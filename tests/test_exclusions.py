"""Own rules made ready for the kernel: identities of paths, what keeps a rule from holding, the bits of bpf/common.h."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest

from monitor import exclusions
from monitor.config_exclusions import Exclusion, FileSystem
from monitor.kernel import compile, rings


def device(path: Path) -> int:
    about = path.stat().st_dev
    return os.major(about) << 20 | os.minor(about)


def test_a_rule_becomes_identities_and_bits(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_bytes(b"")
    program.chmod(0o755)
    rule = Exclusion("r", program, tmp_path, "tmpfs", 8 << 20 | 1, None, 0, ("file_open", "file_write"), "write", True)
    if os.getuid():
        with pytest.raises(exclusions.NotReady, match="can be changed by others than root"):
            exclusions.resolve(rule)
        return
    found = exclusions.resolve(rule)
    assert found.executable == (program.stat().st_ino, device(program))
    assert found.directory == (tmp_path.stat().st_ino, device(tmp_path))
    assert (found.magic, found.device, found.uid, found.events) == (0x01021994, 8 << 20 | 1, 0, 0b101)
    assert found.selects == 0b110110111
    assert len(found.pack()) == 88


def test_the_bits_are_those_of_the_programs() -> None:
    text = (compile.source_directory() / "common.h").read_text()
    (names,) = re.findall(r"enum \{ (BY_EXECUTABLE.*?) \}", text)
    wanted = ["EXECUTABLE", "DIRECTORY", "FILE_SYSTEM", "CGROUP", "DEVICE", "USER", "READERS", "WRITERS", "SENSITIVE"]
    assert [name.split("_", 1)[1] for name in names.split(", ")] == wanted
    assert [getattr(exclusions, f"_{name}") for name in wanted] == [1 << bit for bit in range(9)]
    assert f"#define EXCLUSIONS {rings.EXCLUSIONS}\n" in text


@pytest.mark.parametrize("kind", ["missing", "directory", "writable", "file", "not a cgroup"])
def test_what_cannot_be_trusted_or_found_leaves_nothing_out_and_says_why(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"")
        path.chmod(0o777 if kind == "writable" else 0o644)
    rule = Exclusion("r", executable=path)
    rule = {"file": Exclusion("r", directory=path), "not a cgroup": Exclusion("r", cgroup=tmp_path)}.get(kind, rule)
    (found,), waiting = exclusions.resolved((rule,))
    assert (found.name, found.events) == ("r", 0)
    reasons = {
        "missing": "No such file", "directory": "is not a file", "writable": "can be changed by others than root",
        "file": "is not a directory", "not a cgroup": "is no directory of a cgroup",
    }  # fmt: skip
    assert reasons[kind] in waiting["r"]


def test_magic_numbers_are_those_of_this_kernel() -> None:
    assert set(exclusions.MAGIC) == set(get_args(FileSystem))
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    known = {
        kind: Path(point) for _, point, kind, *_ in lines if kind in exclusions.MAGIC and os.access(point, os.X_OK)
    }
    assert known
    last = {point: kind for _, point, kind, *_ in lines}  # what stands above it there
    for kind, point in known.items():
        if last[str(point)] == kind:
            assert exclusions.file_system(point) == exclusions.MAGIC[kind], kind
