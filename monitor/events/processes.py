"""The catalogue's events: what processes do.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.shown import (
    CLAIM,
    CONTEXT_BLOBS,
    CONTEXT_SHOWN,
    CREDENTIALS_SHOWN,
    CUT,
    HASH,
    NAMED,
    REDACTED_SHOWN,
    TARGET_SHOWN,
    TASK_BLOBS,
    source,
)
from monitor.model import EventType, Shown

PROCESSES: tuple[EventType, ...] = (
    EventType(16, "process_fork", "control", "A process was made. The subject is the child; a failed call's is the caller.",
              "process", ("start",), "fork", "tp_btf/sched_process_fork, tp_btf/sys_exit", ("fork", "vfork", "clone", "clone3"),
              (), (*TASK_BLOBS, *CONTEXT_BLOBS), CONTEXT_SHOWN, edge="parent -> child", trigger="/bin/true &"),
    EventType(17, "process_exec", "control", "A process started another program.", "process", ("start",), "exec",
              "tp_btf/sched_process_exec, tp_btf/sys_exit", ("execve", "execveat"), (),
              (*TASK_BLOBS, *CONTEXT_BLOBS, "directory", "args", "name", "base", "text", "environment"),
              (*CONTEXT_SHOWN, HASH, Shown("process.name", "keyword", "base name of the executable"),
               Shown("process.args_count", "long", "number of arguments in process.args"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               Shown("process.env_vars", "keyword", "environment variables of `exec_environment`, each with its value"),
               Shown("ebpf.exec.filename", "keyword", "the name that exec was given, the kernel's own copy, where it is not the executable's path; of a script the script's"),
               Shown("ebpf.exec.interpreter", "keyword", "of a script: the interpreter that its first line names"),
               Shown("ebpf.exec.kind", "keyword", "script; memfd: a file of memory; deleted: without a name any more; descriptor: named by one (/proc/self/fd/N, "
                     "/dev/fd/N, execveat); setuid, setgid: the exec changed the effective user or group; file_capabilities: it gave capabilities to one who is not root"),
               *CUT, REDACTED_SHOWN, source("file (the kernel's file object); caller: of a failed call"), CLAIM),
              "file", "executable -> process", "/bin/true"),
    EventType(18, "process_exit", "control", "The last thread of a process ended.", "process", ("end",), "end",
              "tp_btf/sched_process_exit", ("exit_group", "exit"), (), TASK_BLOBS,
              (Shown("process.exit_code", "long", "exit code; absent when a signal ended it"),
               Shown("ebpf.signal.number", "long", "signal that ended it"),
               Shown("ebpf.signal.name", "keyword", "its name")), edge="process ends", trigger="/bin/false"),
    EventType(19, "process_found", "made", "A process that ran before the monitor did: the scan at start found it.", "process", ("info",),
              "already_running", "iter/task", (), (), (*TASK_BLOBS, *CONTEXT_BLOBS, "directory"),
              (*CONTEXT_SHOWN, HASH, Shown("process.start", "date_nanos", "when it started"),
               Shown("process.args", "keyword", "arguments, as /proc shows them"),
               Shown("process.args_count", "long", "number of arguments"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               *CUT, REDACTED_SHOWN, Shown("ebpf.scanned", "boolean", "from the scan at start: it was there before the monitor")), edge="process",
              trigger="systemctl start ebpf-monitor"),
    EventType(20, "process_credentials", "control",
              "The ids or capabilities of a thread changed: what the kernel holds before and after, whatever call did it. A call that changed "
              "nothing is no event; a failed one is.", "process", ("change",), "uid_change", "tp_btf/sys_exit, tp_btf/sched_process_exec",
              ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "setuid32", "setgid32",
               "setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32", "setgroups32", "capset", "prctl"),
              (), (*TASK_BLOBS, "before", "after", "groups"),
              (*CREDENTIALS_SHOWN, Shown("process.thread.capabilities.effective", "keyword", "capabilities in effect after the act"),
               Shown("process.thread.capabilities.permitted", "keyword", "capabilities that may be taken after the act")), edge="process changes",
              trigger="setpriv --reuid 65534 --clear-groups true"),
    EventType(21, "process_signal", "control",
              "A process sent a signal: one event for each receiver. Signals of the kernel's own (a child's end, a fault, a timer) are not events.",
              "process", ("change",), "signal", "tp_btf/signal_generate, tp_btf/sys_exit",
              ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"), (), (*TASK_BLOBS, "target"),
              (*TARGET_SHOWN, Shown("ebpf.signal.number", "long", "the signal"), Shown("ebpf.signal.name", "keyword", "its name"),
               Shown("ebpf.signal.result", "keyword", "delivered, ignored, already_pending, overflow_fail or lose_info"), CLAIM),
              edge="process -> process", trigger="kill -TERM PID"),
    EventType(22, "process_ptrace", "control",
              "A process traced another one or changed its registers or memory (ptrace), or read or wrote its memory (process_vm_readv, "
              "process_vm_writev). Requests that only look or let a tracee go on are not events.", "process", ("change",), "ptrace",
              "tp_btf/sys_exit", ("ptrace", "process_vm_readv", "process_vm_writev"), (), (*TASK_BLOBS, "target"),
              (*TARGET_SHOWN, Shown("ebpf.ptrace.request", "keyword", "PTRACE_ATTACH and others; of PTRACE_TRACEME the parent becomes the tracer")),
              edge="process <-> process", trigger="strace -p PID"),
    EventType(23, "process_namespace", "control",
              "A process went to other namespaces or to another root directory. Of clone with CLONE_NEW* the subject is the child.",
              "process", ("change",), "namespace_change", "tp_btf/sys_exit, tp_btf/sched_process_fork",
              ("unshare", "setns", "chroot", "pivot_root", "clone", "clone3"), (), (*TASK_BLOBS, *NAMED, "namespaces"),
              (Shown("ebpf.flags", "keyword", "kinds of namespaces: CLONE_NEWNS and others"),
               *(Shown("ebpf.namespace." + name, "keyword", f"{doc} namespace after the act, as in /proc/PID/ns") for name, doc in (
                   ("mnt", "mount"), ("uts", "host name"), ("ipc", "IPC"), ("net", "network"), ("pid_for_children", "pid"), ("cgroup", "cgroup"),
                   ("time", "time"), ("user", "user"))),
               source("file (the kernel's root directory of the process); caller: of a failed call"), CLAIM), "file",
              edge="process changes", trigger="unshare -m true"),
    EventType(24, "process_hash", "made", "The SHA-256 of a program, or of a file mapped to be executed, that was not known at that moment: read off the hot path.",
              "process", ("info",), "hash", shown=(
        Shown("process.entity_id", "keyword", "the process that runs it"), Shown("process.pid", "long", "its process id"),
        Shown("process.executable", "keyword", "path of the program"), Shown("process.hash.sha256", "keyword", "of the program's file"),
        Shown("file.path", "keyword", "path of a mapped file"), Shown("file.hash.sha256", "keyword", "of a mapped file"),
        Shown("file.inode", "keyword", "inode number of that file"), Shown("file.device", "keyword", "device, major:minor"),
        Shown("file.size", "long", "its size in bytes"), Shown("file.ctime", "date_nanos", "last change: with device, inode and size, the version that was read"),
        Shown("ebpf.raw", "object", "exact bytes, base64, of a path that is not clean text")), edge="process", trigger="a new program, run"),
)
