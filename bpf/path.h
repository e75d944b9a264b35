/* From a descriptor to its file; the 64-bit key of an object's true path; the copy of its names.
 *
 * The key is taken over the name hashes of every level up to the root of the mount namespace, mounts crossed, and the leaf's
 * dentry, inode number, generation and mode: any rename, move, mount or reuse of memory changes it, so nothing is ever
 * invalidated. What it costs and how it was checked: docs/decisions.md.
 */
struct leaf { u64 ino, longer; u32 generation, mode, flags; };

static inline u64 fd_file(u64 task, u64 fd) {
  u64 files, fdt, array, f = 0; u32 max;
  LD(files, CAST(task, ID_task_struct), OFF_task_struct__files);
  if (!files) return 0;
  LD(fdt, files, OFF_files_struct__fdt);
  LD4(max, fdt, OFF_fdtable__max_fds);
  if (fd >= max) return 0;
  LD(array, fdt, OFF_fdtable__fd);
#if CASTS  /* the entry's address minus the offset of fd_array is called a files_struct: its fd_array[0] is the entry */
  u64 p = rdonly_cast(array + 8 * fd - OFF_files_struct__fd_array, ID_files_struct);
  LD(f, p, OFF_files_struct__fd_array);
#else
  RD(&f, 8, array + 8 * fd);
#endif
  return f;
}

static inline u64 path_key(u64 mnt, u64 d, u64 inode, u64 seed, struct leaf *o) {
  u64 key = PHI ^ seed, mp, root = 0, h = 0, parent = 0, up = 0, hashed = 0, ino = 0, ns = 0; u32 low, generation = 0, i; u16 mode = 0;
  o->flags = 0; o->longer = 0;
  KL(ino, inode, OFF_inode__i_ino); KL4(generation, inode, OFF_inode__i_generation); KL2(mode, inode, OFF_inode__i_mode);
  o->ino = ino; o->generation = generation; o->mode = mode;
  LOW(low, d); MIX(key, ino); MIX(key, (u64)generation << 32 | low); MIX(key, mode);
  mp = CAST(mnt - OFF_mount__mnt, ID_mount);
  KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root); LOW(low, mp); MIX(key, low);
  KL(hashed, d, OFF_dentry__d_hash__pprev); KL(parent, d, OFF_dentry__d_parent);
  if (!hashed && parent != d) { o->flags = FILE_DELETED; MIX(key, 1); }
#pragma nounroll
  EACH(i, LEVELS, d) {
    if (d == root) {
      KL(up, mp, OFF_mount__mnt_parent);
      if (up == mp) { KL(ns, mp, OFF_mount__mnt_ns); if (!ns) o->flags |= FILE_DETACHED; return key; }
      KL(d, mp, OFF_mount__mnt_mountpoint); mp = up;
      KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root); LOW(low, mp); MIX(key, low);
      continue;
    }
    KL(h, d, OFF_dentry__d_name__hash_len); KL(parent, d, OFF_dentry__d_parent);
    MIX(key, h);
    o->longer |= h >> 40;                                           /* a name over 255 bytes; no branch: it would double the verifier's states */
    if (parent == d) { o->flags |= FILE_NO_PATH; return key; }
    d = parent;
  }
  o->flags |= FILE_TOO_DEEP;
  return key;
}

/* FILE_CUT: copy_names takes 255 bytes of a name; no file system of Linux's own has longer ones. */
static inline u32 leaf_flags(struct leaf *l) { return l->longer ? l->flags | FILE_CUT : l->flags; }

static inline u64 file_key(u64 f, u64 seed, struct leaf *o) {
  u64 d = 0, mnt = 0, inode = 0;
  KL(d, f, OFF_file__f_path__dentry); KL(mnt, f, OFF_file__f_path__mnt); KL(inode, f, OFF_file__f_inode);
  return path_key(mnt, d, inode, seed, o);
}

/* Copies the names, leaf first, each with its NUL, to `out`, which has room for NAMES_MAX bytes. Returns the bytes.
 * An empty name behind the last one says that it hangs nowhere, as a memfd's does (FILE_NO_PATH).
 * The length so far lives in *count, in map memory: the verifier forgets it there, so that states merge. */
static inline u32 copy_names(u64 mnt, u64 d, u8 *out, volatile u32 *count) {
  u64 mp, root = 0, parent = 0, up = 0, name = 0; u32 i;
  *count = 0;
  mp = CAST(mnt - OFF_mount__mnt, ID_mount);
  KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root);
#pragma nounroll
  EACH(i, LEVELS, d) {
    if (d == root) {
      KL(up, mp, OFF_mount__mnt_parent); if (up == mp) break;
      KL(d, mp, OFF_mount__mnt_mountpoint); mp = up; KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root);
      continue;
    }
    KL(name, d, OFF_dentry__d_name__name); KL(parent, d, OFF_dentry__d_parent);
    u32 o = *count;
    long n = read_kernel_text(out + (o & (NAMES_MAX - 1)), 256, (void *)name);
    *count = o + (n & ~(n >> 63));
    if (parent == d) { o = *count; out[o & (NAMES_MAX - 1)] = 0; *count = o + 1; break; }
    d = parent;
  }
  return *count & (NAMES_MAX - 1);
}
