/* file_map: memory that is a file's. What is executed from there is a program; what is stored there changes the file without a write.
 *
 * Of a shared map counts what its descriptor may do, not what is asked for: mprotect can allow the stores later. mprotect itself, and
 * another thread that puts a second file on the number before the call returns, are why the kernel's own area is asked for the file.
 */
#define AREA 6                 /* arguments[]: where the area begins; behind it where it ends */
#define BY_AREA 2
#define LOCKED(in) (in)->address[0]    /* another thread changes the areas: which file it is cannot be asked */
/* The file of the caller's area at this address, from the kernel's own tree, whose lock may only be tried for. */
static inline u64 area_file(u64 at, struct arguments *in) {
  u64 f = 0;
  in->a[AREA] = in->a[AREA + 1] = 0; LOCKED(in) = 0;
#if HAVE_TASK_VMA
  u32 i;
#pragma nounroll
  for (i = 0; i < 16; i++) {
    u64 it, vma, start, end; int error = vma_new(&it, typed_task(), at);
    vma = vma_next(&it);
    if (vma) {
      vma = CAST(vma, ID_vm_area_struct);            /* see current_task() */
      LD(start, vma, OFF_vm_area_struct__vm_start); LD(end, vma, OFF_vm_area_struct__vm_end);
      if (start <= at) { LD(f, vma, OFF_vm_area_struct__vm_file); in->a[AREA] = start; in->a[AREA + 1] = end; }
    }
    vma_destroy(&it);
    LOCKED(in) = error == -16;                       /* EBUSY */
    if (error != -16) break;
  }
#endif
  return f;
}
static inline u64 mapped_at(struct arguments *in, u32 call, s64 ret) { return call & CALL_OPTION ? in->a[0] : ret; }

/* Tail: mmap of a file, or mprotect that lets memory be executed: is it worth an event? */
int map_file(u64 *ctx) {
  ENTER_CALL
  u64 f = 0, area = 0, inode = 0, sb = 0, magic = 0, key; u32 fm = 0, old = compat && nr == NR_OLD_MMAP; int q = 0, source = 0; struct leaf l;
  if (old) {
    u32 v[6] = {}; u64 p = in->a[0]; read_user(v, sizeof v, (void *)p);
    in->a[0] = v[0]; in->a[1] = v[1]; in->a[2] = v[2]; in->a[3] = v[3]; in->a[4] = v[4]; in->a[5] = v[5];
    if (v[3] & MMAP_ANONYMOUS) return end(h);
  }
  if (!(call & CALL_OPTION)) f = fd_file(task, (u32)in->a[4]);
  if (call & CALL_OPTION || ret >= 0) area = area_file(mapped_at(in, call, ret), in); else in->a[AREA] = in->a[AREA + 1] = LOCKED(in) = 0;
  if (f) { KL(inode, f, OFF_file__f_inode); KL(sb, inode, OFF_inode__i_sb); KL(magic, sb, OFF_super_block__s_magic); }
  /* an overlayfs puts its layer's file into the area: its own has the name that was used */
  if (area && magic != 0x794c7630) { f = area; source = BY_AREA; }
  f = CAST(f, ID_file);
  KL(inode, f, OFF_file__f_inode); KL4(fm, f, OFF_file__f_mode);
  if (!(protection(task, in->a[2]) & MMAP_EXEC) && !(fm & 2)) return end(h);     /* FMODE_WRITE */
  if (!f && (call & CALL_OPTION || ret >= 0) && !LOCKED(in)) return end(h);
  if (call & CALL_LEFT_OUT) { h->suppressed_profile++; return end(h); }
  if (f && ret >= 0 && !old && !(call & CALL_OPTION)) {
    q = quiet(c, ts, f, inode, 1);
    if (q == 2) {
      key = file_key(f, c->seed, &l);
      struct verdict *v = verdict_of(cpu, key); if (!v) return end(h);
      if (v->key == (key ^ c->salt)) q = v->mask & 1;
      else if (h->asked != ts) { h->asked = ts; go(ctx, TAIL_JUDGE); return give_up(h, CLASS_FILE); }
      else q = 0;                                                               /* the descriptor is another file's by now */
    }
    if (q && c->standard) { h->suppressed_quiet++; return end(h); }
  }
  in->bytes = source | (q & 1);
  go(ctx, TAIL_MAP_RECORD);
  return give_up(h, CLASS_FILE);
}

/* Tail: its record. */
int map_record(u64 *ctx) {
  ENTER_CALL
  u64 f, inode = 0, sb = 0, start = in->a[AREA], last = in->a[AREA + 1]; u32 o, x = 0;
  struct scratch *s = record_begin(task, ts, cpu, FILE_MAP, ret, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (in->bytes & 1) s->e.kf |= KF_QUIET;
  s->e.arg = protection(task, in->a[2]);
  if (!(call & CALL_OPTION)) { s->e.arg2 = in->a[3]; s->e.fd = in->a[4]; }
  struct mapping *m = (struct mapping *)blob_at(s, o);
  m->start = start; m->end = last; m->length = in->a[1]; m->pad = 0;
  m->offset = call & CALL_OPTION ? 0 : compat && nr != NR_OLD_MMAP ? in->a[5] << 12 : in->a[5];
  f = in->bytes & BY_AREA ? area_file(mapped_at(in, call, ret), in) : 0;
  if (LOCKED(in)) s->e.kf |= KF_CLAIMED;
  if ((LOCKED(in) || !(in->bytes & BY_AREA)) && !(call & CALL_OPTION)) f = fd_file(task, (u32)in->a[4]);
  if (f) {
    f = CAST(f, ID_file);
    KL(inode, f, OFF_file__f_inode); KL(sb, inode, OFF_inode__i_sb);
    KL(m->ctime, inode, OFF_inode__ctime); KL4(x, inode, OFF_inode__ctime_nsec); m->ctime_nsec = x;
    KL(m->bytes, inode, OFF_inode__i_size); KL(m->magic, sb, OFF_super_block__s_magic);
    o = blob_end(s, o, BLOB_MAPPING, sizeof *m);
    identify(s, f); o = blob_file(s, o, BLOB_PATH, f);
  }
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}
