/* Sockets: their identity and addresses from the kernel's own objects; sends, receives, binds, listens, connects, accepts. */

struct endpoints { u64 ino, cookie, peer, local_name, remote_name; u64 local[2], remote[2]; u16 family, kind, protocol, local_port, remote_port, state; };

/* The inode of the socket that a struct sock belongs to, 0: none any more. Both stand in one struct socket_alloc. */
static inline u64 socket_inode(u64 sk) {
  u64 owner = 0, ino = 0;
  KL(owner, sk, OFF_sock__socket); if (!owner) return 0;
  RD(&ino, 8, owner + OFF_socket_alloc__vfs_inode + OFF_inode__i_ino);
  return ino;
}
/* Fills `e` from the struct file of a socket and returns the key of this state of it. */
static inline u64 look_at_socket(u64 f, u64 seed, struct endpoints *e) {
  u64 sock = 0, sk = 0, inode = 0, key = PHI ^ seed; u16 x = 0, port = 0; u32 a = 0; u8 state = 0;
  e->cookie = e->peer = e->local_name = e->remote_name = 0; e->local[0] = e->local[1] = e->remote[0] = e->remote[1] = 0;
  e->family = e->kind = e->protocol = e->local_port = e->remote_port = e->state = 0; e->ino = 0;
  KL(inode, f, OFF_file__f_inode); KL(e->ino, inode, OFF_inode__i_ino); MIX(key, e->ino);
  KL(sock, f, OFF_file__private_data); if (!sock) return key;
  sock = CAST(sock, ID_socket);
  KL2(x, sock, OFF_socket__type); e->kind = x; KL(sk, sock, OFF_socket__sk); if (!sk) return key;
  x = 0; KL2(x, sk, OFF_sock__family); e->family = x;
  x = 0; KL2(x, sk, OFF_sock__protocol); e->protocol = x;
  MIX(key, (u64)e->family << 32 | e->protocol << 16 | e->kind);
  if (e->family == 2 || e->family == 10) {
    KL2(port, sk, OFF_sock__num); e->local_port = port; x = 0; KL2(x, sk, OFF_sock__dport); e->remote_port = (x >> 8 | x << 8) & 0xffff;
    KL(e->cookie, sk, OFF_sock__cookie);
    if (e->family == 2) { KL4(a, sk, OFF_sock__rcv_saddr); e->local[0] = a; a = 0; KL4(a, sk, OFF_sock__daddr); e->remote[0] = a; }
    else {
      KL(e->local[0], sk, OFF_sock__v6_rcv_saddr); KL(e->local[1], sk, OFF_sock__v6_rcv_saddr + 8);
      KL(e->remote[0], sk, OFF_sock__v6_daddr); KL(e->remote[1], sk, OFF_sock__v6_daddr + 8);
    }
    MIX(key, e->local[0]); MIX(key, e->local[1]); MIX(key, e->remote[0]); MIX(key, e->remote[1]);
    MIX(key, (u64)e->local_port << 16 | e->remote_port); MIX(key, e->cookie);
  } else if (e->family == 1) {
    u64 peer = 0; u32 low;
    sk = CAST(sk, ID_unix_sock);
    KL(e->local_name, sk, OFF_unix_sock__addr); LOW(low, e->local_name); MIX(key, low);
    KL(peer, sk, OFF_unix_sock__peer);
    if (peer) { peer = CAST(peer, ID_unix_sock); KL(e->remote_name, peer, OFF_unix_sock__addr); LOW(low, e->remote_name); MIX(key, low); e->peer = socket_inode(peer); MIX(key, e->peer); }
  }
  return key;
}
static inline u32 unix_name(u64 addr, u8 *out) {
  u32 len = 0; if (!addr) return 0;
  KL4(len, addr, OFF_unix_address__len);
  if (len <= 2 || len > 110) return 0;
  len = (len - 2) & 127;
  if (read_kernel(out, len, (void *)(addr + OFF_unix_address__name + 2))) return 0;
  return len;
}
/* Writes a socket definition to `p`, which has room for 512 bytes; returns its length. */
static inline u32 write_socket(u8 *p, u64 key, u64 ts, u64 seq, struct endpoints *x) {
  struct socket_definition *e = (void *)p; u32 n, m;
  e->type = DEF_SOCKET; e->tid = 0; e->ts = ts; e->seq = seq; e->key = key; e->ino = x->ino; e->cookie = x->cookie; e->peer = x->peer;
  e->family = x->family; e->kind = x->kind; e->protocol = x->protocol; e->local_port = x->local_port; e->remote_port = x->remote_port; e->state = x->state;
  *(u64 *)&e->local[0] = x->local[0]; *(u64 *)&e->local[8] = x->local[1]; *(u64 *)&e->remote[0] = x->remote[0]; *(u64 *)&e->remote[8] = x->remote[1];
  n = unix_name(x->local_name, p + sizeof(*e));
  m = unix_name(x->remote_name, p + sizeof(*e) + (n & 127));
  e->local_bytes = n; e->remote_bytes = m;
  n = sizeof(*e) + (n & 127) + (m & 127);
  e->units = (n + 7) >> 3;
  return n;
}
static inline u64 hash_address(u8 *a, u32 n) {      /* `a` has 128 bytes, zero behind n */
  u64 h = n, i;
#pragma unroll
  for (i = 0; i < 14; i++) MIX(h, *(u64 *)(a + 8 * i));
  return h;
}
/* The address that a call names: of sendto and recvfrom in argument 4, of *msg behind argument 1. 0: none. */
static inline u32 named_address(struct arguments *in, u32 compat, u32 call, u8 *out) {
  u64 p = 0, msg, n = 0; u32 length = 0, short_p = 0;
  if (call & CALL_ADDRESS) {
    ARG4(p); ARG5(n);
    if ((call & CALL_OP) == OP_READ) { u64 where = n; n = 0; read_user(&length, 4, (void *)where); n = length; }
  } else if (call & (CALL_MSG | CALL_MMSG)) {
    ARG1(msg);
    if (compat) { read_user(&short_p, 4, (void *)msg); p = short_p; } else read_user(&p, 8, (void *)msg);
    read_user(&length, 4, (void *)(msg + (compat ? 4 : 8))); n = length;
  }
  if (!p || n < 2 || n > 128) return 0;
  n = n > 112 ? 112 : n;
  if (read_user(out, n & 127, (void *)p)) return 0;
  return n;
}
/* Bytes of a call that returns a number of messages. */
static inline s64 message_bytes(struct arguments *in, u32 compat, s64 messages) {
  u64 vector, sum = 0, size = compat ? 32 : 64, length = compat ? 28 : 56; u32 i, one;
  ARG1(vector);
#pragma nounroll
  for (i = 0; i < 1024; i++) {                       /* UIO_MAXIOV */
    if (i >= messages) break;
    one = 0; read_user(&one, 4, (void *)(vector + size * i + length)); sum += one;
  }
  return sum;
}

/* What is known of the descriptors that came with a call: the message looked at next, how many were told; of the message whose turn
 * it is, where their numbers stand, how many there are and how many were told; how many are behind the last that is told. */
struct came { u64 next, numbers; u32 received, done, told, more; };
/* Where a message came with control bytes, there may be descriptors in them. */
static inline int came(u64 *ctx, struct account *h, struct arguments *in, u32 compat, u32 call, u32 op, s64 ret) {
  u64 size = 0;
  if (op != OP_READ || !(call & (CALL_MSG | CALL_MMSG)) || ret < 0) return done(ctx, h, ret);
  if (call & CALL_MSG) read_user(&size, compat ? 4 : 8, (void *)(in->a[1] + (compat ? 20 : 40))); else size = ret;
  if (!size) return end(h);
  __builtin_memset(in->address, 0, sizeof(struct came));
  go(ctx, TAIL_RIGHTS);
  return give_up(h, CLASS_FILE);
}

/* Tail: a read, write, send or receive of a socket. */
int socket_io(u64 *ctx) {
  ENTER_CALL
  u64 fd, f, inode = 0, ino = 0, key = 0, peer = 0; u32 low = 0, n = 0, slot; u16 mode = 0, type = op == OP_READ ? SOCKET_RECEIVE : SOCKET_SEND;
  CALL_FD(fd)
  /* the loop first, on a copy of the count: what is known of `ret`, and what is looked at before, multiplies its states */
  in->bytes = ret; barrier();
  if (ret > 0 && call & CALL_MMSG) in->bytes = message_bytes(in, compat, *(volatile s64 *)&in->bytes);
  barrier(); s64 bytes = *(volatile s64 *)&in->bytes; compat = *(volatile u32 *)&in->compat;
  if (!h->undefinable && !task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_SOCKET); }
  f = fd_file(task, fd);
  if (f) { KL(inode, f, OFF_file__f_inode); KL2(mode, inode, OFF_inode__i_mode); }
  if (!f || (mode & 0170000) != 0140000) { put_event(h, cpu, ts, tid, type, 0, ret, nr, kf | KF_UNNAMED, fd, 0, 0, 0, CLASS_SOCKET); return came(ctx, h, in, compat, call, op, ret); }
  LOW(low, f); KL(ino, inode, OFF_inode__i_ino);
  __builtin_memset(in->address, 0, sizeof in->address);
  if (call & (CALL_ADDRESS | CALL_MSG | CALL_MMSG) && (op == OP_WRITE || ret >= 0)) { n = named_address(in, compat, call, in->address); if (n) peer = hash_address(in->address, n) | 1; }
  u64 tag = session_tag(tgid, exec_id, fd); slot = session_index(tag); struct session *s = sessions.lookup(&slot); if (!s) return end(h);
  int same = s->tag == tag && s->file == low && s->ino == ino && s->generation, quietly;
  if (!same) {
    struct endpoints x; key = look_at_socket(f, c->seed, &x);
    if (!h->undefinable && !is_sent(cpu, key)) { go(ctx, TAIL_DEFINE_SOCKET); return give_up(h, CLASS_SOCKET); }
    if (!session_begin(h, cpu, ts, s, slot, tag, low, ino, key, S_SOCKET, op == OP_ACCEPT)) { go(ctx, TAIL_SOCKET_IO); return give_up(h, CLASS_SOCKET); }
    kf |= KF_BEGIN;
  } else key = s->key;
  quietly = count_transfer(h, c, s, op == OP_READ, bytes);
  if (quietly && peer && peer != s->peer && !pressure(h)) { quietly = 0; h->folded--; }      /* another address: a dependence of its own */
  if (peer) s->peer = peer;
  if (quietly && same) return came(ctx, h, in, compat, call, op, ret);
  if (!n) { put_event(h, cpu, ts, tid, type, key, bytes, nr, kf, fd, slot, s, 0, CLASS_SOCKET); return came(ctx, h, in, compat, call, op, ret); }
  u64 seq = h->seq; h->seq = seq + 1;
  u8 *p = room(h, cpu, 192, 0);
  if (!p || h->undefinable) { h->refused_ring[CLASS_SOCKET]++; if (kf & KF_BEGIN) s->generation = 0; return end(h); }
  struct socket_send_event *e = (void *)p;
  e->type = type; e->units = 192 / 8; e->tid = tid; e->ts = ts; e->seq = seq; e->key = key; e->ret = bytes; e->nr = nr; e->kf = kf | KF_ADDRESS | KF_CLAIMED | wide(bytes); e->fd = fd;
  e->session = slot; e->generation = s->generation; e->extra = n | (u64)(bytes - (s32)bytes);
  __builtin_memcpy(p + 64, in->address, 128);
  push(h, 192 / 8);
  return came(ctx, h, in, compat, call, op, ret);
}

/* Descriptors that came with a message (SCM_RIGHTS): the kernel has written their numbers behind the message's control bytes. */
#define CONTROL_OF(m, p, n) { if (compat) { u32 v_[2] = {}; read_user(v_, 8, (void *)((m) + 16)); p = v_[0]; n = v_[1]; } \
                              else { u64 v_[2] = {}; read_user(v_, 16, (void *)((m) + 32)); p = v_[0]; n = v_[1]; } }
#define MOST_RIGHTS 24    /* that are told one by one: each takes one tail call */
/* How many descriptors stand in a message's control bytes, and where their numbers are. */
static inline u32 find_rights(u64 control, u64 size, u32 compat, u64 *numbers) {
  u64 at = control, head = compat ? 12 : 16; u32 i, length, w[2];
#pragma nounroll
  for (i = 0; i < 4; i++) {                /* before them may come credentials, a process's descriptor and a security context */
    length = w[0] = w[1] = 0;
    read_user(&length, 4, (void *)at); read_user(w, 8, (void *)(at + head - 8));
    if (length < head || at + length > control + size) break;
    if (w[0] == 1 && w[1] == 1) { *numbers = at + head; return (length - head) >> 2; }      /* SOL_SOCKET, SCM_RIGHTS */
    at += compat ? (length + 3) & ~3u : (length + 7) & ~7u;
  }
  return 0;
}
/* One of them: `through` is the socket's file. */
static inline int tell_right(u64 *ctx, struct account *h, struct config *c, u64 task, u64 ts, u32 cpu, s64 ret, u16 nr, u16 kf, s32 fd, u64 through, u32 received, u32 left) {
  u32 o; u64 f = fd >= 0 ? fd_file(task, (u32)fd) : 0; struct endpoints x;
  struct scratch *s = record_begin(task, ts, cpu, FILE_RECEIVE, ret, nr, kf, fd); if (!s) return 0;
  o = blob_task(s, 0, task);
  s->e.arg = received; s->e.arg2 = left;
  if (f) { f = CAST(f, ID_file); identify(s, f); o = blob_file(s, o, BLOB_PATH, f); }
  if (through) { u64 key = look_at_socket(through, c->seed, &x); o = blob_end(s, o, BLOB_SOCKET, write_socket(blob_at(s, o), key, ts, 0, &x) & 511); }
  record_end(ctx, h, s, o, CLASS_FILE);
  return 1;
}
/* The next message of a call with descriptors, or if `all` how many are in all that follow. Looks at so many that a verifier without
 * may_goto follows; kept in memory, so that it sees one state at the end. Is there nothing more to look at? */
static inline int look_for_rights(struct came *x, struct arguments *in, u64 task, u32 compat, s64 messages, int all) {
  volatile struct came *v = x; u32 i;
#pragma nounroll
  EACH(i, 256, task) {
    u64 control = 0, size = 0, numbers = 0, k = v->next; u32 n = 0;
    if ((s64)k >= messages) break;
    v->next = k + 1;
    CONTROL_OF(in->a[1] + k * (compat ? 32 : 64), control, size)
    if (size) n = find_rights(control, size, compat, &numbers);
    if (!n || n > 253) continue;                     /* SCM_MAX_FD */
    if (v->received) v->more += n; else { v->received = n; v->numbers = numbers; }
    if (!all) break;
  }
  return (s64)v->next >= messages || (v->received && !all);
}
/* Tail: one descriptor after the other; how far it came stands where the call's arguments are kept. */
int rights(u64 *ctx) {
  ENTER_CALL
  s64 messages = call & CALL_MMSG ? ret : 1; s32 fd = -1;
  struct came *x = (void *)in->address; u32 last = x->told + 1 >= MOST_RIGHTS, done = x->done, received, rest;
  if ((last || !x->received) && !look_for_rights(x, in, task, compat, messages, last)) { go(ctx, TAIL_RIGHTS); return give_up(h, CLASS_FILE); }
  received = x->received; if (done >= received) return end(h);
  read_user(&fd, 4, (void *)(x->numbers + 4 * (u64)done));
  rest = received - done - 1;
  if (!tell_right(ctx, h, c, task, ts, cpu, ret, nr, kf, fd, fd_file(task, (u32)in->a[0]), received, last ? rest + x->more : 0)) return end(h);
  if (last || (!rest && (s64)x->next >= messages)) return end(h);
  x->told++; x->done = rest ? done + 1 : 0; if (!rest) x->received = 0;
  go(ctx, TAIL_RIGHTS);
  return give_up(h, CLASS_FILE);
}

/* Announces a socket as it is now. */
static inline void introduce_socket(struct account *h, u32 cpu, u64 ts, struct config *c, u64 f) {
  struct endpoints x; u64 key = look_at_socket(f, c->seed, &x), *s = sent_slot(cpu, key); if (!s) return;
  u8 *p = room(h, cpu, 512, 0);
  if (!p) { h->undefinable = 1; return; }
  u32 n = write_socket(p, key, ts, h->seq, &x); push(h, (n + 7) >> 3); h->defined++; *s = key;
}
/* Says which object the session in this slot is about. */
static inline void define_session(struct account *h, u32 cpu, u64 ts, u32 tid, struct session *s, u32 slot, u64 key) {
  s->key = key;
  if (!s->generation) s->generation = GENERATION(h, cpu);
  struct session_definition *b = (void *)room(h, cpu, sizeof(*b), 0);
  if (b) { b->type = DEF_SESSION; b->units = sizeof(*b) / 8; b->tid = tid; b->ts = ts; b->seq = h->seq; b->key = key; b->session = slot; b->generation = s->generation; b->kf = 0; push(h, sizeof(*b) / 8); h->defined++; }
  else s->generation = 0;
}
/* Tail: announces the call's socket and starts the caller again. */
int define_socket(u64 *ctx) {
  ENTER_CALL
  u64 fd, f;
  if (op == OP_ACCEPT) fd = (u32)ret; else { CALL_FD(fd) }
  f = fd_file(task, fd); if (!f) return give_up(h, CLASS_SOCKET);
  introduce_socket(h, cpu, ts, c, f);
  go(ctx, op >= OP_CONNECT ? TAIL_SOCKET_CONTROL : TAIL_SOCKET_IO);
  return give_up(h, CLASS_SOCKET);
}

/* Tail: bind, listen, connect, accept. */
int socket_control(u64 *ctx) {
  ENTER_CALL
  u64 fd, f = 0, inode = 0, ino = 0, key = 0; u32 low; u16 mode = 0; struct endpoints x;
  ARG0(fd); fd = (u32)fd;
  if (op == OP_ACCEPT && ret >= 0) fd = (u32)ret;
  f = fd_file(task, fd);
  if (f) { KL(inode, f, OFF_file__f_inode); KL2(mode, inode, OFF_inode__i_mode); KL(ino, inode, OFF_inode__i_ino); }
  int socket = f && (mode & 0170000) == 0140000, lives = socket && !h->undefinable && (ret >= 0 || (op == OP_CONNECT && ret == -115));
  if (call_bits(NR_CLOSE) & CALL_LEFT_OUT) lives = 0;            /* no totals without the transfers */
  if (socket) key = look_at_socket(f, c->seed, &x);
  if (lives) {
    if (!is_sent(cpu, key)) { go(ctx, TAIL_DEFINE_SOCKET); return give_up(h, CLASS_SOCKET); }
    if (!task_known(task, cpu)) { go(ctx, TAIL_DEFINE_TASK); return give_up(h, CLASS_SOCKET); }
    /* the session begins here, so that a close without traffic still knows its object */
    u64 tag = session_tag(tgid, exec_id, fd); u32 slot = session_index(tag); struct session *s = sessions.lookup(&slot); if (!s) return end(h);
    LOW(low, f);
    if (!(s->tag == tag && s->file == low && s->ino == ino) && !session_begin(h, cpu, ts, s, slot, tag, low, ino, key, S_SOCKET, op == OP_ACCEPT)) {
      go(ctx, TAIL_SELF); return give_up(h, CLASS_SOCKET);
    }
    define_session(h, cpu, ts, tid, s, slot, key);
  }
  go(ctx, TAIL_SOCKET_RECORD);
  return give_up(h, CLASS_SOCKET);
}

/* Tail: the control record itself, in a program of its own so that the verifier does not multiply both parts' paths. */
int socket_record(u64 *ctx) {
  ENTER_CALL
  u64 fd, f, user, inode = 0, key, n = 0; u32 o; u16 mode = 0; struct endpoints x;
  struct scratch *s = record_begin(task, ts, cpu, 0, ret, nr, kf, -1); if (!s) return end(h);
  o = blob_task(s, 0, task);             /* the loops first: what is looked at before them multiplies their states */
  s->e.type = op == OP_CONNECT ? SOCKET_CONNECT : op == OP_BIND ? SOCKET_BIND : op == OP_LISTEN ? SOCKET_LISTEN : SOCKET_ACCEPT;
  ARG0(fd); fd = (u32)fd;
  if (op == OP_ACCEPT && ret >= 0) fd = (u32)ret;
  s->e.fd = fd;
  f = fd_file(task, fd);
  if (f) { KL(inode, f, OFF_file__f_inode); KL2(mode, inode, OFF_inode__i_mode); }
  if (op == OP_CONNECT || op == OP_BIND) {
    ARG1(user); ARG2(n);
    if (n > 112) n = 112;
    if (n > 1 && !read_user(blob_at(s, o), n & 127, (void *)user)) o = blob_end(s, o, BLOB_ADDRESS, n & 127);
  }
  if (f && (mode & 0170000) == 0140000) {
    key = look_at_socket(f, c->seed, &x);
    o = blob_end(s, o, BLOB_SOCKET, write_socket(blob_at(s, o), key, ts, 0, &x) & 511);
  }
  if (op == OP_LISTEN) { ARG1(n); s->e.arg = n; }
  record_end(ctx, h, s, o, CLASS_SOCKET);
  return end(h);
}
