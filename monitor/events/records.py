"""The records of the kernel side: their flags, layouts and variable parts.

Owns what both lanes and all families share in bytes; knows no event.
"""

from __future__ import annotations

from monitor.model import Blob, Field, Layout

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
REDACTED = 512
"""Secrets in the arguments were masked. Set by the reader, as it takes the record out of the ring."""
HOOKED = 1024
"""The names in `path` come from a hook of the kernel on this very call."""
PENDING = 2048
"""What is asked for is known, what came of it is not."""
URING = 4096
"""A request of io_uring: `nr` is its operation."""
QUIET = 8192
"""The object is quiet: profile `standard` would have left this out."""
WIDE = 16384
"""`extra` has the upper half of the return value: a call that moved 2 GB or more in several messages."""
KF = {"WIDE": WIDE, "QUIET": QUIET, "PENDING": PENDING, "URING": URING, "HOOKED": HOOKED, "CREATED": CREATED, "CLAIMED": CLAIMED, "BEGIN": BEGIN, "TRUNCATED": TRUNCATED, "RELATIVE": RELATIVE, "ADDRESS": ADDRESS,
      "UNNAMED": UNNAMED, "COMPAT": COMPAT, "MANY": MANY, "REDACTED": REDACTED}

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
    Field("units", "u16", doc="length in units of 8 bytes"),
    Field("tid", "u32", doc="thread id"),
    Field("ts", "u64", "ebpf.timestamp_ns", doc="CLOCK_BOOTTIME ns when the call returned"),
    Field("seq", "u64", doc="this CPU's sequence number over both lanes; of a definition: the next one"),
    Field("key", "u64", doc="object key"),
))

BULK = Layout("bulk_event", (
    *RECORD.fields[:4],
    Field("seq", "u32", doc="low half of this CPU's sequence number over both lanes; of a definition: of the next one"),
    Field("generation", "u32", doc="generation of the session's slot"),
    Field("ret", "s32", "ebpf.ret", doc="return value"),
    Field("fd", "s32", "ebpf.fd", doc="file descriptor"),
    Field("nr", "u16", "ebpf.syscall", "keyword", "syscall", "syscall"),
    Field("kf", "u16", doc="flags"),
    Field("session", "u32", doc="slot of the read/write session, 0xffffffff: none; of a claim the length of its name"),
))
"""What a second at 500,000 of them takes of a ring decides how long the reader may stand still: what is not needed is not in it."""
KEY = Field("key", "u64", doc="object key; not there in a record of a session that goes on")
EXTRA = Field("extra", "u64", doc="length of the address that follows; upper half: with WIDE what `ret` has no room for")

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
    Field("arg", "u64", doc="meaning depends on the event: flags, exit code, mode, size"),
    Field("arg2", "u64", doc="a second value: group, flags"),
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

SESSION_DEFINITION = Layout("session_definition", (*BULK.fields, KEY))

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
    Field("peer", "u64", doc="inode of the socket at the other end of a Unix connection or pair, 0: none"),
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

CONTEXT = Layout("context", (
    Field("session_start", "u64", doc="start of the session leader, CLOCK_BOOTTIME ns; 0: it has ended"),
    Field("group_start", "u64", doc="the same of the process group's leader"),
    Field("exe_ctime", "s64", doc="of the executable: ctime in seconds"),
    Field("exe_size", "u64", doc="its size in bytes"),
    Field("exe_magic", "u64", doc="magic number of its file system"),
    Field("exe_ino", "u64", doc="its inode"),
    Field("session", "u32", doc="session id: the leader's process id"),
    Field("group", "u32", doc="process group id: the leader's process id"),
    Field("tty", "u32", doc="controlling terminal as the kernel's dev_t, 0: none"),
    Field("exe_ctime_nsec", "u32", doc="nanoseconds of exe_ctime"),
    Field("peer_family", "u16", doc="of a session leader: the first TCP connection of its parent; 0: none"),
    Field("peer_port", "u16", doc="remote port, host byte order"),
    Field("exe_dev", "u32", doc="its device"),
    Field("peer", "u8[16]", doc="remote address, IPv4 in the first 4 bytes"),
))
"""What a process belongs to, in fork, exec and found records."""
ANCESTOR = Layout("ancestor", (Field("start", "u64", doc="start, CLOCK_BOOTTIME ns"), Field("tgid", "u64", doc="process id")))

CREDENTIALS = Layout("credentials", (
    Field("uid", "u32", doc="real user id"), Field("gid", "u32", doc="real group id"),
    Field("suid", "u32", doc="saved user id"), Field("sgid", "u32", doc="saved group id"),
    Field("euid", "u32", doc="effective user id"), Field("egid", "u32", doc="effective group id"),
    Field("fsuid", "u32", doc="user id for files"), Field("fsgid", "u32", doc="group id for files"),
    Field("securebits", "u32", doc="SECBIT_*"), Field("user_ns", "u32", doc="user namespace"),
    Field("inheritable", "u64", doc="capability sets, a bit each"), Field("permitted", "u64"), Field("effective", "u64"),
    Field("bounding", "u64"), Field("ambient", "u64"),
    Field("groups", "u32", doc="number of supplementary groups"),
    Field("groups_at", "u32", doc="low half of their list's address: another list, another address"),
))
NAMESPACES = Layout("namespaces", tuple(
    Field(name, "u32", doc="inode number, as in /proc/PID/ns")
    for name in ("mnt_ns", "uts_ns", "ipc_ns", "net_ns", "pid_ns_for_children", "cgroup_ns", "time_ns", "user_ns")
))
TARGET = Layout("target", (
    Field("start", "u64", doc="start time of the thread group leader, CLOCK_BOOTTIME ns"), Field("tgid", "u32", doc="process id"),
    Field("tid", "u32", doc="thread id"), Field("euid", "u32", doc="effective user id"), Field("pad", "u32"),
    Field("comm", "u8[16]", doc="thread name"),
))
PROGRAM = Layout("program", (
    Field("id", "u32", doc="the kernel's number of the BPF program"), Field("type", "u32", doc="BPF_PROG_TYPE_*"),
    Field("attach", "u32", doc="BPF_* attach type that it expects"), Field("length", "u32", doc="instructions"),
    Field("link", "u32", doc="number of the link, 0: none"), Field("pad", "u32"),
    Field("tag", "u8[8]", doc="hash of the instructions"), Field("name", "u8[16]", doc="its name"),
))
MAPPING = Layout("mapping", (
    Field("ctime", "s64", doc="of the mapped file: ctime in seconds"), Field("bytes", "u64", doc="its size"),
    Field("magic", "u64", doc="magic number of its file system"),
    Field("start", "u64", doc="where the area begins that the kernel made or changed, 0: not known"), Field("end", "u64", doc="where it ends"),
    Field("offset", "u64", doc="where in the file it begins"), Field("length", "u64", doc="bytes that were asked for"),
    Field("ctime_nsec", "u32", doc="nanoseconds of the ctime"), Field("pad", "u32"),
))
"""Blobs of a fixed form."""

LAYOUTS = (TASK, RECORD, BULK, CONTROL, TASK_DEFINITION, SESSION_DEFINITION, FILE_DEFINITION, SOCKET_DEFINITION, CONTEXT, ANCESTOR, CREDENTIALS, NAMESPACES, TARGET, PROGRAM, MAPPING)

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
    Blob("path", 11, "file.path", "keyword", "the object's names as the kernel has them, leaf first"),
    Blob("path2", 12, "file.path", "keyword", "the second object's, or the name after the act"),
    Blob("text", 13, "", "", "another string of the call: content of a link, name of an attribute"),
    Blob("context", 20, "process.session_leader.pid", "long", "what the process belongs to (context)"),
    Blob("ancestors", 21, "ebpf.ancestors", "keyword", "who started the process, nearest first (ancestor, ...)"),
    Blob("parent_executable", 22, "", "", "of a session leader: its parent's program"),
    Blob("text2", 14, "", "", "a further one: type of a file system, the kernel's name of a module"),
    Blob("before", 15, "", "", "credentials before the act"),
    Blob("after", 16, "", "", "credentials after it"),
    Blob("groups", 17, "", "", "supplementary groups after it, 32 bits each, at most 64"),
    Blob("namespaces", 18, "", "", "namespaces of the process after the act"),
    Blob("target", 19, "", "", "the other process"),
    Blob("environment", 30, "process.env_vars", "keyword", "configured environment variables, NUL separated"),
    Blob("program", 23, "", "", "a BPF program"),
    Blob("sha256", 24, "", "", "of the executable, or of the file that is mapped to be executed; added by the reader where it knows it"),
    Blob("mapping", 25, "", "", "the area of memory, and the version of its file"),
)
BLOB = {blob.name: blob for blob in BLOBS}
