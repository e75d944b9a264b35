/* What a process belongs to: session and process group, terminal, who came in from where, who started it.
 *
 * Read at fork, exec and by the scan, so helper reads will do. Ancestors are those who *started* a process: the kernel's own chain
 * of parents loses whoever ends first, so each fork copies its parent's list. Where the table has none, the living parents stand in.
 */
#define ANCESTORS 32
struct lineage { struct ancestor up[ANCESTORS]; u64 start, n; };
BPF_TABLE("lru_hash", u32, struct lineage, lineage, NLINEAGE);

static inline u64 exe_file(u64 task);
static inline u8 *blob_at(struct scratch *s, u32 o);
static inline volatile u32 *blob_length(struct scratch *s, u32 o);
static inline u32 blob_end(struct scratch *s, u32 o, u16 kind, u32 n);
static inline u32 blob_file(struct scratch *s, u32 o, u16 kind, u64 f);

static inline u64 leader_start(u64 task) {
  u64 leader, start; LD(leader, task, OFF_task_struct__group_leader); LD(start, leader, OFF_task_struct__start_boottime);
  return start;
}
/* The parents that are alive, nearest first, to `out`; their number goes through map memory, so that the verifier's states merge. */
static inline u32 living(u64 task, u8 *out, volatile u32 *count) {
  u32 i, tgid; u64 p = task, up;
  *count = 0;
#pragma nounroll
  EACH(i, ANCESTORS, task) {
    LD(up, p, OFF_task_struct__real_parent); LD4(tgid, up, OFF_task_struct__tgid);
    if (!tgid) break;
    u32 o = *count & 511;
    *(u64 *)(out + o) = leader_start(up); *(u64 *)(out + o + 8) = tgid;
    *count = o + 16;
    p = up;
  }
  return *count >> 4 & 63;
}
/* Who started `task`, nearest first. */
static inline u32 blob_ancestors(struct scratch *s, u32 o, u64 task) {
  u32 tgid; u64 start = leader_start(task), n; LD4(tgid, task, OFF_task_struct__tgid);
  struct lineage *known = lineage.lookup(&tgid), *fresh = (void *)blob_at(s, o);
  if (known && known->start == start) { n = known->n; RD(fresh, sizeof(known->up), known); }
  else {
    n = living(task, (u8 *)fresh, blob_length(s, o));
    fresh->start = start; fresh->n = n;
    lineage.update(&tgid, fresh);
  }
  return blob_end(s, o, BLOB_ANCESTORS, (n & 63) * sizeof(struct ancestor));
}
/* The same of a child that `task` has just made: `task`, and who started `task`. */
static inline u32 blob_child_ancestors(struct scratch *s, u32 o, u64 task, u64 child) {
  u32 tgid, ctgid; u64 start = leader_start(task), n; LD4(tgid, task, OFF_task_struct__tgid); LD4(ctgid, child, OFF_task_struct__tgid);
  struct lineage *known = lineage.lookup(&tgid), *fresh = (void *)blob_at(s, o);
  if (known && known->start == start) { n = known->n; RD(&fresh->up[1], sizeof(known->up) - sizeof(known->up[0]), known); }
  else n = living(task, (u8 *)&fresh->up[1], blob_length(s, o));
  n = n < ANCESTORS ? n + 1 : ANCESTORS;
  fresh->up[0].start = start; fresh->up[0].tgid = tgid;
  fresh->start = leader_start(child); fresh->n = n;
  lineage.update(&ctgid, fresh);
  return blob_end(s, o, BLOB_ANCESTORS, (n & 63) * sizeof(struct ancestor));
}

/* The process that a struct pid is the number of, 0 once it was reaped: the number stays taken as long as anything refers to it. */
static inline u64 pid_start(u64 pid) {
  u64 first = 0, leader = 0, start = 0;
  RD(&first, 8, pid + OFF_pid__tasks + 8 * PIDTYPE_TGID); if (!first) return 0;
  RD(&start, 8, first - OFF_task_struct__pid_links - 16 * PIDTYPE_TGID + OFF_task_struct__start_boottime);
  return start;
}
/* The far end of the first TCP connection among the first 16 descriptors of `task`. */
static inline void first_peer(u64 task, struct context *e) {
  u32 fd;
#pragma nounroll
  EACH(fd, 16, task) {
    u64 f = fd_file(task, fd), inode = 0, sock = 0, sk = 0; u16 x = 0; if (!f) continue;
    KL(inode, f, OFF_file__f_inode); KL2(x, inode, OFF_inode__i_mode); if ((x & 0170000) != 0140000) continue;
    KL(sock, f, OFF_file__private_data); if (!sock) continue;
    RD(&sk, 8, sock + OFF_socket__sk); if (!sk) continue;
    RD(&x, 2, sk + OFF_sock__protocol); if (x != 6) continue;
    RD(&x, 2, sk + OFF_sock__dport); if (!x) continue;
    e->peer_port = x >> 8 | x << 8; RD(&x, 2, sk + OFF_sock__family); e->peer_family = x;
    if (x == 2) RD(e->peer, 4, sk + OFF_sock__daddr); else if (x == 10) RD(e->peer, 16, sk + OFF_sock__v6_daddr);
    return;
  }
}
static inline u32 blob_context(struct scratch *s, u32 o, u64 task) {
  struct context *e = (void *)blob_at(s, o); u64 signal, pid = 0, tty = 0, driver = 0, f; u32 x, y, index, tgid; s32 number;
  __builtin_memset(e, 0, sizeof *e);
  LD(signal, task, OFF_task_struct__signal); LD4(tgid, task, OFF_task_struct__tgid);
  RD(&pid, 8, signal + OFF_signal_struct__pids + 8 * PIDTYPE_SID);
  if (pid) { number = 0; RD(&number, 4, pid + OFF_pid__numbers); e->session = number; e->session_start = pid_start(pid); }
  pid = 0; RD(&pid, 8, signal + OFF_signal_struct__pids + 8 * PIDTYPE_PGID);
  if (pid) { number = 0; RD(&number, 4, pid + OFF_pid__numbers); e->group = number; e->group_start = pid_start(pid); }
  RD(&tty, 8, signal + OFF_signal_struct__tty);
  if (tty) {
    x = y = index = 0; RD(&driver, 8, tty + OFF_tty_struct__driver); RD(&index, 4, tty + OFF_tty_struct__index);
    RD(&x, 4, driver + OFF_tty_driver__major); RD(&y, 4, driver + OFF_tty_driver__minor_start);
    e->tty = x << 20 | ((y + index) & 0xfffff);
  }
  f = exe_file(task);
  if (f) {
    u64 inode = 0, sb = 0; KL(inode, f, OFF_file__f_inode); KL(sb, inode, OFF_inode__i_sb);
    KL(e->exe_ctime, inode, OFF_inode__ctime); x = 0; KL4(x, inode, OFF_inode__ctime_nsec); e->exe_ctime_nsec = x;
    KL(e->exe_size, inode, OFF_inode__i_size); KL(e->exe_magic, sb, OFF_super_block__s_magic);
    KL(e->exe_ino, inode, OFF_inode__i_ino); x = 0; KL4(x, sb, OFF_super_block__s_dev); e->exe_dev = x;
  }
  x = tgid == e->session;
  if (x) { u64 up; LD(up, task, OFF_task_struct__real_parent); first_peer(up, e); }
  o = blob_end(s, o, BLOB_CONTEXT, sizeof *e);
  if (x) { u64 up; LD(up, task, OFF_task_struct__real_parent); f = exe_file(up); if (f) o = blob_file(s, o, BLOB_PARENT_EXECUTABLE, f); }
  return o;
}
