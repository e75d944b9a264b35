/* What changes who a process is and what it may: credentials, namespaces, signals to others, tracing. */

/* The capability sets and the ids stand side by side in struct cred: each group is one read. */
_Static_assert(OFF_cred__securebits == OFF_cred__uid + 32 && OFF_cred__cap_ambient == OFF_cred__cap_inheritable + 32, "struct cred");
static inline void read_credentials(u64 task, struct credentials *k) {
  u64 cred, ns, groups; u32 low = 0, n = 0, inum = 0;
  LD(cred, task, OFF_task_struct__cred);
  RD(&k->uid, 36, cred + OFF_cred__uid); RD(&k->inheritable, 40, cred + OFF_cred__cap_inheritable);
  LD(ns, cred, OFF_cred__user_ns); LD4(inum, ns, OFF_user_namespace__ns__inum); k->user_ns = inum;
  LD(groups, cred, OFF_cred__group_info); LOW(low, groups); LD4(n, groups, OFF_group_info__ngroups);
  k->groups_at = low; k->groups = n;
}
/* The credentials of each thread as they were last seen: what they were before a change. */
struct kept { u64 start; u32 tid, pad; struct credentials c; };
BPF_ARRAY(kept, struct kept, NKEPT);
static inline struct kept *kept_of(u32 tid) { u32 i = tid & (NKEPT - 1); return kept.lookup(&i); }
static inline void keep_credentials(u64 task, int anew) {
  u32 tid; u64 start; LD4(tid, task, OFF_task_struct__pid); LD(start, task, OFF_task_struct__start_boottime);
  struct kept *k = kept_of(tid); if (!k || (!anew && k->tid == tid && k->start == start)) return;
  k->tid = tid; k->start = start; read_credentials(task, &k->c);
}
/* Adds what they were and what they are to the record, and keeps the latter. Returns `o` when nothing changed. `before`: the
 * thread's number when the call began; `whoever`: it is known that this number was its own then. */
static inline u32 blob_credentials(struct scratch *s, u32 o, u64 task, u32 before, int whoever, int always) {
  u32 tid; u64 start, changed = 0, *a, *b; int known, i; struct credentials now;
  __builtin_memset(&now, 0, sizeof now);
  LD4(tid, task, OFF_task_struct__pid); LD(start, task, OFF_task_struct__start_boottime);
  struct kept *k = kept_of(before); if (!k) return o;
  read_credentials(task, &now);
  known = k->tid == before && (whoever || k->start == start);
  a = (u64 *)&k->c; b = (u64 *)&now;
#pragma unroll
  for (i = 0; i < sizeof(now) / 8; i++) changed |= a[i] ^ b[i];
  if (!always && known && !changed) { if (before != tid) keep_credentials(task, 1); return o; }
  if (known) { *(struct credentials *)blob_at(s, o) = k->c; o = blob_end(s, o, BLOB_BEFORE, sizeof now); }
  *(struct credentials *)blob_at(s, o) = now; o = blob_end(s, o, BLOB_AFTER, sizeof now);
  if (known && k->c.groups_at != now.groups_at) {
    u64 cred, groups; u32 n = now.groups > 64 ? 64 : now.groups;
    LD(cred, task, OFF_task_struct__cred); LD(groups, cred, OFF_cred__group_info);
    u64 bytes = n * 4; asm volatile("%0 &= 511" : "+r"(bytes));    /* a plain `&` is dropped by the compiler */
    if (!RD(blob_at(s, o), bytes, groups + OFF_group_info__gid)) o = blob_end(s, o, BLOB_GROUPS, bytes);
  }
  keep_credentials(task, 1);
  return o;
}

/* What an exec has given: 1 another effective user, 2 another effective group, 4 capabilities to one who is not root. */
static inline u64 gained_by_exec(u64 task, u32 before) {
  struct kept *k = kept_of(before); struct credentials now;
  if (!k || k->tid != before) return 0;
  __builtin_memset(&now, 0, sizeof now); read_credentials(task, &now);
  return (now.euid != k->c.euid) | (now.egid != k->c.egid) << 1 | (now.euid && now.permitted & ~k->c.permitted) << 2;
}

/* Tail: a call that may change credentials, and unshare and setns, which do. Without a change there is no event. */
int credentials(u64 *ctx) {
  ENTER_CALL
  u64 option = in->a[0]; u32 o, was, mine = CALL_TYPE(call_spec((nr & 511) | (compat ? 512 : 0))) == PROCESS_CREDENTIALS;
  if (mine && call & CALL_OPTION && option != 8 && option != 24 && option != 28 && option != 47) return end(h);  /* PR_SET_KEEPCAPS ... PR_CAP_AMBIENT */
  int failed = ret < 0 && mine;
  struct scratch *s = record_begin(task, ts, cpu, PROCESS_CREDENTIALS, ret, nr, kf, -1); if (!s) return end(h);
  s->e.arg = in->a[0]; s->e.arg2 = in->a[1]; s->e.ino = in->a[2];
  was = blob_credentials(s, 0, task, tid, 0, failed);
  if (!was) return end(h);
  o = blob_task(s, was, task);
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}

/* ---- namespaces ---------------------------------------------------------------------------------------------------------- */
#define NAMESPACE_OF(member, type) { u64 ns_; LD(ns_, proxy, OFF_nsproxy__##member); LD4(n->member, ns_, OFF_##type##__ns__inum); }
static inline void read_namespaces(u64 task, struct namespaces *n) {
  u64 proxy, cred, user;
  __builtin_memset(n, 0, sizeof *n);
  LD(proxy, task, OFF_task_struct__nsproxy); if (!proxy) return;
  NAMESPACE_OF(mnt_ns, mnt_namespace) NAMESPACE_OF(uts_ns, uts_namespace) NAMESPACE_OF(ipc_ns, ipc_namespace) NAMESPACE_OF(net_ns, net)
  NAMESPACE_OF(pid_ns_for_children, pid_namespace) NAMESPACE_OF(cgroup_ns, cgroup_namespace) NAMESPACE_OF(time_ns, time_namespace)
  LD(cred, task, OFF_task_struct__cred); LD(user, cred, OFF_cred__user_ns); LD4(n->user_ns, user, OFF_user_namespace__ns__inum);
}
static inline u64 new_namespaces(struct namespaces *a, struct namespaces *b) {
  return (a->mnt_ns != b->mnt_ns ? 0x20000 : 0) | (a->uts_ns != b->uts_ns ? 0x4000000 : 0) | (a->ipc_ns != b->ipc_ns ? 0x8000000 : 0) |
         (a->net_ns != b->net_ns ? 0x40000000 : 0) | (a->pid_ns_for_children != b->pid_ns_for_children ? 0x20000000 : 0) |
         (a->cgroup_ns != b->cgroup_ns ? 0x2000000 : 0) | (a->time_ns != b->time_ns ? 0x80 : 0) | (a->user_ns != b->user_ns ? 0x10000000 : 0);
}
static inline u32 blob_namespaces(struct scratch *s, u32 o, struct namespaces *n) {
  *(struct namespaces *)blob_at(s, o) = *n;
  return blob_end(s, o, BLOB_NAMESPACES, sizeof *n);
}
/* Tail: unshare, setns, chroot, pivot_root. */
int namespace(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)); u32 o; struct namespaces n;
  if (call & CALL_OPTION && !(in->a[0] & 0x7e020080)) return end(h);        /* unshare of what is no namespace */
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (CALL_NAME(spec)) {
    if (ret >= 0) {
      u64 fs, mnt, d; LD(fs, task, OFF_task_struct__fs); if (!fs) return end(h);
      LD(mnt, fs, OFF_fs_struct__root__mnt); LD(d, fs, OFF_fs_struct__root__dentry);
      o = blob_names(s, o, BLOB_PATH, mnt, d);
    } else {
      s->e.kf |= KF_CLAIMED;
      o = blob_named(s, o, task, argument(in, CALL_NAME(spec)), -100, BLOB_NAME, BLOB_BASE);
    }
  }
  if (CALL_DIR(spec)) s->e.fd = argument(in, CALL_DIR(spec));
  read_namespaces(task, &n);
  o = blob_namespaces(s, o, &n);
  record_end(ctx, h, s, o, CLASS_PROCESS);
  if (!CALL_NAME(spec)) go(ctx, TAIL_CREDENTIALS);
  return end(h);
}

/* ---- other processes ----------------------------------------------------------------------------------------------------- */
static inline u32 blob_target(struct scratch *s, u32 o, u64 other) {
  struct target *t = (struct target *)blob_at(s, o); u64 leader, cred;
  LD(leader, other, OFF_task_struct__group_leader); LD(t->start, leader, OFF_task_struct__start_boottime);
  LD4(t->tgid, other, OFF_task_struct__tgid); LD4(t->tid, other, OFF_task_struct__pid);
  LD(cred, other, OFF_task_struct__cred); LD4(t->euid, cred, OFF_cred__euid);
  LD(*(u64 *)&t->comm[0], other, OFF_task_struct__comm); LD(*(u64 *)&t->comm[8], other, OFF_task_struct__comm + 8);
  t->pad = 0;
  return blob_end(s, o, BLOB_TARGET, sizeof *t);
}
/* The process behind a number of the caller's own pid namespace. */
static inline u32 blob_target_of(struct scratch *s, u32 o, s32 pid) {
#if HAVE_TASK_FROM_PID
  u64 other = task_from_vpid(pid);
  if (other) { o = blob_target(s, o, other); task_release(other); }
#endif
  return o;
}
/* Tail: ptrace, and reads and writes of another process's memory. */
int tracing(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)), request = in->a[0]; u32 o;
  /* what looks, or lets a tracee go on, comes in torrents; TRACEME, POKE*, KILL, SETREGS, SETFPREGS, ATTACH, DETACH, SETREGSET, SEIZE */
  if (call & CALL_OPTION && !(request < 32 && 1u << request & (1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 19)) &&
      request != 0x4205 && request != 0x4206) return end(h);
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (!(call & CALL_OPTION) || request) { s->e.ino = (u32)argument(in, CALL_DIR(spec)); o = blob_target_of(s, o, argument(in, CALL_DIR(spec))); }
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}
/* Tail: a signal that was not sent: the call failed. */
int signal_failed(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)); u32 o; s32 pid = argument(in, CALL_DIR(spec));
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf | KF_CLAIMED); if (!s) return end(h);
  if (!s->e.arg) return end(h);                                  /* signal 0 only asks whether somebody is there */
  o = blob_task(s, 0, task);
  s->e.ino = (u32)pid;
  if (pid > 0 && !(call & CALL_PIDFD)) o = blob_target_of(s, o, pid);
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}
/* A signal that one process sends another: where it is put into the queue, with sender and receiver at hand. Signals of the
 * kernel's own (a child's end, a fault, a timer) are not acts of a process, and may come in interrupts: not here. */
int signal_generate(u64 *ctx) {
  u64 info, other, number, shared, result; u32 low = 0, o; s32 code = 0;
  LD(info, ctx, 8); if (info) LOW(low, info)
  if (low == 1) return 0;                                        /* SEND_SIG_PRIV */
  if (info) RD(&code, 4, info + OFF_kernel_siginfo__si_code);    /* a helper: kernels differ in how they type this argument */
  if (code > 0) return 0;
  ENTER_TRACEPOINT
  u16 nr = current_nr();
  u32 old = compat_call(task);
  if (!info && nr != (old ? 37 : NR_KILL)) return 0;             /* SEND_SIG_NOINFO: the kernel's own; since Linux 7 kill's too */
  u32 own_code = old ? nr == 178 || nr == 335 || nr == 424 : nr == NR_RT_SIGQUEUEINFO || nr == NR_RT_TGSIGQUEUEINFO || nr == NR_PIDFD_SEND_SIGNAL;
  if (code != 0 && code != -1 && code != -6 && !own_code) return 0;  /* SI_USER, SI_QUEUE, SI_TKILL; those calls may say any other */
  if (h->busy) return 0;                                         /* inside of another program: an interrupt */
  if (call_bits(NR_KILL) & CALL_LEFT_OUT) { h->suppressed_profile++; return end(h); }
  if (own(task, tgid, c)) { h->suppressed_self++; return end(h); }
  u64 ts = begin(h);
  LD(number, ctx, 0); LD(other, ctx, 16); other = CAST(other, ID_task_struct); LD(shared, ctx, 24); LD(result, ctx, 32);
  struct scratch *s = record_begin(task, ts, cpu, PROCESS_SIGNAL, 0, nr, old ? KF_COMPAT : 0, -1); if (!s) return end(h);
  s->e.arg = (u32)number; s->e.arg2 = (u32)result; s->e.original = 0;
  o = blob_target(s, 0, other);
  o = blob_task(s, o, task);
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}
