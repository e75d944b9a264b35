/* The sys_exit program: opens, reads, writes and closes here; what is rarer behind tail calls. */

static inline u32 compat_call(u64 task) {
  u32 status; LD4(status, task, OFF_task_struct__thread_info__status);
  return status & STATUS_COMPAT;
}
static inline u64 call_spec(u32 index) { u64 *c = calls.lookup(&index); return c ? *c : 0; }
static inline u32 call_bits(u32 index) { return call_spec(index); }
/* 32-bit programs may make every socket call through this one, with the real arguments in their own memory. */
#define NR_SOCKETCALL 102
#define SOCKETCALL 4
/* What calls[] says of it: the bits of the 32-bit call that does the same. */
static inline u32 socketcall_bits(u64 regs) {
  u64 which; LD(which, regs, OFF_pt_regs__bx);
  u32 as = which == 2 ? 361 : which == 3 ? 362 : which == 4 ? 363 : which == 5 || which == 18 ? 364 : which == 9 ? 4 : which == 10 ? 3 :
           which == 11 ? 369 : which == 12 ? 371 : which == 16 ? 370 : which == 17 ? 372 : which == 19 ? 337 : which == 20 ? 345 : 0;
  return as ? call_bits(512 + as) : 0;
}
/* The call's arguments, of whichever entry point, read once. They live in map memory: the verifier forgets there which way
 * they came. */
static inline struct arguments *take_arguments(u32 cpu, u64 ts, u64 regs, u32 compat) {
  struct arguments *in = arguments.lookup(&cpu); if (!in || in->ts == ts) return in;
  in->ts = ts;
  if (compat & SOCKETCALL) {
    u64 p; u32 v[6] = {}; LD(p, regs, OFF_pt_regs__cx); read_user(v, sizeof v, (void *)p);
    in->a[0] = v[0]; in->a[1] = v[1]; in->a[2] = v[2]; in->a[3] = v[3]; in->a[4] = v[4]; in->a[5] = v[5];
  } else if (compat) {
    /* a 64-bit program may leave anything in the upper halves: the call does not look at them */
    LD4(in->a[0], regs, OFF_pt_regs__bx); LD4(in->a[1], regs, OFF_pt_regs__cx); LD4(in->a[2], regs, OFF_pt_regs__dx);
    LD4(in->a[3], regs, OFF_pt_regs__si); LD4(in->a[4], regs, OFF_pt_regs__di); LD4(in->a[5], regs, OFF_pt_regs__bp);
  } else {
    LD(in->a[0], regs, OFF_pt_regs__di); LD(in->a[1], regs, OFF_pt_regs__si); LD(in->a[2], regs, OFF_pt_regs__dx);
    LD(in->a[3], regs, OFF_pt_regs__r10); LD(in->a[4], regs, OFF_pt_regs__r8); LD(in->a[5], regs, OFF_pt_regs__r9);
  }
  return in;
}
/* What a tail program begins with: it finds everything anew. */
#define ENTER_CALL \
  u64 regs, nr, task = current_task(); s64 ret; LD(regs, ctx, 0); LD(ret, ctx, 8); LD(nr, regs, OFF_pt_regs__orig_ax); \
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); if (!h || !c) return 0; \
  u32 compat = compat_call(task), call = call_bits((nr & 511) | (compat ? 512 : 0)); \
  if (compat && nr == NR_SOCKETCALL) { compat |= SOCKETCALL; call = socketcall_bits(regs); } \
  u64 ts = begin(h); struct arguments *in = take_arguments(cpu, ts, regs, compat); if (!in) return end(h); \
  in->compat = compat; in->call = call; barrier(); compat = *(volatile u32 *)&in->compat; call = *(volatile u32 *)&in->call; \
  u32 op = h->phase == 2 ? OP_WRITE : call & CALL_OP; u16 kf = compat ? KF_COMPAT : 0; \
  u32 tgid, tid, exec_id; LD4(tgid, task, OFF_task_struct__tgid); LD4(tid, task, OFF_task_struct__pid); LD4(exec_id, task, OFF_task_struct__self_exec_id);
#define ARG0(d) { d = in->a[0]; }
#define ARG1(d) { d = in->a[1]; }
#define ARG2(d) { d = in->a[2]; }
#define ARG3(d) { d = in->a[3]; }
#define ARG4(d) { d = in->a[4]; }
#define ARG5(d) { d = in->a[5]; }

/* The same in the main program, straight from the registers. */
#define REGISTER(d, native, old) { if (compat) LD4(d, regs, OFF_pt_regs__##old); else LD(d, regs, OFF_pt_regs__##native); }
#define REGISTER0(d) REGISTER(d, di, bx)
#define REGISTER1(d) REGISTER(d, si, cx)
#define REGISTER2(d) REGISTER(d, dx, dx)

/* Which argument is the descriptor of a read, write, send or receive; of a call with two, the one whose turn it is. */
static inline u32 descriptor_at(struct account *h, u32 call) {
  return (call & CALL_OP) == OP_MAP ? 4 : !(call & CALL_PAIR) ? 0 : h->phase == 2 ? CALL_TO(call) : CALL_FROM(call);
}
#define CALL_FD(d) { d = (u32)in->a[descriptor_at(h, call) & 7]; }
/* This event is done. Of a call with two descriptors the destination follows, if anything came there. */
static inline int done(u64 *ctx, struct account *h, s64 ret) {
  if (h->phase == 1 && ret) { h->phase = 2; go(ctx, TAIL_SELF); h->phase = 0; return give_up(h, CLASS_FILE); }
  return end(h);
}

/* KF_WIDE for a return value that needs more than 32 bits. Without a branch: each one doubles what the verifier walks behind it. */
static inline u16 wide(s64 ret) { u64 high = ret - (s32)ret; return (high | -high) >> 63 << 14; }
/* One bulk event: 40 bytes where the session says what it is about, else 56 with the object's key and more. */
static inline void put_event(struct account *h, u32 cpu, u64 ts, u32 tid, u16 type, u64 key, s64 ret, u16 nr, u16 kf, s32 fd, u32 slot,
                             struct session *s, u64 extra, u32 class) {
  u64 seq = h->seq; h->seq = seq + 1;
  struct file_open_event *e = (void *)room(h, cpu, sizeof(*e), 0);
  if (!e || h->undefinable) { h->refused_ring[class]++; if (s && kf & KF_BEGIN) s->generation = 0; return; }
  kf |= wide(ret); extra |= ret - (s32)ret;
  u32 units = sizeof(struct bulk_event) / 8 + 2 * ((kf / KF_BEGIN | kf / KF_UNNAMED | kf / KF_WIDE) & 1);
  e->type = type; e->units = units; e->tid = tid; e->ts = ts; e->seq = seq; e->key = key; e->ret = ret; e->nr = nr; e->kf = kf; e->fd = fd;
  e->session = s ? slot : ~0u; e->generation = s ? s->generation : 0; e->oflags = extra;
  push(h, units);
}
/* A session begins in this slot: the old one's totals go out first. 0: another CPU is just at it. */
static inline int session_begin(struct account *h, u32 cpu, u64 ts, struct session *s, u32 slot, u64 tag, u32 low, u64 ino, u64 key, u32 flags, int opened) {
  u64 old = *(volatile u64 *)&s->tag;
  if (old == tag && !opened && s->file == low && s->ino == ino && s->generation) return 0;    /* another CPU has begun it meanwhile */
  if (old == TAKEN || swap_if(&s->tag, old, TAKEN) != old) return 0;
  if (old && !(s->flags & S_LEFT_OUT && !s->generation)) put_close(h, cpu, ts, 0, s, old, slot, 0, 0xffff, 0, WHY_EVICT, 0);
  s->file = low; s->ino = ino; s->key = key; s->flags = flags; s->generation = flags & S_LEFT_OUT ? 0 : GENERATION(h, cpu);
  s->read_bytes = s->write_bytes = s->read_count = s->write_count = 0; s->read_error = s->write_error = 0; s->peer = 0;
  barrier();
  *(volatile u64 *)&s->tag = tag;
  return 1;
}
/* Adds one transfer. 1: it only counts; 0: it is an event of its own. */
static inline int count_transfer(struct account *h, struct config *c, struct session *s, int reading, s64 ret) {
  u32 bit = reading ? S_READ : S_WRITE, level = pressure(h), fold = c->fold || level;
  if (ret < 0) {
    u16 error = -ret, last = reading ? s->read_error : s->write_error;
    if (reading) s->read_error = error; else s->write_error = error;
    if (fold && last == error) { __sync_fetch_and_add(&h->folded, 1); return 1; }
    return 0;
  }
  if (reading) { __sync_fetch_and_add(&s->read_bytes, ret); __sync_fetch_and_add(&s->read_count, 1); }
  else { __sync_fetch_and_add(&s->write_bytes, ret); __sync_fetch_and_add(&s->write_count, 1); }
  if (fold && (s->flags & bit || (level > 1 && s->flags & (S_READ | S_WRITE)))) { h->folded++; return 1; }
  s->flags |= bit;
  return 0;
}
/* A descriptor was closed, or dup2 put another file on it. At the return of the call the file is gone, the session knows it. */
static inline int closed(struct account *h, u32 cpu, u64 ts, u64 task, u32 tid, u64 tag, u32 fd, s64 ret, u16 nr, u16 kf, u32 op) {
  u32 slot = session_index(tag), low; struct session *s = sessions.lookup(&slot); u64 f, inode = 0, ino = 0; int ours = 0;
  if (s && s->tag == tag && ret != -9) {   /* but for EBADF, the descriptor is gone whatever close says */
    ours = 1; f = fd_file(task, fd);
    if (f) {                  /* another thread may have opened this number again already: then the session is its, not ours */
      LOW(low, f); KL(inode, f, OFF_file__f_inode); KL(ino, inode, OFF_inode__i_ino);
      if (s->file == low && s->ino == ino) ours = 0;
    }
  }
  if (ours && s->flags & S_LEFT_OUT && !s->generation) { count_left_out(h, s->flags); s->tag = 0; return end(h); }
  if (ours) {
    put_close(h, cpu, ts, tid, s, tag, slot, ret, nr, kf, op == OP_DUP2 ? WHY_DUP : WHY_CLOSE, 0);
    s->tag = 0;
  } else if (op == OP_CLOSE) {
    u64 seq = h->seq; h->seq = seq + 1;
    struct file_close_event *e = (void *)room(h, cpu, sizeof(*e), 0); if (!e || h->undefinable) { h->refused_ring[CLASS_FILE]++; return end(h); }
    e->type = FILE_CLOSE; e->units = sizeof(*e) / 8; e->tid = tid; e->ts = ts; e->seq = seq; e->ret = ret; e->nr = nr; e->kf = kf | KF_UNNAMED;
    e->fd = fd; e->session = ~0u; e->generation = 0; e->read_count = e->read_bytes = e->write_count = e->write_bytes = 0; e->reason = WHY_CLOSE;
    push(h, sizeof(*e) / 8);
  }
  return end(h);
}

#define MMAP_EXEC 4          /* PROT_EXEC */
#define MMAP_SHARED 1        /* a bit of MAP_SHARED and of MAP_SHARED_VALIDATE, of no other type */
#define MMAP_ANONYMOUS 0x20
#define NR_OLD_MMAP 90       /* of the 32-bit table: the arguments are in the caller's memory */

/* READ_IMPLIES_EXEC: what can be read can be executed, whatever is asked for. */
static inline u64 protection(u64 task, u64 prot) {
  u32 personality; LD4(personality, task, OFF_task_struct__personality);
  return prot & 1 && personality & 0x400000 ? prot | MMAP_EXEC : prot;
}
/* Most maps are memory of the process alone: they never come further than here. */
static inline int maps_a_file(u64 task, u64 regs, u64 nr, u32 compat, u32 call) {
  u64 prot, flags; REGISTER2(prot)
  if (call & CALL_OPTION) return HAVE_TASK_VMA && prot & MMAP_EXEC;
  if (compat && nr == NR_OLD_MMAP) return 1;
  REGISTER(flags, r10, si)
  return !(flags & MMAP_ANONYMOUS) && (flags & MMAP_SHARED || protection(task, prot) & MMAP_EXEC);
}

int sys_exit(u64 *ctx) {
  u64 regs, nr, task; s64 ret; LD(regs, ctx, 0); LD(nr, regs, OFF_pt_regs__orig_ax);
  if (nr > 511) return 0;                                          /* no such call; x32 has its numbers there */
  u32 call = call_bits(nr); if (!call) return 0;
  task = typed_task();   /* its members are plain loads; through a cast pointer each is a checked one */
  u32 compat = compat_call(task);
  if (compat) call = nr == NR_SOCKETCALL ? socketcall_bits(regs) : call_bits(512 | (nr & 511));
  if (compat && nr == NR_SOCKETCALL) compat |= SOCKETCALL;
  u32 op = call & CALL_OP; if (!op) return 0;
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); if (!h || !c) return 0;
  u32 tgid; LD4(tgid, task, OFF_task_struct__tgid);
  LD(ret, ctx, 8);
  if (op == OP_MAP && !maps_a_file(task, regs, nr, compat, call)) return 0;
  if (own(task, tgid, c)) { h->suppressed_self++; return end(h); }
  if (call & CALL_LEFT_OUT && op != OP_MAP) { h->suppressed_profile++; return end(h); }
  if (CALL_TAIL(call)) {
    if (call & CALL_FAILURES && ret >= 0) return end(h);
    go(ctx, CALL_TAIL(call));
    return give_up(h, CLASS_FILE);
  }
  u64 fd; u32 tid, exec_id, low = 0; u16 kf = compat ? KF_COMPAT : 0;
  if (call & CALL_PAIR) { if (h->phase == 2) op = OP_WRITE; else h->phase = 1; }
  if (op == OP_OPEN) { if (ret < 0) { go(ctx, TAIL_OPEN_FAILED); return give_up(h, CLASS_FILE); } fd = ret; }
  else if (op == OP_DUP2) { if (ret < 0) return end(h); fd = ret; }
  else if (!(call & CALL_PAIR)) REGISTER0(fd)
  else { u32 at = descriptor_at(h, call); if (at == 0) REGISTER0(fd) else if (at == 1) REGISTER1(fd) else REGISTER2(fd); }
  fd = (u32)fd;
  if (call & (CALL_ADDRESS | CALL_MSG | CALL_MMSG) || compat & SOCKETCALL) { go(ctx, TAIL_SOCKET_IO); return give_up(h, CLASS_SOCKET); }
  LD4(tid, task, OFF_task_struct__pid); LD4(exec_id, task, OFF_task_struct__self_exec_id);
  u64 tag = session_tag(tgid, exec_id, fd), ts, f, inode = 0, ino = 0, key; struct leaf l;
  if (op == OP_CLOSE || op == OP_DUP2) {
    ts = begin(h);
    if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
    return closed(h, cpu, ts, task, tid, tag, fd, ret, nr, kf, op);
  }
  u32 slot = session_index(tag); struct session *s = sessions.lookup(&slot); if (!s) return end(h);
  f = fd_file(task, fd);
  if (f) { LOW(low, f); KL(inode, f, OFF_file__f_inode); KL(ino, inode, OFF_inode__i_ino); }
  if (call & CALL_VMSPLICE && f) { u32 fm = 0; KL4(fm, f, OFF_file__f_mode); if (fm & 2) op = OP_WRITE; }     /* FMODE_WRITE */
  int same = f && s->tag == tag && s->file == low && s->ino == ino && op != OP_OPEN, known_session = same && s->generation;
  u16 type = op == OP_OPEN ? FILE_OPEN : op == OP_READ ? FILE_READ : FILE_WRITE;
  if (known_session && s->flags & S_QUIET && op == OP_WRITE) s->flags &= S_LOUD;
  if (known_session && !(s->flags & S_QUIET)) {
    if (s->flags & S_SOCKET) type = op == OP_READ ? SOCKET_RECEIVE : SOCKET_SEND;
    /* the task is made known first: after count_transfer nothing may start again */
    u32 bit = op == OP_READ ? S_READ : S_WRITE;
    if (!(c->fold && s->flags & bit && ret >= 0)) {
      ts = begin(h);
      if (c->exclusions && ret >= 0 && !(s->flags & S_SOCKET) && h->asked != ts + h->phase) { go(ctx, TAIL_EXCLUDE); return give_up(h, CLASS_FILE); }
      if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
    }
    if (count_transfer(h, c, s, op == OP_READ, ret)) return done(ctx, h, ret);
    ts = begin(h);
    put_event(h, cpu, ts, tid, type, s->key, ret, nr, kf, fd, slot, s, 0, s->flags & S_SOCKET ? CLASS_SOCKET : CLASS_FILE);
    return done(ctx, h, ret);
  }
  ts = begin(h);
  if (!f) {
    if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
    put_event(h, cpu, ts, tid, type, 0, ret, nr, kf | KF_UNNAMED, fd, 0, 0, 0, CLASS_FILE);
    return done(ctx, h, ret);
  }
  u16 mode = 0; KL2(mode, inode, OFF_inode__i_mode);
  if ((mode & 0170000) == 0140000) { go(ctx, TAIL_SOCKET_IO); return give_up(h, CLASS_SOCKET); }
  key = file_key(f, c->seed, &l);
  if (op != OP_WRITE) {
    int q = quiet(c, ts, f, inode, op == OP_OPEN);
    if (q == 2) {
      struct verdict *v = verdict_of(cpu, key); if (!v) return end(h);
      if (v->key != (key ^ c->salt)) { go(ctx, TAIL_JUDGE); return give_up(h, CLASS_FILE); }
      q = v->mask & 1;
    }
    if (q && c->standard) {
      if (!same && !session_begin(h, cpu, ts, s, slot, tag, low, ino, key, S_LEFT_OUT, op == OP_OPEN)) { go(ctx, TAIL_SELF); return give_up(h, CLASS_FILE); }
      h->suppressed_quiet++;
      return done(ctx, h, ret);
    }
    if (q) kf |= KF_QUIET;
  }
  if (c->exclusions && ret >= 0 && h->asked != ts + h->phase) { go(ctx, TAIL_EXCLUDE); return give_up(h, CLASS_FILE); }
  if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
  if (known_session) {    /* a session that was quiet so far: is it still? */
    if (!(kf & KF_QUIET)) s->flags &= S_LOUD;
    if (!count_transfer(h, c, s, op == OP_READ, ret)) put_event(h, cpu, ts, tid, type, s->key, ret, nr, kf, fd, slot, s, 0, CLASS_FILE);
    return done(ctx, h, ret);
  }
  if (!h->undefinable && !is_sent(cpu, key)) { go(ctx, TAIL_DEFINE_FILE); return give_up(h, CLASS_FILE); }
  u32 calm = kf & KF_QUIET ? S_QUIET : 0;
  if (!same) { if (!session_begin(h, cpu, ts, s, slot, tag, low, ino, key, calm, op == OP_OPEN)) { go(ctx, TAIL_SELF); return give_up(h, CLASS_FILE); } }
  else { s->generation = GENERATION(h, cpu); s->key = key; s->flags = calm; s->read_error = s->write_error = 0; }
  u64 extra = 0;
  if (op == OP_OPEN) {
    u32 of = 0, fm = 0; KL4(of, f, OFF_file__f_flags); extra = of;
    KL4(fm, f, OFF_file__f_mode); if (fm & 0x100000) kf |= KF_CREATED;    /* FMODE_CREATED */
    u64 given = 0;      /* creation flags are not kept in the file: from the call, for what they are worth */
    if (call & CALL_FLAGS2) { u64 how; REGISTER2(how); read_user(&given, 8, (void *)how); }
    else if (call & CALL_AT) { REGISTER2(given); } else if (!(call & CALL_HANDLE)) { REGISTER1(given) }
    extra |= given & 03300;   /* O_CREAT, O_EXCL, O_TRUNC... */
    extra |= given & 02001000;
  } else count_transfer(h, c, s, op == OP_READ, ret);
  put_event(h, cpu, ts, tid, type, key, ret, nr, kf | KF_BEGIN, fd, slot, s, extra, CLASS_FILE);
  return done(ctx, h, ret);
}

/* The directory that a relative name in a failed open starts from. */
static inline int open_base(u64 task, u32 call, u64 dirfd, u64 *mnt, u64 *d, u64 *inode) {
  if (call & CALL_AT && (int)dirfd != -100) {
    u64 f = (int)dirfd >= 0 ? fd_file(task, (u32)dirfd) : 0; if (!f) return 0;
    KL(*mnt, f, OFF_file__f_path__mnt); KL(*d, f, OFF_file__f_path__dentry); KL(*inode, f, OFF_file__f_inode);
    return 1;
  }
  u64 fs; LD(fs, task, OFF_task_struct__fs); if (!fs) return 0;
  LD(*mnt, fs, OFF_fs_struct__pwd__mnt); LD(*d, fs, OFF_fs_struct__pwd__dentry); KL(*inode, *d, OFF_dentry__d_inode);
  return 1;
}

/* Tail: announces the file of the call's descriptor (of a failed open: its base directory) and starts the caller again. */
int define_file(u64 *ctx) {
  ENTER_CALL
  u64 mnt = 0, d = 0, inode = 0, x;
  if (op == OP_OPEN && ret < 0) { ARG0(x); if (!open_base(task, call, x, &mnt, &d, &inode)) return give_up(h, CLASS_FILE); }
  else {
    if (op == OP_OPEN) x = ret; else CALL_FD(x)
    u64 f = fd_file(task, (u32)x); if (!f) return give_up(h, CLASS_FILE);
    KL(mnt, f, OFF_file__f_path__mnt); KL(d, f, OFF_file__f_path__dentry); KL(inode, f, OFF_file__f_inode);
  }
  announce(h, cpu, ts, c->seed, mnt, d, inode, 0);
  go(ctx, TAIL_SELF);
  return give_up(h, CLASS_FILE);
}

/* 1: these bits are all 0. Without a branch, as each would double the verifier's states at every level. */
static inline u64 none(u64 differs) {
  differs = (differs | differs >> 32) & 0xffffffff;
  asm volatile("" : "+r"(differs));       /* else the compiler makes a comparison of it */
  return (differs - 1) >> 63;
}
/* Bit 0: it is one of the sensitive objects; bit 1 + n: the directory of own rule n. */
static inline u64 listed(struct config *c, u64 d) {
  u64 inode = 0, ino = 0, sb = 0, found = 0; u32 dev = 0, j;
  KL(inode, d, OFF_dentry__d_inode); KL(ino, inode, OFF_inode__i_ino); KL(sb, inode, OFF_inode__i_sb); KL4(dev, sb, OFF_super_block__s_dev);
#pragma unroll
  for (j = 0; j < 8; j++) {
    found |= none((c->sensitive_ino[j] ^ (u32)ino) | (c->sensitive_dev[j] ^ dev));
    found |= none((c->exclusion[j].dir_ino ^ ino) | (c->exclusion[j].dir_dev ^ dev)) << (1 + j);
  }
  return found;
}
/* Tail: is the object, or a directory above it, one of the sensitive ones, or one that an own rule names? The answer is kept
 * under the path's key. */
int judge(u64 *ctx) {
  ENTER_CALL
  u64 x, key, mnt = 0, d = 0, mp, root = 0, up = 0, parent = 0, found = 0; u32 i; struct leaf l;
  if (op == OP_OPEN) x = ret; else CALL_FD(x)
  u64 f = fd_file(task, (u32)x); if (!f) return give_up(h, CLASS_FILE);
  key = file_key(f, c->seed, &l);
  KL(mnt, f, OFF_file__f_path__mnt); KL(d, f, OFF_file__f_path__dentry);
  mp = CAST(mnt - OFF_mount__mnt, ID_mount); KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root);
  /* where it stands in its own file system, which a bind mount does not show */
  u64 above = d;
#pragma nounroll
  EACH(i, LEVELS, d) {
    found |= listed(c, above);
    KL(parent, above, OFF_dentry__d_parent); if (parent == above) break;
    above = parent;
  }
  if (i == LEVELS) found |= 1;
#pragma nounroll
  EACH(i, LEVELS, d) {
    found |= listed(c, d) & 1;      /* a rule's directory is where an object stands, not where it is mounted */
    if (d == root) {
      KL(up, mp, OFF_mount__mnt_parent); if (up == mp) break;
      KL(d, mp, OFF_mount__mnt_mountpoint); mp = up; KL(root, mp, OFF_mount__mnt + OFF_vfsmount__mnt_root);
      continue;
    }
    KL(parent, d, OFF_dentry__d_parent); if (parent == d) break;
    d = parent;
  }
  if (i == LEVELS) found |= 1;
  struct verdict *v = verdict_of(cpu, key); if (v) { v->key = key ^ c->salt; v->mask = found ^ 1; }
  go(ctx, TAIL_SELF);
  return give_up(h, CLASS_FILE);
}

/* Tail: an open that failed has no file: the caller's string, marked as a claim, behind the fixed part of the record. */
int open_failed(u64 *ctx) {
  ENTER_CALL
  u64 user, dirfd = 0, key = 0, given = 0, mnt = 0, d = 0, inode = 0; u8 first = 0; long n = 0; u32 units = 8; struct leaf l;
  if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
  if (call & CALL_AT) { ARG0(dirfd); ARG1(user); ARG2(given); } else { ARG0(user); ARG1(given); }
  if (call & CALL_HANDLE) user = 0;
  if (user && !read_user(&first, 1, (void *)user) && first && first != '/' && open_base(task, call, dirfd, &mnt, &d, &inode)) {
    key = path_key(mnt, d, inode, c->seed, &l); kf |= KF_RELATIVE;
    if (!h->undefinable && !is_sent(cpu, key)) { go(ctx, TAIL_DEFINE_FILE); return give_up(h, CLASS_FILE); }
  }
  u64 seq = h->seq; h->seq = seq + 1;
  u8 *p = room(h, cpu, 64 + 4096 + 64, 0);
  if (!p || h->undefinable) { h->refused_ring[CLASS_FILE]++; return end(h); }
  struct file_open_event *e = (void *)p;
  if (user) n = user_string(p + 64, 4096, user);
  if (n <= 0) { kf |= KF_UNNAMED; n = 0; } else { kf |= longer(user, n) ? KF_CLAIMED | KF_TRUNCATED : KF_CLAIMED; n -= 1; units += (n + 7) >> 3; }
  if (call & CALL_FLAGS2) { u64 how = given; given = 0; read_user(&given, 8, (void *)how); }
  e->type = FILE_OPEN; e->units = units; e->tid = tid; e->ts = ts; e->seq = seq; e->key = key; e->ret = ret; e->nr = nr; e->kf = kf; e->fd = -1;
  e->session = n; e->generation = 0; e->oflags = (u32)given;
  push(h, units);
  return end(h);
}

/* Tail: a fork or exec that failed. */
int process_failed(u64 *ctx) {
  ENTER_CALL
  u64 a0, a1; u32 o = 0; u8 first = 0; ARG0(a0); ARG1(a1);
  struct scratch *s = record_begin(task, ts, cpu, op == OP_EXEC ? PROCESS_EXEC : PROCESS_FORK, ret, nr, op == OP_EXEC ? kf | KF_CLAIMED : kf, -1); if (!s) return end(h);
  o = blob_task(s, o, task);
  if (op == OP_EXEC) {
    u64 name = call & CALL_AT ? a1 : a0;
    o = blob_cwd(s, o, BLOB_DIRECTORY, task);
    o = blob_user_string(s, o, BLOB_NAME, name);
    if (!read_user(&first, 1, (void *)name) && first != '/') o = blob_base(s, o, BLOB_BASE, task, call & CALL_AT ? (int)a0 : -100);
  }
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}

/* Tail: close_range, SWEEP descriptors at a time; how far it came is kept in `swept`. */
int sweep_range(u64 *ctx) {
  ENTER_CALL
  u64 from, to, flags; ARG0(from); ARG1(to); ARG2(flags);
  if (ret < 0 || flags & 4) return end(h);                       /* CLOSE_RANGE_CLOEXEC closes nothing yet */
  if (!h->swept && !h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_FILE); }
  u64 done = h->swept;
  if (sweep(h, cpu, ts, task, tgid, tid, exec_id, from + done, to, nr, WHY_CLOSE)) { h->swept = done + SWEEP; go(ctx, TAIL_SWEEP_RANGE); }
  h->swept = 0;                          /* all, or no more tail calls: the rest is told at the exit, or when its slots are taken */
  return end(h);
}
