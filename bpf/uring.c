/* io_uring: a request is an act like any call. What it asks for is seen when it was accepted (the kernel has then copied the names
 * it was given, nobody can change them), what came of it when its completion is posted. The subject is the task that submitted,
 * whoever carries the request out; of a ring with a polling thread that is the thread's process.
 *
 * Of some completions the kernel tells less. One that the caller suppressed (IOSQE_CQE_SKIP_SUCCESS) has no trace; one of a
 * multishot request, or that finds the ring full, does not say of which request it is: they are tied by the ring and the caller's
 * user_data. Where that cannot be done the request is told when it is accepted: KERNEL_IO_URING_REQUEST, its outcome unknown.
 */
#if URING
#define REQ_FIXED 1          /* REQ_F_FIXED_FILE: the descriptor is a place in the ring's table of files */
#define REQ_SKIP 64          /* REQ_F_CQE_SKIP */
#define CQE_MORE 2           /* IORING_CQE_F_MORE: a multishot request goes on */
#define FIXED_FD 0x80000     /* in a session's tag: no descriptor, but a place in some ring's table */
#define Q4(member) (*(u32 *)&q->b[OFF_##member])
#define Q8(member) (*(u64 *)&q->b[OFF_##member])

static inline u64 submitter(struct request *q) {
  u64 task = current_task(), leader; u32 flags;
#if CASTS
  u64 by = 0, context = CAST(Q8(io_kiocb__tctx), ID_io_uring_task);
  KL(by, context, OFF_io_uring_task__task);
  if (by) task = CAST(by, ID_task_struct);
#endif
  LD4(flags, task, OFF_task_struct__flags);
  if (flags & 0x10) { LD(leader, task, OFF_task_struct__group_leader); task = leader; }    /* PF_IO_WORKER: a polling or working thread */
  return task;
}
static inline struct noted *noted_slot(u64 request) { u32 i = (u32)(request >> 6) * 0x9E3779B1u >> 20 & (NNOTED - 1); return noted.lookup(&i); }
static inline u64 data_key(u64 ring, u64 data) { return data ^ ring * PHI; }

static inline struct request *copy_of(u32 cpu) { return requests.lookup(&cpu); }
/* The request that a completion without one belongs to; 0: nobody can say. */
static inline u64 tied(u64 ring, u64 data) {
  u64 key = data_key(ring, data), *found = by_data.lookup(&key), request; struct pending *p;
  if (!found) return 0;
  request = *found;
  p = pending.lookup(&request);
  return p && p->data == data && p->ring == (u32)ring ? request : 0;
}
static inline int restart(u64 *ctx, struct account *h, u32 tail) { go_uring(ctx, tail); return give_up(h, CLASS_FILE); }
/* What every program here begins with, given the request's address. The operation's row of calls[] is behind the system calls'. */
#define ENTER_REQUEST(request) \
  u32 cpu = bpf_get_smp_processor_id(); struct account *h = account_of(cpu); struct config *c = configuration(); \
  struct request *q = copy_of(cpu); if (!h || !c || !q) return 0; \
  if (RD(q->b, SIZE_io_kiocb, request)) return 0; \
  u16 nr = q->b[OFF_io_kiocb__opcode]; u64 spec = call_spec(1024 + nr); u32 call = spec, op = call & CALL_OP; if (!op) return 0; \
  u64 task = submitter(q); u32 tgid, tid, exec_id; LD4(tgid, task, OFF_task_struct__tgid); LD4(tid, task, OFF_task_struct__pid); \
  LD4(exec_id, task, OFF_task_struct__self_exec_id); u16 kf = KF_URING;
/* ... of a completion: its result, and the request, which is a multishot one where the kernel does not give it. */
#define ENTER_COMPLETION \
  u64 request, ring, cqe; s32 result; u32 more = 0; LD(request, ctx, 8); LD(ring, ctx, 0); LD(cqe, ctx, 16); LD4(result, cqe, OFF_io_uring_cqe__res); \
  s64 ret = result; LD4(more, cqe, OFF_io_uring_cqe__flags); more &= CQE_MORE; \
  if (!request) { u64 data; u32 low; LD(data, cqe, OFF_io_uring_cqe__user_data); LOW(low, ring); request = tied(low, data); if (!request) return 0; } \
  ENTER_REQUEST(request) u64 ts = begin(h);
#define RESTART(tail) return restart(ctx, h, tail);

static inline u32 kernel_string(u8 *out, u64 filename) {
  u64 name = 0; RD(&name, 8, filename + OFF_filename__name);
  long n = read_kernel_text(out, 4096, (void *)name);
  return n > 0 ? (n - 1) & 4095 : 0;
}
/* What the completion will not know any more. */
static inline void note_names(struct pending *p, struct request *q, u32 op, u16 nr) {
  u64 one = 0, two = 0; u32 n = 0;
  p->bytes = p->bytes2 = 0; p->dfd = p->dfd2 = -100; p->value = 0;
  if (op == OP_CONNECT) {                            /* the caller's word, as of a call: where the kernel's copy lies is not in BTF */
    n = Q4(io_connect__addr_len); if (n > 112) n = 112;
    if (n > 1 && !read_user(p->name, n & 127, (void *)Q8(io_connect__addr))) p->bytes = n & 127;
    return;
  }
  if (op == OP_OPEN) { p->dfd = Q4(io_open__dfd); one = Q8(io_open__filename); }
  else if (nr == URING_UNLINKAT) { p->dfd = Q4(io_unlink__dfd); one = Q8(io_unlink__filename); p->value = Q4(io_unlink__flags); }
  else if (nr == URING_MKDIRAT) { p->dfd = Q4(io_mkdir__dfd); one = Q8(io_mkdir__filename); p->value = *(u16 *)&q->b[OFF_io_mkdir__mode]; }
  else if (nr == URING_RENAMEAT) {
    p->dfd = Q4(io_rename__old_dfd); p->dfd2 = Q4(io_rename__new_dfd); p->value = Q4(io_rename__flags);
    one = Q8(io_rename__oldpath); two = Q8(io_rename__newpath);
  } else if (nr == URING_LINKAT || nr == URING_SYMLINKAT) {
    p->dfd = Q4(io_link__old_dfd); p->dfd2 = Q4(io_link__new_dfd); p->value = Q4(io_link__flags);
    one = Q8(io_link__oldpath); two = Q8(io_link__newpath);
  } else if (nr == URING_SETXATTR || nr == URING_FSETXATTR) {
    if (nr == URING_SETXATTR) one = Q8(io_xattr__filename);
    long m = read_kernel_text(p->name2, 256, (void *)Q8(io_xattr__ctx__kname));
    p->bytes2 = m > 0 ? (m - 1) & 255 : 0;
  } else if (nr == URING_RECVMSG) { u32 n = 0; RD(&n, 4, Q8(io_kiocb__async_data) + OFF_io_async_msghdr__namelen); p->value = n; }
  if (one) p->bytes = kernel_string(p->name, one);
  if (two) p->bytes2 = kernel_string(p->name2, two);
}

/* A kernel string that was noted, as a blob; and the directory it starts from when it is relative. */
static inline u32 blob_kernel(struct scratch *s, u32 o, u16 kind, u8 *from, u32 n) {
  read_kernel(blob_at(s, o), n & 4095, from);
  return blob_end(s, o, kind, n & 4095);
}
static inline u32 blob_noted(struct scratch *s, u32 o, u64 task, u8 *from, u32 n, int dirfd, u16 kind, u16 base) {
  if (!n) return o;
  o = blob_kernel(s, o, kind, from, n);
  return from[0] == '/' ? o : blob_base(s, o, base, task, dirfd);
}
static inline u32 blob_pending(struct scratch *s, u32 o, u64 task, struct pending *p, u32 op, u16 nr) {
  if (op == OP_CONNECT) return p->bytes ? blob_kernel(s, o, BLOB_ADDRESS, p->name, p->bytes) : o;
  if (nr == URING_SYMLINKAT) {                       /* the first name is the content, the second the link's */
    o = blob_noted(s, o, task, p->name2, p->bytes2, p->dfd2, BLOB_NAME, BLOB_BASE);
    return p->bytes ? blob_kernel(s, o, BLOB_TEXT, p->name, p->bytes) : o;
  }
  o = blob_noted(s, o, task, p->name, p->bytes, p->dfd, BLOB_NAME, BLOB_BASE);
  if (nr == URING_SETXATTR || nr == URING_FSETXATTR) return p->bytes2 ? blob_kernel(s, o, BLOB_TEXT, p->name2, p->bytes2) : o;
  return blob_noted(s, o, task, p->name2, p->bytes2, p->dfd2, BLOB_NAME2, BLOB_BASE2);
}
/* Where the request's descriptor is a place in the ring's table, its session has a tag of its own, and no number to show. */
static inline u64 request_tag(struct request *q, u32 tgid, u32 exec_id, u32 fd, u32 fixed) {
  if (fixed) fd = FIXED_FD | (((u32)(Q8(io_kiocb__ctx) >> 6) ^ fd * 0x9E3779B1u) & (FIXED_FD - 1));
  return session_tag(tgid, exec_id, fd);
}
/* The file at a place of the ring's own table. */
static inline u64 fixed_file(struct request *q, u32 place) {
  u64 nodes = 0, node = 0, f = 0; u32 count = 0, ring_at = 0; (void)ring_at;
  u64 ring = Q8(io_kiocb__ctx);
  RD(&count, 4, ring + OFF_io_ring_ctx__file_table__data__nr); RD(&nodes, 8, ring + OFF_io_ring_ctx__file_table__data__nodes);
  if (place >= count || RD(&node, 8, nodes + 8 * (u64)place) || RD(&f, 8, node + OFF_io_rsrc_node__file_ptr)) return 0;
  return f & ~7ull;                                  /* the low bits are flags */
}

/* A request was accepted: what its completion will need is kept. */
int io_uring_submit_req(u64 *ctx) {
  u64 typed, request = 0; int z = 0; LD(typed, ctx, 0);
  struct staging *g; u32 here = bpf_get_smp_processor_id(); g = staging.lookup(&here); if (!g) return 0;
  g->request = typed; barrier(); request = *(volatile u64 *)&g->request;          /* as a number */
  ENTER_REQUEST(request)
  if (own(task, tgid, c) || call & CALL_LEFT_OUT) return 0;       /* counted at the completion */
  struct noted *n = noted_slot(request); if (!n) return 0;
  u64 flags = Q8(io_kiocb__flags), ring = (u32)Q8(io_kiocb__ctx), data = Q8(io_kiocb__cqe__user_data), key = data_key(ring, data), *before;
  n->request = 0; barrier(); n->fd = Q4(io_kiocb__cqe__fd); n->fixed = flags & REQ_FIXED; barrier(); *(volatile u64 *)&n->request = request;
  if (!(call & CALL_LATER || flags & (REQ_SKIP | REQ_MULTISHOT))) return 0;
  struct pending *p = &g->p, *other; int tell = 0;
  p->ring = ring; p->data = data; p->fd = n->fd; p->fixed = n->fixed;
  note_names(p, q, op, nr);
  if (flags & REQ_SKIP) tell = 1;
  else {
    before = by_data.lookup(&key); other = before ? pending.lookup(before) : 0;
    if (other && other->ring == ring && other->data == data && *before != request) tell = 1;
    else by_data.update(&key, &request);
    if (pending.update(&request, p)) tell = 1;                    /* no room */
  }
  if (!tell) return 0;
  begin(h);
  go_submit(ctx);
  return give_up(h, CLASS_FILE);
}

static inline int tell_request(u64 *ctx, struct account *h, u32 cpu, u64 ts, u64 task, struct request *q, struct pending *p, u32 op, u16 nr, u16 kf, s64 ret) {
  u64 f = 0; u32 o;
  struct scratch *s = record_begin(task, ts, cpu, KERNEL_IO_URING_REQUEST, ret, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);
  s->e.arg = p->value;
  if (!p->fixed) s->e.fd = p->fd;
  f = p->fixed ? fixed_file(q, p->fd) : (s32)p->fd >= 0 ? fd_file(task, p->fd) : 0;
  if (op != OP_OPEN && op != OP_NAMES && f) {
#if CASTS
    f = CAST(f, ID_file);
#endif
    o = blob_file(s, o, BLOB_PATH, f);
  }
  o = blob_pending(s, o, task, p, op, nr);
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}
/* Tail: a request whose completion will not say enough. */
int uring_told(u64 *ctx) {
  u32 here = bpf_get_smp_processor_id(); struct staging *g = staging.lookup(&here); if (!g) return 0;
  u64 request = *(volatile u64 *)&g->request;
  ENTER_REQUEST(request)
  return tell_request(ctx, h, cpu, begin(h), task, q, &g->p, op, nr, kf | KF_PENDING, 0);
}
/* A completion that found the ring full: the kernel says of which ring and user_data. */
int io_uring_cqe_overflow(u64 *ctx) {
  u64 ring, data, request; u32 low, flags; s32 result; LD(ring, ctx, 0); LD(data, ctx, 8); LD4(result, ctx, 16); LD4(flags, ctx, 24);
  LOW(low, ring); request = tied(low, data); if (!request) return 0;
  struct pending *p = pending.lookup(&request); if (!p) return 0;
  ENTER_REQUEST(request)
  if (own(task, tgid, c)) { h->suppressed_self++; return end(h); }
  if (call & CALL_LEFT_OUT) { h->suppressed_profile++; return end(h); }
  tell_request(ctx, h, cpu, begin(h), task, q, p, op, nr, kf, result);
  if (!(flags & CQE_MORE)) pending.delete(&request);
  return 0;
}

/* A completion: reads, writes, sends, receives, opens and closes here, what is rarer behind tail calls. */
int io_uring_complete(u64 *ctx) {
  ENTER_COMPLETION
  if (own(task, tgid, c)) { h->suppressed_self++; return end(h); }
  if (call & CALL_LEFT_OUT) { h->suppressed_profile++; if (call & CALL_LATER && !more) pending.delete(&request); return end(h); }
  if (!h->undefinable && !task_known(task, cpu)) RESTART(URING_TAIL_DEFINE_TASK)
  if (CALL_TAIL(spec)) RESTART(CALL_TAIL(spec))
  struct noted *n = noted_slot(request); if (!n) return end(h);
  u32 noticed = *(volatile u64 *)&n->request == request, fd = noticed ? n->fd : 0xfffff, fixed = noticed ? n->fixed : 0, low;
  u64 f = 0, inode = 0, ino = 0, key = 0, extra = 0, tag; u16 mode = 0, type;
  if (op == OP_CLOSE) {
    u32 place = Q4(io_close__file_slot); fd = place ? place - 1 : Q4(io_close__fd);
    return closed(h, cpu, ts, task, tid, request_tag(q, tgid, exec_id, fd, place), place ? ~0u : fd, ret, nr, kf, op);
  }
  if (op == OP_OPEN) {
    u32 place = Q4(io_open__file_slot);
    if (ret < 0) RESTART(URING_TAIL_OPEN_FAILED)
    pending.delete(&request);
    fixed = place; fd = !place ? ret : place == ~0u ? ret : place - 1;
    f = place ? fixed_file(q, fd) : fd_file(task, fd);
    extra = Q8(io_open__how__flags) & 02003300;
  } else {
    if (call & CALL_PAIR && h->phase != 2) {           /* the source of a splice or tee; its destination is the request's file */
      h->phase = 1; fd = Q4(io_splice__splice_fd_in); fixed = 0;
      f = Q4(io_splice__flags) >> 31 ? 0 : fd_file(task, fd);
    } else f = Q8(io_kiocb__file);
    if (h->phase == 2) op = OP_WRITE;
  }
#if CASTS
  f = f ? CAST(f, ID_file) : 0;
#endif
  tag = request_tag(q, tgid, exec_id, fd, fixed);
  u32 slot = session_index(tag); struct session *s = sessions.lookup(&slot); if (!s) return end(h);
  if (fixed || !noticed) fd = -1;
  if (f) { LOW(low, f); KL(inode, f, OFF_file__f_inode); KL(ino, inode, OFF_inode__i_ino); KL2(mode, inode, OFF_inode__i_mode); }
  u32 socket = (mode & 0170000) == 0140000, class = socket ? CLASS_SOCKET : CLASS_FILE;
  type = op == OP_OPEN ? FILE_OPEN : socket ? op == OP_READ ? SOCKET_RECEIVE : SOCKET_SEND : op == OP_READ ? FILE_READ : FILE_WRITE;
  if (!f) put_event(h, cpu, ts, tid, type, 0, ret, nr, kf | KF_UNNAMED, fd, 0, 0, 0, CLASS_FILE);
  else {
    int same = op != OP_OPEN && s->tag == tag && s->file == low && s->ino == ino && s->generation, quietly = 0, calm = 0;
    if (op != OP_WRITE && !socket && (!same || s->flags & S_QUIET) && quiet(c, ts, 0, inode, 0) == 1) { kf |= KF_QUIET; calm = S_QUIET; }
    if (same && s->flags & S_QUIET && !calm) s->flags &= S_LOUD;
    if (same) key = s->key;
    else {
      if (socket) { struct endpoints x; key = look_at_socket(f, c->seed, &x); } else { struct leaf l; key = file_key(f, c->seed, &l); }
      if (calm && c->standard) { h->suppressed_quiet++; goto next; }
      if (!h->undefinable && !is_sent(cpu, key)) RESTART(socket ? URING_TAIL_DEFINE_SOCKET : URING_TAIL_DEFINE_FILE)
      if (!session_begin(h, cpu, ts, s, slot, tag, low, ino, key, (socket ? S_SOCKET : 0) | (fixed ? S_FIXED : 0) | calm, op == OP_OPEN)) RESTART(URING_TAIL_SELF)
      if (fixed) { u32 i = tgid & 4095, *user = fixed_users.lookup(&i); if (user) *user = tgid; }
      kf |= KF_BEGIN;
    }
    if (op == OP_OPEN) {
      u32 of = 0, fm = 0; KL4(of, f, OFF_file__f_flags); extra |= of;
      KL4(fm, f, OFF_file__f_mode); if (fm & 0x100000) kf |= KF_CREATED;    /* FMODE_CREATED */
    } else quietly = count_transfer(h, c, s, op == OP_READ, ret) && same;
    if (!quietly) put_event(h, cpu, ts, tid, type, key, ret, nr, kf, fd, slot, s, extra, class);
  }
next:
  if (nr == URING_RECVMSG && ret >= 0) { h->swept = 0; go_uring(ctx, URING_TAIL_RIGHTS); return give_up(h, CLASS_FILE); }
  if (!more && Q8(io_kiocb__flags) & REQ_MULTISHOT) pending.delete(&request);
  if (h->phase == 1 && ret) { h->phase = 2; go_uring(ctx, URING_TAIL_SELF); h->phase = 0; return give_up(h, CLASS_FILE); }
  return end(h);
}

/* Where a RECVMSG's control bytes lie: the caller's msghdr says it; of a multishot one they are in the buffer that was chosen, behind
 * struct io_uring_recvmsg_out and as much room for a name as was asked for when the request was accepted. */
static inline void control_of(u64 *control, struct request *q, u64 request) {
  u64 at = Q8(io_sr_msg__umsg);
  if (!(Q8(io_kiocb__flags) & REQ_MULTISHOT)) { read_user(control, 16, (void *)(at + 32)); return; }
  struct pending *p = pending.lookup(&request);
  if (p && !read_user(&control[1], 4, (void *)(at + 4))) control[0] = at + 16 + (u32)p->value;
}
/* Tail: descriptors that came with a RECVMSG, as bpf/socket.c tells those of the call. */
int uring_rights(u64 *ctx) {
  ENTER_COMPLETION
  struct arguments *in = arguments.lookup(&cpu); if (!in) return end(h);      /* memory: there is no room for more on the stack */
  u64 *control = in->a, *at = &in->a[2]; u32 done = h->swept, received, rest; s32 fd = -1;
  h->swept = 0; control[0] = control[1] = *at = 0;
  control_of(control, q, request);
  received = control[1] ? find_rights(control[0], control[1], 0, at) : 0;
  if (done >= received || received > 253) goto over;
  read_user(&fd, 4, (void *)(*at + 4 * done));
  rest = received - done - 1;
  u64 through = Q8(io_kiocb__file);
#if CASTS
  through = through ? CAST(through, ID_file) : 0;
#endif
  if (!tell_right(ctx, h, c, task, ts, cpu, ret, nr, kf, fd, through, received, done + 1 >= MOST_RIGHTS ? rest : 0)) goto over;
  if (rest && done + 1 < MOST_RIGHTS) {
    h->swept = done + 1;
    go_uring(ctx, URING_TAIL_RIGHTS);
    h->swept = 0;
    return give_up(h, CLASS_FILE);
  }
over:
  if (!more && Q8(io_kiocb__flags) & REQ_MULTISHOT) pending.delete(&request);
  return end(h);
}
/* Tail: says who the submitter is, and starts again. */
int uring_define_task(u64 *ctx) {
  ENTER_COMPLETION
  introduce(h, cpu, ts, c, task);
  RESTART(URING_TAIL_SELF)
}
/* The object of the completed request. */
static inline u64 request_file(struct request *q, struct account *h, u64 task, s64 ret, u32 call, u32 op) {
  u64 f = Q8(io_kiocb__file);
  if (op == OP_OPEN) { u32 place = Q4(io_open__file_slot); f = place ? fixed_file(q, place == ~0u ? ret : place - 1) : fd_file(task, (u32)ret); }
  else if (call & CALL_PAIR && h->phase == 1) f = fd_file(task, Q4(io_splice__splice_fd_in));
#if CASTS
  if (f) f = CAST(f, ID_file);
#endif
  return f;
}
/* Tail: announces the request's file. */
int uring_define_file(u64 *ctx) {
  ENTER_COMPLETION
  u64 f = request_file(q, h, task, ret, call, op); if (!f) return give_up(h, CLASS_FILE);
  announce_file(h, cpu, ts, c->seed, f, 0);
  RESTART(URING_TAIL_SELF)
}
/* Tail: announces the request's socket. */
int uring_define_socket(u64 *ctx) {
  ENTER_COMPLETION
  u64 f = request_file(q, h, task, ret, call, op); if (!f) return give_up(h, CLASS_SOCKET);
  introduce_socket(h, cpu, ts, c, f);
  RESTART(URING_TAIL_SELF)
}
/* Tail: an open that failed: a claim like that of a call, but for the name, which nobody could change. */
int uring_open_failed(u64 *ctx) {
  ENTER_COMPLETION
  u64 key = 0, mnt = 0, d = 0, inode = 0; u32 units = 8, n = 0; struct leaf l;
  struct pending *p = pending.lookup(&request);
  if (p && p->bytes && p->name[0] != '/' && open_base(task, CALL_AT, (u32)p->dfd, &mnt, &d, &inode)) {
    key = path_key(mnt, d, inode, c->seed, &l); kf |= KF_RELATIVE;
    if (!h->undefinable && !is_sent(cpu, key)) { announce(h, cpu, ts, c->seed, mnt, d, inode, 0); RESTART(URING_TAIL_SELF) }
  }
  u64 seq = h->seq; h->seq = seq + 1;
  u8 *out = room(h, cpu, 64 + 4096 + 64, 0);
  if (!out || h->undefinable) { h->refused_ring[CLASS_FILE]++; if (p) pending.delete(&request); return end(h); }
  struct file_open_event *e = (void *)out;
  if (p) { n = p->bytes & 4095; read_kernel(out + 64, n, p->name); }
  if (!n) kf |= KF_UNNAMED; else { kf |= KF_CLAIMED; units += (n + 7) >> 3; }
  e->type = FILE_OPEN; e->units = units; e->tid = tid; e->ts = ts; e->seq = seq; e->key = key; e->ret = ret; e->nr = nr; e->kf = kf; e->fd = -1;
  e->session = n; e->generation = 0; e->oflags = (u32)Q8(io_open__how__flags);
  push(h, units);
  if (p) pending.delete(&request);
  return end(h);
}
/* Tail: an act by names. */
int uring_names(u64 *ctx) {
  ENTER_COMPLETION
  u32 o; u16 type = CALL_TYPE(spec);
  struct pending *p = pending.lookup(&request);
  if (p && nr == URING_UNLINKAT && p->value & 0x200) type = FILE_RMDIR;       /* AT_REMOVEDIR */
  struct scratch *s = record_begin(task, ts, cpu, type, ret, nr, kf | KF_CLAIMED, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (p) { s->e.arg = p->value; o = blob_pending(s, o, task, p, op, nr); }
  record_end(ctx, h, s, o, CLASS_FILE);
  if (p) pending.delete(&request);
  return end(h);
}
/* Tail: an act on an open file. */
int uring_object(u64 *ctx) {
  ENTER_COMPLETION
  u32 o; u64 f = request_file(q, h, task, ret, call, op);
  struct pending *p = pending.lookup(&request); struct noted *n = noted_slot(request);
  struct scratch *s = record_begin(task, ts, cpu, CALL_TYPE(spec), ret, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (n && n->request == request && !n->fixed) s->e.fd = n->fd;
  if (nr == URING_FTRUNCATE) s->e.arg = Q8(io_ftrunc__len);
  if (f) { identify(s, f); o = blob_file(s, o, BLOB_PATH, f); }
  if (p) { o = blob_pending(s, o, task, p, op, nr); pending.delete(&request); }
  record_end(ctx, h, s, o, CLASS_FILE);
  return end(h);
}
/* Tail: bind, listen, connect, accept: the session begins, so that a close without traffic knows its object. */
int uring_socket(u64 *ctx) {
  ENTER_COMPLETION
  u64 f, key = 0, inode = 0, ino = 0, tag; u32 low, fd, fixed, noticed; u16 mode = 0; struct endpoints x;
  struct noted *n = noted_slot(request); if (!n) return end(h);
  noticed = *(volatile u64 *)&n->request == request; fd = noticed ? n->fd : ~0u; fixed = noticed ? n->fixed : 0;
  if (op == OP_ACCEPT && ret >= 0) {
    u32 place = Q4(io_accept__file_slot);
    fixed = place; fd = place && place != ~0u ? place - 1 : ret;
    f = place ? fixed_file(q, fd) : fd_file(task, fd);
  } else f = Q8(io_kiocb__file);
#if CASTS
  if (f) f = CAST(f, ID_file);
#endif
  if (f) { KL(inode, f, OFF_file__f_inode); KL2(mode, inode, OFF_inode__i_mode); KL(ino, inode, OFF_inode__i_ino); }
  if (f && (mode & 0170000) == 0140000 && !h->undefinable && (fixed || fd != ~0u) && (ret >= 0 || (op == OP_CONNECT && ret == -115)) &&
      !(call_bits(NR_CLOSE) & CALL_LEFT_OUT)) {
    key = look_at_socket(f, c->seed, &x);
    if (!is_sent(cpu, key)) introduce_socket(h, cpu, ts, c, f);
    tag = request_tag(q, tgid, exec_id, fd, fixed); u32 slot = session_index(tag); struct session *s = sessions.lookup(&slot); if (!s) return end(h);
    LOW(low, f);
    if (is_sent(cpu, key) && !h->undefinable) {
      if (!(s->tag == tag && s->file == low && s->ino == ino) &&
          !session_begin(h, cpu, ts, s, slot, tag, low, ino, key, S_SOCKET | (fixed ? S_FIXED : 0), op == OP_ACCEPT)) RESTART(URING_TAIL_SELF)
      define_session(h, cpu, ts, tid, s, slot, key);
    }
  }
  go_uring(ctx, URING_TAIL_SOCKET_RECORD);
  return give_up(h, CLASS_SOCKET);
}
/* Tail: the control record of it. */
int uring_socket_record(u64 *ctx) {
  ENTER_COMPLETION
  u64 f, inode = 0, key; u32 o; u16 mode = 0; struct endpoints x;
  struct noted *n = noted_slot(request); struct pending *p = pending.lookup(&request);
  struct scratch *s = record_begin(task, ts, cpu, 0, ret, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);
  s->e.type = op == OP_CONNECT ? SOCKET_CONNECT : op == OP_BIND ? SOCKET_BIND : op == OP_LISTEN ? SOCKET_LISTEN : SOCKET_ACCEPT;
  f = Q8(io_kiocb__file);
  if (n && n->request == request && !n->fixed) s->e.fd = n->fd;
  if (op == OP_ACCEPT && ret >= 0) {
    u32 place = Q4(io_accept__file_slot), at = place && place != ~0u ? place - 1 : ret;
    s->e.fd = place ? -1 : ret;
    f = place ? fixed_file(q, at) : fd_file(task, at);
  }
#if CASTS
  if (f) f = CAST(f, ID_file);
#endif
  if (f) { KL(inode, f, OFF_file__f_inode); KL2(mode, inode, OFF_inode__i_mode); }
  if (p) o = blob_pending(s, o, task, p, op, nr);
  if (f && (mode & 0170000) == 0140000) {
    key = look_at_socket(f, c->seed, &x);
    o = blob_end(s, o, BLOB_SOCKET, write_socket(blob_at(s, o), key, ts, 0, &x) & 511);
  }
  if (op == OP_LISTEN) s->e.arg = Q4(io_listen__backlog);
  record_end(ctx, h, s, o, CLASS_SOCKET);
  if (p && !more) pending.delete(&request);
  return end(h);
}
#endif
