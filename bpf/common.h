/* What every program shares: loads of kernel members, maps, rings, the per-CPU account.
 *
 * Compiled by BCC. OFF_* (member offsets), ID_* (type ids) and the sizes come from monitor/kernel/compile.py, which reads them
 * from the running kernel's BTF; struct layouts shared with Python come from generated/events.h.
 * All programs run with preemption off and do not nest, so that each CPU has one writer and needs no lock. Since Linux 7.0 the kernel
 * leaves preemption on around them (PREEMPTED): they turn it off themselves, but for the moments of a tail call.
 */
#define PHI 0x9E3779B97F4A7C15ull
#define MIX(k, x) { (k) ^= (x); (k) *= PHI; (k) ^= (k) >> 32; }
#define barrier() asm volatile("" ::: "memory")

/* One member of a typed kernel object as a plain load: the verifier knows the type, a bad pointer reads zero. */
#define LD(d, p, off) asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(d) : "r"(p), "i"(off))
#define LD4(d, p, off) asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(d) : "r"(p), "i"(off))
#define LD2(d, p, off) asm volatile("%0 = *(u16 *)(%1 + %2)" : "=r"(d) : "r"(p), "i"(off))
/* The helpers bpf_probe_read_{user,kernel}[_str] under names of our own: at each call of theirs BCC 0.26 looks whether this kernel has it,
 * and builds a table of all the kernel's symbols for that (0.12 s of CPU, 3 s in all). */
static long (*read_user)(void *, u32, const void *) = (void *)112;
static long (*read_kernel)(void *, u32, const void *) = (void *)113;
static long (*read_user_text)(void *, u32, const void *) = (void *)114;
static long (*read_kernel_text)(void *, u32, const void *) = (void *)115;
#define RD(dst, size, p) read_kernel(dst, size, (void *)(p))

/* A string of the caller's memory, its size with the NUL. Of an empty one kernels until 6.12 at least answer 0 instead of 1. */
static inline long user_string(u8 *to, u32 size, u64 from) {
  long n = read_user_text(to, size, (void *)from);
  if (n == 0) { *to = 0; n = 1; }
  return n;
}

static u64 (*typed_task)(void) = (void *)158;     /* bpf_get_current_task_btf */
static u64 (*boot_ns)(void) = (void *)125;        /* bpf_ktime_get_boot_ns */
static u64 (*task_from_vpid)(s32) = (void *)0x7fff0005;   /* kfuncs where the kernel has them: HAVE_TASK_FROM_PID */
static void (*task_release)(u64) = (void *)0x7fff0006;
static int (*vma_new)(u64 *, u64, u64) = (void *)0x7fff0008;         /* ... HAVE_TASK_VMA */
static u64 (*vma_next)(u64 *) = (void *)0x7fff0009;
static void (*vma_destroy)(u64 *) = (void *)0x7fff000a;
static void (*preempt_off)(void) = (void *)0x7fff000b;               /* ... PREEMPTED */
static void (*preempt_on)(void) = (void *)0x7fff000c;
static u64 (*rdonly_cast)(u64, u64) = (void *)0x7fff0001; /* the loader makes it a kfunc call */

/* K*: the same through any pointer. With bpf_rdonly_cast everything is a plain load; without it a helper reads. */
#if CASTS
#define KL(d, p, off) LD(d, p, off)
#define KL4(d, p, off) LD4(d, p, off)
#define KL2(d, p, off) LD2(d, p, off)
#define CAST(p, id) rdonly_cast(p, id)
#else
#define KL(d, p, off) RD(&(d), 8, (p) + (off))
#define KL4(d, p, off) RD(&(d), 4, (p) + (off))
#define KL2(d, p, off) RD(&(d), 2, (p) + (off))
#define CAST(p, id) (p)
#endif
/* A task that the kernel gives typed is cast all the same: at each step from a pointer that it trusts the verifier seeks, by name and
 * through all types of the kernel, whether the next one is trusted too. For tasks that took 2.2 of the 3.0 s of CPU for loading all
 * programs, and for the memory areas of map.c 1.0 of 1.9 s. */
static inline u64 current_task(void) { return CAST(typed_task(), ID_task_struct); }
/* low 32 bits of a typed pointer as a number: the loader patches the addition into `w = w` */
#define LOW(d, p) { u64 low_; asm volatile("%0 = %1; %0 += 2147418114" : "=r"(low_) : "r"(p)); (d) = low_; }

/* A loop of at most `n` turns. Where the kernel has may_goto (Linux 6.9) the verifier walks the body until nothing new shows, two or
 * three times; else `n` times. It must not know the count then, nor that it is below `n`: a test whose answer it knows makes the count
 * a number that it keeps exact, and each turn a new one. The low bits of an aligned object's address are nought, but the verifier cannot
 * tell; multiplied, they may be any number to it. Loading all programs takes 0.6 s of CPU instead of 3 s. The loader makes the marked
 * call and its test one may_goto. */
#if MAY_GOTO
static u64 (*may_stop)(void) = (void *)0x7fff0007;
#define NOUGHT(object) ({ u32 low_bits; LOW(low_bits, object); (low_bits & 7) * 0x9E3779B1u; })
#define EACH(i, n, object) for ((i) = NOUGHT(object); (i) < (n) && !may_stop(); (i)++)
#else
#define EACH(i, n, object) for ((i) = 0; (i) < (n); (i)++)
#endif

/* Compare and swap. BCC's LLVM cannot emit it; the loader makes `r0 = r1` of the first call and cmpxchg(r2, r0, r3) of the second. */
static u64 (*set_r0)(u64) = (void *)0x7fff0003;
static u64 (*cmpxchg_r0)(u64, u64 *, u64) = (void *)0x7fff0004;
static inline u64 swap_if(u64 *p, u64 old, u64 new) { return cmpxchg_r0(set_r0(old), p, new); }

enum { OP_OPEN = 1, OP_READ, OP_WRITE, OP_CLOSE, OP_DUP2, OP_CLOSE_RANGE, OP_NAMES, OP_OBJECT, OP_EXEC, OP_FORK,
       OP_CONNECT, OP_BIND, OP_LISTEN, OP_ACCEPT, OP_CREDENTIALS, OP_NAMESPACE, OP_TRACING, OP_SIGNAL, OP_KERNEL, OP_CLOCK, OP_MAP };
#define CALL_OP 0xff        /* calls[]: the operation ... */
#define CALL_LEFT_OUT 0x100 /* the profile leaves it out, counted */
#define CALL_ADDRESS 0x200  /* argument 4 is an address: sendto, recvfrom */
#define CALL_MSG 0x400      /* argument 1 is a msghdr */
#define CALL_MMSG 0x800     /* argument 1 is a vector of mmsghdr, the return value counts messages */
#define CALL_AT 0x1000      /* argument 0 is a directory descriptor */
#define CALL_COMPAT 0x2000  /* the 32-bit table has an entry of this number */
#define CALL_FLAGS2 0x4000  /* open_how: the flags are behind the pointer in argument 2 */
#define CALL_HANDLE 0x8000  /* open_by_handle_at: no name */
#define CALL_PAIR 0x10000   /* reads from one descriptor and writes to another: two events, the source's first */
#define CALL_FROM(c) ((c) >> 17 & 3)    /* ... which are in these arguments */
#define CALL_TO(c) ((c) >> 19 & 3)
#define CALL_VMSPLICE 0x200000          /* a read or a write: whichever the pipe's end is for */
#define CALL_FAILURES 0x400000  /* only failed calls: others are seen by a hook of their own */
#define CALL_RMDIR 0x800000     /* unlinkat: with AT_REMOVEDIR another event */

#define CALL_TAIL(c) ((c) >> 24 & 255)   /* the program that records it; 0: sys_exit itself */
#define CALL_TYPE(c) ((c) >> 32 & 255)   /* the event, where the operation does not say it */
/* which argument is what: 1 is the first, 0: there is none */
#define CALL_NAME(c) ((c) >> 40 & 15)
#define CALL_DIR(c) ((c) >> 44 & 15)     /* the directory descriptor that the name starts from; of an object its descriptor */
#define CALL_NAME2(c) ((c) >> 48 & 15)
#define CALL_DIR2(c) ((c) >> 52 & 15)    /* 15: the second string is no path */
#define CALL_VALUE(c) ((c) >> 56 & 7)
#define CALL_VALUE2(c) ((c) >> 59 & 7)
#define NOT_A_PATH 15
#define RETURNED 15      /* as a descriptor: the one that the call made */
/* of the rarer operations: bits that mean something else for reads and writes */
#define CALL_OPTION 0x200  /* argument 0 says what is to be done: only some of it is an event */
#define CALL_PIDFD 0x400   /* the other process is named by a descriptor */
/* rows of io_uring's operations, behind the two tables of system calls */
#define CALL_LATER 0x20000      /* a name or an address is needed that is gone when the request completes */

enum { CLASS_PROCESS, CLASS_FILE, CLASS_SOCKET, CLASSES };
enum { WHY_CLOSE, WHY_DUP, WHY_EXEC, WHY_EXIT, WHY_EVICT, WHY_INTERVAL };

/* An own rule (bpf/exclude.c): what it selects by, and which acts it leaves out. Members that `selects` does not name are 0. */
#define EXCLUSIONS 8
struct exclusion {
  u64 exe_ino, dir_ino, magic, cgroup;
  u32 exe_dev, dir_dev, dev, uid, selects, events;
  u8 name[32];            /* only the reader's: whose the counts of this place are */
};
enum { BY_EXECUTABLE, BY_DIRECTORY, BY_FILE_SYSTEM, BY_CGROUP, BY_DEVICE, BY_USER, ONLY_READERS, ONLY_WRITERS, EVEN_SENSITIVE };

struct config {
  u32 fold, standard, quiet_age, args_limit;
  u32 self[4];            /* thread group ids of the monitor and its children ... */
  u64 self_start[4];      /* ... with their start times: a reused pid is somebody else */
  u64 wall_offset;        /* CLOCK_REALTIME - CLOCK_BOOTTIME, for the age of a ctime */
  u32 sensitive_ino[8], sensitive_dev[8];
  u64 environment[4][4];  /* variables that an exec tells: 16 bytes of "NAME=", and which of them count; 0: none, unused ones repeat the first */
  u32 exclusions, turn;   /* how many own rules hold; 0 while they are written, and another turn afterwards */
  struct exclusion exclusion[EXCLUSIONS];
  u64 seed, salt;         /* of path keys; of verdicts: another one when the sensitive objects or the rules' directories change */
};

struct account {          /* one per CPU; monitor/kernel/rings.py mirrors it */
  u64 head;               /* bytes ever written to this CPU's ring */
  u64 seq;                /* events ever numbered: submitted and refused */
  u64 busy;               /* 0; 1: a program is in flight; else its time stamp */
  u64 folded, level;
  u32 undefinable;
  u32 owner;              /* PREEMPTED: the thread whose programs run */
  u64 control;
  u32 swept;              /* descriptors that a sweep has done */
  u32 phase;              /* of a call with two descriptors: 1 its source, 2 its destination */
  u64 tail;               /* written by the reader, on a cache line of its own */
  u64 pad[7];
  u64 refused_ring[4], refused_control[4];
  u64 suppressed_self, suppressed_profile, suppressed_quiet, defined, unstable, switches;
  u64 asked;              /* the own rules were asked about the call of this time stamp, in this phase */
  u64 nested;             /* PREEMPTED: programs that came within another thread's tail call, and did nothing */
  u64 excluded[EXCLUSIONS];
};

struct session {          /* reads and writes of one process through one descriptor of one open file */
  u64 tag, ino, key;
  u64 read_bytes, write_bytes, read_count, write_count;
  u32 file;               /* low half of the struct file's address */
  u32 generation;         /* 0: nobody was told of it yet */
  u32 flags;
  u16 read_error, write_error;
  u64 peer;               /* hash of the last address given to a send or receive */
};
#define TAKEN 1ull        /* tag of a session that a CPU is just changing */
#define S_READ 1
#define S_WRITE 2
#define S_LEFT_OUT 4           /* left out until something is told of it: by the profile, or by an own rule */
#define S_RULE(flags) ((flags) >> 8 & 15)     /* ... the rule's place, from 1 */
#define S_SOCKET 8
#define S_FIXED 16          /* through a place in the table of an io_uring: there is no descriptor to show */
#define S_QUIET 32          /* of a quiet object, in the other profiles: what is told of it is marked */
#define S_LOUD ~(S_QUIET | S_READ | S_WRITE)    /* it is not quiet any more: the next transfer is an event again */

/* Never 0, and never the same on two CPUs. */
#define GENERATION(h, cpu) ((u32)(((h)->seq * NCPU + (cpu)) * 2 + 1))

struct ring { u64 first; };                 /* and what follows, RING bytes and some: compile.value_sizes */
struct arguments { u64 ts, a[8]; s64 bytes; u32 compat, call; u8 address[128]; };   /* of the call that is being looked at */
struct known { u64 start, comm0, comm1, cgroups; u32 tgid, tid, exec_id, uid, euid, gid, egid, ppid, login, session; };

BPF_F_TABLE("array", u32, u64, calls, 2048, 1024);
BPF_F_TABLE("array", u32, struct config, config, 1, 1024);
BPF_F_TABLE("array", u32, struct account, accounts, NCPU, 1024);
BPF_F_TABLE("array", u32, struct ring, rings, NCPU, 1024);
BPF_F_TABLE("array", u32, u64, sent, NSENT * NCPU, 1024);
BPF_F_TABLE("array", u32, struct known, known, NTASK * NCPU, 1024);
BPF_F_TABLE("array", u32, struct session, sessions, NSESSION, 1024);
BPF_ARRAY(arguments, struct arguments, NCPU);
BPF_ARRAY(exited, u64, NEXITED);            /* processes whose exit was recorded, where the kernel does not say which thread is the last */
struct verdict { u64 key, mask; };        /* of a path: bit 0 nothing of it is sensitive; bit 1 + n: it is in the directory of own rule n */
BPF_ARRAY(verdicts, struct verdict, NVERDICT * NCPU);
BPF_PROG_ARRAY(jump, 64);
#if URING
#define NNOTED 4096
struct request { u8 b[256]; };                      /* a copy of the struct io_kiocb that is being looked at */
struct noted { u64 request; u32 fd, fixed; };       /* of the last request at this address: the completion overwrites it */
struct pending { u64 data, value; u32 ring, fd, fixed, bytes, bytes2; s32 dfd, dfd2, pad; u8 name[4096], name2[4096]; };
struct staging { u64 request; struct pending p; };
BPF_ARRAY(requests, struct request, NCPU);
BPF_ARRAY(noted, struct noted, NNOTED);
BPF_ARRAY(staging, struct staging, NCPU);
BPF_ARRAY(fixed_users, u32, 4096);                  /* processes with sessions that no sweep over descriptors finds */
BPF_F_TABLE("hash", u64, struct pending, pending, 4096, 1);   /* BPF_F_NO_PREALLOC: 8 KiB each, while they are pending */
BPF_F_TABLE("lru_hash", u64, u64, by_data, 4096, 0);          /* ring and user_data -> request */
BPF_PROG_ARRAY(jump_uring, 16);
BPF_PROG_ARRAY(jump_submit, 1);
#endif
/* state of the reader: it lives as long as the rings do, so that a new reader goes on where a killed one was */
struct commit_page { u64 first; };           /* likewise */
struct mirror_page { u8 b[4096]; };
BPF_F_TABLE("array", u32, struct commit_page, commit, 1, 1024);
BPF_F_TABLE("array", u32, struct mirror_page, mirror, MIRROR_PAGES, 1024);
#if CONTROL_PERF
BPF_PERF_OUTPUT(control);
#else
BPF_RINGBUF_OUTPUT(control, CONTROL_PAGES);
#endif
struct scratch { struct control_event e; u8 b[SCRATCH]; };
BPF_F_TABLE("array", u32, struct scratch, answer, 1, 1024);   /* of the self-test */
BPF_ARRAY(scratch, struct scratch, NCPU);   /* by CPU: a per-CPU array takes at most 32 KiB */

static inline struct account *account_of(u32 cpu) { return cpu < NCPU ? accounts.lookup(&cpu) : 0; }
static inline struct config *configuration(void) { int z = 0; return config.lookup(&z); }

#define TAIL_SELF TAIL_SYS_EXIT

/* Tail calls: behind one is only what happens when it fails. The verifier takes none with preemption off. */
#if !PREEMPTED
#define preempt_on() {}
#define preempt_off() {}
#endif
static inline void go(u64 *ctx, u32 tail) { preempt_on(); jump.call(ctx, tail); preempt_off(); }
#if URING
static inline void go_uring(u64 *ctx, u32 tail) { preempt_on(); jump_uring.call(ctx, tail); preempt_off(); }
static inline void go_submit(u64 *ctx) { preempt_on(); jump_submit.call(ctx, 0); preempt_off(); }
#endif

/* Has another thread been preempted on this CPU within a tail call? Then nothing may be touched. */
static inline int nested(void) {
  u32 cpu = bpf_get_smp_processor_id(), tid = bpf_get_current_pid_tgid(); struct account *h = account_of(cpu); if (!h) return 1;
  if (h->busy && h->owner != tid) { h->nested++; return 1; }
  h->owner = tid;
  return 0;
}

/* A program begins: from here on the reader does not log anything later than this program's time stamp.
 * A program that was re-entered by tail call keeps the first time. */
static inline u64 begin(struct account *h) {
  u64 ts = h->busy;
  if (ts > 1) return ts;
  *(volatile u64 *)&h->busy = 1;
  ts = boot_ns();
  *(volatile u64 *)&h->busy = ts;
  return ts;
}
static inline int end(struct account *h) {
  barrier();
  h->undefinable = 0;
  h->phase = 0;
  *(volatile u64 *)&h->busy = 0;
  return 0;
}

/* One act more that is left out with its session. */
static inline void count_left_out(struct account *h, u32 flags) {
  u32 rule = S_RULE(flags);
  if (rule) h->excluded[(rule - 1) & (EXCLUSIONS - 1)]++; else h->suppressed_quiet++;
}

/* Is this act the monitor's own? */
static inline int own(u64 task, u32 tgid, struct config *c) {
  u64 leader, start;
  if (tgid != c->self[0] && tgid != c->self[1] && tgid != c->self[2] && tgid != c->self[3]) return 0;
  LD(leader, CAST(task, ID_task_struct), OFF_task_struct__group_leader);
  LD(start, leader, OFF_task_struct__start_boottime);
  return (tgid == c->self[0] && start == c->self_start[0]) || (tgid == c->self[1] && start == c->self_start[1]) ||
         (tgid == c->self[2] && start == c->self_start[2]) || (tgid == c->self[3] && start == c->self_start[3]);
}

/* How full the ring is: 0 plenty; 1 above 75 %: reads and writes fold; 2 above 90 %: only the first of a session; back at 50 %. */
static inline u32 pressure(struct account *h) {
  u64 used = h->head - *(volatile u64 *)&h->tail;
  u32 before = h->level, level = before;
  if (used > RING - RING / 10) level = 2;
  else if (used > RING - RING / 4) { if (level < 1) level = 1; }
  else if (used < RING / 2) level = 0;
  if (level > before) h->switches++;
  h->level = level;
  return level;
}
/* Room for `need` bytes in this CPU's ring. The last 5 % is kept for what control events bring with them. */
static inline u8 *room(struct account *h, u32 cpu, u32 need, int derived) {
  u64 used = h->head - *(volatile u64 *)&h->tail;
  struct ring *r;
  if (used + need > (derived ? RING : RING - RING / 20)) return 0;
  r = rings.lookup(&cpu);
  return r ? (u8 *)r + (h->head & (RING - 1)) : 0;
}
static inline void push(struct account *h, u32 units) {
  barrier();
  *(volatile u64 *)&h->head = h->head + 8 * (u64)units;
}
