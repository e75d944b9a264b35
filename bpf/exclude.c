/* Own rules: opens, reads and writes of files that the configuration leaves out, each counted by the rule that did it.
 *
 * A rule looks only at what the kernel itself knows: the file that the process runs, its cgroup, its effective user; the inode behind
 * the descriptor, its file system, and the directories above it there. It is asked about acts that succeeded, before anything
 * is said of them. The close of an open file of which nothing was told goes with it.
 */
#define UNLESS(bit, differs) (-(s >> (bit) & 1) & (differs))

/* Bit n: the task is in the cgroup of rule n, or below it. */
static inline u64 groups(struct config *c, u64 task) {
  u64 set = 0, group = 0, node = 0, up = 0, id = 0, found = 0; u32 i, j;
  LD(set, task, OFF_task_struct__cgroups); KL(group, set, OFF_css_set__dfl_cgrp); KL(node, group, OFF_cgroup__kn);
#pragma nounroll
  EACH(i, CGROUP_LEVELS, node) {
    KL(id, node, OFF_kernfs_node__id); KL(up, node, OFF_kernfs_node__parent);
#pragma unroll
    for (j = 0; j < EXCLUSIONS; j++) found |= none(c->exclusion[j].cgroup ^ id) << j;
    if (!up) break;
    node = up;
  }
  return found;
}

/* Tail: does a rule leave this act out? If so it ends here; else the caller starts again and is not sent here any more. */
int exclude(u64 *ctx) {
  ENTER_CALL
  u64 x, f, exe, key, inode = 0, ino = 0, sb = 0, magic = 0, exe_inode = 0, exe_ino = 0, cred, hits = 0, s, miss; struct leaf l;
  u32 i, low, dev = 0, exe_dev = 0, euid = 0, fm = 0, links = 0; u16 mode = 0;
  if (op == OP_OPEN) x = ret; else CALL_FD(x)
  f = fd_file(task, (u32)x);
  exe = exe_file(task); LD(cred, task, OFF_task_struct__cred);
  if (!f || !exe || !cred) { h->asked = ts + h->phase; go(ctx, TAIL_SELF); return give_up(h, CLASS_FILE); }
  key = file_key(f, c->seed, &l);
  struct verdict *v = verdict_of(cpu, key); if (!v) return end(h);
  if (v->key != (key ^ c->salt)) { go(ctx, TAIL_JUDGE); return give_up(h, CLASS_FILE); }
  h->asked = ts + h->phase;
  u32 holding = *(volatile u32 *)&c->exclusions, turn = *(volatile u32 *)&c->turn;
  LOW(low, f); KL4(fm, f, OFF_file__f_mode); KL(inode, f, OFF_file__f_inode); KL(ino, inode, OFF_inode__i_ino); KL(sb, inode, OFF_inode__i_sb);
  KL(magic, sb, OFF_super_block__s_magic); KL4(dev, sb, OFF_super_block__s_dev); KL2(mode, inode, OFF_inode__i_mode); KL4(links, inode, OFF_inode__i_nlink);
  KL(exe_inode, exe, OFF_file__f_inode); KL(exe_ino, exe_inode, OFF_inode__i_ino); KL(sb, exe_inode, OFF_inode__i_sb); KL4(exe_dev, sb, OFF_super_block__s_dev);
  LD4(euid, cred, OFF_cred__euid);
  if (call & CALL_VMSPLICE && fm & 2) op = OP_WRITE;
  u64 mask = v->mask, group = groups(c, task), writer = fm >> 1 & 1, act = op == OP_OPEN ? 1 | writer << 2 : op == OP_READ ? 2 : 4;
  /* a file with a second name may be a sensitive one under another */
  u64 plain = mask & ((mode & 0170000) != 0100000 || links < 2);
#pragma nounroll
  for (i = 0; i < EXCLUSIONS; i++) {
    struct exclusion *r = &c->exclusion[i & (EXCLUSIONS - 1)];
    s = r->selects;
    miss = UNLESS(BY_EXECUTABLE, (exe_ino ^ r->exe_ino) | (exe_dev ^ r->exe_dev));
    miss |= UNLESS(BY_DIRECTORY, ~mask >> (1 + i) & 1);
    miss |= UNLESS(BY_FILE_SYSTEM, magic ^ r->magic);
    miss |= UNLESS(BY_CGROUP, ~group >> i & 1);
    miss |= UNLESS(BY_DEVICE, dev ^ r->dev);
    miss |= UNLESS(BY_USER, euid ^ r->uid);
    miss |= UNLESS(ONLY_READERS, writer);
    miss |= UNLESS(ONLY_WRITERS, writer ^ 1);
    miss |= (~s >> EVEN_SENSITIVE & 1) & (plain ^ 1);
    hits |= (none(miss) & none((r->events & act) ^ act)) << i;
  }
  barrier();
  if (*(volatile u32 *)&c->exclusions != holding || *(volatile u32 *)&c->turn != turn) hits = 0;   /* they were written meanwhile */
  hits &= (1 << holding) - 1;
  if (op == OP_OPEN && fm & 0x100000) hits = 0;      /* FMODE_CREATED: it made the file */
  if (!hits) { go(ctx, TAIL_SELF); return give_up(h, CLASS_FILE); }
  u32 first = 0, lower = (hits & -hits) - 1;
#pragma unroll
  for (i = 0; i < EXCLUSIONS; i++) first += lower >> i & 1;
  u64 tag = session_tag(tgid, exec_id, (u32)x); u32 slot = session_index(tag); struct session *session = sessions.lookup(&slot); if (!session) return end(h);
  int same = session->tag == tag && session->file == low && session->ino == ino && op != OP_OPEN;
  u32 flags = S_LEFT_OUT | (first + 1) << 8;
  if (same && session->generation) {          /* it was told of: its totals are whole */
    if (op == OP_READ) { __sync_fetch_and_add(&session->read_bytes, ret); __sync_fetch_and_add(&session->read_count, 1); }
    else { __sync_fetch_and_add(&session->write_bytes, ret); __sync_fetch_and_add(&session->write_count, 1); }
  } else if (same) session->flags = flags;
  else if (!session_begin(h, cpu, ts, session, slot, tag, low, ino, key, flags, op == OP_OPEN)) {
    h->asked = 0; go(ctx, TAIL_SELF); return give_up(h, CLASS_FILE);
  }
  h->excluded[first & (EXCLUSIONS - 1)]++;
  return done(ctx, h, ret);
}
