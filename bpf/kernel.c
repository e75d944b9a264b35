/* What changes the kernel itself: modules, BPF programs, io_uring instances. */

/* Is this file one of the kernel's own anonymous ones, with a name that begins like this? */
static inline int anonymous(u64 f, u64 wanted) {
  u64 inode = 0, sb = 0, magic = 0, d = 0, name = 0, got = 0;
  KL(inode, f, OFF_file__f_inode); KL(sb, inode, OFF_inode__i_sb); KL(magic, sb, OFF_super_block__s_magic);
  KL(d, f, OFF_file__f_path__dentry); KL(name, d, OFF_dentry__d_name__name); RD(&got, 8, name);
  return magic == 0x09041934 && got == wanted;                    /* ANON_INODE_FS_MAGIC */
}
#define NAMED_BPF_PROG 0x676f72702d667062ull   /* "bpf-prog" */
#define NAMED_BPF_LINK 0x6b6e696c5f667062ull   /* "bpf_link" */
#define NAMED_IO_URING 0x6e6972755f6f695bull   /* "[io_urin" */
/* PROG_LOAD, OBJ_PIN, PROG_ATTACH, PROG_DETACH, RAW_TRACEPOINT_OPEN, LINK_CREATE, LINK_UPDATE, LINK_DETACH, TOKEN_CREATE:
 * what gives programs a place. Maps are their own business, and their use comes in torrents. */
#define BPF_COMMANDS (1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 9 | 1ull << 17 | 1ull << 28 | 1ull << 29 | 1ull << 34 | 1ull << 36)

static inline u32 blob_program(struct scratch *s, u32 o, u64 f) {
  struct program *p = (struct program *)blob_at(s, o); u64 it = 0, aux = 0, name = 0; u32 x = 0;
  KL(it, f, OFF_file__private_data);
  __builtin_memset(p, 0, sizeof *p);
  if (anonymous(f, NAMED_BPF_LINK)) { it = CAST(it, ID_bpf_link); KL4(x, it, OFF_bpf_link__id); p->link = x; KL(aux, it, OFF_bpf_link__prog); it = aux; }
  else if (!anonymous(f, NAMED_BPF_PROG)) return o;
  if (it) {
    it = CAST(it, ID_bpf_prog);
    KL4(x, it, OFF_bpf_prog__type); p->type = x; KL4(x, it, OFF_bpf_prog__expected_attach_type); p->attach = x; KL4(x, it, OFF_bpf_prog__len); p->length = x;
    RD(p->tag, 8, it + OFF_bpf_prog__tag); KL(aux, it, OFF_bpf_prog__aux); KL4(x, aux, OFF_bpf_prog_aux__id); p->id = x;
    RD(p->name, 16, aux + OFF_bpf_prog_aux__name); KL(name, aux, OFF_bpf_prog_aux__attach_func_name);
  }
  o = blob_end(s, o, BLOB_PROGRAM, sizeof *p);
  if (name) {
    long n = read_kernel_text(blob_at(s, o), 128, (void *)name);
    if (n > 1) o = blob_end(s, o, BLOB_TEXT, (n - 1) & 127);
  }
  return o;
}

#define MODULE_NAME 64
struct module_name { u64 tid; u8 name[MODULE_NAME]; };
BPF_ARRAY(module_names, struct module_name, 64);
/* The kernel's own name of a module that the current thread is just loading: the call's record takes it. */
int module_load(u64 *ctx) {
  u64 module; u32 tid, i; u64 task = current_task(); LD(module, ctx, 0); LD4(tid, task, OFF_task_struct__pid);
  i = tid & 63; struct module_name *m = module_names.lookup(&i); if (!m) return 0;
  m->tid = tid; RD(m->name, MODULE_NAME - 8, module + OFF_module__name);
  return 0;
}

/* Tail: init_module, finit_module, delete_module, bpf, io_uring_setup. */
int kernel_act(u64 *ctx) {
  ENTER_CALL
  u64 spec = call_spec((nr & 511) | (compat ? 512 : 0)), f = 0, x = 0; u32 o, type = CALL_TYPE(spec), i = tid & 63, v = 0; s64 fd = -1;
  if (type == KERNEL_BPF && !(in->a[0] < 64 && 1ull << in->a[0] & BPF_COMMANDS)) return end(h);
  struct scratch *s = act_begin(task, ts, cpu, spec, in, ret, nr, kf); if (!s) return end(h);
  o = blob_task(s, 0, task);
  if (CALL_DIR(spec) == RETURNED) { if (ret >= 0 && (type != KERNEL_BPF || in->a[0] == 5 || in->a[0] == 17 || in->a[0] == 28)) fd = ret; }
  else if (CALL_DIR(spec)) fd = (u32)argument(in, CALL_DIR(spec));
  if (fd >= 0) { s->e.fd = fd; f = fd_file(task, (u32)fd); }
  if (type == KERNEL_MODULE) {
    if (f) { identify(s, f); o = blob_file(s, o, BLOB_PATH, f); }
    o = blob_user_string(s, o, BLOB_TEXT, argument(in, CALL_NAME2(spec)));
    struct module_name *m = module_names.lookup(&i);
    if (m && m->tid == tid) {
      long n = read_kernel_text(blob_at(s, o), MODULE_NAME - 8, m->name);
      if (n > 1) o = blob_end(s, o, BLOB_TEXT2, (n - 1) & 63);
      m->tid = 0;
    }
  } else if (type == KERNEL_BPF) {
    if (f) o = blob_program(s, o, f);
    else if (in->a[0] == 5) {                                      /* a load that failed: the caller's word */
      struct program *p = (struct program *)blob_at(s, o); __builtin_memset(p, 0, sizeof *p); s->e.kf |= KF_CLAIMED;
      read_user(&p->type, 4, (void *)in->a[1]); read_user(&p->length, 4, (void *)(in->a[1] + 4));
      read_user(p->name, 16, (void *)(in->a[1] + 48));
      o = blob_end(s, o, BLOB_PROGRAM, sizeof *p);
    }
  } else if (f && anonymous(f, NAMED_IO_URING)) {
    KL(x, f, OFF_file__private_data); x = CAST(x, ID_io_ring_ctx); KL4(v, x, OFF_io_ring_ctx__flags); s->e.arg2 = v; KL4(v, x, OFF_io_ring_ctx__sq_entries); s->e.arg = v;
  }
  record_end(ctx, h, s, o, CLASS_PROCESS);
  return end(h);
}
