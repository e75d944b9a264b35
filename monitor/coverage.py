"""What the monitor sees of each system call and io_uring operation, and why it does not see the others.

Owns the reasons for what is not seen and the page that shows both; what is seen is the catalogue's word. Never asks a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monitor import events, tables
from monitor.kernel import probes, uring

NOT_BUILT = "no event yet"
UNSEEN: dict[str, str] = {
    "does not exist in today's kernels: always ENOSYS": """
        _sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg putpmsg lookup_dcookie
        nfsservctl query_module security tuxcall vserver break stty gtty ftime prof lock mpx ulimit profil idle
        bdflush uselib""",
    "newer than any kernel this was tried on": "listns rseq_slice_yield",
    "asks, changes nothing": """
        stat fstat lstat newfstatat statx statfs fstatfs ustat sysfs access faccessat faccessat2 readlink readlinkat
        getcwd getdents getdents64 getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat
        file_getattr name_to_handle_at statmount listmount cachestat getpid gettid getppid getpgrp getpgid getsid
        getuid geteuid getgid getegid getresuid getresgid getgroups capget getpriority getrlimit getrusage times
        sysinfo uname getsockname getpeername getsockopt getcpu kcmp getrandom get_mempolicy get_robust_list
        get_thread_area mincore ioprio_get sched_getparam sched_getscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_getaffinity sched_getattr lsm_get_self_attr
        lsm_list_modules syslog oldstat oldlstat oldfstat olduname oldolduname readdir stat64 lstat64 fstat64
        fstatat64 statfs64 fstatfs64 getuid32 getgid32 geteuid32 getegid32 getgroups32 getresuid32 getresgid32
        ugetrlimit sched_rr_get_interval_time64""",
    "the clock": """
        time gettimeofday clock_gettime clock_getres clock_gettime64 clock_getres_time64""",
    "sets the clock: seen by its effect (monitor_config, ebpf.clock.step_ns), not by who did it": """
        settimeofday clock_settime adjtimex clock_adjtime stime clock_settime64 clock_adjtime64""",
    "waits or wakes, moves no data": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 pause
        nanosleep clock_nanosleep futex futex_waitv futex_wait futex_wake futex_requeue wait4 waitid waitpid
        sched_yield restart_syscall io_getevents io_pgetevents io_cancel io_destroy io_setup eventfd eventfd2 signalfd
        signalfd4 timerfd_create timerfd_settime timerfd_gettime flock membarrier _newselect clock_nanosleep_time64
        pselect6_time64 ppoll_time64 futex_time64 io_pgetevents_time64 timerfd_gettime64 timerfd_settime64""",
    "a timer or an alarm of the caller's own": """
        alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
        timer_gettime64 timer_settime64""",
    "memory of the caller's own": """
        brk munmap mremap msync madvise mlock mlock2 munlock mlockall munlockall mbind set_mempolicy
        set_mempolicy_home_node migrate_pages move_pages remap_file_pages pkey_alloc pkey_free map_shadow_stack mseal
        userfaultfd process_madvise process_mrelease""",
    "the caller's own signal handling, threads, names and limits": """
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
        set_tid_address set_robust_list rseq set_thread_area arch_prctl modify_ldt personality umask signal sigaction
        sgetmask ssetmask sigsuspend sigpending sigreturn sigprocmask rt_sigtimedwait_time64 vm86 vm86old setpgid
        setsid""",
    "scheduling and limits": """
        setpriority nice sched_setparam sched_setscheduler sched_setaffinity sched_setattr ioprio_set setrlimit
        prlimit64""",
    "moves no data; the data itself is seen when it is read or written": """
        lseek _llseek fsync fdatasync sync syncfs sync_file_range readahead fadvise64 fadvise64_64 fallocate dup""",
    "flags and locks of a descriptor; F_DUPFD makes another one of a file, which the acts through it show": "fcntl fcntl64",
    "thousands of device operations in one; the open is seen, but not data that FICLONE shares": "ioctl",
    "makes an end of something that has no other side yet; the first act through it is seen": "socket",
    "shuts one direction of a connection; the close and its totals are seen": "shutdown",
    "options of a socket of the caller's own": "setsockopt",
    "the working directory, seen at the next exec and in each relative name": "chdir fchdir",
    "file times": "utime utimes futimesat utimensat utimensat_time64",
    "asynchronous I/O: no tracepoint shows its requests; the open and close of the file are seen": "io_submit",
    "System V and POSIX IPC: no file and no socket": """
        shmget shmat shmctl shmdt semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl mq_open
        mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr mq_timedsend_time64 mq_timedreceive_time64 ipc""",
    "kernel keyrings": "add_key request_key keyctl",
    "watches for changes of others": "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init fanotify_mark",
    "sandboxes the caller itself": "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_set_self_attr",
    "administration of the host, by root": """
        acct quotactl quotactl_fd swapon swapoff reboot sethostname setdomainname iopl ioperm vhangup kexec_load
        kexec_file_load""",
    "submits and awaits requests; each of them is judged by its operation, below": "io_uring_enter",
    "opens a performance counter or a probe": "perf_event_open uprobe uretprobe",
    "asks for a descriptor of a process; what is done through it is seen": "pidfd_open",
    "many options in one; a thread's name is seen in each event": "prctl",
    NOT_BUILT: """
        setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset setuid32 setgid32
        setreuid32 setregid32 setresuid32 setresgid32 setfsuid32 setfsgid32 setgroups32 kill tkill tgkill
        rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal ptrace process_vm_readv process_vm_writev unshare setns
        chroot pivot_root link linkat symlink symlinkat mkdir mkdirat mknod mknodat rmdir chmod fchmod fchmodat
        fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32 truncate ftruncate truncate64 ftruncate64
        setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr mmap
        mmap2 mprotect pkey_mprotect mount umount umount2 fsopen fsconfig fsmount fspick open_tree open_tree_attr
        move_mount mount_setattr memfd_create memfd_secret init_module finit_module delete_module bpf io_uring_setup
        io_uring_register pipe pipe2 socketpair pidfd_getfd""",
}
"""Reason -> names, of the 64-bit and the 32-bit table. A call that an event names is seen, whatever stands here."""


@dataclass(frozen=True)
class Row:
    """One system call or operation. `events` is empty when it is not seen; then `reason` says why."""

    number: int
    name: str
    events: tuple[str, ...]
    hooks: tuple[str, ...]
    reason: str = ""

    @property
    def seen(self) -> bool:
        """An event shows it."""
        return bool(self.events)


def _of_events(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    for kind in events.EVENTS:
        for call in kind.syscalls:
            found.setdefault(call, []).append(kind.name)
    return found


def _hooks(kinds: Iterable[str]) -> tuple[str, ...]:
    every = (hook.strip() for kind in kinds for hook in events.EVENT[kind].probe.split(","))
    return tuple(dict.fromkeys(every))


def reasons() -> dict[str, str]:
    """Name of a system call -> why it is not seen."""
    return {name: reason for reason, names in UNSEEN.items() for name in names.split()}


def calls(*, compat: bool = False) -> list[Row]:
    """A row for each system call of the 64-bit table, or of the 32-bit one; one nobody decided on has no event and no reason."""
    table = tables.COMPAT_SYSCALL_NAMES if compat else tables.SYSCALL_NAMES
    traced = {call.compat if compat else call.number: call for call in probes.TABLES["x86_64"]}
    shown, why, rows = _of_events(table.values()), reasons(), []
    for number, name in sorted(table.items()):
        call = traced.get(number)
        kinds = tuple(shown[name] or (shown[call.name] if call else []))
        rows.append(Row(number, name, kinds, _hooks(kinds), "" if kinds else why.get(name, "")))
    return rows


def operations() -> list[Row]:
    """A row for each operation of io_uring."""
    rows = []
    for number, name in enumerate(tables.IO_URING_OPERATIONS):
        kinds = uring.EVENTS.get(name, ())
        hooks = ("tp_btf/io_uring_submit_req", "tp_btf/io_uring_complete") if kinds else ()
        rows.append(Row(number, name, kinds, hooks, "" if kinds else uring.reasons().get(name, "")))
    return rows


def _table(rows: Iterable[Row]) -> str:
    lines = ["| number | name | event | hook, or why it is not seen |", "|---|---|---|---|"]
    for row in rows:
        last = ", ".join(row.hooks) if row.seen else row.reason
        lines.append(f"| {row.number} | {row.name} | {', '.join(row.events) or 'not seen'} | {last} |")
    return "\n".join(lines)


def _share(rows: list[Row]) -> str:
    return f"{sum(row.seen for row in rows)} of {len(rows)}"


def _families(rows: list[Row]) -> str:
    lines = ["| event | its system calls |", "|---|---|"]
    for kind in events.EVENTS:
        names = [row.name for row in rows if kind.name in row.events]
        if names:
            lines.append(f"| {kind.name} | {', '.join(names)} |")
    return "\n".join(lines)


def page(warning: str) -> str:
    """`docs/coverage.md`."""
    native, compat, ring = calls(), calls(compat=True), operations()
    return "\n".join(
        (
            "# Coverage\n",
            f"<!-- {warning} -->\n",
            "Every system call of x86-64 and every operation of io_uring: which event shows it through which hook,\n"
            "or why it is not seen. A test compares the names with those of the running kernel: a new one cannot pass\n"
            "unnoticed.\n",
            f"Seen: {_share(native)} of the 64-bit table, {_share(compat)} of the 32-bit one (`int 0x80`, sysenter),\n"
            f"{_share(ring)} of io_uring. The x32 table has the same calls under other numbers; most kernels are built\n"
            "without it, and its calls are not seen.\n",
            f"## By event\n\n{_families(native)}\n",
            f"## io_uring\n\n{uring.NOTES}\n\n{_table(ring)}\n",
            f"## System calls, 64-bit\n\n{_table(native)}\n",
            f"## System calls, 32-bit\n\n{_table(compat)}\n",
        )
    )
