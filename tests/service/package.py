"""The Debian package under test: built once for one state of the source and each release of Debian, and copies of it with another
version.

Owns the build and its cache beside the trees of machine.py; never installs it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.service.machine import CACHE, PATH, QUIET, SUITE, once, tree

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("monitor", "bpf", "config", "docs", "packaging", "scripts", "systemd", "logrotate")
HOST = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
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
def built(suite: str = SUITE) -> Path:
    """The package of this source for a release of Debian, made on that release: its Python packages are for one Python."""
    with once("packages") as directory:
        kept = directory / f"{state()}-{suite}.deb"
        if not kept.exists():
            directory.mkdir(exist_ok=True)
            for old in directory.glob(f"*-{suite}.deb"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=CACHE) as out:
                made = _build_here(Path(out)) if suite == HOST else _build_in(tree(suite, builds=True), Path(out))
                made.rename(kept)
    return kept


def _build_here(out: Path) -> Path:
    _run([ROOT / "scripts/package.sh", out], os.environ | {"EBPF_MONITOR_VERSION": "1.0"})
    return next(out.glob("*.deb"))


def _build_in(lower: Path, scratch: Path) -> Path:
    """Builds in a throw-away layer over the tree of another release, as `make deb` does there on a checkout."""
    root = scratch / "root"
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    layers = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    with (
        _mounted("-t", "overlay", "overlay", "-o", layers, target=root),
        _mounted("--bind", "/proc", target=root / "proc"),
    ):
        for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(f"/{name}", root / name)
        source = root / "root/source"
        source.mkdir()
        for part in PARTS:
            shutil.copytree(
                ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "_fastpath.*")
            )
        for name in (*FILES, "Makefile"):
            shutil.copy(ROOT / name, source / name)
        environment = {"PATH": PATH, "HOME": "/root", "EBPF_MONITOR_VERSION": "1.0"} | QUIET
        _run(["chroot", root, "make", "-C", "/root/source", "deb"], environment)
        return Path(shutil.move(next((source / "build/deb").glob("*.deb")), scratch))


@contextlib.contextmanager
def _mounted(*words: str, target: Path) -> Iterator[None]:
    subprocess.run(["mount", *words, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


def _run(command: list[str | Path], environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


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
