"""One machine with the package installed, for all tests of a module; nothing else of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import compiled
from tests.service.installed import Installed
from tests.service.machine import Machine, tree
from tests.service.package import built


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that performs acts."""
    return compiled(tmp_path_factory.mktemp("acts"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The package on a booted machine, as an operator has it after `dpkg -i`."""
    package, lower = built(), tree()
    name = f"em-{request.module.__name__.rsplit('_', 1)[-1]}"
    machine = Machine(lower, name)
    try:
        machine.boot()
        shutil.copy(package, machine.root / "root/ebpf-monitor.deb")
        made = Installed(machine, tmp_path_factory.mktemp("service"))
        made.installed = machine.run("dpkg", "-i", "/root/ebpf-monitor.deb", seconds=400, check=True).text
        yield made
    finally:
        machine.close()
