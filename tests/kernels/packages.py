"""Debian's kernels as files: which ones the project claims, fetched from the machine's own package sources and kept.

Owns the list of kernels and the cache; never boots anything and never touches the machine's own apt state.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebpf-monitor-tests"
SUITES = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie",),
    "newest": ("trixie-backports",),
}
"""Debian suites that bring a kernel of this line; the newest package of all is taken."""
REFUSED = ("5.10",)
"""Lines on which the monitor must refuse to start, and say what they lack; the others are claimed."""
FOREIGN = {"arm64": ("trixie",)}
"""Of another machine: the name is that of its architecture. Only read, never booted here."""
_SOURCES = (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))


def _lz4_legacy(data: bytes) -> bytes:
    """LZ4's legacy frame, as the kernel's build makes it: blocks of at most 8 MiB, each behind its length (lz4_Frame_format.md).

    liblz4 is on every Debian machine: apt needs it.
    """
    library, made, at = ctypes.CDLL("liblz4.so.1"), bytearray(), 4
    out = ctypes.create_string_buffer(8 << 20)
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        block = data[at + 4 : at + 4 + length]
        size = library.LZ4_decompress_safe(block, out, len(block), len(out)) if len(block) == length else -1
        if size <= 0:
            break
        made += out.raw[:size]
        at += 4 + length
    return bytes(made)


_PACKERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\x00", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data)),
    (b"\x02\x21\x4c\x18", _lz4_legacy),
    (b"\x28\xb5\x2f\xfd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
)


@dataclass(frozen=True)
class Kernel:
    """One kernel on disk. `release` is what uname -r says in it; of FOREIGN there is no image."""

    line: str
    release: str
    image: Path
    btf: Path


def mirrors() -> tuple[str, str]:
    """The machine's own sources of Debian and of its security updates, from whatever form they are written in."""
    text = "\n".join(path.read_text() for path in _SOURCES if path.is_file())
    addresses = re.findall(r"^(?:URIs:|deb(?: \[[^\]]*\])?)\s+(\S+)", text, re.MULTILINE)
    main = next((one for one in addresses if one.rstrip("/").endswith("/debian")), None)
    if main is None:
        raise RuntimeError("no Debian archive among the package sources of this machine")
    main = main.rstrip("/")
    return main, next((one for one in addresses if "debian-security" in one), main + "-security")


class _Apt:
    """A package state of its own, so that the machine's stays as it is."""

    def __init__(self, directory: Path, suites: set[str], architecture: str = "amd64") -> None:
        self.directory, self.architecture = directory, architecture
        for name in ("lists/partial", "archives/partial"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        main, security = mirrors()
        with (directory / "sources.list").open("w") as out:
            for suite in sorted(suites):
                # the keyring of an older Debian has not the keys of a newer suite; what is fetched only runs in a guest
                out.write(f"deb [trusted=yes] {security if suite.endswith('-security') else main} {suite} main\n")
        if not (self.directory / "updated").exists():
            self.run("apt-get", "-q", "update")
            (self.directory / "updated").touch()

    def run(self, *words: str, cwd: Path | None = None) -> str:
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self.directory / "lists",
            "Dir::Cache": self.directory,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run([words[0], *flags, *words[1:]], cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def newest(self, suites: tuple[str, ...]) -> str:
        """The kernel package that the suites' meta package points to."""
        found = []
        for suite in suites:
            text = self.run("apt-cache", "show", "--no-all-versions", f"linux-image-cloud-{self.architecture}/{suite}")
            version = re.search(r"^Version: (\S+)", text, re.MULTILINE)
            depends = re.search(rf"^Depends:.*?\b(linux-image-\d\S*?-cloud-{self.architecture})", text, re.MULTILINE)
            if version and depends:
                found.append(([int(part) for part in re.findall(r"\d+", version.group(1))], depends.group(1)))
        if not found:
            raise RuntimeError(f"no kernel for {self.architecture} in {', '.join(suites)}")
        return max(found)[1]

    def unpack(self, package: str, into: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            self.run("apt-get", "-q", "download", package, cwd=Path(name))
            (archive,) = Path(name).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, into], check=True)


_BTF_HEAD = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"
_BTF_HEADER = 24


def vmlinux(image: bytes) -> bytes:
    """The ELF kernel inside a compressed boot image."""
    for magic, unpack in _PACKERS:
        at = image.find(magic)
        while at >= 0:
            with contextlib.suppress(lzma.LZMAError, zlib.error, zstandard.ZstdError):
                made = unpack(image[at:])
                if made.startswith(b"\x7fELF"):
                    return made
            at = image.find(magic, at + 1)
    raise RuntimeError("no kernel found in the boot image")


def btf_of(elf: Path) -> bytes:
    """The section .BTF of an ELF kernel."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["objcopy", "-O", "binary", "--only-section=.BTF", elf, out.name], check=True)
        return Path(out.name).read_bytes()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process at a time fills the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def btf_in(image: bytes) -> bytes:
    """The BTF in a boot image that is not packed and no ELF file, as arm64's are: found by its header (uapi/linux/btf.h)."""
    at = image.find(_BTF_HEAD)
    while at >= 0:
        _types, types, strings, length = struct.unpack_from("<4I", image, at + len(_BTF_HEAD))
        end = at + _BTF_HEADER + strings + length
        if types > 1 << 20 and strings >= types and end <= len(image):  # a module's is smaller
            return image[at:end]
        at = image.find(_BTF_HEAD, at + 1)
    raise RuntimeError("no BTF found in the boot image")


def _image(apt: _Apt, tree: Path, release: str) -> Path:
    """Unpacks what has the boot image of a kernel; where it is."""
    apt.unpack(f"linux-image-{release}", tree)
    if not (tree / f"boot/vmlinuz-{release}").exists():  # newer packages are in parts
        apt.unpack(f"linux-binary-{release}", tree)
    return next(one for one in (*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz")))


@functools.cache
def fetch(line: str) -> Kernel:
    """The newest kernel of a line of SUITES or FOREIGN, from the cache or from the package sources. Raises RuntimeError."""
    place = CACHE / "kernels" / line
    with locked():
        if not (place / "release").exists():
            if line in FOREIGN:
                apt = _Apt(CACHE / f"apt-{line}", set(FOREIGN[line]), line)
            else:
                apt = _Apt(CACHE / "apt", {one for suites in SUITES.values() for one in suites})
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as name:
                tree = Path(name)
                release = apt.newest((SUITES | FOREIGN)[line]).removeprefix("linux-image-")
                image = _image(apt, tree, release)
                if line in FOREIGN:
                    (place / "btf").write_bytes(btf_in(image.read_bytes()))
                else:
                    (tree / "elf").write_bytes(vmlinux(image.read_bytes()))
                    (place / "btf").write_bytes(btf_of(tree / "elf"))
                    shutil.copy(image, place / "vmlinuz")
                (place / "release").write_text(release)
    return Kernel(line, (place / "release").read_text(), place / "vmlinuz", place / "btf")
