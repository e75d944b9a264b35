"""The catalogue's events: what processes do.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.shown import CLAIM, CONTEXT_BLOBS, CONTEXT_SHOWN, CUT, REDACTED_SHOWN, TASK_BLOBS, source
from monitor.model import EventType, Shown

PROCESSES: tuple[EventType, ...] = (
    EventType(16, "process_fork", "control", "A process was made. The subject is the child; a failed call's is the caller.",
              "process", ("start",), "fork", "tp_btf/sched_process_fork, tp_btf/sys_exit", ("fork", "vfork", "clone", "clone3"),
              (), (*TASK_BLOBS, *CONTEXT_BLOBS), CONTEXT_SHOWN, edge="parent -> child", trigger="/bin/true &"),
    EventType(17, "process_exec", "control", "A process started another program.", "process", ("start",), "exec",
              "tp_btf/sched_process_exec, tp_btf/sys_exit", ("execve", "execveat"), (),
              (*TASK_BLOBS, *CONTEXT_BLOBS, "directory", "args", "name", "base"),
              (*CONTEXT_SHOWN, Shown("process.name", "keyword", "base name of the executable"),
               Shown("process.args_count", "long", "number of arguments in process.args"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               *CUT, REDACTED_SHOWN, source("file (the kernel's file object); caller: of a failed call"), CLAIM),
              "file", "executable -> process", "/bin/true"),
    EventType(18, "process_exit", "control", "The last thread of a process ended.", "process", ("end",), "end",
              "tp_btf/sched_process_exit", ("exit_group", "exit"), (), TASK_BLOBS,
              (Shown("process.exit_code", "long", "exit code; absent when a signal ended it"),
               Shown("ebpf.signal.number", "long", "signal that ended it"),
               Shown("ebpf.signal.name", "keyword", "its name")), edge="process ends", trigger="/bin/false"),
    EventType(19, "process_found", "made", "A process that ran before the monitor did: the scan at start found it.", "process", ("info",),
              "already_running", "iter/task", (), (), (*TASK_BLOBS, *CONTEXT_BLOBS, "directory"),
              (*CONTEXT_SHOWN, Shown("process.start", "date_nanos", "when it started"),
               Shown("process.args", "keyword", "arguments, as /proc shows them"),
               Shown("process.args_count", "long", "number of arguments"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               *CUT, REDACTED_SHOWN, Shown("ebpf.scanned", "boolean", "from the scan at start: it was there before the monitor")), edge="process",
              trigger="systemctl start ebpf-monitor"),
)
