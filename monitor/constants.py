"""Names of the kernel's rarer numbers: capabilities, ptrace requests, BPF commands and program types, flags of mounts.

Owns the tables and the rule for what is not in them; the numbers are those of the kernel's user interface headers.
"""

from __future__ import annotations

from monitor.tables import flag_names

# include/uapi/linux/capability.h
CAPABILITIES = tuple(
    "CAP_" + name.upper()
    for name in [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ]
)


def capabilities(bits: int) -> list[str]:
    """Names of the capabilities in a set; one without a name as "CAP_<number>"."""
    return [
        CAPABILITIES[number] if number < len(CAPABILITIES) else f"CAP_{number}"
        for number in range(64)
        if bits >> number & 1
    ]


# include/uapi/linux/ptrace.h, arch/x86/include/uapi/asm/ptrace-abi.h
_PTRACE = {
    0: "TRACEME",
    4: "POKETEXT",
    5: "POKEDATA",
    6: "POKEUSR",
    8: "KILL",
    13: "SETREGS",
    15: "SETFPREGS",
    16: "ATTACH",
    17: "DETACH",
    19: "SETFPXREGS",
    0x4205: "SETREGSET",
    0x4206: "SEIZE",
}


def ptrace_request(number: int) -> str:
    """Name of a ptrace request; "PTRACE_<number>" for one without a name here."""
    return f"PTRACE_{_PTRACE.get(number, number)}"


# include/uapi/linux/bpf.h, enum bpf_cmd
_BPF_COMMANDS = {
    5: "PROG_LOAD",
    6: "OBJ_PIN",
    8: "PROG_ATTACH",
    9: "PROG_DETACH",
    17: "RAW_TRACEPOINT_OPEN",
    28: "LINK_CREATE",
    29: "LINK_UPDATE",
    34: "LINK_DETACH",
    36: "TOKEN_CREATE",
}
# enum bpf_prog_type
_BPF_TYPES = [
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
]


def bpf_command(number: int) -> str:
    """Name of a command of bpf(2); "BPF_<number>" for one without a name here."""
    return f"BPF_{_BPF_COMMANDS.get(number, number)}"


def bpf_program_type(number: int) -> str:
    """Name of a BPF program type, as bpftool shows it; the number for one not known."""
    return _BPF_TYPES[number] if number < len(_BPF_TYPES) else str(number)


SIGNAL_RESULTS = ("delivered", "ignored", "already_pending", "overflow_fail", "lose_info")
"""include/trace/events/signal.h: what became of a signal that was sent"""


def _bits(prefix: str, names: str) -> tuple[tuple[int, str], ...]:
    """Flags from bit 0 upwards: value and full name of each; "-" is a bit without a name."""
    return tuple((1 << bit, prefix + name) for bit, name in enumerate(names.split()) if name != "-")


# include/uapi/linux/mount.h
_MOUNT_FLAGS = _bits(
    "MS_",
    "RDONLY NOSUID NODEV NOEXEC SYNCHRONOUS REMOUNT MANDLOCK DIRSYNC NOSYMFOLLOW - NOATIME NODIRATIME "
    "BIND MOVE REC SILENT POSIXACL UNBINDABLE PRIVATE SLAVE SHARED RELATIME KERNMOUNT I_VERSION "
    "STRICTATIME LAZYTIME",
)
_MAGIC, _MAGIC_MASK = 0xC0ED0000, 0xFFFF0000


def mount_flags(value: int) -> list[str]:
    """Names of mount(2)'s flags; the magic number that old programs put in the upper half is none."""
    value &= 0xFFFFFFFF
    return flag_names(value & 0xFFFF if value & _MAGIC_MASK == _MAGIC else value, _MOUNT_FLAGS)


_MOVE_MOUNT_FLAGS = (
    (0x01, "MOVE_MOUNT_F_SYMLINKS"),
    (0x02, "MOVE_MOUNT_F_AUTOMOUNTS"),
    (0x04, "MOVE_MOUNT_F_EMPTY_PATH"),
    (0x10, "MOVE_MOUNT_T_SYMLINKS"),
    (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"),
    (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"),
    (0x200, "MOVE_MOUNT_BENEATH"),
)
_UMOUNT_FLAGS = ((1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW"))


def move_mount_flags(value: int) -> list[str]:
    """Names of move_mount(2)'s flags."""
    return flag_names(value & 0xFFFFFFFF, _MOVE_MOUNT_FLAGS)


def umount_flags(value: int) -> list[str]:
    """Names of umount2(2)'s flags."""
    return flag_names(value & 0xFFFFFFFF, _UMOUNT_FLAGS)


# include/uapi/asm-generic/mman-common.h, mman.h; arch/x86/include/uapi/asm/mman.h
_PROTECTION = (
    (0x1, "PROT_READ"),
    (0x2, "PROT_WRITE"),
    (0x4, "PROT_EXEC"),
    (0x8, "PROT_SEM"),
    (0x01000000, "PROT_GROWSDOWN"),
    (0x02000000, "PROT_GROWSUP"),
)
_MAP_TYPES = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"}
_MAP_FLAGS = (
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x40, "MAP_32BIT"),
    (0x80, "MAP_ABOVE4G"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x10000, "MAP_NONBLOCK"),
    (0x20000, "MAP_STACK"),
    (0x40000, "MAP_HUGETLB"),
    (0x80000, "MAP_SYNC"),
    (0x100000, "MAP_FIXED_NOREPLACE"),
)


def protection(value: int) -> list[str]:
    """Names of what may be done with memory; PROT_NONE when nothing."""
    return flag_names(value & 0xFFFFFFFF, _PROTECTION) or ["PROT_NONE"]


def map_flags(value: int) -> list[str]:
    """Names of mmap(2)'s flags: the type, then the others; what has no name in hexadecimal."""
    value &= 0xFFFFFFFF
    kind = _MAP_TYPES.get(value & 0xF)
    return [kind, *flag_names(value & ~0xF, _MAP_FLAGS)] if kind else flag_names(value, _MAP_FLAGS)


# include/uapi/linux/io_uring.h
_IO_URING_FLAGS = _bits(
    "IORING_SETUP_",
    "IOPOLL SQPOLL SQ_AFF CQSIZE CLAMP ATTACH_WQ R_DISABLED SUBMIT_ALL COOP_TASKRUN TASKRUN_FLAG SQE128 "
    "CQE32 SINGLE_ISSUER DEFER_TASKRUN NO_MMAP REGISTERED_FD_ONLY NO_SQARRAY HYBRID_IOPOLL",
)


def io_uring_flags(value: int) -> list[str]:
    """Names of io_uring_setup(2)'s flags."""
    return flag_names(value & 0xFFFFFFFF, _IO_URING_FLAGS)
