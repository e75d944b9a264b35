/* What profile `standard` leaves out and the others mark (`ebpf.quiet`): objects that are root's alone, on file systems known for long, and old by a clock that can be trusted.
 *
 * Nobody but root can make an object quiet, and whatever could make its ctime lie makes it loud: a clock that was set (`suspect`), a
 * file system that was mounted since (`dev`), another name of the same inode, a descriptor that may write without a write.
 */
#define KNOWN_FILE_SYSTEMS 32
struct calm {
  u64 changes;                      /* successful mounts and unmounts so far; the reader has looked at ... */
  u64 seen;                         /* ... so many: between, nothing is quiet */
  u64 suspect_from, suspect_to;     /* seconds since 1970: a ctime in between may come from a clock that was set */
  u64 tai_offset;                   /* seconds that CLOCK_TAI is ahead */
  u32 dev[KNOWN_FILE_SYSTEMS];      /* file systems that are there for long */
};
BPF_F_TABLE("array", u32, struct calm, calm, 1, 1024);
static inline struct calm *calmness(void) { int z = 0; return calm.lookup(&z); }
static inline void unsettle(void) { struct calm *k = calmness(); if (k) __sync_fetch_and_add(&k->changes, 1); }

static inline u32 pseudo(u64 magic) {
  return magic == 0x9fa0 || magic == 0x62656572 || magic == 0x27e0eb || magic == 0x63677270 || magic == 0x64626720 || magic == 0x74726163 || magic == 0x73636673;
}
/* 1 quiet, 2 ask the judge. */
static inline int quiet(struct config *c, u64 ts, u64 f, u64 inode, int opened) {
  u64 sb = 0, magic = 0, ctime = 0; u16 mode = 0; u32 uid = 1, links = 0, dev = 0, fmode = 0, i; struct calm *k = calmness();
  if (opened) { KL4(fmode, f, OFF_file__f_mode); if (fmode & 2) return 0; }     /* FMODE_WRITE: it may be mapped and changed without a write */
  KL(sb, inode, OFF_inode__i_sb); KL(magic, sb, OFF_super_block__s_magic); if (pseudo(magic)) return 1;
  KL2(mode, inode, OFF_inode__i_mode); KL4(uid, inode, OFF_inode__i_uid); KL(ctime, inode, OFF_inode__ctime); KL4(links, inode, OFF_inode__i_nlink);
  u32 kind = mode & 0170000;
  if (!k || uid || mode & 022 || (kind != 0100000 && kind != 0040000) || (kind == 0100000 && links > 1)) return 0;
  if (ctime + c->quiet_age >= (ts + c->wall_offset) / 1000000000ull || (ctime >= k->suspect_from && ctime <= k->suspect_to)) return 0;
  if (*(volatile u64 *)&k->changes != *(volatile u64 *)&k->seen) return 0;
  KL4(dev, sb, OFF_super_block__s_dev);
#pragma nounroll
  for (i = 0; i < KNOWN_FILE_SYSTEMS; i++) {
    u32 known = k->dev[i];
    if (known == dev) return 2;
    if (!known) break;
  }
  return 0;
}
static inline struct verdict *verdict_of(u32 cpu, u64 key) { u32 i = (key >> 1 & (NVERDICT - 1)) + cpu * NVERDICT; return verdicts.lookup(&i); }

/* Tail: a call that may have set the clock. What was changed under either clock is suspect; so is what the jump has made old. */
int clock_set(u64 *ctx) {
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); struct calm *k = calmness();
  s64 ret; LD(ret, ctx, 8); if (!h || !c || !k || ret < 0) return 0;
  u64 before = (boot_ns() + c->wall_offset) / 1000000000ull, after = 0, from, to;
#if HAVE_TAI
  static u64 (*tai_ns)(void) = (void *)208;    /* bpf_ktime_get_tai_ns */
  after = tai_ns() / 1000000000ull - k->tai_offset;
  if (after + 2 >= before && before + 2 >= after) return 0;       /* an adjustment by a time service */
  from = (after < before ? after : before) - c->quiet_age - 2; to = (after > before ? after : before) + 2;
  if (k->suspect_to && k->suspect_from < from) from = k->suspect_from;
  if (k->suspect_to > to) to = k->suspect_to;
#else
  from = 0; to = ~0ull;
#endif
  k->suspect_from = from; k->suspect_to = to;
  return 0;
}
