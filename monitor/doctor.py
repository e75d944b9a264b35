"""What this host and kernel can do for the monitor, what is missing, and the command that helps.

Owns one small function for each check; it tries things out but changes nothing, and never starts a capture.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monitor import ahead, status
from monitor.compact import neutral
from monitor.config_keys import Config
from monitor.enrich import HostFacts, HostFactsError
from monitor.kernel import BccMissing, import_bcc, pins
from monitor.kernel.btf import Btf, BtfError
from monitor.logfiles import look
from monitor.search import last_time
from monitor.sinks import credentials
from monitor.sinks.credentials import CredentialError
from monitor.sinks.elasticsearch import Connection, EsError

State = Literal["ok", "warn", "missing"]
CAPABILITIES = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
FEATURES = {
    "io_uring_tracepoints": "io_uring as Linux 6.18 has it: without it what a ring is asked to do is not seen, only its set-up",
    "rdonly_cast": "bpf_rdonly_cast (Linux 6.2): without it a path costs about 0.3 us more",
    "ringbuf": "BPF ring buffer (Linux 5.8): without it rare events take a perf buffer",
    "task_pt_regs": "bpf_task_pt_regs (Linux 5.15): without it arguments are read in another way",
    "task_vma": "bpf_iter_task_vma_new (Linux 6.7): without it mprotect that lets a file's memory be executed is not seen, "
    "and a map has the file that its descriptor stands for when the call returns",
    "task_from_vpid": "bpf_task_from_vpid (Linux 6.14): without it the target of ptrace or of a refused kill is a number only",
    "may_goto": "may_goto (Linux 6.9): without it the verifier takes twice as long at each start",
}
TESTED_KERNELS = ((6, 1), (7, 3))
"""Oldest and newest kernel on which `make test-kernels` runs it (docs/kernels.md)."""
_ES_TIMEOUT_S = 10.0
_STA_UNSYNC, _TIMEX_BYTES, _TIMEX_STATUS_AT = 0x40, 256, 40  # include/uapi/linux/timex.h
_GB = 1e9


@dataclass(frozen=True)
class Check:
    """One result. `fix` is a command, or a sentence where no command helps; "" when there is nothing to do."""

    name: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Host:
    """What is examined: a configuration, on the host whose files are below `root` (tests give another one)."""

    config: Config
    root: Path = Path("/")
    problem: str = ""
    """why the configuration cannot be read; `config` has default values then"""

    def path(self, name: str) -> Path:
        """An absolute path of the host."""
        return self.root / name.lstrip("/")

    def holds(self) -> set[str]:
        """The effective capabilities of this process, of those that matter here."""
        lines = self.path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        bits = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
        return {name for name, bit in CAPABILITIES.items() if bits >> bit & 1}


def _privileges(host: Host) -> Iterator[Check]:
    held = host.holds()
    missing = sorted({"CAP_BPF", "CAP_PERFMON"} - held)
    if "CAP_SYS_ADMIN" in held or not missing:
        yield Check("capabilities", "ok", "may load BPF programs")
    else:
        yield Check(
            "capabilities",
            "missing",
            f"without {' and '.join(missing)} nothing can be recorded",
            "sudo ebpf-monitor run",
        )
        return
    if "CAP_SYS_PTRACE" not in held:
        text = "without CAP_SYS_PTRACE the programs and directories of processes that ran before are not seen"
        yield Check("capabilities", "warn", text, "sudo ebpf-monitor run")


def _btf(host: Host) -> Iterator[Check]:
    file = host.path("/sys/kernel/btf/vmlinux")
    try:
        yield Check("BTF", "ok", f"the kernel describes its types ({file.stat().st_size / 1e6:.1f} MB)")
    except OSError as error:
        fix = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's have: apt install linux-image-amd64"
        yield Check("BTF", "missing", f"{file}: {error.strerror}", fix)


def _kernel(_: Host) -> Iterator[Check]:
    release, machine = platform.release(), platform.machine()
    if machine != "x86_64":
        yield Check(
            "kernel",
            "warn",
            f"{machine}: recorded on x86-64 only so far",
            "nothing to do; please report what does not work",
        )
    found = re.match(r"([0-9]+)\.([0-9]+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    oldest, newest = TESTED_KERNELS
    if version < oldest:
        fix = "boot a newer kernel: apt install linux-image-amd64"
        yield Check(
            "kernel", "warn", f"Linux {release} is older than {oldest[0]}.{oldest[1]}, the oldest it is tested on", fix
        )
    elif version > newest:
        text = f"Linux {release} is newer than {newest[0]}.{newest[1]}, the newest it is tested on"
        yield Check(
            "kernel", "warn", text, "sudo ebpf-monitor run --duration 5: the self-test at start tells whether it fits"
        )
    else:
        yield Check("kernel", "ok", f"Linux {release}")


def _tracefs(host: Host) -> Iterator[Check]:
    mounts = host.path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    there = any(line.split(" ")[2:3] == ["tracefs"] for line in mounts.splitlines())
    yield Check("tracefs", "ok", "mounted, and not needed" if there else "not mounted, and not needed")


def _configuration(host: Host) -> Iterator[Check]:
    if host.problem:
        command = re.search(r"\b(?:chmod|chown) .*$", host.problem)
        other = "sudo ebpf-monitor doctor" if "may not read it" in host.problem else "ebpf-monitor check-config"
        yield Check("configuration", "missing", host.problem, command[0] if command else other)


def synchronised() -> bool:
    """Whether the kernel was told that its clock follows another one; also true where it cannot be asked."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return True
    return not int.from_bytes(timex.raw[_TIMEX_STATUS_AT : _TIMEX_STATUS_AT + 4], "little") & _STA_UNSYNC


def _clock(host: Host) -> Iterator[Check]:
    """The clock against the program, the log, and the kernel's word whether anybody disciplines it."""
    fix = "timedatectl set-ntp true"
    now = time.time()
    if now < Path(__file__).stat().st_mtime - 86_400:
        yield Check(
            "clock",
            "missing",
            f"it is {time.strftime('%Y-%m-%d', time.gmtime(now))}, before this program was made",
            fix,
        )
        return
    live = look(host.config.events_dir / host.config.log_name)
    last = "" if live is None else last_time(live)
    if last > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + 60)):
        yield Check(
            "clock", "warn", f"the log's last line is from {last}, which is yet to come: the clock was set back", fix
        )
        return
    if not synchronised():
        yield Check("clock", "warn", "not synchronised: times of events are this host's own", fix)
        return
    yield Check("clock", "ok", "synchronised")


def _lockdown(host: Host) -> Iterator[Check]:
    file = host.path("/sys/kernel/security/lockdown")
    if file.exists() and "[confidentiality]" in file.read_text(encoding="ascii", errors="replace"):
        fix = "take lockdown=confidentiality out of /etc/default/grub (integrity does no harm), update-grub, reboot"
        yield Check("lockdown", "missing", "the kernel lets nobody read its memory", fix)


def _bpffs(host: Host) -> Iterator[Check]:
    pin_dir = host.config.pin_dir
    mounts = host.path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    found = {where: kind for _, where, kind, *_ in (line.split(" ") for line in mounts.splitlines())}
    kind = next((found[str(place)] for place in (pin_dir, *pin_dir.parents) if str(place) in found), "nothing")
    if kind == "bpf":
        yield Check("bpffs", "ok", f"{pin_dir} lies in a BPF file system")
    elif Path("/sys/fs/bpf") in (pin_dir, *pin_dir.parents):
        yield Check("bpffs", "warn", "not mounted; run mounts it", "mount -t bpf bpf /sys/fs/bpf")
    else:
        yield Check(
            "bpffs",
            "missing",
            f"pin_dir {pin_dir} lies in {kind}, not in a BPF file system",
            f"mount -t bpf bpf {shlex.quote(str(pin_dir.parent))}",
        )


def _bcc(_: Host) -> Iterator[Check]:
    try:
        module = import_bcc()
    except BccMissing as error:
        yield Check("bcc", "missing", str(error).rpartition(";")[0], "apt install python3-bpfcc && make setup")
    else:
        yield Check("bcc", "ok", f"python3-bpfcc {getattr(module, '__version__', 'of unknown version')}")


def _features(host: Host) -> Iterator[Check]:
    held = host.holds()
    if "CAP_SYS_ADMIN" not in held and "CAP_BPF" not in held:
        yield Check(
            "kernel features", "warn", "not tried: that needs the capabilities above", "sudo ebpf-monitor doctor"
        )
        return
    try:
        for name, answer in pins.lacking().items():
            text = f"needed, and not in Linux {platform.release()}: {name}: {answer}"
            yield Check("kernel features", "missing", text, "boot a newer kernel: apt install linux-image-amd64")
        found = pins.features(Btf())
    except (BtfError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        yield Check("kernel features", "missing", f"cannot be tried: {reason}", "see the checks above")
        return
    for name, there in found.items():
        if there:
            yield Check(name, "ok", "the kernel has it")
        else:
            yield Check(
                name,
                "warn",
                FEATURES.get(name, "the kernel does not have it"),
                "a newer kernel has it; nothing must be done",
            )


def _numba(_: Host) -> Iterator[Check]:
    if ahead.MODULE is not None:
        yield Check("numba", "ok", "not needed: the reading of the rings was compiled ahead of time")
    elif not ahead.PLAIN:
        yield Check("numba", "warn", "the reading of the rings is compiled at each start: 0.5 s and 100 MB more", "make setup")
    else:
        yield Check("numba", "warn", "not installed: reading the rings takes a hundred times longer", "make setup")


def _identity(host: Host) -> Iterator[Check]:
    try:
        facts = HostFacts.read(host.root)
    except HostFactsError as error:
        yield Check("host", "missing", str(error), "mount -t proc proc /proc")
        return
    if facts.id_source == "machine-id":
        yield Check("host", "ok", f"{facts.name}, machine id {facts.id}")
    else:
        text = f"{facts.name} has no machine id; its identity is made from its {facts.id_source} data"
        yield Check("host", "warn", text, "systemd-machine-id-setup")


def _directories(host: Host) -> Iterator[Check]:
    for key in ("events_dir", "output_dir", "run_dir"):
        yield from _directory(key, getattr(host.config, key))


def _directory(key: str, path: Path) -> Iterator[Check]:
    try:
        about = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        yield Check(key, "ok", f"{path} is not there yet; run makes it")
        return
    except OSError as error:
        yield Check(key, "missing", f"{path}: {error.strerror}", f"sudo ls -ld {shlex.quote(str(path))}")
        return
    name = shlex.quote(str(path))
    if stat.S_ISLNK(about.st_mode):
        yield Check(
            key,
            "missing",
            f"{path} is a symbolic link, which is refused",
            f"name the directory itself in {key}",
        )
    elif not stat.S_ISDIR(about.st_mode):
        yield Check(key, "missing", f"{path} is not a directory", f"mv {name} {name}.old")
    elif about.st_uid not in (0, os.geteuid()):
        yield Check(
            key,
            "missing",
            f"{path} belongs to user {about.st_uid}, who could forge what is in it",
            f"chown root {name}",
        )
    elif about.st_mode & 0o022:
        yield Check(key, "missing", f"{path} can be written by others than its owner", f"chmod go-w {name}")
    elif about.st_mode & 0o005:
        yield Check(key, "warn", f"{path} can be entered by everybody", f"chmod o-rx {name}")
    else:
        yield Check(key, "ok", f"{path} is only its owner's to write")


def _space(host: Host) -> Iterator[Check]:
    path = host.config.events_dir
    there = next(place for place in (path, *path.parents) if place.exists())
    usage, about = shutil.disk_usage(there), os.statvfs(there)
    percent, wanted = 100 * usage.free / max(usage.total, 1), host.config.log_min_free
    text, name = f"{usage.free / _GB:.1f} GB free for {path} ({percent:.0f} %)", shlex.quote(str(there))
    if about.f_files and not about.f_favail:  # some file systems have no table of them
        text += ", and no new file can be made: no inode is free"
        yield Check("disk", "missing", text, f"du -x --inodes {name} | sort -n | tail")
    elif percent < max(1, wanted):
        text += f": below log_min_free ({wanted} %) rotated files of the log are removed" if percent < wanted else ""
        yield Check("disk", "missing" if percent < 1 else "warn", text, f"du -xh {name} | sort -h | tail")
    else:
        yield Check("disk", "ok", text)


def _elasticsearch(host: Host) -> Iterator[Check]:
    """One request with the configured credentials, as the shipper makes it."""
    if host.config.storage_type != "elasticsearch":
        return
    es = host.config.es_config
    where = f"{'https' if es.secure else 'http'}://{es.es_host[0]}:{es.es_port}"
    try:
        connection = Connection(es, credentials.read(es), parallel=1, timeout_s=_ES_TIMEOUT_S)
        try:
            reply = connection.perform(
                "GET", "/_security/_authenticate" if es.es_user or es.api_key or es.api_key_file else "/"
            )
        finally:
            connection.close()
    except (CredentialError, EsError) as error:
        yield Check("Elasticsearch", "missing", str(error), f"curl -v {shlex.quote(where)}")
        return
    if reply.status in (401, 403):
        fix = "ebpf-monitor setup-elasticsearch, or put the right credentials into es_config"
        yield Check("Elasticsearch", "missing", f"{where} refuses the credentials (HTTP {reply.status})", fix)
    elif reply.status >= 500:
        yield Check("Elasticsearch", "missing", f"{where} answers HTTP {reply.status}", f"curl -v {shlex.quote(where)}")
    else:
        yield Check(
            "Elasticsearch", "ok", f"{where} answers" + (f"; {connection.warning}" if connection.warning else "")
        )


def _monitor(host: Host) -> Iterator[Check]:
    try:
        found = status.read(host.config.run_dir)
    except status.StatusError as error:
        yield Check("monitor", "warn", str(error), "sudo ebpf-monitor doctor")
        return
    if not found.running:
        yield Check("monitor", "ok", "not running")
    elif found.exit_status:
        yield Check("monitor", "warn", f"runs as process {found.pid}, but not well", "ebpf-monitor status")
    else:
        yield Check("monitor", "ok", f"runs as process {found.pid}")


CHECKS: tuple[tuple[str, Callable[[Host], Iterator[Check]]], ...] = (
    ("configuration", _configuration), ("capabilities", _privileges), ("kernel", _kernel), ("BTF", _btf),
    ("lockdown", _lockdown), ("tracefs", _tracefs), ("bpffs", _bpffs), ("bcc", _bcc), ("kernel features", _features),
    ("numba", _numba), ("host", _identity), ("clock", _clock), ("events_dir", _directories), ("disk", _space),
    ("monitor", _monitor), ("Elasticsearch", _elasticsearch),
)  # fmt: skip


def examine(host: Host) -> list[Check]:
    """All checks. One that cannot be made for lack of access is "warn", with the reason."""
    found: list[Check] = []
    for name, check in CHECKS:
        try:
            found += check(host)
        except OSError as error:
            found.append(
                Check(
                    name, "warn", f"cannot be checked: {error.filename}: {error.strerror}", "sudo ebpf-monitor doctor"
                )
            )
    return found


def exit_status(checks: list[Check]) -> int:
    """1 when something is missing; a warning alone is 0: the monitor works, only less well."""
    return int(any(check.state == "missing" for check in checks))


def text(checks: list[Check]) -> str:
    """One line for each check, ending in a newline."""
    left = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        fix = f"  -> {check.fix}" if check.fix else ""
        lines.append(neutral(f"{check.state:<7}  {check.name:<{left}}  {check.text}{fix}") + "\n")
    return "".join(lines)


def document(checks: list[Check]) -> dict[str, Any]:
    """For `doctor --json`."""
    every = [{"name": one.name, "state": one.state, "text": one.text, "fix": one.fix} for one in checks]
    return {"ok": not exit_status(checks), "checks": every}
