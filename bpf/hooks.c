/* Names from the kernel's own hands: programs on its path hooks (security_path_*), where the kernel lets one attach.
 *
 * At the return of unlink the name is gone, and what the caller's memory says now is a claim. The hook has the objects that the
 * kernel is about to act upon. It keeps their names in a slot of the thread until the call returns. Hook programs may be
 * preempted: a slot belongs to one thread from the hook to the return, taken by compare and swap.
 */
#define SLOT_HALF (NAMES_MAX + 512)
struct hook_slot {
  u64 state, start, ino;      /* state: 0 free, else when it was taken */
  u32 tid, nr, dev, mode, flags, bytes, bytes2, type_bytes;
  u8 type[64], b[2 * SLOT_HALF];
};
BPF_ARRAY(hook_slots, struct hook_slot, NSLOTS);
#define STALE 10000000000ull  /* a thread that died in its call has left its slot behind */

static inline struct hook_slot *slot_of(u32 tid) { u32 i = tid & (NSLOTS - 1); return hook_slots.lookup(&i); }
static inline struct hook_slot *slot_take(u64 task, u32 tid, u16 nr) {
  u64 start, now = boot_ns(), old; struct hook_slot *p = slot_of(tid); if (!p) return 0;
  LD(start, task, OFF_task_struct__start_boottime);
  old = *(volatile u64 *)&p->state;
  if (old && !(p->tid == tid && p->start == start) && now - old < STALE) return 0;
  if (swap_if(&p->state, old, now) != old) return 0;
  p->tid = tid; p->start = start; p->nr = nr; p->bytes = p->bytes2 = p->type_bytes = 0; p->ino = 0; p->dev = p->mode = p->flags = 0;
  return p;
}
/* What a hook of the current call has left. */
static inline struct hook_slot *slot_here(u64 task, u32 tid, u16 nr) {
  u64 start; struct hook_slot *p = slot_of(tid); if (!p || !p->state) return 0;
  LD(start, task, OFF_task_struct__start_boottime);
  return p->tid == tid && p->start == start && p->nr == nr ? p : 0;
}

/* A hook's beginning: is the current call one whose record will ask for it? */
static inline struct hook_slot *hook_begin(u32 wanted) {
  u64 task = current_task(), spec; u32 tid, tgid, old = compat_call(task); u16 nr = current_nr(); struct config *c = configuration();
  LD4(tid, task, OFF_task_struct__pid); LD4(tgid, task, OFF_task_struct__tgid);
  if (!c || own(task, tgid, c) || nr > 511) return 0;
  spec = call_spec((nr & 511) | (old ? 512 : 0));
  if (spec & CALL_LEFT_OUT || (CALL_TYPE(spec) != wanted && !(spec & CALL_RMDIR && wanted == FILE_RMDIR))) return 0;
  return slot_take(task, tid, nr);
}
/* The object that is there already. */
static inline void hook_identity(struct hook_slot *p, u64 d) {
  u64 inode = 0, sb = 0, ino = 0; u32 dev = 0; u16 mode = 0;
  KL(inode, d, OFF_dentry__d_inode); if (!inode) return;
  KL(ino, inode, OFF_inode__i_ino); KL2(mode, inode, OFF_inode__i_mode); KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev);
  p->ino = ino; p->dev = dev; p->mode = mode;
}
#define FIRST(p, mnt, d) { u32 n_ = copy_names(mnt, d, (p)->b, &(p)->bytes); (p)->bytes = n_; }
#define SECOND(p, mnt, d) { u32 n_ = copy_names(mnt, d, (p)->b + SLOT_HALF, &(p)->bytes2); (p)->bytes2 = n_; }
#define MNT_OF(path) ({ u64 m_; LD(m_, path, OFF_path__mnt); m_; })
#define DENTRY_OF(path) ({ u64 d_; LD(d_, path, OFF_path__dentry); d_; })

static inline int one_name(u64 *ctx, u32 event) {
  struct hook_slot *p = hook_begin(event); if (!p) return 0;
  u64 dir, d; LD(dir, ctx, 0); LD(d, ctx, 8);
  hook_identity(p, d); FIRST(p, MNT_OF(dir), d)
  return 0;
}
int path_unlink(u64 *ctx) { return one_name(ctx, FILE_DELETE); }
int path_rmdir(u64 *ctx) { return one_name(ctx, FILE_RMDIR); }
int path_mkdir(u64 *ctx) { return one_name(ctx, FILE_MKDIR); }
static inline int one_path(u64 *ctx, u32 event) {
  struct hook_slot *p = hook_begin(event); if (!p) return 0;
  u64 path; LD(path, ctx, 0); u64 d = DENTRY_OF(path);
  hook_identity(p, d); FIRST(p, MNT_OF(path), d)
  return 0;
}
int path_chmod(u64 *ctx) { return one_path(ctx, FILE_MODE); }
int path_chown(u64 *ctx) { return one_path(ctx, FILE_OWNER); }
int path_truncate(u64 *ctx) { return one_path(ctx, FILE_TRUNCATE); }

static inline void hook_text(struct hook_slot *p, u64 text) {
  long n = read_kernel_text(p->b + SLOT_HALF, 4096, (void *)text);
  p->bytes2 = n > 0 ? n - 1 : 0;
}
int path_symlink(u64 *ctx) {
  struct hook_slot *p = hook_begin(FILE_SYMLINK); if (!p) return 0;
  u64 dir, d, text; LD(dir, ctx, 0); LD(d, ctx, 8); LD(text, ctx, 16);
  FIRST(p, MNT_OF(dir), d) hook_text(p, text);
  return 0;
}
int path_link(u64 *ctx) {
  struct hook_slot *p = hook_begin(FILE_LINK); if (!p) return 0;
  u64 old, dir, d, mnt; LD(old, ctx, 0); LD(dir, ctx, 8); LD(d, ctx, 16);
  mnt = MNT_OF(dir); hook_identity(p, old);
  FIRST(p, mnt, old) SECOND(p, mnt, d)                           /* a link never leaves its mount */
  return 0;
}
int path_rename(u64 *ctx) {
  struct hook_slot *p = hook_begin(FILE_RENAME); if (!p) return 0;
  u64 from, old, to, d; LD(from, ctx, 0); LD(old, ctx, 8); LD(to, ctx, 16); LD(d, ctx, 24);
  hook_identity(p, old);
  FIRST(p, MNT_OF(from), old) SECOND(p, MNT_OF(to), d)
  return 0;
}
int sb_mount(u64 *ctx) {
  struct hook_slot *p = hook_begin(FILE_MOUNT); if (!p) return 0;
  u64 source, path, type; LD(source, ctx, 0); LD(path, ctx, 8); LD(type, ctx, 16);
  FIRST(p, MNT_OF(path), DENTRY_OF(path))
  if (source) hook_text(p, source);
  if (type) { long n = read_kernel_text(p->type, 64, (void *)type); p->type_bytes = n > 0 ? n - 1 : 0; }
  return 0;
}
int sb_umount(u64 *ctx) {
  struct hook_slot *p = hook_begin(FILE_UMOUNT); if (!p) return 0;
  u64 mnt, mp, d = 0; LD(mnt, ctx, 0);
  mp = CAST(mnt - OFF_mount__mnt, ID_mount); KL(d, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root);
  FIRST(p, mnt, d)
  return 0;
}

/* Tail of `names`: the record of a call whose hook has been here. */
int hooked_names(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)), n; u32 o, mount = CALL_TYPE(spec) == FILE_MOUNT;
  struct hook_slot *p = slot_here(task, tid, nr); if (!p) return give_up(h, CLASS_FILE);
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf | KF_HOOKED); if (!s) return end(h);
  o = blob_task(s, 0, task);
  s->e.ino = p->ino; s->e.dev = p->dev; s->e.mode = p->mode;
  n = p->bytes; asm volatile("%0 &= 16383" : "+r"(n));
  if (!RD(blob_at(s, o), n, p->b)) o = blob_end(s, o, BLOB_PATH, n);
  n = p->bytes2; asm volatile("%0 &= 16383" : "+r"(n));
  if (n && !RD(blob_at(s, o), n, p->b + SLOT_HALF)) o = blob_end(s, o, CALL_DIR2(spec) == NOT_A_PATH ? BLOB_TEXT : BLOB_PATH2, n);
  n = p->type_bytes & 63;
  if (mount && n && !RD(blob_at(s, o), n, p->type)) o = blob_end(s, o, BLOB_TEXT2, n);
  *(volatile u64 *)&p->state = 0;
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}
