"""Which part of the C text a compiling child gets."""

from __future__ import annotations

import re
import subprocess
import sys

from monitor.kernel import compile, uring

ALL = {*compile.TAILS, *compile.HOOKS, *compile.OPTIONAL_HOOKS, *compile.ON_DEMAND, *uring.HOOKS, *uring.LOADED_FOR}
_PROGRAM = re.compile(r"^int (\w+)\(", re.MULTILINE)


def test_the_whole_text_has_every_program_once() -> None:
    assert sorted(_PROGRAM.findall(compile.text())) == sorted(ALL)


def test_two_parts_have_every_program_once_and_the_rest_of_the_text_both() -> None:
    one, other = (set(sorted(ALL)[part::2]) for part in (0, 1))
    assert set(_PROGRAM.findall(compile.text(one))) == one
    assert set(_PROGRAM.findall(compile.text(other))) == other
    shared = set(compile.text(()).splitlines())
    assert not _PROGRAM.findall(compile.text(()))
    assert shared <= set(compile.text(one).splitlines()) & set(compile.text(other).splitlines())
    helpers = re.compile(r"^static inline .*?(\w+)\(", re.MULTILINE)
    assert helpers.findall(compile.text(())) == helpers.findall(compile.text())


def test_what_turns_preemption_off_is_a_body_and_a_program_around_it() -> None:
    made = compile.text({"sys_exit", "names"}, ["sys_exit"])
    assert sorted(_PROGRAM.findall(made)) == ["names", "sys_exit"]
    assert "static inline int sys_exit_body(u64 *ctx) {" in made


def test_a_value_too_large_for_the_text_has_its_size_from_the_shape() -> None:
    made = compile.shape(2, 64 << 20, 16 << 20, perf=False, casts=True, task_regs=True)
    assert compile.value_sizes(made) == {"rings": (32 << 20) + compile.SLACK, "commit": 8 << 20}


def test_the_child_that_compiles_imports_neither_numpy_nor_the_catalogue() -> None:
    asked = "import monitor.kernel.compiler, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "numpy" not in modules
    assert {name for name in modules if name.startswith("monitor")} == {
        "monitor",
        "monitor.kernel",
        "monitor.kernel.bpf",
        "monitor.kernel.compiler",
    }
