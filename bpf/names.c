/* Acts on files that are rare: by name (unlink, rename, link, mkdir, chmod, mount ...), or on an open file (fchmod, memfd ...).
 * Which argument is what stands in the table of calls (monitor/kernel/probes.py): no act has code of its own that is not about
 * what it alone has.
 */
static inline u64 argument(struct arguments *in, u32 which) { return which ? in->a[(which - 1) & 7] : 0; }
/* The record of a call with its two values. */
static inline struct scratch *act_begin(u64 task, u64 ts, u32 cpu, u64 spec, struct arguments *in, s64 ret, u16 nr, u16 kf) {
  u64 value = argument(in, CALL_VALUE(spec)), value2 = argument(in, CALL_VALUE2(spec));
  u16 type = CALL_TYPE(spec);
  if (spec & CALL_RMDIR && value & 0x200) type = FILE_RMDIR;    /* AT_REMOVEDIR */
  struct scratch *s = record_begin(task, ts, cpu, type, ret, nr, kf, -1);
  if (s) { s->e.arg = value; s->e.arg2 = value2; }
  return s;
}
/* A caller's name, and the directory it starts from when it is relative. */
static inline u32 blob_named(struct scratch *s, u32 o, u64 task, u64 name, int dirfd, u16 kind, u16 base) {
  u8 first = 0;
  o = blob_user_string(s, o, kind, name);
  if (!read_user(&first, 1, (void *)name) && first != '/') o = blob_base(s, o, base, task, dirfd);
  return o;
}
static inline void identify(struct scratch *s, u64 f) {
  u64 inode = 0, sb = 0, ino = 0; u32 dev = 0; u16 mode = 0; struct leaf l;
  KL(inode, f, OFF_file__f_inode); KL(ino, inode, OFF_inode__i_ino); KL2(mode, inode, OFF_inode__i_mode);
  KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev); file_key(f, 0, &l);
  s->e.ino = ino; s->e.dev = dev; s->e.mode = mode; s->e.flags = leaf_flags(&l);
}

/* Of mount the type, which the caller gives; of move_mount, which puts what a descriptor holds at its place, the mount itself. */
static inline u32 blob_mount(struct scratch *s, u32 o, u64 task, struct arguments *in, s64 ret, u32 dir) {
  u64 f, mnt = 0, sb = 0, type = 0, text = 0, mp; u8 first = 1; long n;
  if (dir == NOT_A_PATH) return blob_user_string(s, o, BLOB_TEXT2, in->a[2]);
  if (ret < 0 || !dir || read_user(&first, 1, (void *)in->a[1]) || first) return o;
  f = fd_file(task, (u32)in->a[0]); if (!f) return o;
  s->e.kf &= ~KF_CLAIMED;
  identify(s, f); o = blob_file(s, o, BLOB_PATH, f);
  KL(mnt, f, OFF_file__f_path__mnt); mp = CAST(mnt - OFF_mount__mnt, ID_mount);
  KL(text, mp, OFF_mount__mnt_devname);
  KL(sb, mp, OFF_mount__mnt + OFF_vfsmount__mnt_sb); KL(type, sb, OFF_super_block__s_type); KL(type, type, OFF_file_system_type__name);
  n = read_kernel_text(blob_at(s, o), 4096, (void *)text); if (n > 0) o = blob_end(s, o, BLOB_TEXT, (n - 1) & 4095);
  n = read_kernel_text(blob_at(s, o), 128, (void *)type); if (n > 0) o = blob_end(s, o, BLOB_TEXT2, (n - 1) & 127);
  return o;
}

#if NSLOTS > 1
struct hook_slot;
static inline struct hook_slot *slot_here(u64 task, u32 tid, u16 nr);   /* bpf/hooks.c */
#endif
/* Tail: an act by one or two names of the caller's, where no hook has seen it. */
int names(u64 *ctx) {
  ENTER_CALL
#if NSLOTS > 1
  if (slot_here(task, tid, nr)) { go(ctx, TAIL_HOOKED_NAMES); return give_up(h, CLASS_FILE); }
#endif
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)); u32 o;
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf | KF_CLAIMED); if (!s) return end(h);
  o = blob_task(s, 0, task);
  o = blob_named(s, o, task, argument(in, CALL_NAME(spec)), CALL_DIR(spec) ? (int)argument(in, CALL_DIR(spec)) : -100, BLOB_NAME, BLOB_BASE);
  if (CALL_NAME2(spec)) {
    u64 user = argument(in, CALL_NAME2(spec)); u32 dir = CALL_DIR2(spec);
    if (dir == NOT_A_PATH) o = blob_user_string(s, o, BLOB_TEXT, user);
    else o = blob_named(s, o, task, user, dir ? (int)argument(in, dir) : -100, BLOB_NAME2, BLOB_BASE2);
  }
  if (ret >= 0 && (CALL_TYPE(spec) == FILE_MOUNT || CALL_TYPE(spec) == FILE_UMOUNT)) unsettle();
  if (CALL_TYPE(spec) == FILE_MOUNT) o = blob_mount(s, o, task, in, ret, CALL_DIR2(spec));
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}

/* Tail: an act on an open file: the descriptor's, or of a call that makes one, the one it returned. */
int object(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)), f; u32 o; s64 fd = -1;
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (CALL_DIR(spec) != RETURNED) fd = (u32)argument(in, CALL_DIR(spec)); else if (ret >= 0) fd = ret;
  f = fd >= 0 ? fd_file(task, (u32)fd) : 0;
  s->e.fd = fd;
  if (f) { identify(s, f); o = blob_file(s, o, BLOB_PATH, f); }
  if (CALL_NAME2(spec)) o = blob_user_string(s, o, BLOB_TEXT, argument(in, CALL_NAME2(spec)));
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}
