/* generated from monitor/events/ by `make gen`; do not edit */

struct task_facts {
  u64 start;  /* start time of the thread group leader, CLOCK_BOOTTIME ns */
  u64 parent_start;  /* the same of the real parent's leader */
  u64 cgroup;  /* cgroup v2 id */
  u64 exe_key;  /* path key of mm->exe_file, 0 for kernel threads */
  u32 tgid;  /* process id */
  u32 tid;  /* thread id */
  u32 exec_id;  /* number of execs of this process (self_exec_id) */
  u32 ppid;  /* process id of the real parent */
  u32 uid;  /* real user id */
  u32 euid;  /* effective user id */
  u32 gid;  /* real group id */
  u32 egid;  /* effective group id */
  u32 login_uid;  /* audit login uid; 4294967295 = unset */
  u32 login_session;  /* audit session; 4294967295 = unset */
  u8 comm[16];  /* thread name (comm) */
};
_Static_assert(sizeof(struct task_facts) == 88, "task_facts");
_Static_assert(__builtin_offsetof(struct task_facts, start) == 0, "task_facts.start");
_Static_assert(__builtin_offsetof(struct task_facts, parent_start) == 8, "task_facts.parent_start");
_Static_assert(__builtin_offsetof(struct task_facts, cgroup) == 16, "task_facts.cgroup");
_Static_assert(__builtin_offsetof(struct task_facts, exe_key) == 24, "task_facts.exe_key");
_Static_assert(__builtin_offsetof(struct task_facts, tgid) == 32, "task_facts.tgid");
_Static_assert(__builtin_offsetof(struct task_facts, tid) == 36, "task_facts.tid");
_Static_assert(__builtin_offsetof(struct task_facts, exec_id) == 40, "task_facts.exec_id");
_Static_assert(__builtin_offsetof(struct task_facts, ppid) == 44, "task_facts.ppid");
_Static_assert(__builtin_offsetof(struct task_facts, uid) == 48, "task_facts.uid");
_Static_assert(__builtin_offsetof(struct task_facts, euid) == 52, "task_facts.euid");
_Static_assert(__builtin_offsetof(struct task_facts, gid) == 56, "task_facts.gid");
_Static_assert(__builtin_offsetof(struct task_facts, egid) == 60, "task_facts.egid");
_Static_assert(__builtin_offsetof(struct task_facts, login_uid) == 64, "task_facts.login_uid");
_Static_assert(__builtin_offsetof(struct task_facts, login_session) == 68, "task_facts.login_session");
_Static_assert(__builtin_offsetof(struct task_facts, comm) == 72, "task_facts.comm");

struct record {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u64 seq;  /* this CPU's sequence number over both lanes; of a definition: the next one */
  u64 key;  /* object key */
};
_Static_assert(sizeof(struct record) == 32, "record");
_Static_assert(__builtin_offsetof(struct record, type) == 0, "record.type");
_Static_assert(__builtin_offsetof(struct record, units) == 2, "record.units");
_Static_assert(__builtin_offsetof(struct record, tid) == 4, "record.tid");
_Static_assert(__builtin_offsetof(struct record, ts) == 8, "record.ts");
_Static_assert(__builtin_offsetof(struct record, seq) == 16, "record.seq");
_Static_assert(__builtin_offsetof(struct record, key) == 24, "record.key");

struct bulk_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
};
_Static_assert(sizeof(struct bulk_event) == 40, "bulk_event");
_Static_assert(__builtin_offsetof(struct bulk_event, type) == 0, "bulk_event.type");
_Static_assert(__builtin_offsetof(struct bulk_event, units) == 2, "bulk_event.units");
_Static_assert(__builtin_offsetof(struct bulk_event, tid) == 4, "bulk_event.tid");
_Static_assert(__builtin_offsetof(struct bulk_event, ts) == 8, "bulk_event.ts");
_Static_assert(__builtin_offsetof(struct bulk_event, seq) == 16, "bulk_event.seq");
_Static_assert(__builtin_offsetof(struct bulk_event, generation) == 20, "bulk_event.generation");
_Static_assert(__builtin_offsetof(struct bulk_event, ret) == 24, "bulk_event.ret");
_Static_assert(__builtin_offsetof(struct bulk_event, fd) == 28, "bulk_event.fd");
_Static_assert(__builtin_offsetof(struct bulk_event, nr) == 32, "bulk_event.nr");
_Static_assert(__builtin_offsetof(struct bulk_event, kf) == 34, "bulk_event.kf");
_Static_assert(__builtin_offsetof(struct bulk_event, session) == 36, "bulk_event.session");

struct control_event {
  u32 length;  /* total length in bytes */
  u16 type;  /* event id */
  u16 cpu;  /* CPU */
  u64 ts;  /* CLOCK_BOOTTIME ns */
  u64 seq;  /* this CPU's sequence number over both lanes */
  s64 ret;  /* return value */
  u16 nr;  /* syscall; 65535: none */
  u16 kf;  /* flags */
  s32 fd;  /* file descriptor; -1: none */
  u64 arg;  /* meaning depends on the event: flags, exit code, mode, size */
  u64 arg2;  /* a second value: group, flags */
  u64 ino;  /* inode */
  u32 dev;  /* device, major:minor */
  u32 mode;  /* permissions, octal */
  u32 original;  /* length before truncation, 0: whole */
  u32 flags;  /* FILE_FLAGS of the named object */
  u64 start;  /* start time of the thread group leader, CLOCK_BOOTTIME ns */
  u64 parent_start;  /* the same of the real parent's leader */
  u64 cgroup;  /* cgroup v2 id */
  u64 exe_key;  /* path key of mm->exe_file, 0 for kernel threads */
  u32 tgid;  /* process id */
  u32 tid;  /* thread id */
  u32 exec_id;  /* number of execs of this process (self_exec_id) */
  u32 ppid;  /* process id of the real parent */
  u32 uid;  /* real user id */
  u32 euid;  /* effective user id */
  u32 gid;  /* real group id */
  u32 egid;  /* effective group id */
  u32 login_uid;  /* audit login uid; 4294967295 = unset */
  u32 login_session;  /* audit session; 4294967295 = unset */
  u8 comm[16];  /* thread name (comm) */
};
_Static_assert(sizeof(struct control_event) == 168, "control_event");
_Static_assert(__builtin_offsetof(struct control_event, length) == 0, "control_event.length");
_Static_assert(__builtin_offsetof(struct control_event, type) == 4, "control_event.type");
_Static_assert(__builtin_offsetof(struct control_event, cpu) == 6, "control_event.cpu");
_Static_assert(__builtin_offsetof(struct control_event, ts) == 8, "control_event.ts");
_Static_assert(__builtin_offsetof(struct control_event, seq) == 16, "control_event.seq");
_Static_assert(__builtin_offsetof(struct control_event, ret) == 24, "control_event.ret");
_Static_assert(__builtin_offsetof(struct control_event, nr) == 32, "control_event.nr");
_Static_assert(__builtin_offsetof(struct control_event, kf) == 34, "control_event.kf");
_Static_assert(__builtin_offsetof(struct control_event, fd) == 36, "control_event.fd");
_Static_assert(__builtin_offsetof(struct control_event, arg) == 40, "control_event.arg");
_Static_assert(__builtin_offsetof(struct control_event, arg2) == 48, "control_event.arg2");
_Static_assert(__builtin_offsetof(struct control_event, ino) == 56, "control_event.ino");
_Static_assert(__builtin_offsetof(struct control_event, dev) == 64, "control_event.dev");
_Static_assert(__builtin_offsetof(struct control_event, mode) == 68, "control_event.mode");
_Static_assert(__builtin_offsetof(struct control_event, original) == 72, "control_event.original");
_Static_assert(__builtin_offsetof(struct control_event, flags) == 76, "control_event.flags");
_Static_assert(__builtin_offsetof(struct control_event, start) == 80, "control_event.start");
_Static_assert(__builtin_offsetof(struct control_event, parent_start) == 88, "control_event.parent_start");
_Static_assert(__builtin_offsetof(struct control_event, cgroup) == 96, "control_event.cgroup");
_Static_assert(__builtin_offsetof(struct control_event, exe_key) == 104, "control_event.exe_key");
_Static_assert(__builtin_offsetof(struct control_event, tgid) == 112, "control_event.tgid");
_Static_assert(__builtin_offsetof(struct control_event, tid) == 116, "control_event.tid");
_Static_assert(__builtin_offsetof(struct control_event, exec_id) == 120, "control_event.exec_id");
_Static_assert(__builtin_offsetof(struct control_event, ppid) == 124, "control_event.ppid");
_Static_assert(__builtin_offsetof(struct control_event, uid) == 128, "control_event.uid");
_Static_assert(__builtin_offsetof(struct control_event, euid) == 132, "control_event.euid");
_Static_assert(__builtin_offsetof(struct control_event, gid) == 136, "control_event.gid");
_Static_assert(__builtin_offsetof(struct control_event, egid) == 140, "control_event.egid");
_Static_assert(__builtin_offsetof(struct control_event, login_uid) == 144, "control_event.login_uid");
_Static_assert(__builtin_offsetof(struct control_event, login_session) == 148, "control_event.login_session");
_Static_assert(__builtin_offsetof(struct control_event, comm) == 152, "control_event.comm");

struct task_definition {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u64 seq;  /* this CPU's sequence number over both lanes; of a definition: the next one */
  u64 key;  /* object key */
  u64 t_start;  /* start time of the thread group leader, CLOCK_BOOTTIME ns */
  u64 t_parent_start;  /* the same of the real parent's leader */
  u64 t_cgroup;  /* cgroup v2 id */
  u64 t_exe_key;  /* path key of mm->exe_file, 0 for kernel threads */
  u32 t_tgid;  /* process id */
  u32 t_tid;  /* thread id */
  u32 t_exec_id;  /* number of execs of this process (self_exec_id) */
  u32 t_ppid;  /* process id of the real parent */
  u32 t_uid;  /* real user id */
  u32 t_euid;  /* effective user id */
  u32 t_gid;  /* real group id */
  u32 t_egid;  /* effective group id */
  u32 t_login_uid;  /* audit login uid; 4294967295 = unset */
  u32 t_login_session;  /* audit session; 4294967295 = unset */
  u8 t_comm[16];  /* thread name (comm) */
  u32 cgroup_bytes;  /* bytes of cgroup names that follow, leaf first, each with its NUL */
  u32 pad;
};
_Static_assert(sizeof(struct task_definition) == 128, "task_definition");
_Static_assert(__builtin_offsetof(struct task_definition, type) == 0, "task_definition.type");
_Static_assert(__builtin_offsetof(struct task_definition, units) == 2, "task_definition.units");
_Static_assert(__builtin_offsetof(struct task_definition, tid) == 4, "task_definition.tid");
_Static_assert(__builtin_offsetof(struct task_definition, ts) == 8, "task_definition.ts");
_Static_assert(__builtin_offsetof(struct task_definition, seq) == 16, "task_definition.seq");
_Static_assert(__builtin_offsetof(struct task_definition, key) == 24, "task_definition.key");
_Static_assert(__builtin_offsetof(struct task_definition, t_start) == 32, "task_definition.t_start");
_Static_assert(__builtin_offsetof(struct task_definition, t_parent_start) == 40, "task_definition.t_parent_start");
_Static_assert(__builtin_offsetof(struct task_definition, t_cgroup) == 48, "task_definition.t_cgroup");
_Static_assert(__builtin_offsetof(struct task_definition, t_exe_key) == 56, "task_definition.t_exe_key");
_Static_assert(__builtin_offsetof(struct task_definition, t_tgid) == 64, "task_definition.t_tgid");
_Static_assert(__builtin_offsetof(struct task_definition, t_tid) == 68, "task_definition.t_tid");
_Static_assert(__builtin_offsetof(struct task_definition, t_exec_id) == 72, "task_definition.t_exec_id");
_Static_assert(__builtin_offsetof(struct task_definition, t_ppid) == 76, "task_definition.t_ppid");
_Static_assert(__builtin_offsetof(struct task_definition, t_uid) == 80, "task_definition.t_uid");
_Static_assert(__builtin_offsetof(struct task_definition, t_euid) == 84, "task_definition.t_euid");
_Static_assert(__builtin_offsetof(struct task_definition, t_gid) == 88, "task_definition.t_gid");
_Static_assert(__builtin_offsetof(struct task_definition, t_egid) == 92, "task_definition.t_egid");
_Static_assert(__builtin_offsetof(struct task_definition, t_login_uid) == 96, "task_definition.t_login_uid");
_Static_assert(__builtin_offsetof(struct task_definition, t_login_session) == 100, "task_definition.t_login_session");
_Static_assert(__builtin_offsetof(struct task_definition, t_comm) == 104, "task_definition.t_comm");
_Static_assert(__builtin_offsetof(struct task_definition, cgroup_bytes) == 120, "task_definition.cgroup_bytes");
_Static_assert(__builtin_offsetof(struct task_definition, pad) == 124, "task_definition.pad");

struct session_definition {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
};
_Static_assert(sizeof(struct session_definition) == 48, "session_definition");
_Static_assert(__builtin_offsetof(struct session_definition, type) == 0, "session_definition.type");
_Static_assert(__builtin_offsetof(struct session_definition, units) == 2, "session_definition.units");
_Static_assert(__builtin_offsetof(struct session_definition, tid) == 4, "session_definition.tid");
_Static_assert(__builtin_offsetof(struct session_definition, ts) == 8, "session_definition.ts");
_Static_assert(__builtin_offsetof(struct session_definition, seq) == 16, "session_definition.seq");
_Static_assert(__builtin_offsetof(struct session_definition, generation) == 20, "session_definition.generation");
_Static_assert(__builtin_offsetof(struct session_definition, ret) == 24, "session_definition.ret");
_Static_assert(__builtin_offsetof(struct session_definition, fd) == 28, "session_definition.fd");
_Static_assert(__builtin_offsetof(struct session_definition, nr) == 32, "session_definition.nr");
_Static_assert(__builtin_offsetof(struct session_definition, kf) == 34, "session_definition.kf");
_Static_assert(__builtin_offsetof(struct session_definition, session) == 36, "session_definition.session");
_Static_assert(__builtin_offsetof(struct session_definition, key) == 40, "session_definition.key");

struct file_definition {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u64 seq;  /* this CPU's sequence number over both lanes; of a definition: the next one */
  u64 key;  /* object key */
  u64 ino;  /* inode number */
  u32 dev;  /* device as the kernel has it (20 bits minor) */
  u32 generation;  /* inode generation */
  u32 mode;  /* type and permissions */
  u32 uid;  /* owner */
  u32 gid;  /* owning group */
  u32 flags;  /* FILE_FLAGS */
  u32 mount_ns;  /* mount namespace */
  u32 bytes;  /* bytes of names that follow, leaf first, each with its NUL */
};
_Static_assert(sizeof(struct file_definition) == 72, "file_definition");
_Static_assert(__builtin_offsetof(struct file_definition, type) == 0, "file_definition.type");
_Static_assert(__builtin_offsetof(struct file_definition, units) == 2, "file_definition.units");
_Static_assert(__builtin_offsetof(struct file_definition, tid) == 4, "file_definition.tid");
_Static_assert(__builtin_offsetof(struct file_definition, ts) == 8, "file_definition.ts");
_Static_assert(__builtin_offsetof(struct file_definition, seq) == 16, "file_definition.seq");
_Static_assert(__builtin_offsetof(struct file_definition, key) == 24, "file_definition.key");
_Static_assert(__builtin_offsetof(struct file_definition, ino) == 32, "file_definition.ino");
_Static_assert(__builtin_offsetof(struct file_definition, dev) == 40, "file_definition.dev");
_Static_assert(__builtin_offsetof(struct file_definition, generation) == 44, "file_definition.generation");
_Static_assert(__builtin_offsetof(struct file_definition, mode) == 48, "file_definition.mode");
_Static_assert(__builtin_offsetof(struct file_definition, uid) == 52, "file_definition.uid");
_Static_assert(__builtin_offsetof(struct file_definition, gid) == 56, "file_definition.gid");
_Static_assert(__builtin_offsetof(struct file_definition, flags) == 60, "file_definition.flags");
_Static_assert(__builtin_offsetof(struct file_definition, mount_ns) == 64, "file_definition.mount_ns");
_Static_assert(__builtin_offsetof(struct file_definition, bytes) == 68, "file_definition.bytes");

struct socket_definition {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u64 seq;  /* this CPU's sequence number over both lanes; of a definition: the next one */
  u64 key;  /* object key */
  u64 ino;  /* inode of the socket */
  u64 cookie;  /* socket cookie, 0: none yet */
  u64 peer;  /* inode of the socket at the other end of a Unix connection or pair, 0: none */
  u16 family;  /* AF_* */
  u16 kind;  /* SOCK_* */
  u16 protocol;  /* IPPROTO_* */
  u16 local_port;  /* host byte order */
  u16 remote_port;  /* host byte order */
  u16 local_bytes;  /* length of the Unix name that follows */
  u16 remote_bytes;  /* length of the peer's Unix name that follows it */
  u16 state;  /* TCP state */
  u8 local[16];  /* local address, IPv4 in the first 4 bytes */
  u8 remote[16];  /* remote address */
};
_Static_assert(sizeof(struct socket_definition) == 104, "socket_definition");
_Static_assert(__builtin_offsetof(struct socket_definition, type) == 0, "socket_definition.type");
_Static_assert(__builtin_offsetof(struct socket_definition, units) == 2, "socket_definition.units");
_Static_assert(__builtin_offsetof(struct socket_definition, tid) == 4, "socket_definition.tid");
_Static_assert(__builtin_offsetof(struct socket_definition, ts) == 8, "socket_definition.ts");
_Static_assert(__builtin_offsetof(struct socket_definition, seq) == 16, "socket_definition.seq");
_Static_assert(__builtin_offsetof(struct socket_definition, key) == 24, "socket_definition.key");
_Static_assert(__builtin_offsetof(struct socket_definition, ino) == 32, "socket_definition.ino");
_Static_assert(__builtin_offsetof(struct socket_definition, cookie) == 40, "socket_definition.cookie");
_Static_assert(__builtin_offsetof(struct socket_definition, peer) == 48, "socket_definition.peer");
_Static_assert(__builtin_offsetof(struct socket_definition, family) == 56, "socket_definition.family");
_Static_assert(__builtin_offsetof(struct socket_definition, kind) == 58, "socket_definition.kind");
_Static_assert(__builtin_offsetof(struct socket_definition, protocol) == 60, "socket_definition.protocol");
_Static_assert(__builtin_offsetof(struct socket_definition, local_port) == 62, "socket_definition.local_port");
_Static_assert(__builtin_offsetof(struct socket_definition, remote_port) == 64, "socket_definition.remote_port");
_Static_assert(__builtin_offsetof(struct socket_definition, local_bytes) == 66, "socket_definition.local_bytes");
_Static_assert(__builtin_offsetof(struct socket_definition, remote_bytes) == 68, "socket_definition.remote_bytes");
_Static_assert(__builtin_offsetof(struct socket_definition, state) == 70, "socket_definition.state");
_Static_assert(__builtin_offsetof(struct socket_definition, local) == 72, "socket_definition.local");
_Static_assert(__builtin_offsetof(struct socket_definition, remote) == 88, "socket_definition.remote");

struct context {
  u64 session_start;  /* start of the session leader, CLOCK_BOOTTIME ns; 0: it has ended */
  u64 group_start;  /* the same of the process group's leader */
  s64 exe_ctime;  /* of the executable: ctime in seconds */
  u64 exe_size;  /* its size in bytes */
  u64 exe_magic;  /* magic number of its file system */
  u64 exe_ino;  /* its inode */
  u32 session;  /* session id: the leader's process id */
  u32 group;  /* process group id: the leader's process id */
  u32 tty;  /* controlling terminal as the kernel's dev_t, 0: none */
  u32 exe_ctime_nsec;  /* nanoseconds of exe_ctime */
  u16 peer_family;  /* of a session leader: the first TCP connection of its parent; 0: none */
  u16 peer_port;  /* remote port, host byte order */
  u32 exe_dev;  /* its device */
  u8 peer[16];  /* remote address, IPv4 in the first 4 bytes */
};
_Static_assert(sizeof(struct context) == 88, "context");
_Static_assert(__builtin_offsetof(struct context, session_start) == 0, "context.session_start");
_Static_assert(__builtin_offsetof(struct context, group_start) == 8, "context.group_start");
_Static_assert(__builtin_offsetof(struct context, exe_ctime) == 16, "context.exe_ctime");
_Static_assert(__builtin_offsetof(struct context, exe_size) == 24, "context.exe_size");
_Static_assert(__builtin_offsetof(struct context, exe_magic) == 32, "context.exe_magic");
_Static_assert(__builtin_offsetof(struct context, exe_ino) == 40, "context.exe_ino");
_Static_assert(__builtin_offsetof(struct context, session) == 48, "context.session");
_Static_assert(__builtin_offsetof(struct context, group) == 52, "context.group");
_Static_assert(__builtin_offsetof(struct context, tty) == 56, "context.tty");
_Static_assert(__builtin_offsetof(struct context, exe_ctime_nsec) == 60, "context.exe_ctime_nsec");
_Static_assert(__builtin_offsetof(struct context, peer_family) == 64, "context.peer_family");
_Static_assert(__builtin_offsetof(struct context, peer_port) == 66, "context.peer_port");
_Static_assert(__builtin_offsetof(struct context, exe_dev) == 68, "context.exe_dev");
_Static_assert(__builtin_offsetof(struct context, peer) == 72, "context.peer");

struct ancestor {
  u64 start;  /* start, CLOCK_BOOTTIME ns */
  u64 tgid;  /* process id */
};
_Static_assert(sizeof(struct ancestor) == 16, "ancestor");
_Static_assert(__builtin_offsetof(struct ancestor, start) == 0, "ancestor.start");
_Static_assert(__builtin_offsetof(struct ancestor, tgid) == 8, "ancestor.tgid");

struct credentials {
  u32 uid;  /* real user id */
  u32 gid;  /* real group id */
  u32 suid;  /* saved user id */
  u32 sgid;  /* saved group id */
  u32 euid;  /* effective user id */
  u32 egid;  /* effective group id */
  u32 fsuid;  /* user id for files */
  u32 fsgid;  /* group id for files */
  u32 securebits;  /* SECBIT_* */
  u32 user_ns;  /* user namespace */
  u64 inheritable;  /* capability sets, a bit each */
  u64 permitted;
  u64 effective;
  u64 bounding;
  u64 ambient;
  u32 groups;  /* number of supplementary groups */
  u32 groups_at;  /* low half of their list's address: another list, another address */
};
_Static_assert(sizeof(struct credentials) == 88, "credentials");
_Static_assert(__builtin_offsetof(struct credentials, uid) == 0, "credentials.uid");
_Static_assert(__builtin_offsetof(struct credentials, gid) == 4, "credentials.gid");
_Static_assert(__builtin_offsetof(struct credentials, suid) == 8, "credentials.suid");
_Static_assert(__builtin_offsetof(struct credentials, sgid) == 12, "credentials.sgid");
_Static_assert(__builtin_offsetof(struct credentials, euid) == 16, "credentials.euid");
_Static_assert(__builtin_offsetof(struct credentials, egid) == 20, "credentials.egid");
_Static_assert(__builtin_offsetof(struct credentials, fsuid) == 24, "credentials.fsuid");
_Static_assert(__builtin_offsetof(struct credentials, fsgid) == 28, "credentials.fsgid");
_Static_assert(__builtin_offsetof(struct credentials, securebits) == 32, "credentials.securebits");
_Static_assert(__builtin_offsetof(struct credentials, user_ns) == 36, "credentials.user_ns");
_Static_assert(__builtin_offsetof(struct credentials, inheritable) == 40, "credentials.inheritable");
_Static_assert(__builtin_offsetof(struct credentials, permitted) == 48, "credentials.permitted");
_Static_assert(__builtin_offsetof(struct credentials, effective) == 56, "credentials.effective");
_Static_assert(__builtin_offsetof(struct credentials, bounding) == 64, "credentials.bounding");
_Static_assert(__builtin_offsetof(struct credentials, ambient) == 72, "credentials.ambient");
_Static_assert(__builtin_offsetof(struct credentials, groups) == 80, "credentials.groups");
_Static_assert(__builtin_offsetof(struct credentials, groups_at) == 84, "credentials.groups_at");

struct namespaces {
  u32 mnt_ns;  /* inode number, as in /proc/PID/ns */
  u32 uts_ns;  /* inode number, as in /proc/PID/ns */
  u32 ipc_ns;  /* inode number, as in /proc/PID/ns */
  u32 net_ns;  /* inode number, as in /proc/PID/ns */
  u32 pid_ns_for_children;  /* inode number, as in /proc/PID/ns */
  u32 cgroup_ns;  /* inode number, as in /proc/PID/ns */
  u32 time_ns;  /* inode number, as in /proc/PID/ns */
  u32 user_ns;  /* inode number, as in /proc/PID/ns */
};
_Static_assert(sizeof(struct namespaces) == 32, "namespaces");
_Static_assert(__builtin_offsetof(struct namespaces, mnt_ns) == 0, "namespaces.mnt_ns");
_Static_assert(__builtin_offsetof(struct namespaces, uts_ns) == 4, "namespaces.uts_ns");
_Static_assert(__builtin_offsetof(struct namespaces, ipc_ns) == 8, "namespaces.ipc_ns");
_Static_assert(__builtin_offsetof(struct namespaces, net_ns) == 12, "namespaces.net_ns");
_Static_assert(__builtin_offsetof(struct namespaces, pid_ns_for_children) == 16, "namespaces.pid_ns_for_children");
_Static_assert(__builtin_offsetof(struct namespaces, cgroup_ns) == 20, "namespaces.cgroup_ns");
_Static_assert(__builtin_offsetof(struct namespaces, time_ns) == 24, "namespaces.time_ns");
_Static_assert(__builtin_offsetof(struct namespaces, user_ns) == 28, "namespaces.user_ns");

struct target {
  u64 start;  /* start time of the thread group leader, CLOCK_BOOTTIME ns */
  u32 tgid;  /* process id */
  u32 tid;  /* thread id */
  u32 euid;  /* effective user id */
  u32 pad;
  u8 comm[16];  /* thread name */
};
_Static_assert(sizeof(struct target) == 40, "target");
_Static_assert(__builtin_offsetof(struct target, start) == 0, "target.start");
_Static_assert(__builtin_offsetof(struct target, tgid) == 8, "target.tgid");
_Static_assert(__builtin_offsetof(struct target, tid) == 12, "target.tid");
_Static_assert(__builtin_offsetof(struct target, euid) == 16, "target.euid");
_Static_assert(__builtin_offsetof(struct target, pad) == 20, "target.pad");
_Static_assert(__builtin_offsetof(struct target, comm) == 24, "target.comm");

struct program {
  u32 id;  /* the kernel's number of the BPF program */
  u32 type;  /* BPF_PROG_TYPE_* */
  u32 attach;  /* BPF_* attach type that it expects */
  u32 length;  /* instructions */
  u32 link;  /* number of the link, 0: none */
  u32 pad;
  u8 tag[8];  /* hash of the instructions */
  u8 name[16];  /* its name */
};
_Static_assert(sizeof(struct program) == 48, "program");
_Static_assert(__builtin_offsetof(struct program, id) == 0, "program.id");
_Static_assert(__builtin_offsetof(struct program, type) == 4, "program.type");
_Static_assert(__builtin_offsetof(struct program, attach) == 8, "program.attach");
_Static_assert(__builtin_offsetof(struct program, length) == 12, "program.length");
_Static_assert(__builtin_offsetof(struct program, link) == 16, "program.link");
_Static_assert(__builtin_offsetof(struct program, pad) == 20, "program.pad");
_Static_assert(__builtin_offsetof(struct program, tag) == 24, "program.tag");
_Static_assert(__builtin_offsetof(struct program, name) == 32, "program.name");

struct mapping {
  s64 ctime;  /* of the mapped file: ctime in seconds */
  u64 bytes;  /* its size */
  u64 magic;  /* magic number of its file system */
  u64 start;  /* where the area begins that the kernel made or changed, 0: not known */
  u64 end;  /* where it ends */
  u64 offset;  /* where in the file it begins */
  u64 length;  /* bytes that were asked for */
  u32 ctime_nsec;  /* nanoseconds of the ctime */
  u32 pad;
};
_Static_assert(sizeof(struct mapping) == 64, "mapping");
_Static_assert(__builtin_offsetof(struct mapping, ctime) == 0, "mapping.ctime");
_Static_assert(__builtin_offsetof(struct mapping, bytes) == 8, "mapping.bytes");
_Static_assert(__builtin_offsetof(struct mapping, magic) == 16, "mapping.magic");
_Static_assert(__builtin_offsetof(struct mapping, start) == 24, "mapping.start");
_Static_assert(__builtin_offsetof(struct mapping, end) == 32, "mapping.end");
_Static_assert(__builtin_offsetof(struct mapping, offset) == 40, "mapping.offset");
_Static_assert(__builtin_offsetof(struct mapping, length) == 48, "mapping.length");
_Static_assert(__builtin_offsetof(struct mapping, ctime_nsec) == 56, "mapping.ctime_nsec");
_Static_assert(__builtin_offsetof(struct mapping, pad) == 60, "mapping.pad");

struct file_open_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
  u64 oflags;  /* open flags */
};
_Static_assert(sizeof(struct file_open_event) == 56, "file_open_event");
_Static_assert(__builtin_offsetof(struct file_open_event, type) == 0, "file_open_event.type");
_Static_assert(__builtin_offsetof(struct file_open_event, units) == 2, "file_open_event.units");
_Static_assert(__builtin_offsetof(struct file_open_event, tid) == 4, "file_open_event.tid");
_Static_assert(__builtin_offsetof(struct file_open_event, ts) == 8, "file_open_event.ts");
_Static_assert(__builtin_offsetof(struct file_open_event, seq) == 16, "file_open_event.seq");
_Static_assert(__builtin_offsetof(struct file_open_event, generation) == 20, "file_open_event.generation");
_Static_assert(__builtin_offsetof(struct file_open_event, ret) == 24, "file_open_event.ret");
_Static_assert(__builtin_offsetof(struct file_open_event, fd) == 28, "file_open_event.fd");
_Static_assert(__builtin_offsetof(struct file_open_event, nr) == 32, "file_open_event.nr");
_Static_assert(__builtin_offsetof(struct file_open_event, kf) == 34, "file_open_event.kf");
_Static_assert(__builtin_offsetof(struct file_open_event, session) == 36, "file_open_event.session");
_Static_assert(__builtin_offsetof(struct file_open_event, key) == 40, "file_open_event.key");
_Static_assert(__builtin_offsetof(struct file_open_event, oflags) == 48, "file_open_event.oflags");

struct file_read_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
  u64 extra;  /* length of the address that follows; upper half: with WIDE what `ret` has no room for */
};
_Static_assert(sizeof(struct file_read_event) == 56, "file_read_event");
_Static_assert(__builtin_offsetof(struct file_read_event, type) == 0, "file_read_event.type");
_Static_assert(__builtin_offsetof(struct file_read_event, units) == 2, "file_read_event.units");
_Static_assert(__builtin_offsetof(struct file_read_event, tid) == 4, "file_read_event.tid");
_Static_assert(__builtin_offsetof(struct file_read_event, ts) == 8, "file_read_event.ts");
_Static_assert(__builtin_offsetof(struct file_read_event, seq) == 16, "file_read_event.seq");
_Static_assert(__builtin_offsetof(struct file_read_event, generation) == 20, "file_read_event.generation");
_Static_assert(__builtin_offsetof(struct file_read_event, ret) == 24, "file_read_event.ret");
_Static_assert(__builtin_offsetof(struct file_read_event, fd) == 28, "file_read_event.fd");
_Static_assert(__builtin_offsetof(struct file_read_event, nr) == 32, "file_read_event.nr");
_Static_assert(__builtin_offsetof(struct file_read_event, kf) == 34, "file_read_event.kf");
_Static_assert(__builtin_offsetof(struct file_read_event, session) == 36, "file_read_event.session");
_Static_assert(__builtin_offsetof(struct file_read_event, key) == 40, "file_read_event.key");
_Static_assert(__builtin_offsetof(struct file_read_event, extra) == 48, "file_read_event.extra");

struct file_write_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
  u64 extra;  /* length of the address that follows; upper half: with WIDE what `ret` has no room for */
};
_Static_assert(sizeof(struct file_write_event) == 56, "file_write_event");
_Static_assert(__builtin_offsetof(struct file_write_event, type) == 0, "file_write_event.type");
_Static_assert(__builtin_offsetof(struct file_write_event, units) == 2, "file_write_event.units");
_Static_assert(__builtin_offsetof(struct file_write_event, tid) == 4, "file_write_event.tid");
_Static_assert(__builtin_offsetof(struct file_write_event, ts) == 8, "file_write_event.ts");
_Static_assert(__builtin_offsetof(struct file_write_event, seq) == 16, "file_write_event.seq");
_Static_assert(__builtin_offsetof(struct file_write_event, generation) == 20, "file_write_event.generation");
_Static_assert(__builtin_offsetof(struct file_write_event, ret) == 24, "file_write_event.ret");
_Static_assert(__builtin_offsetof(struct file_write_event, fd) == 28, "file_write_event.fd");
_Static_assert(__builtin_offsetof(struct file_write_event, nr) == 32, "file_write_event.nr");
_Static_assert(__builtin_offsetof(struct file_write_event, kf) == 34, "file_write_event.kf");
_Static_assert(__builtin_offsetof(struct file_write_event, session) == 36, "file_write_event.session");
_Static_assert(__builtin_offsetof(struct file_write_event, key) == 40, "file_write_event.key");
_Static_assert(__builtin_offsetof(struct file_write_event, extra) == 48, "file_write_event.extra");

struct file_close_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 read_count;  /* reads or receives since the record before */
  u64 read_bytes;  /* their bytes */
  u64 write_count;  /* writes or sends since the record before */
  u64 write_bytes;  /* their bytes */
  u64 reason;  /* why the record was made */
};
_Static_assert(sizeof(struct file_close_event) == 80, "file_close_event");
_Static_assert(__builtin_offsetof(struct file_close_event, type) == 0, "file_close_event.type");
_Static_assert(__builtin_offsetof(struct file_close_event, units) == 2, "file_close_event.units");
_Static_assert(__builtin_offsetof(struct file_close_event, tid) == 4, "file_close_event.tid");
_Static_assert(__builtin_offsetof(struct file_close_event, ts) == 8, "file_close_event.ts");
_Static_assert(__builtin_offsetof(struct file_close_event, seq) == 16, "file_close_event.seq");
_Static_assert(__builtin_offsetof(struct file_close_event, generation) == 20, "file_close_event.generation");
_Static_assert(__builtin_offsetof(struct file_close_event, ret) == 24, "file_close_event.ret");
_Static_assert(__builtin_offsetof(struct file_close_event, fd) == 28, "file_close_event.fd");
_Static_assert(__builtin_offsetof(struct file_close_event, nr) == 32, "file_close_event.nr");
_Static_assert(__builtin_offsetof(struct file_close_event, kf) == 34, "file_close_event.kf");
_Static_assert(__builtin_offsetof(struct file_close_event, session) == 36, "file_close_event.session");
_Static_assert(__builtin_offsetof(struct file_close_event, read_count) == 40, "file_close_event.read_count");
_Static_assert(__builtin_offsetof(struct file_close_event, read_bytes) == 48, "file_close_event.read_bytes");
_Static_assert(__builtin_offsetof(struct file_close_event, write_count) == 56, "file_close_event.write_count");
_Static_assert(__builtin_offsetof(struct file_close_event, write_bytes) == 64, "file_close_event.write_bytes");
_Static_assert(__builtin_offsetof(struct file_close_event, reason) == 72, "file_close_event.reason");

struct socket_send_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
  u64 extra;  /* length of the address that follows; upper half: with WIDE what `ret` has no room for */
};
_Static_assert(sizeof(struct socket_send_event) == 56, "socket_send_event");
_Static_assert(__builtin_offsetof(struct socket_send_event, type) == 0, "socket_send_event.type");
_Static_assert(__builtin_offsetof(struct socket_send_event, units) == 2, "socket_send_event.units");
_Static_assert(__builtin_offsetof(struct socket_send_event, tid) == 4, "socket_send_event.tid");
_Static_assert(__builtin_offsetof(struct socket_send_event, ts) == 8, "socket_send_event.ts");
_Static_assert(__builtin_offsetof(struct socket_send_event, seq) == 16, "socket_send_event.seq");
_Static_assert(__builtin_offsetof(struct socket_send_event, generation) == 20, "socket_send_event.generation");
_Static_assert(__builtin_offsetof(struct socket_send_event, ret) == 24, "socket_send_event.ret");
_Static_assert(__builtin_offsetof(struct socket_send_event, fd) == 28, "socket_send_event.fd");
_Static_assert(__builtin_offsetof(struct socket_send_event, nr) == 32, "socket_send_event.nr");
_Static_assert(__builtin_offsetof(struct socket_send_event, kf) == 34, "socket_send_event.kf");
_Static_assert(__builtin_offsetof(struct socket_send_event, session) == 36, "socket_send_event.session");
_Static_assert(__builtin_offsetof(struct socket_send_event, key) == 40, "socket_send_event.key");
_Static_assert(__builtin_offsetof(struct socket_send_event, extra) == 48, "socket_send_event.extra");

struct socket_receive_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 key;  /* object key; not there in a record of a session that goes on */
  u64 extra;  /* length of the address that follows; upper half: with WIDE what `ret` has no room for */
};
_Static_assert(sizeof(struct socket_receive_event) == 56, "socket_receive_event");
_Static_assert(__builtin_offsetof(struct socket_receive_event, type) == 0, "socket_receive_event.type");
_Static_assert(__builtin_offsetof(struct socket_receive_event, units) == 2, "socket_receive_event.units");
_Static_assert(__builtin_offsetof(struct socket_receive_event, tid) == 4, "socket_receive_event.tid");
_Static_assert(__builtin_offsetof(struct socket_receive_event, ts) == 8, "socket_receive_event.ts");
_Static_assert(__builtin_offsetof(struct socket_receive_event, seq) == 16, "socket_receive_event.seq");
_Static_assert(__builtin_offsetof(struct socket_receive_event, generation) == 20, "socket_receive_event.generation");
_Static_assert(__builtin_offsetof(struct socket_receive_event, ret) == 24, "socket_receive_event.ret");
_Static_assert(__builtin_offsetof(struct socket_receive_event, fd) == 28, "socket_receive_event.fd");
_Static_assert(__builtin_offsetof(struct socket_receive_event, nr) == 32, "socket_receive_event.nr");
_Static_assert(__builtin_offsetof(struct socket_receive_event, kf) == 34, "socket_receive_event.kf");
_Static_assert(__builtin_offsetof(struct socket_receive_event, session) == 36, "socket_receive_event.session");
_Static_assert(__builtin_offsetof(struct socket_receive_event, key) == 40, "socket_receive_event.key");
_Static_assert(__builtin_offsetof(struct socket_receive_event, extra) == 48, "socket_receive_event.extra");

struct socket_close_event {
  u16 type;  /* event id, or a definition's */
  u16 units;  /* length in units of 8 bytes */
  u32 tid;  /* thread id */
  u64 ts;  /* CLOCK_BOOTTIME ns when the call returned */
  u32 seq;  /* low half of this CPU's sequence number over both lanes; of a definition: of the next one */
  u32 generation;  /* generation of the session's slot */
  s32 ret;  /* return value */
  s32 fd;  /* file descriptor */
  u16 nr;  /* syscall */
  u16 kf;  /* flags */
  u32 session;  /* slot of the read/write session, 0xffffffff: none; of a claim the length of its name */
  u64 read_count;  /* reads or receives since the record before */
  u64 read_bytes;  /* their bytes */
  u64 write_count;  /* writes or sends since the record before */
  u64 write_bytes;  /* their bytes */
  u64 reason;  /* why the record was made */
};
_Static_assert(sizeof(struct socket_close_event) == 80, "socket_close_event");
_Static_assert(__builtin_offsetof(struct socket_close_event, type) == 0, "socket_close_event.type");
_Static_assert(__builtin_offsetof(struct socket_close_event, units) == 2, "socket_close_event.units");
_Static_assert(__builtin_offsetof(struct socket_close_event, tid) == 4, "socket_close_event.tid");
_Static_assert(__builtin_offsetof(struct socket_close_event, ts) == 8, "socket_close_event.ts");
_Static_assert(__builtin_offsetof(struct socket_close_event, seq) == 16, "socket_close_event.seq");
_Static_assert(__builtin_offsetof(struct socket_close_event, generation) == 20, "socket_close_event.generation");
_Static_assert(__builtin_offsetof(struct socket_close_event, ret) == 24, "socket_close_event.ret");
_Static_assert(__builtin_offsetof(struct socket_close_event, fd) == 28, "socket_close_event.fd");
_Static_assert(__builtin_offsetof(struct socket_close_event, nr) == 32, "socket_close_event.nr");
_Static_assert(__builtin_offsetof(struct socket_close_event, kf) == 34, "socket_close_event.kf");
_Static_assert(__builtin_offsetof(struct socket_close_event, session) == 36, "socket_close_event.session");
_Static_assert(__builtin_offsetof(struct socket_close_event, read_count) == 40, "socket_close_event.read_count");
_Static_assert(__builtin_offsetof(struct socket_close_event, read_bytes) == 48, "socket_close_event.read_bytes");
_Static_assert(__builtin_offsetof(struct socket_close_event, write_count) == 56, "socket_close_event.write_count");
_Static_assert(__builtin_offsetof(struct socket_close_event, write_bytes) == 64, "socket_close_event.write_bytes");
_Static_assert(__builtin_offsetof(struct socket_close_event, reason) == 72, "socket_close_event.reason");

#define DEF_TASK 1
#define DEF_FILE 2
#define DEF_SOCKET 3
#define DEF_SESSION 4
#define PROCESS_FORK 16
#define PROCESS_EXEC 17
#define PROCESS_EXIT 18
#define PROCESS_FOUND 19
#define PROCESS_CREDENTIALS 20
#define PROCESS_SIGNAL 21
#define PROCESS_PTRACE 22
#define PROCESS_NAMESPACE 23
#define FILE_OPEN 32
#define FILE_READ 33
#define FILE_WRITE 34
#define FILE_CLOSE 35
#define FILE_DELETE 36
#define FILE_RENAME 37
#define FILE_LINK 38
#define FILE_SYMLINK 39
#define FILE_MKDIR 40
#define FILE_RMDIR 41
#define FILE_MODE 42
#define FILE_OWNER 43
#define FILE_TRUNCATE 44
#define FILE_XATTR 45
#define FILE_MEMFD 88
#define FILE_MAP 91
#define FILE_RECEIVE 92
#define FILE_MOUNT 89
#define FILE_UMOUNT 90
#define SOCKET_BIND 48
#define SOCKET_LISTEN 49
#define SOCKET_CONNECT 50
#define SOCKET_ACCEPT 51
#define SOCKET_SEND 52
#define SOCKET_RECEIVE 53
#define SOCKET_CLOSE 54
#define KERNEL_MODULE 80
#define KERNEL_BPF 81
#define KERNEL_IO_URING 82
#define KERNEL_IO_URING_REQUEST 100
#define KF_WIDE 16384
#define KF_QUIET 8192
#define KF_PENDING 2048
#define KF_URING 4096
#define KF_HOOKED 1024
#define KF_CREATED 256
#define KF_CLAIMED 1
#define KF_BEGIN 2
#define KF_TRUNCATED 4
#define KF_RELATIVE 8
#define KF_ADDRESS 16
#define KF_UNNAMED 32
#define KF_COMPAT 64
#define KF_MANY 128
#define KF_REDACTED 512
#define FILE_DELETED 1
#define FILE_NO_PATH 2
#define FILE_TOO_DEEP 4
#define FILE_UNSTABLE 8
#define FILE_DETACHED 16
#define FILE_CUT 32
#define BLOB_EXECUTABLE 1
#define BLOB_DIRECTORY 2
#define BLOB_ARGS 3
#define BLOB_NAME 4
#define BLOB_BASE 5
#define BLOB_NAME2 6
#define BLOB_BASE2 7
#define BLOB_ADDRESS 8
#define BLOB_SOCKET 9
#define BLOB_CGROUP 10
#define BLOB_PATH 11
#define BLOB_PATH2 12
#define BLOB_TEXT 13
#define BLOB_CONTEXT 20
#define BLOB_ANCESTORS 21
#define BLOB_PARENT_EXECUTABLE 22
#define BLOB_TEXT2 14
#define BLOB_BEFORE 15
#define BLOB_AFTER 16
#define BLOB_GROUPS 17
#define BLOB_NAMESPACES 18
#define BLOB_TARGET 19
#define BLOB_ENVIRONMENT 30
#define BLOB_PROGRAM 23
#define BLOB_SHA256 24
#define BLOB_MAPPING 25
