"""The Debian package under test: built once for one state of the source, and copies of it with another version.

Owns the build and its cache beside the trees of machine.py; never installs it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

from tests.service.machine import CACHE, once

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("monitor", "bpf", "config", "docs", "packaging", "scripts", "systemd", "logrotate")
FILES = ("setup.cfg", "pyproject.toml", "requirements.lock", "README.md", "CHANGELOG.md")


def state() -> str:
    """Names everything that the package is made from."""
    found = hashlib.sha256()
    files = [
        path
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    for path in sorted([*files, *(ROOT / name for name in FILES)]):
        found.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode:o}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


@functools.cache  # one state for a whole run, whatever is edited meanwhile
def built() -> Path:
    """The package of this source."""
    with once("packages") as directory:
        kept = directory / f"{state()}.deb"
        if not kept.exists():
            directory.mkdir(exist_ok=True)
            for old in directory.glob("*.deb"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=CACHE) as out:
                done = subprocess.run(
                    [ROOT / "scripts/package.sh", out], cwd=ROOT, capture_output=True, text=True, check=False,
                    env=os.environ | {"EBPF_MONITOR_VERSION": "1.0"},
                )  # fmt: skip
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
                next(Path(out).glob("*.deb")).rename(kept)
    return kept


def with_version(package: Path, version: str, target: Path, *, layout: str = "") -> Path:
    """A copy that differs in its version alone: what an update that does not touch the kernel side is. With `layout`, a comment
    in the C text, its programs are others, too: those of `package` cannot be adopted."""
    made = target / f"ebpf-monitor_{version}.deb"
    with tempfile.TemporaryDirectory(dir=target) as tree:
        subprocess.run(["dpkg-deb", "-R", package, f"{tree}/x"], check=True)
        control = Path(tree, "x/DEBIAN/control")
        control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        if layout:
            (text,) = Path(tree, "x/usr/lib/ebpf-monitor").glob("lib/python3*/site-packages/monitor/_bpf/common.h")
            text.write_text(f"/* {layout} */\n{text.read_text()}")
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "-b", f"{tree}/x", made], check=True, stdout=subprocess.DEVNULL
        )
    return made
