"""The catalogue: every event with its fields, blobs, probe, documentation and trigger.

The only place that knows an event's fields; holds data, never behaviour.
"""

from __future__ import annotations

from monitor.model import Blob, EventType, Field, Layout, Shown

# ---- flags of a record (`kf`) ----------------------------------------------------------------------------------------
CLAIMED = 1
"""The name is the caller's claim: nothing in the kernel vouched for it."""
BEGIN = 2
"""A read/write session begins with this record: its object stands for the session's slot from now on."""
TRUNCATED = 4
"""Something in the record was cut; the original length is beside it."""
RELATIVE = 8
"""The claimed name is relative to the directory whose key is in `key`."""
ADDRESS = 16
"""A socket address follows the fixed part of a bulk record."""
UNNAMED = 32
"""The record refers to no object: its session was not known."""
COMPAT = 64
"""The call came through the 32-bit entry point: `nr` is from that table."""
MANY = 128
"""The process had more descriptors than the kernel swept: the reader sweeps the rest."""
CREATED = 256
"""The open made the file (the kernel's FMODE_CREATED)."""
KF = {"CREATED": CREATED, "CLAIMED": CLAIMED, "BEGIN": BEGIN, "TRUNCATED": TRUNCATED, "RELATIVE": RELATIVE, "ADDRESS": ADDRESS,
      "UNNAMED": UNNAMED, "COMPAT": COMPAT, "MANY": MANY}

# ---- flags of a file definition ---------------------------------------------------------------------------------------
FILE_FLAGS = {"DELETED": 1, "NO_PATH": 2, "TOO_DEEP": 4, "UNSTABLE": 8, "DETACHED": 16, "CUT": 32}

CLOSE_REASONS = ("close", "dup", "exec", "exit", "evict", "interval")
"""`ebpf.close.reason`, by number."""

# ---- what both lanes share ----------------------------------------------------------------------------------------------
TASK = Layout("task_facts", (
    Field("start", "u64", doc="start time of the thread group leader, CLOCK_BOOTTIME ns"),
    Field("parent_start", "u64", doc="the same of the real parent's leader"),
    Field("cgroup", "u64", doc="cgroup v2 id"),
    Field("exe_key", "u64", doc="path key of mm->exe_file, 0 for kernel threads"),
    Field("tgid", "u32", "process.pid", doc="process id"),
    Field("tid", "u32", "process.thread.id", doc="thread id"),
    Field("exec_id", "u32", doc="number of execs of this process (self_exec_id)"),
    Field("ppid", "u32", "process.parent.pid", doc="process id of the real parent"),
    Field("uid", "u32", "process.real_user.id", "keyword", "real user id"),
    Field("euid", "u32", "user.id", "keyword", "effective user id"),
    Field("gid", "u32", "process.real_group.id", "keyword", "real group id"),
    Field("egid", "u32", "group.id", "keyword", "effective group id"),
    Field("login_uid", "u32", "ebpf.login.uid", doc="audit login uid; 4294967295 = unset"),
    Field("login_session", "u32", "ebpf.login.session", doc="audit session; 4294967295 = unset"),
    Field("comm", "u8[16]", "process.thread.name", "keyword", "thread name (comm)"),
))

RECORD = Layout("record", (
    Field("type", "u16", doc="event id, or a definition's"),
    Field("units", "u16", doc="length in units of 64 bytes"),
    Field("tid", "u32", doc="thread id"),
    Field("ts", "u64", "ebpf.timestamp_ns", doc="CLOCK_BOOTTIME ns when the call returned"),
    Field("seq", "u64", doc="this CPU's sequence number over both lanes; of a definition: the next one"),
    Field("key", "u64", doc="object key"),
))

BULK = Layout("bulk_event", (
    *RECORD.fields,
    Field("ret", "s64", "ebpf.ret", doc="return value"),
    Field("nr", "u16", "ebpf.syscall", "keyword", "syscall", "syscall"),
    Field("kf", "u16", doc="flags"),
    Field("fd", "s32", "ebpf.fd", doc="file descriptor"),
    Field("session", "u32", doc="slot of the read/write session, 0xffffffff: none"),
    Field("generation", "u32", doc="generation of that slot"),
))

CONTROL = Layout("control_event", (
    Field("length", "u32", doc="total length in bytes"),
    Field("type", "u16", doc="event id"),
    Field("cpu", "u16", "ebpf.cpu", doc="CPU"),
    Field("ts", "u64", "ebpf.timestamp_ns", doc="CLOCK_BOOTTIME ns"),
    Field("seq", "u64", doc="this CPU's sequence number over both lanes"),
    Field("ret", "s64", "ebpf.ret", doc="return value"),
    Field("nr", "u16", "ebpf.syscall", "keyword", "syscall; 65535: none", "syscall"),
    Field("kf", "u16", doc="flags"),
    Field("fd", "s32", "ebpf.fd", doc="file descriptor; -1: none"),
    Field("arg", "u64", doc="meaning depends on the event: flags, exit code"),
    Field("ino", "u64", "file.inode", "keyword", "inode", "text"),
    Field("dev", "u32", "file.device", "keyword", "device, major:minor", "device"),
    Field("mode", "u32", "file.mode", "keyword", "permissions, octal", "mode"),
    Field("original", "u32", doc="length before truncation, 0: whole"),
    Field("flags", "u32", doc="FILE_FLAGS of the named object"),
    *TASK.fields,
))

DEF_TASK, DEF_FILE, DEF_SOCKET, DEF_SESSION = 1, 2, 3, 4
"""Types of definitions: records that name what later records refer to. Not events."""

TASK_DEFINITION = Layout("task_definition", (*RECORD.fields, *(
    Field("t_" + f.name, f.ctype, doc=f.doc) for f in TASK.fields
), Field("cgroup_bytes", "u32", doc="bytes of cgroup names that follow, leaf first, each with its NUL"),
   Field("pad", "u32")))

FILE_DEFINITION = Layout("file_definition", (
    *RECORD.fields,
    Field("ino", "u64", doc="inode number"),
    Field("dev", "u32", doc="device as the kernel has it (20 bits minor)"),
    Field("generation", "u32", doc="inode generation"),
    Field("mode", "u32", doc="type and permissions"),
    Field("uid", "u32", doc="owner"),
    Field("gid", "u32", doc="owning group"),
    Field("flags", "u32", doc="FILE_FLAGS"),
    Field("mount_ns", "u32", doc="mount namespace"),
    Field("bytes", "u32", doc="bytes of names that follow, leaf first, each with its NUL"),
))

SOCKET_DEFINITION = Layout("socket_definition", (
    *RECORD.fields,
    Field("ino", "u64", doc="inode of the socket"),
    Field("cookie", "u64", doc="socket cookie, 0: none yet"),
    Field("family", "u16", doc="AF_*"),
    Field("kind", "u16", doc="SOCK_*"),
    Field("protocol", "u16", doc="IPPROTO_*"),
    Field("local_port", "u16", doc="host byte order"),
    Field("remote_port", "u16", doc="host byte order"),
    Field("local_bytes", "u16", doc="length of the Unix name that follows"),
    Field("remote_bytes", "u16", doc="length of the peer's Unix name that follows it"),
    Field("state", "u16", doc="TCP state"),
    Field("local", "u8[16]", doc="local address, IPv4 in the first 4 bytes"),
    Field("remote", "u8[16]", doc="remote address"),
))

LAYOUTS = (TASK, RECORD, BULK, CONTROL, TASK_DEFINITION, FILE_DEFINITION, SOCKET_DEFINITION)

BLOBS = (
    Blob("executable", 1, "process.executable", "keyword", "path of the running program: kernel's mm->exe_file"),
    Blob("directory", 2, "process.working_directory", "keyword", "working directory: the kernel's fs->pwd"),
    Blob("args", 3, "process.args", "keyword", "arguments, NUL separated"),
    Blob("name", 4, "file.path", "keyword", "the caller's name of the object"),
    Blob("base", 5, "", "", "directory a relative name starts from"),
    Blob("name2", 6, "file.path", "keyword", "the caller's second name"),
    Blob("base2", 7, "", "", "directory the second name starts from"),
    Blob("address", 8, "destination.ip", "ip", "socket address given by the caller"),
    Blob("socket", 9, "source.ip", "ip", "the socket as the kernel has it (a socket definition)"),
    Blob("cgroup", 10, "container.id", "keyword", "cgroup names, leaf first"),
)
BLOB = {blob.name: blob for blob in BLOBS}

_TASK_BLOBS = ("executable", "cgroup")
_TOTALS = (
    Field("read_count", "u64", "ebpf.read.count", doc="reads or receives since the record before"),
    Field("read_bytes", "u64", "ebpf.read.bytes", doc="their bytes"),
    Field("write_count", "u64", "ebpf.write.count", doc="writes or sends since the record before"),
    Field("write_bytes", "u64", "ebpf.write.bytes", doc="their bytes"),
    Field("reason", "u64", "ebpf.close.reason", "keyword", "why the record was made", "close_reason"),
    Field("pad", "u64"), Field("pad2", "u64"), Field("pad3", "u64"),
)
FILE_SHOWN: tuple[Shown, ...] = (
    Shown("file.path", "keyword", "the host's path of the object after the act"), Shown("file.name", "keyword", "its last name"),
    Shown("file.inode", "keyword", "inode number"), Shown("file.device", "keyword", "device, major:minor"),
    Shown("file.mode", "keyword", "permissions, octal"),
    Shown("file.type", "keyword", "file, dir, symlink, char_device, block_device, fifo, socket or unknown"),
    Shown("ebpf.path_flags", "keyword", "what is odd about the path: deleted, no_path, too_deep, unstable, detached"),
)
"""What names a file that the kernel vouches for."""
CLAIM_SHOWN: tuple[Shown, ...] = (
    Shown("file.path", "keyword", "the caller's name, made absolute where its base is known"), Shown("file.name", "keyword", "its last name"),
)
"""What names a file of which there is the caller's word only."""
SOCKET_SHOWN: tuple[Shown, ...] = (
    Shown("source.ip", "ip", "local address"), Shown("source.port", "long", "local port"),
    Shown("destination.ip", "ip", "remote address"), Shown("destination.port", "long", "remote port"),
    Shown("network.transport", "keyword", "tcp, udp, ..."), Shown("network.type", "keyword", "ipv4 or ipv6"),
    Shown("ebpf.socket.family", "keyword", "address family"), Shown("ebpf.socket.type", "keyword", "socket type"),
    Shown("ebpf.socket.inode", "keyword", "inode number of the socket"),
    Shown("ebpf.socket.cookie", "keyword", "the kernel's cookie of the socket, where it has one"),
    Shown("ebpf.socket.path", "keyword", "name of the local Unix socket; @ begins an abstract one"),
    Shown("ebpf.socket.peer_path", "keyword", "name of the remote Unix socket"),
)
"""What names a socket."""
BULK_SHOWN: tuple[Shown, ...] = (
    Shown("ebpf.unresolved", "boolean", "the object was not known any more when the record was read"),
)
_CUT = (Shown("ebpf.truncated", "boolean", "something was cut"), Shown("ebpf.original_bytes", "long", "length in bytes before it was cut"))
_DIRECTION = Shown("network.direction", "keyword", "egress: this host connected; ingress: it accepted")
_CLAIMED = Shown("ebpf.claimed", "boolean", "the name or address is the caller's word")


def _source(doc: str) -> Shown:
    return Shown("ebpf.path_source", "keyword", "where the name comes from: " + doc)


_KERNEL_FILE = _source("file (the kernel's file object)")
_READS = ("read", "pread64", "readv", "preadv", "preadv2")
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
_FOLD = ("standard", "full", "trace")
_EXIT = "tp_btf/sys_exit"

EVENTS: tuple[EventType, ...] = (
    EventType(16, "process_fork", "control", "A process was made. The subject is the child; a failed call's is the caller.",
              "process", ("start",), "fork", "tp_btf/sched_process_fork, tp_btf/sys_exit", ("fork", "vfork", "clone", "clone3"),
              (), _TASK_BLOBS, edge="parent -> child", trigger="/bin/true &"),
    EventType(17, "process_exec", "control", "A process started another program.", "process", ("start",), "exec",
              "tp_btf/sched_process_exec, tp_btf/sys_exit", ("execve", "execveat"), (),
              (*_TASK_BLOBS, "directory", "args", "name", "base"),
              (Shown("process.name", "keyword", "base name of the executable"),
               Shown("process.args_count", "long", "number of arguments in process.args"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               *_CUT, _source("file (the kernel's file object); caller: of a failed call"), _CLAIMED),
              "file", "executable -> process", "/bin/true"),
    EventType(18, "process_exit", "control", "The last thread of a process ended.", "process", ("end",), "end",
              "tp_btf/sched_process_exit", ("exit_group", "exit"), (), _TASK_BLOBS,
              (Shown("process.exit_code", "long", "exit code; absent when a signal ended it"),
               Shown("ebpf.signal.number", "long", "signal that ended it"),
               Shown("ebpf.signal.name", "keyword", "its name")), edge="process ends", trigger="/bin/false"),
    EventType(19, "process_found", "made", "A process that ran before the monitor did: the scan at start found it.", "process", ("info",),
              "already_running", "iter/task", (), (), (*_TASK_BLOBS, "directory"),
              (Shown("process.start", "date_nanos", "when it started"),
               Shown("process.args", "keyword", "arguments, as /proc shows them"),
               Shown("process.args_count", "long", "number of arguments"),
               Shown("process.command_line", "keyword", "the arguments joined by spaces"),
               Shown("ebpf.scanned", "boolean", "from the scan at start: it was there before the monitor")), edge="process",
              trigger="systemctl start ebpf-monitor"),
    EventType(32, "file_open", "bulk", "A file was opened.", "file", ("access",), "open", _EXIT,
              ("open", "openat", "openat2", "creat", "open_by_handle_at"),
              (Field("oflags", "u64", "ebpf.flags", "keyword", "open flags", "open_flags"),), (),
              (_source("file (the kernel's file object); caller: of a failed call"), _CLAIMED, *_CUT), "file", "file -> process",
              "cat FILE", _FOLD),
    EventType(33, "file_read", "bulk", "A process read from a file: the first time, or each time when folding is off.",
              "file", ("access",), "read", _EXIT, _READS, (Field("pad", "u64"),), (), (_KERNEL_FILE, *_CUT), "file", "file -> process",
              "cat FILE", _FOLD),
    EventType(34, "file_write", "bulk", "A process wrote to a file: the first time, or each time when folding is off.",
              "file", ("change",), "write", _EXIT, _WRITES, (Field("pad", "u64"),), (), (_KERNEL_FILE, *_CUT), "file", "process -> file",
              "echo x > FILE", _FOLD),
    EventType(35, "file_close", "bulk", "An open file's session ended, with the totals of what passed.", "file", ("access",),
              "close", _EXIT, ("close", "dup2", "dup3", "close_range"), _TOTALS, (), (_KERNEL_FILE, *_CUT), "file", "totals",
              "cat FILE", _FOLD),
    EventType(36, "file_delete", "control", "A name of a file was removed.", "file", ("deletion",), "deletion", _EXIT,
              ("unlink", "unlinkat"), (), (*_TASK_BLOBS, "name", "base"), (_source("caller"), _CLAIMED), "file", "process -> file", "rm FILE", _FOLD),
    EventType(37, "file_rename", "control", "A file got another name.", "file", ("change",), "rename", _EXIT,
              ("rename", "renameat", "renameat2"), (), (*_TASK_BLOBS, "name", "base", "name2", "base2"),
              (Shown("file.Ext.original.path", "keyword", "the earlier name"), _source("caller"), _CLAIMED), "file", "process -> file",
              "mv FILE OTHER", _FOLD),
    EventType(48, "socket_bind", "control", "A socket got a local address.", "network", ("info",), "bind", _EXIT, ("bind",), (),
              (*_TASK_BLOBS, "address", "socket"), (_CLAIMED,), "socket", "address -> process", "nc -l -p PORT", _FOLD),
    EventType(49, "socket_listen", "control", "A socket began to listen.", "network", ("start",), "listen", _EXIT, ("listen",), (),
              (*_TASK_BLOBS, "socket"), (), "socket", "address -> process", "nc -l -p PORT"),
    EventType(50, "socket_connect", "control", "A connection was attempted: success, failure or in progress.", "network",
              ("start", "connection"), "connection_attempted", _EXIT, ("connect",), (), (*_TASK_BLOBS, "address", "socket"),
              (Shown("ebpf.in_progress", "boolean", "the call returned before the outcome was known"), _CLAIMED, _DIRECTION), "socket",
              "process -> host", "nc HOST PORT", failure_types=("connection", "info")),
    EventType(51, "socket_accept", "control", "A connection was accepted.", "network", ("start", "connection"),
              "connection_accepted", _EXIT, ("accept", "accept4"), (), (*_TASK_BLOBS, "socket"), (_DIRECTION,), "socket", "host -> process", "nc -l -p PORT"),
    EventType(52, "socket_send", "bulk", "A process sent: the first time, or each time when folding is off.", "network",
              ("connection",), "send", _EXIT, ("sendto", "sendmsg", "sendmmsg", *_WRITES), (Field("pad", "u64"),), (), (_CLAIMED, *_CUT),
              "socket", "process -> host", "echo x | nc HOST PORT", _FOLD),
    EventType(53, "socket_receive", "bulk", "A process received: the first time, or each time when folding is off.", "network",
              ("connection",), "receive", _EXIT, ("recvfrom", "recvmsg", "recvmmsg", *_READS), (Field("pad", "u64"),), (), (_CLAIMED, *_CUT),
              "socket", "host -> process", "echo x | nc HOST PORT", _FOLD),
    EventType(54, "socket_close", "bulk", "A socket's session ended, with the totals of what passed.", "network",
              ("end", "connection"), "disconnect_received", _EXIT, ("close", "dup2", "dup3", "close_range"), _TOTALS, (), _CUT,
              "socket", "totals", "echo x | nc HOST PORT", _FOLD),
    EventType(64, "monitor_start", "made", "The monitor began a log epoch.", "host", ("start",), "start", trigger="systemctl start ebpf-monitor", shown=(
        Shown("ebpf.previous.epoch", "keyword", "the log epoch before"),
        Shown("ebpf.previous.sequence", "long", "its last sequence number that is in the log"),
        Shown("ebpf.monitor.adopted", "boolean", "capture had gone on without a reader and was taken over"),
        Shown("ebpf.monitor.kernel", "keyword", "kernel release"),
        Shown("ebpf.monitor.layout", "keyword", "digest of the record layouts and programs"),
        Shown("ebpf.monitor.profile", "keyword", "capture profile"),
        Shown("ebpf.monitor.config_digest", "keyword", "digest of the effective configuration, without secrets"),
        Shown("ebpf.monitor.hooks", "keyword", "hooks that are attached"),
        Shown("ebpf.monitor.features", "keyword", "kernel features in use"),
        Shown("ebpf.monitor.control_lane", "keyword", "kernel buffer of the control lane: ringbuf or perf"),
        Shown("ebpf.monitor.missing", "keyword", "kernel features that are not there, by name"),
        Shown("ebpf.monitor.events", "keyword", "events that are recorded"),
        Shown("ebpf.monitor.processes", "long", "processes found by the scan at start"))),
    EventType(65, "monitor_stop", "made", "The monitor ended a log epoch in order.", "host", ("end",), "stop", trigger="systemctl stop ebpf-monitor", shown=(
        Shown("ebpf.monitor.reason", "keyword", "signal or duration"),)),
    EventType(66, "monitor_loss", "made", "Events were lost, or detail was given up.", "configuration", ("info",), "loss", trigger="a full ring", shown=(
        Shown("ebpf.loss.class", "keyword", "process, file, socket, log, or unknown"),
        Shown("ebpf.loss.cpu", "long", "CPU"),
        Shown("ebpf.loss.count", "long", "events lost; 0: detail only"),
        Shown("ebpf.loss.first", "long", "first per-CPU sequence of the gap"),
        Shown("ebpf.loss.last", "long", "last one"),
        Shown("ebpf.loss.reason", "keyword", "why"),
        Shown("ebpf.loss.epoch", "keyword", "epoch of the loss if it is an earlier one"),
        Shown("ebpf.loss.level", "long", "degraded: 1 reads and writes fold, 2 only a session's first is logged; 0 restored"))),
    EventType(67, "monitor_config", "made", "The configuration or the host's clock changed.", "configuration", ("change",), "config",
              trigger="mv events.jsonl OTHER", shown=(
        Shown("ebpf.config.old", "keyword", "digest before"),
        Shown("ebpf.config.new", "keyword", "digest after"),
        Shown("ebpf.config.keys", "keyword", "keys that changed"),
        Shown("ebpf.log.notice", "keyword", "what happened to the log file"),
        Shown("ebpf.clock.step_ns", "long", "step of the wall clock"))),
    EventType(68, "monitor_heartbeat", "made", "The ledger, each minute.", "configuration", ("info",), "heartbeat", trigger="a minute passes", shown=(
        *(Shown("ebpf.ledger." + name, "long", doc) for name, doc in (
            ("kernel_seen", "submitted + refused + suppressed"), ("submitted", "events that the kernel put into a ring"),
            ("received", "events taken out of the rings"), ("in_flight", "events in the rings"),
            ("died", "events in buffers that could not be recovered"), ("made", "documents of the monitor itself"),
            ("logged", "lines in the log"), ("quarantined", "events that could not be decoded"),
            ("folded", "reads and writes that stand in totals only"), ("torn", "lines cut after a crash"),
            ("refused.ring_full", "no room in a bulk ring"), ("refused.control_full", "no room in the control ring"),
            ("suppressed.self", "acts of the monitor"), ("suppressed.profile", "left out by the profile"),
            ("suppressed.quiet", "quiet objects left out by the profile"),
            ("filtered", "dropped by a rule"), ("unwritten", "could not be written to the log"))),
    )),
)
EVENT = {event.name: event for event in EVENTS}
EVENT_BY_ID = {event.id: event for event in EVENTS}


def bulk_layout(event: EventType) -> Layout:
    """The whole record of a bulk event: the common part and its own members."""
    return Layout(f"{event.name}_event", (*BULK.fields, *event.fields))


COMMON: tuple[Shown, ...] = (
    Shown("@timestamp", "date_nanos", "event time"), Shown("ecs.version", "keyword", "version of ECS"),
    Shown("agent.id", "keyword", "this agent"), Shown("agent.type", "keyword", "ebpf-monitor"),
    Shown("agent.version", "keyword", "its version"), Shown("host.id", "keyword", "machine id"),
    Shown("host.name", "keyword", "host name"), Shown("host.boot.id", "keyword", "boot id"),
    Shown("host.os.type", "keyword", "linux"), Shown("event.kind", "keyword", "event or metric"),
    Shown("event.module", "keyword", "ebpf_monitor"), Shown("event.dataset", "keyword", "family"),
    Shown("event.category", "keyword", "ECS category"), Shown("event.type", "keyword", "ECS type"),
    Shown("event.action", "keyword", "Elastic's word for the act"),
    Shown("event.id", "keyword", "host, epoch, sequence: also the document's _id"),
    Shown("event.sequence", "long", "dense number within the epoch"), Shown("ebpf.event", "keyword", "name in this catalogue"),
    Shown("ebpf.schema", "long", "version of the document format"),
    Shown("ebpf.timestamp_ns", "long", "event time, CLOCK_BOOTTIME ns"),
)
"""What every document carries."""
KERNEL_SHOWN: tuple[Shown, ...] = (
    Shown("event.outcome", "keyword", "success or failure"), Shown("ebpf.cpu", "long", "CPU"),
    Shown("error.code", "keyword", "name of the error of a failed call"), Shown("ebpf.errno", "long", "its number"),
    Shown("ebpf.raw", "object", "exact bytes, base64, of each shown name that is not clean text, under the field's path with _ for ."),
)
"""What documents of kernel events carry beside the members of their record."""
TASK_SHOWN: tuple[Shown, ...] = (
    Shown("process.entity_id", "keyword", "stable id of the process"), Shown("process.name", "keyword", "base name of the executable"),
    Shown("process.executable", "keyword", "path of the running program"),
    Shown("process.parent.entity_id", "keyword", "stable id of the parent"),
    Shown("process.real_user.name", "keyword", "name in the passwd file"), Shown("process.real_group.name", "keyword", "name in the group file"),
    Shown("user.name", "keyword", "name in the passwd file"), Shown("group.name", "keyword", "name in the group file"),
    Shown("container.id", "keyword", "from the cgroup"),
)
"""What names the process beside the members of TASK. Of the real user and group bulk events carry only what differs."""

ABSENT: dict[str, tuple[str, ...]] = {
    "process_exit": ("ebpf.syscall", "error.code", "ebpf.errno"),
}
"""Fields of the lane that an event never has: an exit is seen outside of calls and cannot fail."""

ALIASES: dict[str, str] = {
    "timestamp_ns": "ebpf.timestamp_ns", "datetime": "@timestamp", "pid": "process.pid", "ppid": "process.parent.pid", "uid": "user.id",
    "comm": "process.thread.name", "syscall": "ebpf.syscall", "filename": "file.path", "fd": "ebpf.fd", "ret": "ebpf.ret",
    "error_code": "ebpf.errno", "dest_ip": "destination.ip", "dest_ipv6": "destination.ip", "dest_port": "destination.port",
    "sa_family": "ebpf.socket.family", "count": "ebpf.ret", "bytes_rw": "ebpf.ret",
}
"""Flat names of the original tool and the fields that searches by them reach. `count` was the length asked for, which is not
recorded: the length transferred stands in."""
