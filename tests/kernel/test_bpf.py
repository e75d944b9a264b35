"""The header tree, the loader and the map wrappers against the running kernel, with programs that BCC compiles."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.kernel import bpf, headers, import_bcc
from monitor.kernel.bpf import BpfError
from monitor.kernel.btf import Btf

Load = Callable[..., int]
BPFFS = Path("/sys/fs/bpf")
ZERO = bytes(4)
TEXT = r"""
#define LD4(d, p, off) asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(d) : "r"(p), "i"(off))
#define LOW(d, p) asm volatile("%0 = %1; %0 += 2147418114" : "=r"(d) : "r"(p))
static u64 (*rdonly_cast)(u64, u64) = (void *)0x7fff0001;

struct seen { u64 tgid, low, task; };
BPF_F_TABLE("array", u32, struct seen, seen, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, calls, 1, BPF_F_MMAPABLE);

int cast_task(u64 *ctx) {
    u64 task = bpf_get_current_task(), typed = rdonly_cast(task, ID_task_struct), tgid, low;
    u32 zero = 0;
    LD4(tgid, typed, OFF_task_struct__tgid);
    if (tgid != SELF) return 0;
    LOW(low, typed);
    struct seen *s = seen.lookup(&zero);
    if (s) { s->tgid = tgid; s->low = low; s->task = task; }
    return 0;
}
int count_calls(u64 *ctx) {
    u32 zero = 0;
    u64 *n = calls.lookup(&zero);
    if (n && bpf_get_current_pid_tgid() >> 32 == SELF) __sync_fetch_and_add(n, 1);
    return 0;
}
int reads_outside(u64 *ctx) { return *(int *)(ctx[0] + 100000); }
"""
# What the monitor's own programs need of BCC and of the header tree.
EVERYTHING = r"""
struct entry { u64 a, b; s32 c; bool d; };
struct record { u32 length; u8 payload[4092]; };
BPF_F_TABLE("array", u32, struct entry, entries, 1024, BPF_F_MMAPABLE);
BPF_PERCPU_ARRAY(scratch, struct record, 1);
BPF_RINGBUF_OUTPUT(ring, 16);
BPF_PERF_OUTPUT(events);
BPF_PROG_ARRAY(tails, 4);
int everything(u64 *ctx) {
    u32 zero = 0;
    struct record *r = scratch.lookup(&zero);
    struct entry *e = entries.lookup(&zero);
    if (!r || !e) return 0;
    u64 task = bpf_get_current_task(), first;
    asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(first) : "r"(ctx), "i"(8));
    bpf_probe_read_kernel(r->payload, 16, (void *)task);
    bpf_probe_read_kernel_str(r->payload, 16, (void *)task);
    bpf_probe_read_user(r->payload, 16, (void *)first);
    bpf_probe_read_user_str(r->payload, 16, (void *)first);
    __sync_fetch_and_add(&e->a, first);
    ring.ringbuf_output(r, 100, BPF_RB_NO_WAKEUP);
    events.perf_submit(ctx, r, 100);
    tails.call(ctx, 1);
    return offsetof(struct entry, b) + (LINUX_VERSION_CODE > KERNEL_VERSION(5, 8, 0));
}
"""


@pytest.fixture(scope="module")
def types() -> Btf:
    return Btf()


@pytest.fixture(scope="module")
def module(types: Btf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """TEXT compiled by BCC with our own header tree; loads nothing."""
    tree = tmp_path_factory.mktemp("headers")
    headers.write_tree(tree)
    flags = [
        f"-DSELF={os.getpid()}",
        f"-DOFF_task_struct__tgid={types.offset('task_struct', 'tgid')}",
        f"-DID_task_struct={types.type_id('task_struct')}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCC_KERNEL_SOURCE", str(tree))
        compiled = import_bcc().BPF(text=TEXT, cflags=flags)
    yield compiled
    compiled.cleanup()


@pytest.fixture(scope="module")
def load(module: Any, types: Btf) -> Load:
    """Loads one function of TEXT as tp_btf program of sys_exit; the descriptor is the caller's."""
    target = types.typedef_id("btf_trace_sys_exit")
    assert target is not None

    def load_function(function: str, name: str | None = None, log: bool = False) -> int:
        return bpf.prog_load(
            bpf.patch(module.dump_func(function.encode()), cast_func_id=types.func_id("bpf_rdonly_cast")),
            name=name or function,
            prog_type=bpf.PROG_TYPE_TRACING,
            expected_attach_type=bpf.ATTACH_TRACE_RAW_TP,
            attach_btf_id=target,
            log=log,
        )

    return load_function


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Descriptors to close at the end of a test."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.fixture
def pins() -> Iterator[Path]:
    """An empty directory in the bpffs, which is mounted where a fresh machine has not done so."""
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    directory = BPFFS / f"ebpf-monitor-test-{os.getpid()}"
    directory.mkdir(mode=0o700)
    yield directory
    for pin in directory.iterdir():
        pin.unlink()
    directory.rmdir()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def new_array(descriptors: list[int], value_size: int = 8, entries: int = 4) -> int:
    fd = bpf.map_create(bpf.MAP_TYPE_ARRAY, 4, value_size, entries, bpf.MAP_FLAG_MMAPABLE, "numbers")
    descriptors.append(fd)
    return fd


# -- headers ----------------------------------------------------------------------------------------------------------


def test_everything_we_use_compiles_with_no_kernel_headers_on_the_host(tmp_path: Path) -> None:
    headers.write_tree(tmp_path)
    script = tmp_path / "compile.py"
    script.write_text(
        "import os, sys\nfrom bcc import BPF\n"
        "for place in ('/lib/modules', '/usr/src'):\n"
        "    assert not os.path.isdir(place) or not os.listdir(place), 'kernel headers are there'\n"
        f"module = BPF(text={EVERYTHING!r})\nprint(len(module.dump_func(b'everything')))\n"
    )
    hide = 'for d in /lib/modules /usr/src; do [ ! -d $d ] || mount -t tmpfs none $d || exit 9; done; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", hide, "sh", sys.executable, "-W", "ignore", str(script)]
    env = {"PATH": os.environ["PATH"], "BCC_KERNEL_SOURCE": str(tmp_path)}
    with_tree = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert with_tree.returncode == 0, with_tree.stderr
    assert int(with_tree.stdout) % 8 == 0
    del env["BCC_KERNEL_SOURCE"]
    assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == 1  # nothing else helped


def test_tree_is_closed_to_others_and_can_be_written_again(tmp_path: Path) -> None:
    tree = tmp_path / "below" / "tree"
    headers.write_tree(tree)
    first = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert len(first) == 8
    headers.write_tree(tree)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == first
    for path in (tree.parent, tree, *tree.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o027


def test_tree_does_not_write_through_a_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "tree/include/linux").mkdir(parents=True)
    (tmp_path / "tree/include/linux/types.h").symlink_to(target)
    with pytest.raises(OSError, match=r"types\.h") as error:
        headers.write_tree(tmp_path / "tree")
    assert error.value.errno == errno.ELOOP
    assert target.read_text() == "kept"


@pytest.mark.parametrize(
    ("release", "code"),
    [("6.18.44-fc-v669", 0x06122C), ("5.10.0-28-amd64", 0x050A00), ("6.1", 0x060100), ("4.19.300", 0x0413FF)],
)
def test_version_code_is_the_kernels(tmp_path: Path, release: str, code: int) -> None:
    headers.write_tree(tmp_path, release)
    text = (tmp_path / "include/linux/version.h").read_text()
    assert f"#define LINUX_VERSION_CODE {code}\n" in text


def test_a_release_without_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rolling"):
        headers.write_tree(tmp_path, "rolling")


def test_vmlinux_btf_is_indexed_within_150_ms_of_cpu() -> None:
    spent = []
    for _ in range(5):
        begin = time.process_time()
        types = Btf()
        assert types.offset("task_struct", "group_leader") is not None
        assert types.offset("file", "f_path.dentry") is not None
        spent.append(time.process_time() - begin)
    assert min(spent) <= 0.150


# -- marks ------------------------------------------------------------------------------------------------------------


def insn(opcode: int, registers: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", opcode, registers, 0, immediate)


def test_patch_turns_the_two_marks_and_nothing_else() -> None:
    plain = insn(0x85, 0, 14) + insn(0x07, 3, 1) + insn(0x18, 1, 0x7FFF0001) + insn(0, 0, 0x7FFF0002)
    plain += insn(0xB7, 2, 0x7FFF0001)
    marked = insn(0x85, 0, 0x7FFF0001) + insn(0x07, 7, 0x7FFF0002)
    patched = bpf.patch(plain + marked, cast_func_id=4711)
    assert patched == plain + insn(0x85, 0x20, 4711) + insn(0xBC, 0x77, 0)


@pytest.mark.parametrize("cast_func_id", [None, 0])
def test_patch_refuses_a_cast_where_the_kernel_has_none(cast_func_id: int | None) -> None:
    with pytest.raises(ValueError, match="instruction 1 is a cast"):
        bpf.patch(insn(0x95, 0, 0) + insn(0x85, 0, 0x7FFF0001), cast_func_id=cast_func_id)


def test_patch_refuses_half_an_instruction() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        bpf.patch(bytes(12), cast_func_id=1)


# -- programs ---------------------------------------------------------------------------------------------------------


def test_a_cast_program_reads_our_tgid_through_a_plain_load(
    module: Any, types: Btf, load: Load, descriptors: list[int]
) -> None:
    if types.func_id("bpf_rdonly_cast") is None:
        pytest.skip("kernel has no bpf_rdonly_cast (Linux 6.2)")
    program = load("cast_task")
    descriptors.append(program)
    descriptors.append(bpf.raw_tracepoint_open(program, None))
    os.getppid()
    tgid, low, task = struct.unpack("=QQQ", bpf.map_lookup(module["seen"].map_fd, ZERO, 24))
    assert tgid == os.getpid()
    assert low == task & 0xFFFFFFFF
    assert task


@pytest.mark.parametrize("log", [False, True])
def test_a_refused_program_gives_the_verifiers_reason_and_no_descriptor(load: Load, log: bool) -> None:
    before = open_descriptors()
    with pytest.raises(BpfError) as error:
        load("reads_outside", log=log)
    assert open_descriptors() == before
    assert error.value.errno == errno.EACCES
    assert error.value.command == "BPF_PROG_LOAD"
    assert "access beyond struct pt_regs at off 100000" in str(error.value)
    assert str(error.value).startswith("BPF_PROG_LOAD(reads_outside): Permission denied (errno 13): ")
    assert "\n" not in str(error.value)
    assert "r1 += 100000" in error.value.log
    assert len(error.value.log.splitlines()) <= 20


def test_a_program_that_is_no_program_is_refused_without_a_log() -> None:
    with pytest.raises(BpfError) as error:
        bpf.prog_load(b"", name="empty", prog_type=bpf.PROG_TYPE_RAW_TRACEPOINT)
    assert str(error.value) == "BPF_PROG_LOAD(empty): Argument list too long (errno 7)"


def test_info_of_program_and_link_names_what_they_are(load: Load, descriptors: list[int]) -> None:
    program = load("count_calls", name="count_calls_of_this_process")
    link = bpf.raw_tracepoint_open(program, None)
    descriptors += [program, link]
    told = bpf.prog_info(program)
    assert told.type == bpf.PROG_TYPE_TRACING
    assert told.name == "count_calls_of_"
    assert re.fullmatch("[0-9a-f]{16}", told.tag)
    assert told.verified_insns is None or 5 < told.verified_insns < 1000
    assert told.recursion_misses is None or told.recursion_misses >= 0
    assert bpf.link_info(link) == bpf.LinkInfo(
        bpf.LINK_TYPE_RAW_TRACEPOINT, bpf.link_info(link).id, told.id, "sys_exit"
    )


def test_run_time_is_counted_while_statistics_are_enabled(load: Load, descriptors: list[int]) -> None:
    program = load("count_calls")
    descriptors += [program, bpf.raw_tracepoint_open(program, None), bpf.enable_stats()]
    before = bpf.prog_info(program)
    for _ in range(101):
        os.getppid()
    after = bpf.prog_info(program)
    assert after.run_cnt is not None
    assert after.run_cnt - (before.run_cnt or 0) >= 101
    assert (after.run_time_ns or 0) > (before.run_time_ns or 0)


def test_a_raw_tracepoint_is_attached_by_name(module: Any, descriptors: list[int]) -> None:
    program = bpf.prog_load(
        module.dump_func(b"count_calls"), name="count_calls", prog_type=bpf.PROG_TYPE_RAW_TRACEPOINT
    )
    descriptors.append(program)
    with pytest.raises(BpfError, match=r"BPF_RAW_TRACEPOINT_OPEN\(no_such_point\)") as error:
        bpf.raw_tracepoint_open(program, "no_such_point")
    assert error.value.errno == errno.ENOENT
    link = bpf.raw_tracepoint_open(program, "sys_enter")
    descriptors.append(link)
    assert bpf.link_info(link).tracepoint == "sys_enter"


def test_no_descriptor_is_inherited_by_a_child(load: Load, descriptors: list[int], pins: Path) -> None:
    program = load("count_calls")
    link = bpf.raw_tracepoint_open(program, None)
    bpf.obj_pin(program, pins / "program")
    descriptors += [program, link, bpf.enable_stats(), bpf.obj_get(pins / "program")]
    new_array(descriptors)
    assert [os.get_inheritable(fd) for fd in descriptors] == [False] * 5


# -- pins -------------------------------------------------------------------------------------------------------------


def test_a_pinned_link_goes_on_without_a_descriptor_until_it_is_unpinned(module: Any, load: Load, pins: Path) -> None:
    program = load("count_calls")
    link = bpf.raw_tracepoint_open(program, None)
    bpf.obj_pin(link, pins / "link")
    bpf.obj_pin(module["calls"].map_fd, pins / "calls")
    os.close(link)
    os.close(program)
    adopted = bpf.obj_get(pins / "calls")
    calls = bpf.map_array(adopted, 8, writable=False).view("u8")
    os.close(adopted)
    begin = int(calls[0])
    for _ in range(97):
        os.getppid()
    assert int(calls[0]) - begin >= 97
    link = bpf.obj_get(pins / "link")
    assert bpf.link_info(link).tracepoint == "sys_exit"
    (pins / "link").unlink()
    os.close(link)
    deadline = time.monotonic() + 5  # a worker of the kernel frees the link
    while True:
        end = int(calls[0])
        os.getppid()
        if int(calls[0]) == end:
            break
        assert time.monotonic() < deadline


def test_pin_errors_name_command_and_path(descriptors: list[int], pins: Path, tmp_path: Path) -> None:
    fd = new_array(descriptors)
    bpf.obj_pin(fd, pins / "taken")
    with pytest.raises(BpfError, match=rf"BPF_OBJ_PIN\({pins}/taken\): File exists"):
        bpf.obj_pin(fd, pins / "taken")
    with pytest.raises(BpfError, match=r"BPF_OBJ_PIN") as error:
        bpf.obj_pin(fd, tmp_path / "no-bpffs")
    assert error.value.errno == errno.EPERM
    with pytest.raises(BpfError, match=rf"BPF_OBJ_GET\({pins}/missing\): No such file") as error:
        bpf.obj_get(pins / "missing")
    assert error.value.errno == errno.ENOENT


def test_info_refuses_a_descriptor_of_another_kind(load: Load, descriptors: list[int]) -> None:
    program = load("count_calls")
    descriptors.append(program)
    with pytest.raises(BpfError, match="not a BPF map"):
        bpf.map_info(program)
    with pytest.raises(BpfError, match="not a BPF link"):
        bpf.link_info(program)
    with pytest.raises(BpfError, match="not a BPF prog"):
        bpf.prog_info(new_array(descriptors))
    with pytest.raises(BpfError) as error:
        bpf.map_info(1 << 20)
    assert error.value.errno == errno.EBADF


# -- maps -------------------------------------------------------------------------------------------------------------


def test_hash_elements_are_set_read_and_removed(descriptors: list[int]) -> None:
    fd = bpf.map_create(bpf.MAP_TYPE_HASH, 8, 12, 16, 0, "a_name_of_more_than_15_bytes")
    descriptors.append(fd)
    told = bpf.map_info(fd)
    assert (told.type, told.key_size, told.value_size, told.max_entries, told.flags, told.name) == (
        bpf.MAP_TYPE_HASH, 8, 12, 16, 0, "a_name_of_more_",
    )  # fmt: skip
    bpf.map_update(fd, b"12345678", b"abcdefghijkl")
    assert bpf.map_lookup(fd, b"12345678", 12) == b"abcdefghijkl"
    bpf.map_delete(fd, b"12345678")
    with pytest.raises(BpfError) as error:
        bpf.map_lookup(fd, b"12345678", 12)
    assert error.value.errno == errno.ENOENT


def test_per_cpu_values_come_for_every_possible_cpu(descriptors: list[int]) -> None:
    fd = bpf.map_create(bpf.MAP_TYPE_PERCPU_ARRAY, 4, 12, 1, 0, "per_cpu")
    descriptors.append(fd)
    value = b"".join(struct.pack("=III4x", cpu, cpu + 1, cpu + 2) for cpu in range(bpf.possible_cpus()))
    bpf.map_update(fd, ZERO, value)
    assert bpf.map_lookup(fd, ZERO, len(value)) == value
    with pytest.raises(ValueError, match=f"values of {len(value)} bytes, not 12"):
        bpf.map_lookup(fd, ZERO, 12)


def test_sizes_that_are_not_the_maps_never_reach_the_kernel(descriptors: list[int]) -> None:
    fd = new_array(descriptors)
    with pytest.raises(ValueError, match="'numbers' has values of 8 bytes, not 4"):
        bpf.map_lookup(fd, ZERO, 4)
    with pytest.raises(ValueError, match="'numbers' has keys of 4 bytes, not 8"):
        bpf.map_update(fd, bytes(8), bytes(8))


def test_a_map_the_kernel_does_not_want_leaves_no_descriptor() -> None:
    before = open_descriptors()
    with pytest.raises(BpfError, match=r"BPF_MAP_CREATE\(odd\)"):
        bpf.map_create(bpf.MAP_TYPE_RINGBUF, 0, 0, 4097, 0, "odd")
    assert open_descriptors() == before


def test_a_mapped_array_is_the_map_itself_and_outlives_the_descriptor(descriptors: list[int]) -> None:
    fd = new_array(descriptors)
    before = open_descriptors()
    numbers = bpf.map_array(fd, 32).view("u8")
    bpf.map_update(fd, struct.pack("=I", 2), struct.pack("=Q", 1 << 40))
    assert numbers.tolist() == [0, 0, 1 << 40, 0]
    numbers[1] = 23
    assert bpf.map_lookup(fd, struct.pack("=I", 1), 8) == struct.pack("=Q", 23)
    watching = bpf.map_array(fd, 32, writable=False).view("u8")
    os.close(descriptors.pop())
    numbers[3] = 5
    assert watching.tolist() == [0, 23, 1 << 40, 5]
    with pytest.raises(ValueError, match="read-only"):
        watching[0] = 1
    del numbers, watching
    assert open_descriptors() == before - 1


def test_an_array_that_cannot_be_mapped_is_an_error_with_its_size(descriptors: list[int]) -> None:
    fd = bpf.map_create(bpf.MAP_TYPE_ARRAY, 4, 8, 4, 0, "plain")
    descriptors.append(fd)
    with pytest.raises(BpfError, match=r"mmap\(descriptor \d+, 32 bytes\)"):
        bpf.map_array(fd, 32)
    with pytest.raises(BpfError, match=r"mmap"):
        bpf.map_array(new_array(descriptors), 1 << 20)


def test_a_machine_without_a_known_syscall_number_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(BpfError) as error:
        bpf.enable_stats()
    assert error.value.errno == errno.ENOSYS
