"""What the programs need to know of this kernel and of the syscalls: member offsets, features, the table of traced calls.

Owns the names of kernel members and syscalls; never loads or attaches anything.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from monitor.events import EVENT
from monitor.kernel.btf import Btf

_MEMBERS = """
task_struct: tgid pid cred comm self_exec_id start_boottime group_leader real_parent files fs mm signal cgroups exit_code nsproxy
files_struct: fdt fd_array
fdtable: fd max_fds
path: mnt dentry
file: f_path.dentry f_path.mnt f_inode f_flags f_mode private_data
dentry: d_parent d_name.hash_len d_name.name d_inode d_hash.pprev
inode: i_ino i_generation i_mode i_size i_nlink i_sb i_uid i_gid
super_block: s_dev s_magic s_type
file_system_type: name
vfsmount: mnt_root mnt_sb
mount: mnt mnt_ns mnt_parent mnt_mountpoint mnt_devname
mnt_namespace: ns.inum
cred: uid gid euid egid securebits cap_inheritable cap_ambient user_ns group_info
user_namespace: ns.inum
group_info: ngroups gid
nsproxy: mnt_ns uts_ns ipc_ns net_ns pid_ns_for_children cgroup_ns time_ns
uts_namespace: ns.inum
ipc_namespace: ns.inum
net: ns.inum
pid_namespace: ns.inum
cgroup_namespace: ns.inum
time_namespace: ns.inum
kernel_siginfo: si_code
bpf_prog: type expected_attach_type len tag aux
bpf_prog_aux: id name attach_func_name
bpf_link: id prog
fs_struct: pwd.mnt pwd.dentry root.mnt root.dentry
mm_struct: exe_file arg_start arg_end env_start env_end
signal_struct: live.counter flags group_exit_code pids tty
task_struct: pid_links personality
vm_area_struct: vm_start vm_end vm_file
pid: tasks numbers
tty_struct: driver index
tty_driver: major minor_start
css_set: dfl_cgrp
cgroup: kn
cgroup_subsys_state: cgroup
kernfs_node: id name
socket: type sk
unix_sock: addr peer
socket_alloc: vfs_inode
unix_address: len name
bpf_iter_meta: seq
linux_binprm: fdpath filename interp
"""

# member -> name of the macro, candidates newest first
_RENAMED = {
    # Linux kernel commit 4e8d72e2ab3a ("kernfs: Use RCU to access kernfs_node::parent") (in v6.15)
    "kernfs_node__parent": (("kernfs_node", "__parent"), ("kernfs_node", "parent")),
    # Linux kernel commit 3aa63a569c64 ("fs: switch timespec64 fields in inode to discrete integers") (in v6.11)
    "inode__ctime": (("inode", "i_ctime_sec"), ("inode", "__i_ctime.tv_sec"), ("inode", "i_ctime.tv_sec")),
    "inode__ctime_nsec": (("inode", "i_ctime_nsec"), ("inode", "__i_ctime.tv_nsec"), ("inode", "i_ctime.tv_nsec")),
    "sock__family": (("sock", "__sk_common.skc_family"),),
    "sock__protocol": (("sock", "sk_protocol"),),
    "sock__socket": (("sock", "sk_socket"),),
    "sock__num": (("sock", "__sk_common.skc_num"),),
    "sock__dport": (("sock", "__sk_common.skc_dport"),),
    "sock__cookie": (("sock", "__sk_common.skc_cookie.counter"),),
    "sock__rcv_saddr": (("sock", "__sk_common.skc_rcv_saddr"),),
    "sock__daddr": (("sock", "__sk_common.skc_daddr"),),
    "sock__v6_rcv_saddr": (("sock", "__sk_common.skc_v6_rcv_saddr"),),
    "sock__v6_daddr": (("sock", "__sk_common.skc_v6_daddr"),),
}
# Where a system call's number and arguments are: macro -> member of struct pt_regs and bytes behind it, by the member that only
# this machine has; then the member and the bit that tell a call of a 32-bit program (TS_COMPAT, TIF_32BIT).
_REGISTERS: dict[str, tuple[dict[str, tuple[str, int]], str, int]] = {
    "orig_ax": (
        {name: (name, 0) for name in ["orig_ax", "di", "si", "dx", "bx", "cx", "bp", "r10", "r8", "r9"]},
        "thread_info.status",
        1 << 1,
    ),
    "orig_x0": (
        {"orig_ax": ("regs", 64), "di": ("orig_x0", 0), "bx": ("orig_x0", 0)}
        | dict.fromkeys(("si", "cx"), ("regs", 8))
        | {"dx": ("regs", 16), "r10": ("regs", 24), "r8": ("regs", 32), "r9": ("regs", 40), "bp": ("regs", 40)},
        "thread_info.flags",
        1 << 22,
    ),
}
# what a kernel may be built without: 0 then, and nothing that is made reads it
_OPTIONAL = (("io_ring_ctx", "flags"), ("io_ring_ctx", "sq_entries"), ("module", "name"))
_CAST_TYPES = (
    "task_struct",
    "vm_area_struct",
    "linux_binprm",
    "bpf_prog",
    "bpf_link",
    "io_ring_ctx",
    "files_struct",
    "file",
    "mount",
    "dentry",
    "inode",
    "socket",
    "unix_sock",
)

_NUMBERED = ("close", "execve", "execveat", "kill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
"""calls whose numbers the programs know"""


class ProbeError(Exception):
    """This kernel lacks something that the programs cannot do without; the text names it."""


def offsets(btf: Btf) -> dict[str, int]:
    """Macros OFF_struct__member, ID_struct and HAVE_* for the C text. Raises ProbeError naming the first missing member."""
    found: dict[str, int] = {}
    for line in _MEMBERS.strip().splitlines():
        struct, _, members = line.partition(":")
        for member in members.split():
            at = btf.offset(struct, member)
            if at is None:
                raise ProbeError(f"this kernel has no member {struct}.{member}")
            found[f"OFF_{struct}__{member.replace('.', '__')}"] = at
    for name, candidates in _RENAMED.items():
        at = next((o for s, m in candidates if (o := btf.offset(s, m)) is not None), None)
        if at is None:
            raise ProbeError(f"this kernel has no member {candidates[0][0]}.{candidates[0][1]}")
        found["OFF_" + name] = at
    found |= _registers(btf)
    found |= {f"OFF_{struct}__{member}": btf.offset(struct, member) or 0 for struct, member in _OPTIONAL}
    found["HAVE_TASK_FROM_PID"] = int(btf.func_id("bpf_task_from_vpid") is not None)
    found["HAVE_TASK_VMA"] = int(btf.func_id("bpf_iter_task_vma_new") is not None)
    for struct in _CAST_TYPES:
        found["ID_" + struct] = btf.type_id(struct) or 0
    login, session = btf.offset("task_struct", "loginuid"), btf.offset("task_struct", "sessionid")
    found["HAVE_LOGIN"] = int(login is not None and session is not None)
    found["OFF_task_struct__loginuid"], found["OFF_task_struct__sessionid"] = login or 0, session or 0
    # Linux kernel commit 4cc21a00762d ("exit: move and extend sched_process_exit() tracepoint") (in v6.16): group_dead
    found["HAVE_GROUP_DEAD"] = int(btf.tracepoint_arguments("sched_process_exit") >= 2)
    pids, subsys = btf.enum_value("cgroup_subsys_id", "pids_cgrp_id"), btf.offset("css_set", "subsys")
    found["HAVE_PIDS_CGROUP"] = int(pids is not None and subsys is not None)
    found["OFF_css_set__pids"] = (subsys or 0) + 8 * (pids or 0)
    # Linux include/linux/pid.h, enum pid_type: PIDTYPE_TGID since v4.19
    for name, fallback in (("PIDTYPE_TGID", 1), ("PIDTYPE_PGID", 2), ("PIDTYPE_SID", 3)):
        found[name] = btf.enum_value("pid_type", name) or fallback
    found["HAVE_TAI"] = int(btf.enum_value("bpf_func_id", "BPF_FUNC_ktime_get_tai_ns") is not None)
    numbers = {call.name: call.number for call in TABLES.get(platform.machine(), ())}
    found |= {f"NR_{name.upper()}": numbers.get(name, -1) for name in _NUMBERED}
    return found


def _registers(btf: Btf) -> dict[str, int]:
    """Macros of what the programs read of a system call's registers. Raises ProbeError."""
    for own, (registers, status, bit) in _REGISTERS.items():
        if btf.offset("pt_regs", own) is None:
            continue
        places = {macro: (btf.offset("pt_regs", member), more) for macro, (member, more) in registers.items()}
        state = btf.offset("task_struct", status)
        if state is None or any(at is None for at, _ in places.values()):
            break
        found = {f"OFF_pt_regs__{macro}": (at or 0) + more for macro, (at, more) in places.items()}
        return found | {"OFF_task_struct__thread_info__status": state, "STATUS_COMPAT": bit}
    raise ProbeError(
        "this kernel's registers (struct pt_regs, task_struct.thread_info) are of no machine that is known"
    )


OPEN, READ, WRITE, CLOSE, DUP2, CLOSE_RANGE, NAMES, OBJECT, EXEC, FORK, CONNECT, BIND, LISTEN, ACCEPT = range(1, 15)
CREDENTIALS, NAMESPACE, TRACING, SIGNAL, KERNEL, CLOCK, MAP = range(15, 22)
TAILS = (
    "sys_exit",
    "define_task",
    "define_file",
    "define_socket",
    "judge",
    "open_failed",
    "socket_io",
    "names",
    "socket_control",
    "process_failed",
    "sweep_range",
    "socket_record",
    "object",
    "credentials",
    "namespace",
    "tracing",
    "signal_failed",
    "kernel_act",
    "clock_set",
    "hooked_names",
    "exclude",
    "map_file",
    "map_record",
    "rights",
)
"""Programs that are reached by tail calls, in the order of the jump table."""
_PROGRAMS = {
    CLOSE_RANGE: "sweep_range",
    NAMES: "names",
    OBJECT: "object",
    CREDENTIALS: "credentials",
    NAMESPACE: "namespace",
    TRACING: "tracing",
    SIGNAL: "signal_failed",
    KERNEL: "kernel_act",
    CLOCK: "clock_set",
    MAP: "map_file",
    EXEC: "process_failed",
    FORK: "process_failed",
    **dict.fromkeys((CONNECT, BIND, LISTEN, ACCEPT), "socket_control"),
}
"""Operation -> the program that records it, where that is not sys_exit itself."""
FAILURES, RMDIR = 0x400000, 0x800000
NOT_A_PATH = RETURNED = 15
OPTION, PIDFD = 0x200, 0x400  # of the rarer operations
SOCKETCALL = 0xFF
"""Every socket call of old 32-bit programs: the programs look its real operation up."""
LEFT_OUT, ADDRESS, MSG, MMSG, AT, COMPAT, FLAGS2, HANDLE, PAIR = (0x100 << i for i in range(9))
VMSPLICE = 0x200000


def _pair(source: int, destination: int) -> int:
    """Bits of a call that moves data from the descriptor in one argument to that in another."""
    return READ | PAIR | source << 17 | destination << 19


@dataclass(frozen=True)
class Call:
    """One traced syscall: its name, its numbers in the 64-bit and the 32-bit table (-1: none), what `calls[]` says of it.

    `event` is the event that it is, where the operation alone does not say so. Then follow which argument is what (1: the
    first, 0: there is none): the name, the directory descriptor it starts from (of an object: its descriptor), a second
    name and its directory (NOT_A_PATH: it is another string), and two plain values. A descriptor may be the one that the
    call made (RETURNED).
    """

    name: str
    number: int
    compat: int
    bits: int
    event: str = ""
    where: int = 0
    dir: int = 0
    second: int = 0
    dir2: int = 0
    value: int = 0
    value2: int = 0

    def spec(self) -> int:
        """The 64 bits of `calls[]`, as bpf/common.h takes them apart."""
        program = _PROGRAMS.get(self.bits & 0xFF)
        found = self.bits | (TAILS.index(program) << 24 if program else 0)
        if self.event:
            found |= EVENT[self.event].id << 32
        places = (self.where, self.dir, self.second, self.dir2)
        found |= sum(place << 40 + 4 * index for index, place in enumerate(places))
        return found | self.value << 56 | self.value2 << 59


_X86 = (
    Call("read", 0, 3, READ),
    Call("pread64", 17, 180, READ),
    Call("readv", 19, 145, READ),
    Call("preadv", 295, 333, READ),
    Call("preadv2", 327, 378, READ),
    Call("write", 1, 4, WRITE),
    Call("pwrite64", 18, 181, WRITE),
    Call("writev", 20, 146, WRITE),
    Call("pwritev", 296, 334, WRITE),
    Call("pwritev2", 328, 379, WRITE),
    Call("open", 2, 5, OPEN),
    Call("openat", 257, 295, OPEN | AT),
    Call("openat2", 437, 437, OPEN | AT | FLAGS2),
    Call("creat", 85, 8, OPEN),
    Call("open_by_handle_at", 304, 342, OPEN | AT | HANDLE),
    Call("close", 3, 6, CLOSE),
    Call("dup2", 33, 63, DUP2),
    Call("dup3", 292, 330, DUP2),
    Call("close_range", 436, 436, CLOSE_RANGE),
    Call("unlink", 87, 10, NAMES, "file_delete", where=1),
    Call("unlinkat", 263, 301, NAMES | RMDIR, "file_delete", where=2, dir=1, value=3),
    Call("rename", 82, 38, NAMES, "file_rename", where=1, second=2),
    Call("renameat", 264, 302, NAMES, "file_rename", where=2, dir=1, second=4, dir2=3),
    Call("renameat2", 316, 353, NAMES, "file_rename", where=2, dir=1, second=4, dir2=3, value=5),
    Call("link", 86, 9, NAMES, "file_link", where=1, second=2),
    Call("linkat", 265, 303, NAMES, "file_link", where=2, dir=1, second=4, dir2=3, value=5),
    Call("symlink", 88, 83, NAMES, "file_symlink", where=2, second=1, dir2=NOT_A_PATH),
    Call("symlinkat", 266, 304, NAMES, "file_symlink", where=3, dir=2, second=1, dir2=NOT_A_PATH),
    Call("mkdir", 83, 39, NAMES, "file_mkdir", where=1, value=2),
    Call("mkdirat", 258, 296, NAMES, "file_mkdir", where=2, dir=1, value=3),
    Call("rmdir", 84, 40, NAMES, "file_rmdir", where=1),
    Call("chmod", 90, 15, NAMES, "file_mode", where=1, value=2),
    Call("fchmodat", 268, 306, NAMES, "file_mode", where=2, dir=1, value=3),
    Call("fchmodat2", 452, 452, NAMES, "file_mode", where=2, dir=1, value=3, value2=4),
    Call("fchmod", 91, 94, OBJECT, "file_mode", dir=1, value=2),
    Call("chown", 92, 182, NAMES, "file_owner", where=1, value=2, value2=3),
    Call("lchown", 94, 16, NAMES, "file_owner", where=1, value=2, value2=3),
    Call("fchownat", 260, 298, NAMES, "file_owner", where=2, dir=1, value=3, value2=4),
    Call("fchown", 93, 95, OBJECT, "file_owner", dir=1, value=2, value2=3),
    Call("chown32", -1, 212, NAMES, "file_owner", where=1, value=2, value2=3),
    Call("lchown32", -1, 198, NAMES, "file_owner", where=1, value=2, value2=3),
    Call("fchown32", -1, 207, OBJECT, "file_owner", dir=1, value=2, value2=3),
    Call("truncate", 76, 92, NAMES, "file_truncate", where=1, value=2),
    Call("ftruncate", 77, 93, OBJECT, "file_truncate", dir=1, value=2),
    Call("truncate64", -1, 193, NAMES, "file_truncate", where=1, value=2, value2=3),
    Call("ftruncate64", -1, 194, OBJECT, "file_truncate", dir=1, value=2, value2=3),
    Call("setxattr", 188, 226, NAMES, "file_xattr", where=1, second=2, dir2=NOT_A_PATH, value=4, value2=5),
    Call("lsetxattr", 189, 227, NAMES, "file_xattr", where=1, second=2, dir2=NOT_A_PATH, value=4, value2=5),
    Call("fsetxattr", 190, 228, OBJECT, "file_xattr", dir=1, second=2, value=4, value2=5),
    Call("setxattrat", 463, 463, NAMES, "file_xattr", where=2, dir=1, second=4, dir2=NOT_A_PATH),
    Call("removexattr", 197, 235, NAMES, "file_xattr", where=1, second=2, dir2=NOT_A_PATH),
    Call("lremovexattr", 198, 236, NAMES, "file_xattr", where=1, second=2, dir2=NOT_A_PATH),
    Call("fremovexattr", 199, 237, OBJECT, "file_xattr", dir=1, second=2),
    Call("removexattrat", 466, 466, NAMES, "file_xattr", where=2, dir=1, second=4, dir2=NOT_A_PATH),
    Call("memfd_create", 319, 356, OBJECT, "file_memfd", dir=RETURNED, second=1, value=2),
    Call("memfd_secret", 447, 447, OBJECT, "file_memfd", dir=RETURNED, value=1),
    Call("pidfd_getfd", 438, 438, OBJECT, "file_receive", dir=RETURNED),
    Call("setuid", 105, 23, CREDENTIALS, "process_credentials"),
    Call("setuid32", -1, 213, CREDENTIALS, "process_credentials"),
    Call("setgid", 106, 46, CREDENTIALS, "process_credentials"),
    Call("setgid32", -1, 214, CREDENTIALS, "process_credentials"),
    Call("setreuid", 113, 70, CREDENTIALS, "process_credentials"),
    Call("setreuid32", -1, 203, CREDENTIALS, "process_credentials"),
    Call("setregid", 114, 71, CREDENTIALS, "process_credentials"),
    Call("setregid32", -1, 204, CREDENTIALS, "process_credentials"),
    Call("setresuid", 117, 164, CREDENTIALS, "process_credentials"),
    Call("setresuid32", -1, 208, CREDENTIALS, "process_credentials"),
    Call("setresgid", 119, 170, CREDENTIALS, "process_credentials"),
    Call("setresgid32", -1, 210, CREDENTIALS, "process_credentials"),
    Call("setfsuid", 122, 138, CREDENTIALS, "process_credentials"),
    Call("setfsuid32", -1, 215, CREDENTIALS, "process_credentials"),
    Call("setfsgid", 123, 139, CREDENTIALS, "process_credentials"),
    Call("setfsgid32", -1, 216, CREDENTIALS, "process_credentials"),
    Call("setgroups", 116, 81, CREDENTIALS, "process_credentials"),
    Call("setgroups32", -1, 206, CREDENTIALS, "process_credentials"),
    Call("capset", 126, 185, CREDENTIALS, "process_credentials"),
    Call("prctl", 157, 172, CREDENTIALS | OPTION, "process_credentials"),
    Call("unshare", 272, 310, NAMESPACE | OPTION, "process_namespace", value=1),
    Call("setns", 308, 346, NAMESPACE, "process_namespace", dir=1, value=2),
    Call("chroot", 161, 61, NAMESPACE, "process_namespace", where=1),
    Call("pivot_root", 155, 217, NAMESPACE, "process_namespace", where=1),
    Call("ptrace", 101, 26, TRACING | OPTION, "process_ptrace", dir=2, value=1),
    Call("process_vm_readv", 310, 347, TRACING, "process_ptrace", dir=1),
    Call("process_vm_writev", 311, 348, TRACING, "process_ptrace", dir=1),
    Call("kill", 62, 37, SIGNAL | FAILURES, "process_signal", dir=1, value=2),
    Call("tkill", 200, 238, SIGNAL | FAILURES, "process_signal", dir=1, value=2),
    Call("tgkill", 234, 270, SIGNAL | FAILURES, "process_signal", dir=2, value=3),
    Call("rt_sigqueueinfo", 129, 178, SIGNAL | FAILURES, "process_signal", dir=1, value=2),
    Call("rt_tgsigqueueinfo", 297, 335, SIGNAL | FAILURES, "process_signal", dir=2, value=3),
    Call("pidfd_send_signal", 424, 424, SIGNAL | PIDFD | FAILURES, "process_signal", dir=1, value=2),
    Call("mount", 165, 21, NAMES, "file_mount", where=2, second=1, dir2=NOT_A_PATH, value=4),
    Call("move_mount", 429, 429, NAMES, "file_mount", where=4, dir=3, second=2, dir2=1, value=5),
    Call("umount", -1, 22, NAMES, "file_umount", where=1),
    Call("umount2", 166, 52, NAMES, "file_umount", where=1, value=2),
    Call("mmap", 9, 90, MAP, "file_map"),
    Call("mmap2", -1, 192, MAP, "file_map"),
    Call("mprotect", 10, 125, MAP | OPTION, "file_map"),
    Call("pkey_mprotect", 329, 380, MAP | OPTION, "file_map"),
    Call("clock_settime", 227, 264, CLOCK),  # no event: `quiet` must hear of it
    Call("clock_settime64", -1, 404, CLOCK),
    Call("clock_adjtime", 305, 343, CLOCK),
    Call("clock_adjtime64", -1, 405, CLOCK),
    Call("settimeofday", 164, 79, CLOCK),
    Call("adjtimex", 159, 124, CLOCK),
    Call("stime", -1, 25, CLOCK),
    Call("init_module", 175, 128, KERNEL, "kernel_module", second=3),
    Call("finit_module", 313, 350, KERNEL, "kernel_module", dir=1, second=2, value=3),
    Call("delete_module", 176, 129, KERNEL, "kernel_module", second=1, value=2),
    Call("bpf", 321, 357, KERNEL, "kernel_bpf", dir=RETURNED, value=1),
    Call("io_uring_setup", 425, 425, KERNEL, "kernel_io_uring", dir=RETURNED, value=1),
    Call("execve", 59, 11, EXEC | FAILURES),
    Call("execveat", 322, 358, EXEC | AT | FAILURES),
    Call("fork", 57, 2, FORK | FAILURES),
    Call("vfork", 58, 190, FORK | FAILURES),
    Call("clone", 56, 120, FORK | FAILURES),
    Call("clone3", 435, 435, FORK | FAILURES),
    Call("connect", 42, 362, CONNECT),
    Call("bind", 49, 361, BIND),
    Call("listen", 50, 363, LISTEN),
    Call("accept", 43, -1, ACCEPT),
    Call("accept4", 288, 364, ACCEPT),
    Call("sendto", 44, 369, WRITE | ADDRESS),
    Call("sendmsg", 46, 370, WRITE | MSG),
    Call("sendmmsg", 307, 345, WRITE | MMSG),
    Call("socketcall", -1, 102, SOCKETCALL),
    Call("recvfrom", 45, 371, READ | ADDRESS),
    Call("recvmsg", 47, 372, READ | MSG),
    Call("recvmmsg", 299, 337, READ | MMSG),
    Call("recvmmsg_time64", -1, 417, READ | MMSG),
    Call("sendfile", 40, 187, _pair(1, 0)),
    Call("sendfile64", -1, 239, _pair(1, 0)),
    Call("splice", 275, 313, _pair(0, 2)),
    Call("tee", 276, 315, _pair(0, 1)),
    Call("copy_file_range", 326, 377, _pair(0, 2)),
    Call("vmsplice", 278, 316, READ | VMSPLICE),
)
TABLES = {"x86_64": _X86}
_PROCESS = (EXEC, FORK)
MINIMAL = (CLOCK, CONNECT, LISTEN, ACCEPT, *_PROCESS)


def calls(profile: str, machine: str | None = None) -> dict[int, int]:
    """Contents of the `calls` map: index (syscall number; + 512 for the 32-bit table) to bits.

    Raises ProbeError on a machine whose syscall table is not known.
    """
    table = TABLES.get(machine or platform.machine())
    if table is None:
        raise ProbeError(f"no syscall table for {machine or platform.machine()}; known: {', '.join(TABLES)}")
    found: dict[int, int] = {}
    for call in table:
        quiet = call.bits & 0xFF not in MINIMAL and not (call.event and "minimal" in EVENT[call.event].profiles)
        bits = call.spec() | (LEFT_OUT if profile == "minimal" and quiet else 0)
        if call.number >= 0:
            found[call.number] = found.get(call.number, 0) | bits
        if call.compat >= 0:
            found[512 + call.compat] = bits
            found[call.compat] = found.get(call.compat, 0) | COMPAT  # a native number that must be looked at twice
    return found
