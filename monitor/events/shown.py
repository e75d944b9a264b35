"""The fields of documents that several events share, beside the members of their records.

Owns the groups of fields; knows no event.
"""

from __future__ import annotations

from monitor.model import Field, Shown

TASK_BLOBS = ("executable", "cgroup")
CONTEXT_BLOBS = ("context", "ancestors", "parent_executable", "sha256")
TOTALS = (
    Field("read_count", "u64", "ebpf.read.count", doc="reads or receives since the record before"),
    Field("read_bytes", "u64", "ebpf.read.bytes", doc="their bytes"),
    Field("write_count", "u64", "ebpf.write.count", doc="writes or sends since the record before"),
    Field("write_bytes", "u64", "ebpf.write.bytes", doc="their bytes"),
    Field("reason", "u64", "ebpf.close.reason", "keyword", "why the record was made", "close_reason"),
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
SOCKET_ITSELF: tuple[Shown, ...] = (
    Shown("ebpf.socket.family", "keyword", "address family"), Shown("ebpf.socket.type", "keyword", "socket type"),
    Shown("ebpf.socket.inode", "keyword", "inode number of the socket"),
    Shown("ebpf.socket.cookie", "keyword", "the kernel's cookie of the socket, where it has one"),
    Shown("ebpf.socket.peer_inode", "keyword", "of a Unix socket: inode number of the one at the other end"),
    Shown("ebpf.socket.path", "keyword", "name of the local Unix socket; @ begins an abstract one"),
    Shown("ebpf.socket.peer_path", "keyword", "name of the remote Unix socket"),
)
"""What names a socket of any family."""
SOCKET_SHOWN: tuple[Shown, ...] = (
    Shown("source.ip", "ip", "local address"), Shown("source.port", "long", "local port"),
    Shown("destination.ip", "ip", "remote address"), Shown("destination.port", "long", "remote port"),
    Shown("network.transport", "keyword", "tcp, udp, ..."), Shown("network.type", "keyword", "ipv4 or ipv6"),
    *SOCKET_ITSELF,
)
"""The same, and between whom."""
BULK_SHOWN: tuple[Shown, ...] = (
    Shown("ebpf.unresolved", "boolean", "the object was not known any more when the record was read"),
)
CUT = (Shown("ebpf.truncated", "boolean", "something was cut"), Shown("ebpf.original_bytes", "long", "length in bytes before it was cut"))
QUIET_SHOWN = Shown("ebpf.quiet", "boolean", "the object is quiet: profile standard leaves this out (absent there)")
REDACTED_SHOWN = Shown("ebpf.redacted", "boolean", "secrets in the arguments were masked: each stands as [redacted]")
DIRECTION = Shown("network.direction", "keyword", "egress: this host connected; ingress: it accepted")
CLAIM = Shown("ebpf.claimed", "boolean", "the name or address is the caller's word")


CONTEXT_SHOWN: tuple[Shown, ...] = (
    *(Shown(f"process.{role}_leader.{name}", es, f"{doc} of the leader of the {what}")
      for role, what in (("session", "session"), ("group", "process group"))
      for name, es, doc in (("pid", "long", "process id"), ("entity_id", "keyword", "stable id"), ("name", "keyword", "program"))),
    Shown("process.entry_leader.pid", "long", "process id of the entry leader: with it somebody or something came in"),
    Shown("process.entry_leader.entity_id", "keyword", "its stable id"), Shown("process.entry_leader.name", "keyword", "its program"),
    Shown("process.entry_leader.user.id", "keyword", "its user, as it came in: sudo and su change nothing here"),
    Shown("process.entry_leader.user.name", "keyword", "name of that user"),
    Shown("process.entry_leader.entry_meta.type", "keyword", "the door: sshd, init, container, terminal, console, ssm, kubelet, teleport"),
    Shown("process.entry_leader.entry_meta.source.ip", "ip", "of sshd: the client's address, from the kernel's socket"),
    Shown("process.tty.char_device.major", "long", "controlling terminal"), Shown("process.tty.char_device.minor", "long", "its minor number"),
    Shown("process.interactive", "boolean", "it has a controlling terminal"),
    Shown("ebpf.ancestors", "keyword", "entity ids of those who started it, nearest first, up to 32, also of those that have ended"),
    Shown("ebpf.systemd.unit", "keyword", "systemd unit, from the cgroup"),
)
"""What a process belongs to: in fork, exec and found only, all else joins by process.entity_id."""


HASH = Shown("process.hash.sha256", "keyword", "of the executable, if it was known at once; else process_hash brings it")


def source(doc: str) -> Shown:
    """`ebpf.path_source` of an event, with the sources that it can have."""
    return Shown("ebpf.path_source", "keyword", "where the name comes from: " + doc)


KERNEL_FILE = source("file (the kernel's file object)")
READS = ("read", "pread64", "readv", "preadv", "preadv2")
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
MOVES = ("sendfile", "sendfile64", "splice", "tee", "vmsplice", "copy_file_range")
"""Calls that move data between two descriptors: a read of the one, a write to the other."""
FOLD = ("standard", "full", "trace")
EXIT = "tp_btf/sys_exit"

COMMON: tuple[Shown, ...] = (
    Shown("@timestamp", "date_nanos", "event time"), Shown("ecs.version", "keyword", "version of ECS"),
    Shown("agent.id", "keyword", "this agent"), Shown("agent.type", "keyword", "ebpf-monitor"),
    Shown("agent.version", "keyword", "its version"), Shown("host.id", "keyword", "machine id"),
    Shown("host.name", "keyword", "host name"), Shown("host.boot.id", "keyword", "boot id"),
    Shown("host.os.type", "keyword", "linux"), Shown("tags", "keyword", "the key `tags` of the configuration; absent when it is empty"),
    Shown("labels", "flattened", "the key `labels`, searched as labels.NAME; absent when it is empty"),
    Shown("event.kind", "keyword", "event or metric"),
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


NAMED = ("name", "base", "path")
"""Blobs of an act on one name: the caller's, and the kernel's where a hook gives one."""
NAMED2 = ("name2", "base2", "path2")
"""Of its second name."""
EARLIER = Shown("file.Ext.original.path", "keyword", "the earlier name")
ASKED_MODE = Shown("ebpf.requested.mode", "keyword", "permissions asked for, octal")
OBJECT = ("file (the kernel's file object, of a call by descriptor); hook (a hook of the kernel, where it allows one); "
          "caller (of a call by name, else)")
BY_NAME = "hook (a hook of the kernel, where it allows one); caller (else, and of a failed call)"
_SET = (("uid", "real user id"), ("euid", "effective user id"), ("suid", "saved user id"), ("fsuid", "user id for files"),
        ("gid", "real group id"), ("egid", "effective group id"), ("sgid", "saved group id"), ("fsgid", "group id for files"),
        ("user_ns", "user namespace"), ("securebits", "SECBIT_*, hexadecimal"), ("inheritable", "capability set, hexadecimal as in /proc/PID/status"),
        ("permitted", "capability set"), ("effective", "capability set"), ("bounding", "capability set"), ("ambient", "capability set"))
CREDENTIALS_SHOWN = (
    Shown("ebpf.credentials.changed", "keyword", "what is not as it was"),
    *(Shown(f"ebpf.credentials.{when}.{name}", "keyword", f"{doc}, {when} the act") for when in ("before", "after") for name, doc in _SET),
    Shown("ebpf.credentials.after.groups", "keyword", "supplementary groups, at most 64, if they were set"),
    Shown("ebpf.requested.ids", "keyword", "ids that the call asked for; -1: unchanged"),
)
"""What a change of credentials says. `before` is absent of a thread that was not seen before."""
TARGET_SHOWN = (
    Shown("ebpf.target.pid", "long", "process id of the other process; as the caller numbered it, where entity_id is absent"),
    Shown("ebpf.target.entity_id", "keyword", "its stable id"), Shown("ebpf.target.thread.id", "long", "its thread"),
    Shown("ebpf.target.thread.name", "keyword", "that thread's name"), Shown("ebpf.target.user.id", "keyword", "its effective user id"),
)
"""What names another process that an act is about."""
