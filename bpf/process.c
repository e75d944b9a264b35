/* process_fork, process_exec, process_exit; what a record says of its process; task definitions. */

/* The facts of `task` that other programs compare before they call it known. */
static inline void look_at(u64 task, struct known *k) {
  u64 leader, cred, parent, cast = CAST(task, ID_task_struct);
  LD(leader, cast, OFF_task_struct__group_leader);
  LD(k->start, leader, OFF_task_struct__start_boottime);
  LD4(k->tgid, task, OFF_task_struct__tgid); LD4(k->tid, task, OFF_task_struct__pid);
  LD4(k->exec_id, task, OFF_task_struct__self_exec_id);
  LD(cred, cast, OFF_task_struct__cred);
  k->uid = k->euid = k->gid = k->egid = 0;
  if (cred) {
    LD4(k->uid, cred, OFF_cred__uid); LD4(k->gid, cred, OFF_cred__gid);
    LD4(k->euid, cred, OFF_cred__euid); LD4(k->egid, cred, OFF_cred__egid);
  }
  LD(k->comm0, task, OFF_task_struct__comm); LD(k->comm1, task, OFF_task_struct__comm + 8);
  LD(parent, cast, OFF_task_struct__real_parent);
  LD4(k->ppid, parent, OFF_task_struct__tgid);
  LD(k->cgroups, cast, OFF_task_struct__cgroups);
#if HAVE_LOGIN
  LD4(k->login, task, OFF_task_struct__loginuid); LD4(k->session, task, OFF_task_struct__sessionid);
#else
  k->login = k->session = ~0u;
#endif
}
static inline struct known *known_slot(u32 cpu, u32 tid) { u32 i = (tid & (NTASK - 1)) + cpu * NTASK; return known.lookup(&i); }
/* Did this CPU's ring already say who this task is, as it is now? */
static inline int task_known(u64 task, u32 cpu) {
  struct known k; look_at(task, &k);
  struct known *s = known_slot(cpu, k.tid);
  return s && s->start == k.start && s->comm0 == k.comm0 && s->comm1 == k.comm1 && s->tgid == k.tgid && s->tid == k.tid &&
         s->exec_id == k.exec_id && s->uid == k.uid && s->euid == k.euid && s->gid == k.gid && s->egid == k.egid &&
         s->ppid == k.ppid && s->cgroups == k.cgroups && s->login == k.login && s->session == k.session;
}
static inline u64 parent_start(u64 task) {
  u64 parent, leader, start;
  LD(parent, task, OFF_task_struct__real_parent); LD(leader, parent, OFF_task_struct__group_leader);
  LD(start, leader, OFF_task_struct__start_boottime);
  return start;
}
static inline u64 exe_file(u64 task) {
  u64 mm, f; LD(mm, task, OFF_task_struct__mm); if (!mm) return 0;
  LD(f, mm, OFF_mm_struct__exe_file); return f;
}
/* The kernfs node of the task's cgroup: of the unified hierarchy, or of v1's pids where the task is in the unified root. */
static inline u64 cgroup_node(u64 task, u64 *id) {
  u64 set = 0, group = 0, node = 0, up = 0;
  LD(set, task, OFF_task_struct__cgroups);
  KL(group, set, OFF_css_set__dfl_cgrp); KL(node, group, OFF_cgroup__kn); KL(*id, node, OFF_kernfs_node__id);
  KL(up, node, OFF_kernfs_node__parent);
#if HAVE_PIDS_CGROUP
  if (!up) {
    u64 css = 0, other = 0; KL(css, set, OFF_css_set__pids);
    if (css) { KL(group, css, OFF_cgroup_subsys_state__cgroup); KL(other, group, OFF_cgroup__kn); if (other) node = other; }
  }
#endif
  return node;
}
#define CGROUP_LEVELS 8
#define CGROUP_DEPTH 128
/* The outermost levels count: the host made them. Who may make groups in a container can make as many as he likes below. */
static inline u32 cgroup_names(u64 node, u8 *out, volatile u32 *count) {
  u32 i; u64 name, up = node;
  *count = 0;
#pragma nounroll
  EACH(i, CGROUP_DEPTH, node) {                       /* in map memory the verifier forgets how far it is */
    KL(up, up, OFF_kernfs_node__parent);
    if (!up) break;
    *count = *count + 1;
  }
#pragma nounroll
  EACH(i, CGROUP_DEPTH, node) {
    if (*count <= CGROUP_LEVELS) break;
    KL(node, node, OFF_kernfs_node__parent);
    *count = *count - 1;
  }
  *count = 0;
#pragma nounroll
  EACH(i, CGROUP_LEVELS, node) {
    name = up = 0; KL(up, node, OFF_kernfs_node__parent); KL(name, node, OFF_kernfs_node__name);
    if (!up) break;
    u32 o = *count;
    long n = read_kernel_text(out + (o & 2047), 256, (void *)name);
    *count = o + (n & ~(n >> 63));
    node = up;
  }
  return *count & 4095;
}

/* ---- control records: header, task, then blobs ------------------------------------------------------------------------ */
static inline void fill_record(struct scratch *s, u64 task, u64 ts, u32 cpu, u16 type, s64 ret, u16 nr, u16 kf, s32 fd) {
  struct known k; look_at(task, &k);
  struct control_event *e = &s->e; u64 node_id = 0;
  e->type = type; e->cpu = cpu; e->ts = ts; e->ret = ret; e->nr = nr; e->kf = kf; e->fd = fd;
  e->arg = e->arg2 = 0; e->ino = 0; e->dev = 0; e->mode = 0; e->original = 0; e->flags = 0;
  e->start = k.start; e->parent_start = parent_start(task); e->exe_key = 0; e->tgid = k.tgid; e->tid = k.tid;
  e->exec_id = k.exec_id; e->ppid = k.ppid; e->uid = k.uid; e->euid = k.euid; e->gid = k.gid; e->egid = k.egid;
  e->login_uid = k.login; e->login_session = k.session;
  *(u64 *)&e->comm[0] = k.comm0; *(u64 *)&e->comm[8] = k.comm1;
  cgroup_node(task, &node_id); e->cgroup = node_id;
}
static inline struct scratch *record_begin(u64 task, u64 ts, u32 cpu, u16 type, s64 ret, u16 nr, u16 kf, s32 fd) {
  struct scratch *s = scratch.lookup(&cpu);
  if (s) fill_record(s, task, ts, cpu, type, ret, nr, kf, fd);
  return s;
}
/* The blob that begins at offset o: where its bytes go. Blobs begin below 64 KiB and are shorter than 17 KiB. */
static inline u8 *blob_at(struct scratch *s, u32 o) { return &s->b[(o & 0xffff) + 8]; }
static inline volatile u32 *blob_length(struct scratch *s, u32 o) { return (u32 *)&s->b[(o & 0xffff) + 4]; }
static inline u32 blob_end(struct scratch *s, u32 o, u16 kind, u32 n) {
  *(u32 *)&s->b[o & 0xffff] = kind; *blob_length(s, o) = n;
  return (o + 8 + n + 7) & 0xfff8;
}
static inline u32 blob_names(struct scratch *s, u32 o, u16 kind, u64 mnt, u64 dentry) {
  return blob_end(s, o, kind, copy_names(mnt, dentry, blob_at(s, o), blob_length(s, o)));
}
static inline u32 blob_file(struct scratch *s, u32 o, u16 kind, u64 f) {
  u64 mnt = 0, d = 0; KL(mnt, f, OFF_file__f_path__mnt); KL(d, f, OFF_file__f_path__dentry);
  return blob_names(s, o, kind, mnt, d);
}
static inline u32 blob_cgroup(struct scratch *s, u32 o, u64 task) {
  u64 id, node = cgroup_node(task, &id); if (!node) return o;
  u32 n = cgroup_names(node, blob_at(s, o), blob_length(s, o));
  return n ? blob_end(s, o, BLOB_CGROUP, n) : o;
}
static inline u32 blob_task(struct scratch *s, u32 o, u64 task) {
  u64 f = exe_file(task);
  if (f) o = blob_file(s, o, BLOB_EXECUTABLE, f);
  return blob_cgroup(s, o, task);
}
static inline u32 blob_cwd(struct scratch *s, u32 o, u16 kind, u64 task) {
  u64 fs, mnt, d; LD(fs, task, OFF_task_struct__fs); if (!fs) return o;
  LD(mnt, fs, OFF_fs_struct__pwd__mnt); LD(d, fs, OFF_fs_struct__pwd__dentry);
  return blob_names(s, o, kind, mnt, d);
}
/* Does the caller's string go on behind the 4095 bytes that are kept? */
static inline int longer(u64 user, long n) {
  u8 next = 0;
  return n == 4096 && !read_user(&next, 1, (void *)(user + 4095)) && next;
}
static inline u32 blob_user_string(struct scratch *s, u32 o, u16 kind, u64 user) {
  long n = user_string(blob_at(s, o), 4096, user);
  if (n <= 0) return o;
  if (longer(user, n)) s->e.kf |= KF_TRUNCATED;
  return blob_end(s, o, kind, (n - 1) & 4095);
}
/* A directory that a name may start from: the descriptor's, or the working directory. */
static inline u32 blob_base(struct scratch *s, u32 o, u16 kind, u64 task, int dirfd) {
  if (dirfd == -100) return blob_cwd(s, o, kind, task);
  u64 f = dirfd >= 0 ? fd_file(task, dirfd) : 0;
  return f ? blob_file(s, o, kind, f) : o;
}
static inline void record_end(void *ctx, struct account *h, struct scratch *s, u32 o, u32 class) {
  u64 n = sizeof(struct control_event) + (o & 0xffff);
  s->e.length = n; s->e.seq = h->seq; h->seq++;
#if CONTROL_PERF
  long r = control.perf_submit(ctx, s, n);
#else
  long r = control.ringbuf_output(s, n, 1);   /* 1: BPF_RB_NO_WAKEUP, the reader polls */
#endif
  if (r) h->refused_control[class & 3]++; else h->control++;
}
/* A call that cannot be recorded for want of room: numbered, so that its place is known, and counted. */
static inline int give_up(struct account *h, u32 class) {
  u32 events = h->phase == 1 ? 2 : 1;      /* with the source's event the destination's is given up */
  h->seq += events; h->refused_ring[class & 3] += events;
  return end(h);
}

/* ---- file definitions ---------------------------------------------------------------------------------------------------- */
static inline u64 *sent_slot(u32 cpu, u64 key) { u32 i = (key & (NSENT - 1)) + cpu * NSENT; return sent.lookup(&i); }
static inline int is_sent(u32 cpu, u64 key) { u64 *s = sent_slot(cpu, key); return s && *s == key; }
/* Announces the object under `key`; 1 when it was, 0 when there was no room or it changed while it was copied. */
static inline int announce(struct account *h, u32 cpu, u64 ts, u64 seed, u64 mnt, u64 d, u64 inode, int derived) {
  struct leaf l, again; u64 sb = 0, mp, ns = 0, key = path_key(mnt, d, inode, seed, &l); u32 dev = 0, inum = 0, uid = 0, gid = 0;
  u64 *s = sent_slot(cpu, key); if (!s) return 0;
  if (*s == key) return 1;
  u8 *p = room(h, cpu, sizeof(struct file_definition) + NAMES_MAX, derived); if (!p) { h->undefinable = 1; return 0; }
  struct file_definition *e = (void *)p;
  u32 n = copy_names(mnt, d, p + sizeof(*e), &e->bytes);
  if (path_key(mnt, d, inode, seed, &again) != key) { h->unstable++; return 0; }
  KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev); KL4(uid, inode, OFF_inode__i_uid); KL4(gid, inode, OFF_inode__i_gid);
  mp = CAST(mnt - OFF_mount__mnt, ID_mount); KL(ns, mp, OFF_mount__mnt_ns);
  if (ns && !(l.flags & FILE_NO_PATH)) KL4(inum, ns, OFF_mnt_namespace__ns__inum);
  u32 units = (sizeof(*e) + n + 7) >> 3;
  e->type = DEF_FILE; e->units = units; e->tid = 0; e->ts = ts; e->seq = h->seq; e->key = key;
  e->ino = l.ino; e->dev = dev; e->generation = l.generation; e->mode = l.mode; e->uid = uid; e->gid = gid;
  e->flags = leaf_flags(&l); e->mount_ns = inum; e->bytes = n;
  push(h, units); h->defined++; *s = key;
  return 1;
}
static inline int announce_file(struct account *h, u32 cpu, u64 ts, u64 seed, u64 f, int derived) {
  u64 mnt = 0, d = 0, inode = 0;
  KL(mnt, f, OFF_file__f_path__mnt); KL(d, f, OFF_file__f_path__dentry); KL(inode, f, OFF_file__f_inode);
  return announce(h, cpu, ts, seed, mnt, d, inode, derived);
}

/* Says who a task is, in this CPU's ring. */
static inline void introduce(struct account *h, u32 cpu, u64 ts, struct config *c, u64 task) {
  u64 f = exe_file(task), id = 0, node, key = 0; struct leaf l;
  if (f && !announce_file(h, cpu, ts, c->seed, f, 0)) return;
  if (f) key = file_key(f, c->seed, &l);
  struct task_definition *e = (void *)room(h, cpu, sizeof(*e) + 2048 + 256, 0); if (!e) { h->undefinable = 1; return; }
  struct known k; look_at(task, &k); struct known *s = known_slot(cpu, k.tid); if (!s) return;
  node = cgroup_node(task, &id);
  u32 n = node ? cgroup_names(node, (u8 *)e + sizeof(*e), &e->cgroup_bytes) : 0, units = (sizeof(*e) + n + 7) >> 3;
  e->type = DEF_TASK; e->units = units; e->tid = k.tid; e->ts = ts; e->seq = h->seq; e->key = 0;
  e->t_start = k.start; e->t_parent_start = parent_start(task); e->t_cgroup = id; e->t_exe_key = key; e->t_tgid = k.tgid; e->t_tid = k.tid;
  e->t_exec_id = k.exec_id; e->t_ppid = k.ppid; e->t_uid = k.uid; e->t_euid = k.euid; e->t_gid = k.gid; e->t_egid = k.egid;
  e->t_login_uid = k.login; e->t_login_session = k.session; e->cgroup_bytes = n; e->pad = 0;
  *(u64 *)&e->t_comm[0] = k.comm0; *(u64 *)&e->t_comm[8] = k.comm1;
  push(h, units); h->defined++; *s = k;
}
/* Tail: introduces the current task and starts the caller again. */
int define_task(u64 *ctx) {
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); if (!h || !c) return 0;
  introduce(h, cpu, begin(h), c, current_task());
  go(ctx, TAIL_SELF);
  return give_up(h, CLASS_FILE);
}

/* ---- sessions that end without a close ----------------------------------------------------------------------------------- */
static inline u64 session_tag(u32 tgid, u32 exec_id, u32 fd) { return (u64)tgid << 32 | (u64)(exec_id & 0xfff) << 20 | (fd & 0xfffff); }
static inline u32 session_index(u64 tag) { return (tag * PHI) >> 50 & (NSESSION - 1); }
/* A record for what passed since the session began; the session's own process and object are known by its slot. */
static inline void put_close(struct account *h, u32 cpu, u64 ts, u32 tid, struct session *s, u64 tag, u32 slot, u64 ret, u16 nr, u16 kf, u32 why, int derived) {
  u32 class = s->flags & S_SOCKET ? CLASS_SOCKET : CLASS_FILE; u64 seq = h->seq; h->seq = seq + 1;
  struct file_close_event *e = (void *)room(h, cpu, sizeof(*e), derived);
  if (!e || h->undefinable) { h->refused_ring[class]++; return; }
  e->type = s->flags & S_SOCKET ? SOCKET_CLOSE : FILE_CLOSE; e->units = sizeof(*e) / 8; e->tid = tid; e->ts = ts; e->seq = seq;
  e->ret = ret; e->nr = nr; e->kf = kf | (s->generation ? 0 : KF_UNNAMED) | (s->flags & S_QUIET ? KF_QUIET : 0); e->fd = s->flags & S_FIXED ? -1 : (s32)(tag & 0xfffff); e->session = s->generation ? slot : ~0u; e->generation = s->generation;
  e->read_count = s->read_count; e->read_bytes = s->read_bytes; e->write_count = s->write_count; e->write_bytes = s->write_bytes; e->reason = why;
  push(h, sizeof(*e) / 8);
}
/* Ends every session of (process, exec) on the first SWEEP descriptors. 1: there may be more. */
static inline int sweep(struct account *h, u32 cpu, u64 ts, u64 task, u32 tgid, u32 tid, u32 exec_id, u32 from, u32 to, u16 nr, u32 why) {
  u64 files, fdt; u32 max = 0, i;
  LD(files, task, OFF_task_struct__files);
  if (files) { LD(fdt, files, OFF_files_struct__fdt); LD4(max, fdt, OFF_fdtable__max_fds); }
  if (!max || from >= max) return 0;
  if (to >= max) to = max - 1;
#pragma nounroll
  EACH(i, SWEEP, task) {
    u32 fd = from + i; if (fd > to) return 0;
    u64 tag = session_tag(tgid, exec_id, fd); u32 slot = session_index(tag); struct session *s = sessions.lookup(&slot);
    if (!s || s->tag != tag) continue;
    if (s->flags & S_LEFT_OUT && !s->generation) count_left_out(h, s->flags);
    else put_close(h, cpu, ts, tid, s, tag, slot, 0, nr, 0, why, 1);
    s->tag = 0;
  }
  return to >= from + SWEEP;
}

/* Has this process sessions on places in a ring's table? Then the reader ends them. */
static inline u16 beyond_sweeps(u32 tgid) {
#if URING
  u32 i = tgid & 4095, *user = fixed_users.lookup(&i);
  if (user && *user == tgid) { *user = 0; return KF_MANY; }
#endif
  return 0;
}

/* ---- the tracepoints ----------------------------------------------------------------------------------------------------- */
static inline u16 current_nr(void) {
#if HAVE_TASK_REGS
  static u64 (*task_regs)(u64) = (void *)175;  /* bpf_task_pt_regs */
  u64 nr; LD(nr, task_regs(typed_task()), OFF_pt_regs__orig_ax); return nr;
#else
  return 0xffff;
#endif
}
#define ENTER_TRACEPOINT \
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); if (!h || !c) return 0; \
  u64 task = current_task(); u32 tgid, tid; LD4(tgid, task, OFF_task_struct__tgid); LD4(tid, task, OFF_task_struct__pid);

static inline u32 blob_kernel_string(struct scratch *s, u32 o, u16 kind, u64 text) {
  long n = read_kernel_text(blob_at(s, o), 4096, (void *)text);
  return n > 0 ? blob_end(s, o, kind, (n - 1) & 4095) : o;
}
/* Configured variables of the new program's environment. */
static inline u64 other_than(struct config *c, u32 i, u64 *begins) {   /* 0 or 1, without a branch: each would double the verifier's states */
  u64 *w = c->environment[i], m = ((begins[0] ^ w[0]) & w[2]) | ((begins[1] ^ w[1]) & w[3]);
  return (m | -m) >> 63;
}
#define ENVIRONMENT_SEEN 64
static inline u32 blob_environment(struct scratch *s, u32 o, struct config *c, u64 mm) {
  u64 p, last, begins[2]; u32 i; volatile u32 *count = blob_length(s, o);
  if (!c->environment[0][2]) return o;
  LD(p, mm, OFF_mm_struct__env_start); LD(last, mm, OFF_mm_struct__env_end);
  *count = 0;
#pragma nounroll
  EACH(i, ENVIRONMENT_SEEN, c) {
    u32 at = *count & 4095; u8 *out = blob_at(s, o) + at; long n;
    if (p >= last || *count > 3 * 1024) break;
    begins[0] = begins[1] = 0; read_user(begins, 16, (void *)p);
    u64 other = other_than(c, 0, begins) & other_than(c, 1, begins) & other_than(c, 2, begins) & other_than(c, 3, begins);
    n = user_string(out, 1024, p);
    if (n <= 0) break;
    p += n;
    if (n == 1024) { u8 rest = 0; read_user(&rest, 1, (void *)(p - 1)); if (rest) break; }   /* longer: what follows is not told */
    *count += n & (other - 1);
  }
  return *count ? blob_end(s, o, BLOB_ENVIRONMENT, *count & 4095) : o;
}
static inline void keep_credentials(u64 task, int anew);   /* bpf/privilege.c */
static inline u64 gained_by_exec(u64 task, u32 before);
static inline u32 blob_credentials(struct scratch *s, u32 o, u64 task, u32 before, int whoever, int always);
static inline void read_namespaces(u64 task, struct namespaces *n);
static inline u64 new_namespaces(struct namespaces *a, struct namespaces *b);
static inline u32 blob_namespaces(struct scratch *s, u32 o, struct namespaces *n);

int sched_process_fork(u64 *ctx) {
  ENTER_TRACEPOINT
  u64 child; u32 ctgid, ctid; LD(child, ctx, 8); child = CAST(child, ID_task_struct); LD4(ctgid, child, OFF_task_struct__tgid); LD4(ctid, child, OFF_task_struct__pid);
  keep_credentials(child, 1);
  if (ctgid != ctid) return 0;                                   /* a thread, not a process */
  if (own(task, tgid, c)) { h->suppressed_self++; return 0; }
  u64 ts = begin(h);
  struct scratch *s = record_begin(child, ts, cpu, PROCESS_FORK, ctid, current_nr(), 0, -1); if (!s) return end(h);
  u32 o = blob_task(s, 0, child);
  o = blob_child_ancestors(s, o, task, child);
  record_end(ctx, h, s, blob_context(s, o, child), CLASS_PROCESS);
  u64 before, after; u32 a, b, x, y; LD(before, task, OFF_task_struct__nsproxy); LD(after, child, OFF_task_struct__nsproxy); LOW(a, before); LOW(b, after);
  LD(before, task, OFF_task_struct__cred); LD(before, before, OFF_cred__user_ns); LD(after, child, OFF_task_struct__cred); LD(after, after, OFF_cred__user_ns);
  LOW(x, before); LOW(y, after);
  if (a == b && x == y) return end(h);
  struct namespaces old, new; read_namespaces(task, &old); read_namespaces(child, &new);   /* clone with CLONE_NEW*: the child begins there */
  s = record_begin(child, ts, cpu, PROCESS_NAMESPACE, ctid, current_nr(), 0, -1); if (!s) return end(h);
  s->e.arg = new_namespaces(&old, &new);
  record_end(ctx, h, s, blob_namespaces(s, blob_task(s, 0, child), &new), CLASS_PROCESS);
  return end(h);
}

int sched_process_exec(u64 *ctx) {
  ENTER_TRACEPOINT
  if (own(task, tgid, c)) { h->suppressed_self++; return 0; }
  u64 ts = begin(h), mm, a, b, f; u32 exec_id, o = 0, n, whole; u16 nr = current_nr(), kf = 0;
  u64 bprm, fdpath; LD(bprm, ctx, 16); bprm = CAST(bprm, ID_linux_binprm); LD(fdpath, bprm, OFF_linux_binprm__fdpath);
  if (fdpath && nr == NR_EXECVE) nr = NR_EXECVEAT;               /* the kernel has written execve over the call's number by now */
  LD4(exec_id, task, OFF_task_struct__self_exec_id);
  if (sweep(h, cpu, ts, task, tgid, tid, exec_id - 1, 0, ~0u, nr, WHY_EXEC)) kf |= KF_MANY;
  struct scratch *s = record_begin(task, ts, cpu, PROCESS_EXEC, 0, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, o, task);
  o = blob_cwd(s, o, BLOB_DIRECTORY, task);
  o = blob_ancestors(s, o, task);
  o = blob_context(s, o, task);
  u32 before; LD4(before, ctx, 8);                                /* another thread than the first has got the first one's number */
  s->e.arg = gained_by_exec(task, before);
  LD(mm, task, OFF_task_struct__mm); if (!mm) return end(h);
  o = blob_environment(s, o, c, mm);
  u64 name, interpreter; u32 x, y;
  LD(name, bprm, OFF_linux_binprm__filename); LD(interpreter, bprm, OFF_linux_binprm__interp); LOW(x, name); LOW(y, interpreter);
  o = blob_kernel_string(s, o, BLOB_NAME, name);                  /* as given, the kernel's own copy; of a script the script's */
  if (x != y) o = blob_kernel_string(s, o, BLOB_TEXT, interpreter);
  f = exe_file(task);
  if (f) { u64 inode = 0, sb = 0; u32 dev = 0; u16 mode = 0; struct leaf l; KL(inode, f, OFF_file__f_inode); KL(s->e.ino, inode, OFF_inode__i_ino); KL2(mode, inode, OFF_inode__i_mode);
    KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev); s->e.dev = dev; s->e.mode = mode; file_key(f, 0, &l); s->e.flags = leaf_flags(&l); }
  LD(a, mm, OFF_mm_struct__arg_start); LD(b, mm, OFF_mm_struct__arg_end);
  whole = b - a; n = whole;
  if (n > c->args_limit) { n = c->args_limit; s->e.original = whole; s->e.kf |= KF_TRUNCATED; }
  if (n > 16383) n = 16383;
  u64 bounded = n; asm volatile("%0 &= 16383" : "+r"(bounded));    /* the compiler would drop a plain `&`, and the verifier needs it */
  if (n && !read_user(blob_at(s, o), bounded, (void *)a)) o = blob_end(s, o, BLOB_ARGS, n);
  else if (n) s->e.original = whole, s->e.kf |= KF_TRUNCATED;
  record_end(ctx, h, s, o, CLASS_PROCESS);
  s = record_begin(task, ts, cpu, PROCESS_CREDENTIALS, 0, nr, 0, -1); if (!s) return end(h);
  o = blob_credentials(s, 0, task, before, 1, 0);
  if (o) record_end(ctx, h, s, blob_task(s, o, task), CLASS_PROCESS);
  return end(h);
}

#if !HAVE_GROUP_DEAD
/* `live` is counted down before the tracepoint, so that the last two threads may both read 0 there: only the first of them counts.
 * A slot that another process took just now costs nothing but this protection. */
static inline int first_here(u64 task, u32 tgid) {
  u64 tag = leader_start(task); MIX(tag, tgid); tag |= 1;
  u32 i = tag >> 32 & (NEXITED - 1); u64 *slot = exited.lookup(&i); if (!slot) return 1;
  u64 before = *(volatile u64 *)slot;
  return before != tag && swap_if(slot, before, tag) != tag;
}
#endif
int sched_process_exit(u64 *ctx) {
  ENTER_TRACEPOINT
  u64 signal, leader; u32 live, exec_id, flags, code, group; u16 kf = 0;
  LD(signal, task, OFF_task_struct__signal); LD4(live, signal, OFF_signal_struct__live__counter);
#if HAVE_GROUP_DEAD
  u64 last; LD(last, ctx, 8); if (!(u8)last) return 0;             /* `live` is counted down before: two last threads may both read 0 */
#else
  if (live || !first_here(task, tgid)) return 0;                 /* other threads go on */
#endif
  LD(leader, task, OFF_task_struct__group_leader); LD4(code, leader, OFF_task_struct__exit_code);
  LD4(flags, signal, OFF_signal_struct__flags); LD4(group, signal, OFF_signal_struct__group_exit_code);
  if (flags & 4) code = group;                                   /* SIGNAL_GROUP_EXIT */
  if (own(task, tgid, c) && !(code & 127)) { h->suppressed_self++; return 0; }     /* killed: that was not its own act */
  u64 ts = begin(h);
  LD4(exec_id, task, OFF_task_struct__self_exec_id);
  if (sweep(h, cpu, ts, task, tgid, tid, exec_id, 0, ~0u, 0xffff, WHY_EXIT)) kf |= KF_MANY;
  kf |= beyond_sweeps(tgid);
  struct scratch *s = record_begin(task, ts, cpu, PROCESS_EXIT, 0, 0xffff, kf, -1); if (!s) return end(h);
  s->e.arg = code;
  lineage.delete(&tgid);
  record_end(ctx, h, s, blob_task(s, 0, task), CLASS_PROCESS);
  return end(h);
}

/* Run on demand by the monitor itself (BPF_PROG_TEST_RUN), with a descriptor as argument: says what the probes' own functions
 * read of the caller and of that file, so that it can be compared with what the caller knows. */
int whoami(struct bpf_raw_tracepoint_args *ctx) {
  int z = 0; u32 o = 0; struct scratch *s = answer.lookup(&z); struct config *c = configuration(); if (!s || !c) return 0;
  u64 task = current_task(), f; struct leaf l;
  fill_record(s, task, boot_ns(), bpf_get_smp_processor_id(), PROCESS_EXEC, 0, 0xffff, 0, ctx->args[0]);
  o = blob_task(s, o, task);
  o = blob_cwd(s, o, BLOB_DIRECTORY, task);
  f = fd_file(task, (u32)ctx->args[0]);
  if (f) {
    u64 inode = 0, sb = 0; u32 dev = 0; u16 mode = 0; file_key(f, c->seed, &l);
    KL(inode, f, OFF_file__f_inode); KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev); KL2(mode, inode, OFF_inode__i_mode);
    s->e.ino = l.ino; s->e.dev = dev; s->e.mode = mode; s->e.flags = leaf_flags(&l);
    o = blob_file(s, o, BLOB_NAME, f);
  }
  s->e.length = sizeof(struct control_event) + (o & 0xffff);
  return 1;
}

/* A task iterator: one record for each process that runs, from the same kernel objects as every other record. */
int found(u64 *ctx) {
  static long (*seq_write)(u64, void *, u32) = (void *)127;   /* bpf_seq_write */
  int z = 0; u32 o, tid, tgid; u64 meta, seq, task; struct scratch *s = answer.lookup(&z); if (!s) return 0;
  LD(meta, ctx, 0); LD(task, ctx, 8); if (!task) return 0;
  task = CAST(task, ID_task_struct);
  keep_credentials(task, 0);
  LD4(tgid, task, OFF_task_struct__tgid); LD4(tid, task, OFF_task_struct__pid); if (tgid != tid) return 0;
  LD(seq, meta, OFF_bpf_iter_meta__seq);
  fill_record(s, task, boot_ns(), 0, PROCESS_FOUND, 0, 0xffff, 0, -1);
  o = blob_task(s, 0, task);
  o = blob_cwd(s, o, BLOB_DIRECTORY, task);
  o = blob_ancestors(s, o, task);
  o = blob_context(s, o, task);
  u32 n = sizeof(struct control_event) + (o & 0x7fff);
  s->e.length = n;
  seq_write(seq, s, n);
  return 0;
}
