"""A small Debian in qemu, with a kernel of another line: made once, started for each kernel with the project inside.

Owns the guest's file tree, its image and the words with which qemu starts; what runs in it is boot.py's business.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kernels import packages
from tests.kernels.packages import CACHE, Kernel

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "/opt/ebpf-monitor"
_PACKAGES = "python3 python3-venv python3-bpfcc libbpf1 gcc libc6-dev libpython3-dev make iproute2 procps kmod git bpftrace logrotate ca-certificates"
# Emulated: a plain processor, so that what was compiled outside fits inside, and every deadline many times as long.
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "EBPF_MONITOR_KERNEL_TESTS": "1",
    "EBPF_MONITOR_PATIENCE": "20",
    "CI": "true",
}
_INIT = """#!/bin/sh
export {environment}
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts; mount -t tmpfs shm /dev/shm; mount -t devpts pts /dev/pts
mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp; ip link set lo up; ip route add default dev lo
cd {inside}
tr ' ' '\\n' </proc/cmdline | sed -n 's/^guestrun=//p' | base64 -d >/run/guestrun
sh /run/guestrun
echo "GUEST-END $?"
sync; echo o >/proc/sysrq-trigger; sleep 60
"""


@dataclass(frozen=True)
class Outcome:
    """What a guest left: the script's exit status, all it printed, and the files it handed over by name."""

    status: int
    text: str
    files: dict[str, bytes]


@contextmanager
def _proc(tree: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "proc", "proc", tree / "proc"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", tree / "proc"], check=True)


def _inside(tree: Path, script: str) -> None:
    done = subprocess.run(
        ["chroot", tree, "env", "-i", *(f"{k}={v}" for k, v in _ENVIRONMENT.items()), "sh", "-ec", f"cd {INSIDE}; {script}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"in the guest's tree: {script}: {(done.stdout + done.stderr)[-2000:]}")


def _base() -> Path:
    """The bare Debian tree, from the cache or made with debootstrap."""
    tree = CACHE / "guest"
    if not (tree / "complete").exists():
        shutil.rmtree(tree, ignore_errors=True)
        main, _security = packages.mirrors()
        command = [
            "debootstrap",
            "--variant=minbase",
            "--include=" + ",".join(_PACKAGES.split()),
            "bookworm",
            tree,
            main,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (tree / "complete").touch()
    return tree


def _copy_project(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    target = tree / INSIDE.lstrip("/")
    for name in filter(None, listed.decode().split("\0")):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.unlink(missing_ok=True)
            copy.symlink_to(source.readlink())
        elif source.is_file():
            shutil.copy2(source, copy)


def image(warm: str) -> Path:
    """A file system image with the project set up in it; `warm` is a command that leaves compiled code behind."""
    with packages.locked():
        tree = _base()
        for name in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(name, tree / name.lstrip("/"))
        target = tree / INSIDE.lstrip("/")
        for old in target.glob("*") if target.is_dir() else ():  # .venv and what was compiled stay
            if old.name not in ("monitor",):
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for old in (target / "monitor").rglob("*.py"):
            old.unlink()
        _copy_project(tree)
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in _ENVIRONMENT.items())
        init = tree / "sbin/guest-init"
        init.write_text(_INIT.format(environment=words, inside=INSIDE))
        init.chmod(0o755)
        with _proc(tree):
            _inside(tree, "scripts/setup.sh test")
            _inside(tree, warm)
        made = CACHE / f"guest-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}.img"
        made.unlink(missing_ok=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", "lazy_itable_init=1", made, "4G"], check=True)
    return made


def run(kernel: Kernel, disk: Path, script: str, files: tuple[str, ...], seconds: float) -> Outcome:
    """Boots `kernel` on a throw-away copy of `disk`, runs `script` (sh) in the project, brings `files` back.

    Raises TimeoutError if the guest has not ended by then.
    """
    handed = "".join(f'echo "GUEST-FILE {name}"; base64 -w 0 {name} 2>/dev/null; echo\n' for name in files)
    whole = f"( {script}\n)\nstatus=$?\n{handed}\n(exit $status)\n"
    word = base64.b64encode(whole.encode()).decode()
    with tempfile.NamedTemporaryFile() as out:
        command = [
            *(
                "nice",
                "-n",
                "19",
                "qemu-system-x86_64",
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "Nehalem",
                "-m",
                "3072",
                "-smp",
                "2",
            ),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{out.name}"),
            *("-drive", f"file={disk},if=none,id=d0,format=raw,snapshot=on", "-device", "nvme,drive=d0,serial=x0"),
            *("-kernel", str(kernel.image), "-append"),
            # maxcpus: the second CPU stays offline until tests/kernel/late_cpu.py brings it online
            f"console=ttyS0 maxcpus=1 root=/dev/nvme0n1 rw panic=-1 mitigations=off quiet init=/sbin/guest-init guestrun={word}",
        ]
        try:
            subprocess.run(
                command, check=True, timeout=seconds, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": "/var/tmp"}
            )
        except subprocess.TimeoutExpired:
            said = Path(out.name).read_text(errors="replace")[-3000:]
            raise TimeoutError(
                f"{kernel.release}: the guest did not end within {seconds} s; last it said: {said}"
            ) from None
        text = Path(out.name).read_text(errors="replace").replace("\r", "")
    found = {
        name: base64.b64decode(data) for name, data in re.findall(r"^GUEST-FILE (\S+)\n(\S*)$", text, re.MULTILINE)
    }
    end = re.search(r"^GUEST-END (\d+)$", text, re.MULTILINE)
    if end is None:
        raise RuntimeError(f"{kernel.release}: the guest broke off: {text[-3000:]}")
    return Outcome(int(end.group(1)), re.sub(r"^GUEST-FILE \S+\n\S*$", "", text, flags=re.MULTILINE), found)
