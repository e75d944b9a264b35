"""A Debian with systemd as its first process, in systemd-nspawn on the host's kernel, made from the machine's own package sources.

Owns the cached trees, boot and power-off, and running commands inside; knows nothing of the monitor. The trees lie in
~/.cache/ebpf-monitor-tests/system (debootstrap, once). A machine is a throw-away layer over one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ebpf-monitor-tests" / "system"
TREES = {"bookworm": "debian", "trixie": "debian-13"}
"""Debian's releases that the package is tried on, and their trees' names."""
SUITE = os.environ.get("EBPF_MONITOR_DEBIAN", "bookworm")
"""The release that the tests of this run install on."""
TOOLS = ("debootstrap", "systemd-container", "libsystemd-shared")
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "procps",
    "ca-certificates",
    "python3",
    "python3-bpfcc",
    "libbpf1",
    "logrotate",
)
"""What makes it boot, and what the package depends on; nothing else."""
BUILD_PACKAGES = ("python3-venv", "gcc", "libc6-dev", "libpython3-dev", "make", "debhelper")
"""What `scripts/setup.sh package` would install."""
# What the kernel side needs, as on a host: a container has none of it by default.
CAPABILITIES = "CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN,CAP_SYS_RESOURCE,CAP_SYSLOG,CAP_NET_ADMIN"
HIERARCHIES = ("cpu", "cpuacct", "memory")
"""Those of cgroup version 1 by which systemd holds a unit to CPUQuota= and MemoryMax="""
UNIT_KINDS = (".slice", ".scope", ".service", ".mount")
QUIET = {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat", "DEBIAN_FRONTEND": "noninteractive"}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return str(done.stdout)


@contextlib.contextmanager
def once(name: str) -> Iterator[Path]:
    """The place of a part of the cache, locked against other tests that make it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE / name


def _tools() -> tuple[Path, dict[str, str]]:
    """debootstrap and systemd-nspawn, unpacked and not installed: installing them would update the host's systemd."""
    with once("tools") as tools:
        if not tools.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
                _run("apt-get", "-qq", "download", *TOOLS, cwd=fresh)
                for package in Path(fresh).glob("*.deb"):
                    _run("dpkg", "-x", package, tools.with_suffix(".new"))
            tools.with_suffix(".new").rename(tools)
        libraries = next(tools.glob("usr/lib/*/systemd"))
        return tools, {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "DEBOOTSTRAP_DIR": f"{tools}/usr/share/debootstrap",
        }


def _mirror() -> str:
    """The package source that this machine uses for most of its packages."""
    listed = _run("apt-get", "indextargets", "--format", "$(SITE) $(SUITE)", "Created-By: Packages").split("\n")
    sites = [line.split()[0] for line in listed if line and "security" not in line]
    if not sites:
        raise RuntimeError("apt knows no package source: apt-get update")
    return max(set(sites), key=sites.count)


def tree(suite: str = SUITE, *, builds: bool = False) -> Path:
    """The tree of a bare Debian with the packages that ours depends on; `builds`: with those it is built with, too."""
    tools, environment = _tools()
    more = BUILD_PACKAGES if builds else ()
    with once(TREES[suite] + "-build" * builds) as made:
        if not made.exists():
            fresh = made.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            words = ("--variant=minbase", f"--include={','.join((*PACKAGES, *more))}", suite, fresh, _mirror())
            # Thousands of syncs of single files prove nothing here.
            _run(tools / "usr/sbin/debootstrap", *words, env=environment | {"DPKG_FORCE": "unsafe-io"})
            shutil.rmtree(fresh / "var/cache/apt/archives", ignore_errors=True)
            (fresh / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
            fresh.rename(made)
    return made


def _own_cgroup(hierarchy: str) -> str:
    """The cgroup of this process in a hierarchy of version 1; what is inside begins there."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    found = [line.split(":", 2)[2] for line in lines if hierarchy in line.split(":", 2)[1].split(",")]
    return found[0].rstrip("/") if found else ""


def _nspawn(tree: Path) -> tuple[list[str], dict[str, str]]:
    tools, environment = _tools()
    command = [
        str(tools / "usr/bin/systemd-nspawn"),
        "-q",
        "-D",
        str(tree),
        "--register=no",
        "--keep-unit",
        "--console=pipe",
    ]
    return command, environment


@dataclass
class Done:
    """A command's end inside."""

    status: int
    text: str


@dataclass
class Machine:
    """A booted machine over `lower`; what is written goes to a layer that is thrown away."""

    lower: Path
    name: str
    binds: tuple[str, ...] = ()
    unified: bool = SUITE != "bookworm"
    """cgroup version 2 alone, as Debian has it (and Debian 13 knows no other); else as the host has it, with those controllers
    that it gives"""
    directory: Path = field(init=False)
    leader: int = 0
    """the host's number of its first process"""
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ebpf-monitor-machine-"))
        for part in ("upper", "work", "root", "bpf"):
            (self.directory / part).mkdir()
        layers = f"lowerdir={self.lower},upperdir={self.directory}/upper,workdir={self.directory}/work"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        _run("mount", "-t", "bpf", "-o", "mode=700", "bpf", self.bpf)

    @property
    def root(self) -> Path:
        """Its / as the host sees it."""
        return self.directory / "root"

    @property
    def bpf(self) -> Path:
        """Its /sys/fs/bpf, a file system of its own: the host's pins are not there."""
        return self.directory / "bpf"

    def boot(self, seconds: float = 120.0) -> None:
        """Returns when it says that it runs."""
        nspawn, environment = _nspawn(self.root)
        options = ["-M", self.name, "--boot", "--resolv-conf=off", f"--capability={CAPABILITIES}"]
        options += [
            "--system-call-filter=bpf perf_event_open",
            f"--bind={self.bpf}:/sys/fs/bpf",
            *(f"--bind={b}" for b in self.binds),
        ]
        environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = str(int(self.unified))
        self._process = subprocess.Popen(
            [*nspawn, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"systemd-nspawn ended with {self._process.returncode}")
            if not self.leader:
                self.leader = self._find_leader()
            elif self.run("systemctl", "is-system-running").text.strip() in ("running", "degraded"):
                self._give_controllers()
                return
            time.sleep(0.05)
        raise RuntimeError(
            f"the machine does not come up within {seconds} s: {self.run('systemctl', 'list-jobs').text}"
        )

    def _give_controllers(self) -> None:
        """Limits of units hold: nspawn leaves the hierarchies of version 1 read-only, and then systemd sets none, in silence."""
        if self.unified or not all(Path(f"/sys/fs/cgroup/{name}").is_dir() for name in HIERARCHIES):
            return
        for name in HIERARCHIES:
            self.run("mount", "-o", "remount,rw,bind", f"/sys/fs/cgroup/{name}", check=True)
        self.run("systemctl", "daemon-reexec", check=True)

    def cgroup(self, pid: int, hierarchy: str) -> Path:
        """The cgroup of a process, by the host's number, in a hierarchy of version 1; that of a unit, or an AssertionError."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if hierarchy in names.split(","):
                assert path.endswith(".service"), f"{hierarchy} is not given to the machine: {path}"
                return Path(f"/sys/fs/cgroup/{hierarchy}{path}")
        raise AssertionError(f"no hierarchy {hierarchy}")

    def _find_leader(self) -> int:
        """The host's number of the container's first process."""
        assert self._process is not None
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in listed:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return int(pid)
        return 0

    def run(self, *command: object, seconds: float = 120.0, check: bool = False) -> Done:
        """Runs a command inside; output and errors together. `check`: a failure is an AssertionError."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        words = [
            *enter,
            "env",
            "-i",
            f"PATH={PATH}",
            *(f"{name}={value}" for name, value in QUIET.items()),
            *map(str, command),
        ]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{command}: not within {seconds} s: {late.stdout!r}") from None
        text = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{text}"
        return Done(done.returncode, text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as systemctl show has them."""
        text = self.run("systemctl", "show", unit, *(f"-p{name}" for name in properties), check=True).text
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def journal(self, unit: str) -> str:
        """What a unit has said since boot, with what systemd said of it."""
        return self.run("journalctl", "-b", "-u", unit, "--no-pager", "-o", "cat").text

    def host_pid(self, pid: int) -> int:
        """The host's number of a process inside."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, StopIteration):
                    status = (entry / "status").read_text().splitlines()
                    numbers = next(line for line in status if line.startswith("NSpid:")).split()[1:]
                    if numbers[1:] == [str(pid)] and os.readlink(entry / "ns/pid") == os.readlink(
                        f"/proc/{self.leader}/ns/pid"
                    ):
                        return int(entry.name)
        raise AssertionError(f"no process {pid} inside")

    def close(self) -> None:
        """Powers it off and removes every trace on the host."""
        if self._process is not None and self._process.poll() is None:
            if self.leader:
                with contextlib.suppress(OSError):
                    os.kill(self.leader, signal.SIGRTMIN + 4)  # poweroff: systemd(1)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                if self.leader:
                    os.kill(self.leader, signal.SIGKILL)
                self._process.wait(30)
        for mounted in (self.bpf, self.root):
            subprocess.run(["umount", mounted], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        left = [tree for kind in ("payload", "supervisor") for tree in Path("/sys/fs/cgroup").glob(f"*/{kind}")]
        for name in HIERARCHIES:
            own = Path(f"/sys/fs/cgroup/{name}{_own_cgroup(name)}")
            left += [tree for tree in own.glob("*") if tree.is_dir() and tree.suffix in UNIT_KINDS]
        for tree in left:
            for below, _, _ in os.walk(tree, topdown=False):
                with contextlib.suppress(OSError):  # another machine's: in use
                    Path(below).rmdir()
