"""Every kernel that the project claims, without booting it: its members lie where we read them, the programs compile for it.

The kernels are Debian's packages (packages.py), one of them for arm64. What only a running kernel can tell is boot.py's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from monitor.kernel import compile, pins, probes
from monitor.kernel.btf import Btf
from tests.kernels import libbpf, packages

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.packages


class Noting(Btf):
    """BTF that notes which members it was asked for, and what it said."""

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self.said: dict[tuple[str, str], int] = {}

    def offset(self, struct: str, member: str) -> int | None:
        """As Btf.offset."""
        found = super().offset(struct, member)
        if found is not None:
            self.said[struct, member] = found
        return found


@pytest.fixture(params=[line for line in packages.SUITES | packages.FOREIGN if line not in packages.REFUSED])
def kernel(request: pytest.FixtureRequest) -> packages.Kernel:
    return packages.fetch(request.param)


def compiles(text: str) -> str:
    """What the compiler says against a C text; empty when nothing."""
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-w", "-ffreestanding", "-fsyntax-only", "-x", "c", "-"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr


def test_members_lie_where_another_reader_and_a_compiler_put_them(kernel: packages.Kernel) -> None:
    btf = Noting(kernel.btf)
    probes.offsets(btf)
    assert len(btf.said) > 90
    types = libbpf.as_c(kernel.btf.read_bytes(), sorted({struct for struct, _member in btf.said}))
    claims = [
        f'_Static_assert(__builtin_offsetof(struct {struct}, {member}) == {at}, "{struct}.{member}");'
        for (struct, member), at in btf.said.items()
    ]
    assert compiles("\n".join([types, *claims])) == ""
    (struct, member), at = next(iter(btf.said.items()))
    wrong = f'_Static_assert(__builtin_offsetof(struct {struct}, {member}) == {at + 8}, "a lie");'
    assert "a lie" in compiles("\n".join([types, wrong]))  # the check can fail


def test_the_hooks_are_there(kernel: packages.Kernel) -> None:
    btf = Btf(kernel.btf)
    assert [hook for hook in compile.HOOKS if not btf.typedef_id(f"btf_trace_{hook}")] == []
    assert btf.func_id("bpf_iter_task")


def test_preemption_is_turned_off_where_the_kernel_leaves_it_on_and_can_be(kernel: packages.Kernel) -> None:
    btf = Btf(kernel.btf)
    assert pins.preempted(btf) == (int(kernel.release.split(".")[0]) >= 7)
    assert not pins.preempted(btf) or (btf.func_id("bpf_preempt_disable") and btf.func_id("bpf_preempt_enable"))


@pytest.mark.root
def test_the_programs_compile_for_it(kernel: packages.Kernel) -> None:
    casts = Btf(kernel.btf).func_id("bpf_rdonly_cast") is not None
    shape = compile.shape(
        2, 64 << 20, 16 << 20, perf=False, casts=casts, task_regs=True, preempted=pins.preempted(Btf(kernel.btf))
    )
    programs = compile.compiled(shape, Btf(kernel.btf))["programs"]
    assert programs.keys() == {*compile.TAILS, *compile.HOOKS, *compile.ON_DEMAND}
    assert all(programs.values())
