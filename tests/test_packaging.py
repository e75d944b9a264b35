"""What is installed: the lock file, the wheel, the setup script and the commands of the Makefile.

Owns the promises of `make setup` that can be kept without root and network; never installs anything.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from monitor import ahead

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "setup.sh"
TEST_MARK = "# test group: only with make test and make check"
SCRIPTS = [str(path.relative_to(ROOT)) for path in [*(ROOT / "scripts").glob("*.sh"), ROOT / "systemd/hand-over"]]
PYTHONS = ("3.11", "3.12", "3.13")

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def wanted() -> list[Requirement]:
    """The requirements that setup.cfg declares, with the build backend that pyproject.toml names."""
    backend = re.findall(r'^requires = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return [Requirement(line) for line in [*lines(SETUP["options"]["install_requires"]), *backend]]


def locked(text: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Pinned requirements by name, each with the number of its hashes (a name can have one for each Python)."""
    found: dict[str, list[tuple[Requirement, int]]] = {}
    for block in re.split(r"\n(?=[a-z])", text)[1:]:
        requirement = Requirement(block.split("\\\n")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), []).append((requirement, block.count("--hash=sha256:")))
    return found


RUNTIME, TEST = map(locked, (ROOT / "requirements.lock").read_text().split(TEST_MARK))


def test_lock_pins_one_exact_hashed_version_for_each_python() -> None:
    for name, entries in [*RUNTIME.items(), *TEST.items()]:
        for requirement, hashes in entries:
            assert [part.operator for part in requirement.specifier] == ["=="], requirement
            assert hashes > 0, f"{requirement} has no hash"
        for python in PYTHONS:
            here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
            fits = [entry for entry, _ in entries if entry.marker is None or entry.marker.evaluate(here)]
            assert len(fits) == 1 or name == "colorama", f"{name} for Python {python}: {fits}"


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_lock_holds_what_the_program_declares(requirement: Requirement) -> None:
    pins = RUNTIME[canonicalize_name(requirement.name)]
    assert all(next(iter(pin.specifier)).version in requirement.specifier for pin, _ in pins), "run make lock"


@pytest.mark.parametrize("line", lines(SETUP["options.extras_require"]["test"]))
def test_lock_holds_what_the_tests_declare(line: str) -> None:
    requirement = Requirement(line)
    pins = TEST[canonicalize_name(requirement.name)]
    assert all(next(iter(pin.specifier)).version in requirement.specifier for pin, _ in pins), "run make lock"


def test_lock_groups_share_no_package_and_name_no_index() -> None:
    assert not set(RUNTIME) & set(TEST)
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_bcc_is_never_asked_of_a_package_index() -> None:
    declared = SETUP["options"]["install_requires"] + SETUP["options.extras_require"]["test"]
    assert "bcc" not in {Requirement(line).name for line in lines(declared)}
    assert "bcc" not in {*RUNTIME, *TEST}


# ---- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without network from a copy: a build leaves its traces beside the source."""
    source = tmp_path_factory.mktemp("wheel") / "check out"
    source.mkdir()
    for name in ("monitor", "bpf"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-index", "--no-build-isolation", "--wheel-dir", str(source / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = (source / "out").iterdir()
    return zipfile.ZipFile(built)


def test_wheel_holds_every_c_file_where_the_program_looks(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT / "bpf") for path in (ROOT / "bpf").rglob("*.[ch]")}
    assert sources
    for path in sources:
        assert wheel.read(f"monitor/_bpf/{path}") == (ROOT / "bpf" / path).read_bytes()
        assert (ROOT / "monitor" / "_bpf" / path).samefile(ROOT / "bpf" / path)


def test_wheel_holds_the_program_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "monitor").rglob("*.py")}
    assert modules <= names, "a package is missing under [options] packages in setup.cfg"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"monitor", "ebpf_monitor"}


def test_wheel_has_the_command_and_the_version_of_the_program(wheel: zipfile.ZipFile) -> None:
    version = re.findall(r'__version__ = "(.*)"', (ROOT / "monitor" / "__init__.py").read_text())[0]
    folder = f"ebpf_monitor-{version}.dist-info"
    assert "ebpf-monitor = monitor.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert f"\nVersion: {version}\n" in wheel.read(f"{folder}/METADATA").decode()


# ---- the setup script, on a machine of stubs -------------------------------------------------------------------------


HARMLESS = "cat cut dirname env flock grep ls mktemp readlink rm sed sh sha256sum sort tail tee"


def found_in(package: Path) -> list[Path]:
    """What the compiled pass is made of."""
    return [path for pattern in ahead.SOURCES for path in sorted(package.glob(pattern))]


class Machine:
    """A checkout in a path with a space, and stubs for the commands that would change the machine."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.bin, self.calls = folder / "a check out", folder / "bin", folder / "calls"
        (self.checkout / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        # Behind the stubs on PATH: a stub never stands where a link to a command of the host is.
        self.real = folder / "real"
        self.real.mkdir()
        self.calls.touch()
        for name in ("setup.cfg", "pyproject.toml", "requirements.lock", "scripts/setup.sh"):
            shutil.copy(ROOT / name, self.checkout / name)
        for source in (ROOT / "scripts/compile_ahead.py", *found_in(ROOT / "monitor")):
            copy = self.checkout / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        for command in HARMLESS.split():
            (self.real / command).symlink_to(shutil.which(command) or f"/usr/bin/{command}")
        self.stub("sleep", "exit 0")
        self.stub("dpkg-query", "exit 1")
        self.stub("id", "echo 0")

    def stub(self, name: str, body: str) -> None:
        """Puts a command on PATH that notes how it was called, then runs `body`."""
        path = self.bin / name
        path.unlink(missing_ok=True)  # never write through a link into the host's own command
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{body}\n')
        path.chmod(0o755)

    def called(self, name: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(f"{name} ")]

    def setup(self, group: str = "run") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.bin}:{self.real}", "TMPDIR": str(self.checkout)}
        environment |= {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}
        command = [str(self.checkout / "scripts/setup.sh"), group]
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)

    def install(self, group: str) -> None:
        """Makes it look as if `setup.sh group` had been there: packages, commands, and the stamp of this very state."""
        packages = "python3 python3-venv python3-bpfcc libbpf1 gcc libc6-dev libpython3-dev make debhelper groff-base gnupg bpftrace logrotate maven default-jre-headless openssl"
        self.stub("dpkg-query", "echo '" + "".join(f"installed:{package} " for package in packages.split()) + "'")
        for name in ("python", "ebpf-monitor"):
            path = self.checkout / ".venv/bin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
        stamp = self.checkout / ".venv/setup.stamp"
        stamp.write_text("no such state\n")
        self.stub("sha256sum", f"'{self.real}/sha256sum' | tee '{self.bin}/state'")
        self.stub("flock", "exit 1")  # the first thing a setup does that has something to do: ends the script here
        assert self.is_due(group)
        stamp.write_text(f"{(self.bin / 'state').read_text().split()[0]} {group}\n")
        (self.checkout / "monitor/_fastpath.0.so").touch()
        made_of = [stamp, *found_in(self.checkout / "monitor")]
        digest = hashlib.sha256(
            b"".join(path.read_bytes() for path in (*made_of, self.checkout / "scripts/compile_ahead.py"))
        )
        (self.checkout / ".venv/pass.stamp").write_text(f"{digest.hexdigest()}  -\n")

    def is_due(self, group: str) -> bool:
        """Whether setup.sh would do something; checks that it is silent when it would not."""
        done = self.setup(group)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "") or done.returncode == 1
        return done.returncode == 1


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_setup_without_network_tries_three_times_and_says_so(machine: Machine) -> None:
    machine.stub("apt-get", "echo 'E: Temporary failure resolving the mirror'; exit 100")
    done = machine.setup()
    assert done.returncode == 1
    assert (
        "apt-get could not install python3 python3-venv python3-bpfcc libbpf1 gcc libc6-dev libpython3-dev. Is there a network"
        in done.stderr
    )
    assert "E: Temporary failure resolving the mirror" in done.stderr
    assert len([call for call in machine.called("apt-get") if call.endswith(" update")]) == 3


def test_setup_refreshes_the_package_lists_only_when_needed(machine: Machine) -> None:
    machine.stub("apt-get", "exit 0")
    (machine.checkout / ".venv").touch()  # a file: the step after the packages fails, and nothing is made
    assert "-m venv failed" in machine.setup().stderr
    calls = machine.called("apt-get")
    assert len(calls) == 1
    assert "--no-install-recommends --no-remove python3 python3-venv python3-bpfcc libbpf1" in calls[0]


def test_setup_installs_only_what_is_missing(machine: Machine) -> None:
    status = "installed:python3 not-installed:logrotate installed:gcc installed:make-guile "
    machine.stub("dpkg-query", f"echo '{status}'; exit 1")
    machine.stub("apt-get", "exit 100")
    machine.setup("test")
    install = machine.called("apt-get")[0].split("--no-remove ")[1].split()
    assert install == [
        "python3-venv",
        "python3-bpfcc",
        "libbpf1",
        "libc6-dev",
        "libpython3-dev",
        "make",
        "debhelper",
        "groff-base",
        "gnupg",
        "bpftrace",
        "logrotate",
        "maven",
        "default-jre-headless",
        "openssl",
    ]


def test_setup_of_another_user_without_sudo_names_the_packages(machine: Machine) -> None:
    machine.stub("id", "echo 1000")
    machine.stub("apt-get", "exit 0")
    done = machine.setup()
    assert done.returncode == 1
    assert "Install them as root: apt-get install python3 python3-venv python3-bpfcc libbpf1" in done.stderr
    assert not machine.called("apt-get")


def test_setup_of_another_user_asks_sudo(machine: Machine) -> None:
    machine.stub("id", "echo 1000")
    machine.stub("apt-get", "exit 100")
    machine.stub("sudo", '"$@"')
    machine.setup()
    assert len(machine.called("sudo")) == len(machine.called("apt-get")) == 7


def test_setup_with_nothing_to_do_is_silent_and_quick(machine: Machine) -> None:
    machine.install("run")
    elapsed = []
    for _ in range(3):
        start = time.monotonic()
        assert not machine.is_due("run")
        elapsed.append(time.monotonic() - start)
    assert min(elapsed) < 0.3


def test_setup_of_the_test_group_contains_the_run_group(machine: Machine) -> None:
    machine.install("test")
    assert not machine.is_due("run")


def test_setup_of_the_run_group_does_not_contain_the_test_group(machine: Machine) -> None:
    machine.install("run")
    assert machine.is_due("test")


CHANGED = [
    "requirements.lock", "setup.cfg", "pyproject.toml", "scripts/setup.sh",
    "monitor/fastpath.py", "monitor/events/files.py", "scripts/compile_ahead.py",
]  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_setup_is_due_again_after_a_change(machine: Machine, name: str) -> None:
    machine.install("run")
    with (machine.checkout / name).open("a") as file:
        file.write("# changed\n")
    assert machine.is_due("run")


def test_setup_is_due_again_after_a_move(machine: Machine) -> None:
    machine.install("run")
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("moved away"))
    assert machine.is_due("run")


def test_setup_refuses_an_unknown_word(machine: Machine) -> None:
    done = machine.setup("everything")
    assert (done.returncode, done.stderr) == (1, "setup: usage: scripts/setup.sh run|package|test|kernels|lock\n")


# ---- the commands ----------------------------------------------------------------------------------------------------


def make(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""}
    return subprocess.run(["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_command() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make (\S+) +\S", make().stdout, re.MULTILINE)
    assert listed == phony.split()


def test_make_keeps_a_foreign_python_out() -> None:
    makefile = (ROOT / "Makefile").read_text()
    environment = {**os.environ, "PYTHONPATH": "/x", "PYTHONHOME": "/x", "VIRTUAL_ENV": "/x", "MAKEFLAGS": ""}
    probe = f"{makefile}\nprobe:\n\t@env\n".encode()
    shown = subprocess.run(["make", "-f", "-", "probe"], input=probe, env=environment, capture_output=True, check=True)
    assert b"PATH=" in shown.stdout
    assert not re.findall(rb"^(?:PYTHON\w*|VIRTUAL_ENV)=.*", shown.stdout, re.MULTILINE)


def test_make_test_and_ci_turn_no_test_off() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split("\ntest:")[1].split("\n\n")[0]
    assert "export EBPF_MONITOR_KERNEL_TESTS=1;" in recipe
    parts = [part.strip("'") for part in re.findall(r"\$\((?:SHARED|PYTEST)\)(?: -n 2)? -m ('[^']*'|\w+)", recipe)]
    kernel = {"root", "kernel"}
    for marks in (set(), {"packages"}, {"root", "bench"}, kernel, kernel | {"alone"}, kernel | {"paced"}):
        given = dict.fromkeys(("root", "bench", "alone", "paced", "service"), False) | dict.fromkeys(marks, True)
        assert [eval(part, {}, given) for part in parts].count(True) == 1, f"{marks}: not in exactly one of {parts}"  # noqa: S307 - our own Makefile's words
    system = makefile.split("\ntest-system:")[1].split("\n\n")[0]
    assert "$(PYTEST) tests/service $(ARGS)" in system
    assert "EBPF_MONITOR_KERNEL_TESTS=1;" in system
    assert " -k " not in recipe + system
    calls = re.findall(r"^make .*", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert calls == ["make test || failed=1", "make test-system DEBIAN=bookworm || failed=1 # Debian 13 doubles that: by hand"]


@pytest.mark.parametrize("name", [".ci/run", *SCRIPTS])
def test_script_can_be_run_and_is_correct_shell(name: str) -> None:
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    subprocess.run(["/bin/sh", "-n", str(ROOT / name)], check=True)
