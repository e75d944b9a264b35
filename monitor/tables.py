"""Names of the kernel's numbers: errors, system calls, flags, socket families, protocols, signals.

Owns constants of the Linux ABI and the look-ups over them, total functions that give every number a text; never reads a
file, and never asks the host's C library for anything but the spelling of errors, so a recorded stream reads the same
on every machine.
"""

from __future__ import annotations

import errno

# -------------------------------------------------------------------------------------------------------------- errors

ERRNO_NAMES: dict[int, str] = {
    **errno.errorcode,
    # Where two names share a number, the one the kernel's sources use (include/uapi/asm-generic/errno*.h).
    11: "EAGAIN",
    35: "EDEADLK",
    95: "EOPNOTSUPP",
    133: "EHWPOISON",
    # include/linux/errno.h: "These should never be seen by user programs". sys_exit sees the restart codes before the
    # signal path turns them into EINTR or a restart, and drivers do leak the others (ENOTSUPP above all).
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    521: "EBADHANDLE",
    522: "ENOTSYNC",
    523: "EBADCOOKIE",
    524: "ENOTSUPP",
    525: "ETOOSMALL",
    526: "ESERVERFAULT",
    527: "EBADTYPE",
    528: "EJUKEBOX",
    529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT",
    531: "ENOGRACE",
}
"""Positive error number -> name, for `error.code`."""

ERRNO_NUMBERS: dict[str, int] = {
    **{name: getattr(errno, name) for name in dir(errno) if name.startswith("E")},
    **{name: number for number, name in ERRNO_NAMES.items()},
}
"""Error name -> positive number; synonyms (EWOULDBLOCK, EDEADLOCK, ENOTSUP) are in it too."""

MAX_ERRNO = 4095
"""Linux include/linux/err.h: a system call's result in [-4095, -1] is an error, anything else is a value."""


def errno_name(number: int) -> str:
    """Name of a positive error number; "E<number>" for one that has none."""
    return ERRNO_NAMES.get(number) or f"E{number}"


# -------------------------------------------------------------------------------------------------------- system calls
# One word per number, counting up; "@n" sets the next number. From the kernel's own tables,
# arch/x86/entry/syscalls/syscall_{64,32}.tbl, up to Linux 7.0.

_X86_64 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl
dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate
getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown
umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod
uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall
munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages
getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl
tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
pkey_alloc pkey_free statx io_pgetevents rseq uretprobe uprobe @424 pidfd_send_signal io_uring_setup io_uring_enter
io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2
pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset
landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat
fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr
lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr listns
rseq_slice_yield
"""
_I386 = """
restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time mknod chmod lchown break
oldstat lseek getpid mount umount setuid getuid stime ptrace alarm oldfstat pause utime stty gtty access nice ftime
sync kill rename mkdir rmdir dup pipe times prof brk setgid getgid signal geteuid getegid acct umount2 lock ioctl
fcntl mpx setpgid ulimit oldolduname umask chroot ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask
setreuid setregid sigsuspend sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday getgroups
setgroups select symlink oldlstat readlink uselib swapon reboot readdir mmap munmap truncate ftruncate fchmod fchown
getpriority setpriority profil statfs fstatfs ioperm socketcall syslog setitimer getitimer stat lstat fstat olduname
iopl vhangup idle vm86old wait4 swapoff sysinfo ipc fsync sigreturn clone setdomainname uname modify_ldt adjtimex
mprotect sigprocmask create_module init_module delete_module get_kernel_syms quotactl getpgid fchdir bdflush sysfs
personality afs_syscall setfsuid setfsgid _llseek getdents _newselect flock msync readv writev getsid fdatasync
_sysctl mlock munlock mlockall munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep mremap setresuid getresuid
vm86 query_module poll nfsservctl setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending
rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset sigaltstack sendfile getpmsg
putpmsg vfork ugetrlimit mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64 lchown32 getuid32 getgid32 geteuid32
getegid32 setreuid32 setregid32 getgroups32 setgroups32 fchown32 setresuid32 getresuid32 setresgid32 getresgid32
chown32 setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise getdents64 fcntl64 @224 gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill sendfile64 futex sched_setaffinity sched_getaffinity set_thread_area get_thread_area io_setup
io_destroy io_getevents io_submit io_cancel fadvise64 @252 exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait
remap_file_pages set_tid_address timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
clock_gettime clock_getres clock_nanosleep statfs64 fstatfs64 tgkill utimes fadvise64_64 vserver mbind get_mempolicy
set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid @286 add_key
request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat
mknodat fchownat futimesat fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
unshare set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages getcpu epoll_pwait utimensat
signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2
inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64
name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp
finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat socket socketpair bind
connect listen accept4 getsockopt setsockopt getsockname getpeername sendto sendmsg recvfrom recvmsg shutdown
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx arch_prctl
io_pgetevents rseq @393 semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime64
clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64 timer_settime64
timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64 @416 io_pgetevents_time64
recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64
sched_rr_get_interval_time64 pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount
fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise
epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait
futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat
listxattrat removexattrat open_tree_attr file_getattr file_setattr listns rseq_slice_yield
"""
_X32 = """
@512 rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending rt_sigtimedwait
rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list vmsplice
move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt getsockopt
io_setup io_submit execveat preadv2 pwritev2
"""

X32_SYSCALL_BIT = 0x40000000
"""Set in the number of a system call made under the x32 ABI (arch/x86/include/uapi/asm/unistd.h)."""


def _numbered(words: str) -> dict[int, str]:
    names: dict[int, str] = {}
    number = 0
    for word in words.split():
        if word[0] == "@":
            number = int(word[1:])
        else:
            names[number] = word
            number += 1
    return names


SYSCALL_NAMES: dict[int, str] = _numbered(_X86_64)
"""x86-64 system call number -> name."""

COMPAT_SYSCALL_NAMES: dict[int, str] = _numbered(_I386)
"""System call number -> name of a 32-bit (i386) program on an x86-64 kernel."""

X32_SYSCALL_NAMES: dict[int, str] = {**SYSCALL_NAMES, **_numbered(_X32)}
"""Number without X32_SYSCALL_BIT -> name."""

SYSCALL_NUMBERS: dict[str, int] = {name: number for number, name in SYSCALL_NAMES.items()}
"""Name -> x86-64 system call number."""

COMPAT_SYSCALL_NUMBERS: dict[str, int] = {name: number for number, name in COMPAT_SYSCALL_NAMES.items()}
"""Name -> i386 system call number."""


def syscall_name(number: int, *, compat: bool = False) -> str:
    """Name of a system call: x86-64, x32 (by its bit), or i386 with `compat`; "syscall_<number>" for one not known."""
    if compat:
        name = COMPAT_SYSCALL_NAMES.get(number)
    elif number >= X32_SYSCALL_BIT:
        name = X32_SYSCALL_NAMES.get(number - X32_SYSCALL_BIT)
    else:
        name = SYSCALL_NAMES.get(number)
    return name or f"syscall_{number}"


def syscall_number(name: str, *, compat: bool = False) -> int | None:
    """Number of the system call called `name` on x86-64 (with `compat`: i386); None if there is none."""
    return (COMPAT_SYSCALL_NUMBERS if compat else SYSCALL_NUMBERS).get(name)


# include/uapi/linux/io_uring.h, enum io_uring_op; a number never changes
_IO_URING = """
NOP READV WRITEV FSYNC READ_FIXED WRITE_FIXED POLL_ADD POLL_REMOVE SYNC_FILE_RANGE SENDMSG RECVMSG TIMEOUT
TIMEOUT_REMOVE ACCEPT ASYNC_CANCEL LINK_TIMEOUT CONNECT FALLOCATE OPENAT CLOSE FILES_UPDATE STATX READ WRITE
FADVISE MADVISE SEND RECV OPENAT2 EPOLL_CTL SPLICE PROVIDE_BUFFERS REMOVE_BUFFERS TEE SHUTDOWN RENAMEAT
UNLINKAT MKDIRAT SYMLINKAT LINKAT MSG_RING FSETXATTR SETXATTR FGETXATTR GETXATTR SOCKET URING_CMD SEND_ZC
SENDMSG_ZC READ_MULTISHOT WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV FIXED_FD_INSTALL FTRUNCATE BIND LISTEN
RECV_ZC EPOLL_WAIT READV_FIXED WRITEV_FIXED PIPE NOP128 URING_CMD128
"""
IO_URING_OPERATIONS: tuple[str, ...] = tuple(_IO_URING.split())
"""Operation number of io_uring -> name, without IORING_OP_."""


def operation_name(number: int) -> str:
    """Name of an operation of io_uring, as the kernel's header has it."""
    known = number < len(IO_URING_OPERATIONS)
    return f"IORING_OP_{IO_URING_OPERATIONS[number] if known else number}"


# --------------------------------------------------------------------------------------------------------------- flags


def flag_names(value: int, table: tuple[tuple[int, str], ...]) -> list[str]:
    """Names of the bits of `value` in the table's order, composites before their parts; then unknown bits in hex."""
    found: list[str] = []
    for mask, name in table:
        if value & mask == mask:
            found.append(name)
            value &= ~mask
    if value:
        found.append(hex(value))
    return found


ACCESS_MODES = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
OPEN_FLAGS: tuple[tuple[int, str], ...] = (
    # include/uapi/asm-generic/fcntl.h. O_TMPFILE contains O_DIRECTORY, O_SYNC contains O_DSYNC.
    (0o20200000, "O_TMPFILE"),
    (0o4010000, "O_SYNC"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10000, "O_DSYNC"),
    (0o20000, "O_ASYNC"),
    (0o40000, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"),
    (0o200000, "O_DIRECTORY"),
    (0o400000, "O_NOFOLLOW"),
    (0o1000000, "O_NOATIME"),
    (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"),
)


def open_flags(value: int) -> list[str]:
    """Names of an open's flags, the access mode first.

    Access mode 3 is "O_ACCMODE" (no reading or writing, ioctl only). With O_PATH the kernel ignores the mode, so none
    is named. Bits without a name follow as one hexadecimal number.
    """
    value &= 0xFFFFFFFFFFFFFFFF
    named = flag_names(value & ~3, OPEN_FLAGS)
    return named if "O_PATH" in named else [ACCESS_MODES[value & 3], *named]


_CLONE_FLAGS: tuple[tuple[int, str], ...] = (
    # include/uapi/linux/sched.h
    (0x00000080, "CLONE_NEWTIME"),
    (0x00000100, "CLONE_VM"),
    (0x00000200, "CLONE_FS"),
    (0x00000400, "CLONE_FILES"),
    (0x00000800, "CLONE_SIGHAND"),
    (0x00001000, "CLONE_PIDFD"),
    (0x00002000, "CLONE_PTRACE"),
    (0x00004000, "CLONE_VFORK"),
    (0x00008000, "CLONE_PARENT"),
    (0x00010000, "CLONE_THREAD"),
    (0x00020000, "CLONE_NEWNS"),
    (0x00040000, "CLONE_SYSVSEM"),
    (0x00080000, "CLONE_SETTLS"),
    (0x00100000, "CLONE_PARENT_SETTID"),
    (0x00200000, "CLONE_CHILD_CLEARTID"),
    (0x00400000, "CLONE_DETACHED"),
    (0x00800000, "CLONE_UNTRACED"),
    (0x01000000, "CLONE_CHILD_SETTID"),
    (0x02000000, "CLONE_NEWCGROUP"),
    (0x04000000, "CLONE_NEWUTS"),
    (0x08000000, "CLONE_NEWIPC"),
    (0x10000000, "CLONE_NEWUSER"),
    (0x20000000, "CLONE_NEWPID"),
    (0x40000000, "CLONE_NEWNET"),
    (0x80000000, "CLONE_IO"),
    (0x100000000, "CLONE_CLEAR_SIGHAND"),
    (0x200000000, "CLONE_INTO_CGROUP"),
)


def clone_flags(value: int, *, exit_signal: bool = False) -> list[str]:
    """Names of the flags of clone3, unshare, setns; with `exit_signal` of clone(2), whose low byte is a signal."""
    value &= 0xFFFFFFFFFFFFFFFF
    return flag_names(value & ~0xFF if exit_signal else value, _CLONE_FLAGS)


_RENAME_FLAGS: tuple[tuple[int, str], ...] = (
    # include/uapi/linux/fs.h
    (1, "RENAME_NOREPLACE"),
    (2, "RENAME_EXCHANGE"),
    (4, "RENAME_WHITEOUT"),
)


def rename_flags(value: int) -> list[str]:
    """Names of renameat2's flags; bits without a name follow as one hexadecimal number."""
    return flag_names(value & 0xFFFFFFFF, _RENAME_FLAGS)


_MEMFD_FLAGS: tuple[tuple[int, str], ...] = (
    # include/uapi/linux/memfd.h
    (1, "MFD_CLOEXEC"),
    (2, "MFD_ALLOW_SEALING"),
    (4, "MFD_HUGETLB"),
    (8, "MFD_NOEXEC_SEAL"),
    (16, "MFD_EXEC"),
)


def memfd_flags(value: int) -> list[str]:
    """Names of memfd_create's flags; bits without a name (the size of huge pages among them) in hexadecimal."""
    return flag_names(value & 0xFFFFFFFF, _MEMFD_FLAGS)


# ------------------------------------------------------------------------------------------------------------- sockets

SOCKET_FAMILIES: dict[int, str] = _numbered("""
AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25 AF_INET6 AF_ROSE AF_DECnet
AF_NETBEUI AF_SECURITY AF_KEY AF_NETLINK AF_PACKET AF_ASH AF_ECONET AF_ATMSVC AF_RDS AF_SNA AF_IRDA AF_PPPOX AF_WANPIPE
AF_LLC AF_IB AF_MPLS AF_CAN AF_TIPC AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC
AF_VSOCK AF_KCM AF_QIPCRTR AF_SMC AF_XDP AF_MCTP
""")
"""Address family number -> name (include/linux/socket.h)."""

SOCKET_TYPES: dict[int, str] = {
    # include/linux/net.h
    1: "SOCK_STREAM",
    2: "SOCK_DGRAM",
    3: "SOCK_RAW",
    4: "SOCK_RDM",
    5: "SOCK_SEQPACKET",
    6: "SOCK_DCCP",
    10: "SOCK_PACKET",
}
"""Socket type number, without SOCK_NONBLOCK and SOCK_CLOEXEC -> name."""

IP_PROTOCOLS: dict[int, str] = {
    # Numbers: include/uapi/linux/in.h and in6.h; words: the IANA protocol registry's keywords, in lower case as in
    # network.transport of ECS. 256 and 262 are Linux's own.
    0: "ip",
    1: "icmp",
    2: "igmp",
    4: "ipv4",
    6: "tcp",
    8: "egp",
    12: "pup",
    17: "udp",
    22: "xns-idp",
    29: "iso-tp4",
    33: "dccp",
    41: "ipv6",
    43: "ipv6-route",
    44: "ipv6-frag",
    46: "rsvp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    59: "ipv6-nonxt",
    60: "ipv6-opts",
    88: "eigrp",
    89: "ospf",
    92: "mtp",
    94: "ipip",
    98: "encap",
    103: "pim",
    108: "ipcomp",
    112: "vrrp",
    115: "l2tp",
    132: "sctp",
    136: "udplite",
    137: "mpls-in-ip",
    143: "ethernet",
    255: "raw",
    256: "smc",
    262: "mptcp",
}
"""IP protocol number -> name."""


def socket_family(number: int) -> str:
    """Name of an address family; "AF_<number>" for one not known."""
    return SOCKET_FAMILIES.get(number) or f"AF_{number}"


def socket_type(value: int) -> str:
    """Name of a socket type (a caller's flag bits are ignored); "SOCK_<number>" for one not known."""
    number = value & 0xF  # SOCK_TYPE_MASK
    return SOCKET_TYPES.get(number) or f"SOCK_{number}"


def ip_protocol(number: int) -> str:
    """Name of an IP protocol; the decimal number for one not known."""
    return IP_PROTOCOLS.get(number) or str(number)


# ------------------------------------------------------------------------------------------------------------- signals

_STANDARD_SIGNALS = """
@1 SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR
SIGSYS
"""

SIGNAL_NAMES: dict[int, str] = {
    **_numbered(_STANDARD_SIGNALS),
    # Programs and `kill -l` count real-time signals from the C library's SIGRTMIN, 34; the two below it are the
    # library's own.
    34: "SIGRTMIN",
    **{34 + n: f"SIGRTMIN+{n}" for n in range(1, 30)},
    64: "SIGRTMAX",
}
"""Signal number -> name (arch/x86/include/uapi/asm/signal.h)."""


def signal_name(number: int) -> str:
    """Name of a signal; "SIG<number>" for one without a name."""
    return SIGNAL_NAMES.get(number) or f"SIG{number}"
