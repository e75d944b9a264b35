"""Owns the header tree that lets BCC compile our programs on a host without kernel headers (BCC_KERNEL_SOURCE).

It never describes a kernel struct: programs reach kernel objects by numeric offsets from BTF, because headers of
another kernel compile too and then read wrong members without an error.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

_TYPES: Final = """\
typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __le16;
typedef __u32 __le32;
typedef __u64 __le64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef _Bool bool;
enum { false = 0, true = 1 };
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#define __aligned_u64 __u64 __attribute__((aligned(8)))
"""

# Headers that BCC's own bpf.h and helpers.h include and of which they use nothing here. BCC brings its own copy of
# uapi/linux/bpf.h, so ours must add nothing to it.
_EMPTY: Final = (
    "include/linux/bpf_common.h",
    "include/linux/log2.h",
    "include/uapi/linux/bpf.h",
    "include/uapi/linux/if_packet.h",
)


def write_tree(directory: str | os.PathLike[str], release: str | None = None) -> None:
    """Write the tree below `directory`, which is made if it is missing (0750, files 0640); existing files are replaced.

    `release` is the kernel's (uname -r, the default); it sets LINUX_VERSION_CODE. The page size is the running
    kernel's, BCC's ring buffer macros are made of it. Raises OSError, and ValueError for a release without a version.
    """
    files = {
        # BCC's helpers.h leaves out the map helpers without CONFIG_BPF_SYSCALL
        "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
        "include/linux/types.h": _TYPES,
        "include/linux/version.h": _version(platform.release() if release is None else release),
        "include/asm/page.h": f"#define PAGE_SIZE {os.sysconf('SC_PAGE_SIZE')}\n",
    } | dict.fromkeys(_EMPTY, "")
    for name, text in files.items():
        guard = re.sub(r"\W", "_", name.upper())
        _write(Path(directory) / name, f"#ifndef EBPF_MONITOR_{guard}\n#define EBPF_MONITOR_{guard}\n{text}#endif\n")


def _version(release: str) -> str:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if match is None:
        raise ValueError(f"kernel release {release!r} does not begin with a version")
    major, minor, patch = (int(number or 0) for number in match.groups())
    # as the kernel's own Makefile since "kbuild: clamp SUBLEVEL to 255" (v5.12)
    code = (major << 16) + (minor << 8) + min(patch, 255)
    clamp = "(((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))"
    return f"#define LINUX_VERSION_CODE {code}\n#define KERNEL_VERSION(a, b, c) {clamp}\n"


def _write(path: Path, text: str) -> None:
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):  # one by one: mkdir(parents=True) gives its mode to the last one only
        parent.mkdir(mode=0o750, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o640), "w", encoding="ascii") as file:
        file.write(text)
