/* The load generator: known acts at a known rate, and a count of them that owes nothing to any monitor.
 *
 * load MODE SECONDS RATE [CPU] [DIRECTORY] [PROGRAM]
 *   mix      a cycle is openat, 3 reads, 2 writes, close, over FILES files below DIRECTORY
 *   oc       openat, close                        w    write to /dev/null        r    read of /dev/zero
 *   get      getppid: a syscall nobody traces     exec vfork, exec of PROGRAM, its exit    connect TCP over loopback
 * RATE is acts a second, 0 flat out; CPU -1 leaves the affinity alone. One JSON line on stdout: `acts` is every act
 * of this process that is an event, the preparation and this very line included, by the monitor's event names.
 *
 * It is linked statically and begins no descriptor it did not open, so that nothing but what it counts happens under its
 * name. Compiled with -DPROGRAM it is the tiny program of mode exec: no libc, it exits at once.
 */
#ifdef PROGRAM
void _start(void) {
    __asm__ volatile("syscall" : : "a"(231), "D"(0)); /* exit_group */
    __builtin_unreachable();
}
#else
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES 256
#define BATCH 8 /* cycles between two looks at the clock */
#define PATH_BYTES 256

enum { OPEN, READ, WRITE, CLOSE, FORK, EXEC, EXIT, BIND, LISTEN, CONNECT, ACCEPT, SOCKET_CLOSE, MKDIR, KINDS };
static const char *const names[KINDS] = {
    "file_open", "file_read", "file_write", "file_close", "process_fork", "process_exec", "process_exit",
    "socket_bind", "socket_listen", "socket_connect", "socket_accept", "socket_close", "file_mkdir",
};
static uint64_t acts[KINDS];
static uint64_t untraced;
static char paths[FILES][PATH_BYTES];
static char *program = "";
static int scratch = -1, listener = -1;
static struct sockaddr_in address;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Each act goes through one of these: it happens and is counted, or the program ends. */
static int do_open(const char *path, int flags) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0644);
    if (fd < 0) die(path);
    acts[OPEN]++;
    return fd;
}
static void do_read(int fd, void *to, size_t count) {
    if (syscall(SYS_read, fd, to, count) < 0) die("read");
    acts[READ]++;
}
static void do_write(int fd, const void *from, size_t count) {
    if (syscall(SYS_write, fd, from, count) != (long)count) die("write");
    acts[WRITE]++;
}
static void do_close(int fd, int kind) {
    if (syscall(SYS_close, fd)) die("close");
    acts[kind]++;
}

static void cycle_mix(unsigned n) {
    char buffer[64] = "0123456789abcdef";
    int fd = do_open(paths[n % FILES], O_RDWR);
    do_read(fd, buffer, 16);
    do_read(fd, buffer, 16);
    do_read(fd, buffer, 16);
    do_write(fd, buffer, 8);
    do_write(fd, buffer, 8);
    do_close(fd, CLOSE);
}
static void cycle_open_close(unsigned n) { do_close(do_open(paths[n % FILES], O_RDONLY), CLOSE); }
static void cycle_write(unsigned n) {
    (void)n;
    do_write(scratch, "01234567", 8);
}
static void cycle_read(unsigned n) {
    char buffer[8];
    (void)n;
    do_read(scratch, buffer, 8);
}
static void cycle_untraced(unsigned n) {
    (void)n;
    syscall(SYS_getppid);
    untraced++;
}
static void cycle_exec(unsigned n) {
    char *arguments[] = {program, NULL}, *environment[] = {NULL};
    int status;
    (void)n;
    pid_t child = vfork();
    if (child == 0) {
        execve(program, arguments, environment);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status) die(program);
    acts[FORK]++;
    acts[EXEC]++;
    acts[EXIT]++;
}
static void cycle_connect(unsigned n) {
    struct linger reset = {1, 0}; /* no TIME_WAIT: the ports would run out */
    (void)n;
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&address, sizeof address)) die("connect");
    acts[CONNECT]++;
    int server = accept4(listener, NULL, NULL, 0);
    if (server < 0) die("accept");
    acts[ACCEPT]++;
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    do_close(client, SOCKET_CLOSE);
    do_close(server, SOCKET_CLOSE);
}

static void prepare_files(const char *directory) {
    static const char content[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (int i = 0; i < FILES; i++) {
        char folder[PATH_BYTES - 32];
        if (snprintf(folder, sizeof folder, "%s/project-%02d", directory, i % 16) >= (int)sizeof folder) die("DIRECTORY is too long");
        acts[MKDIR]++; /* also when it is there already */
        if (mkdir(folder, 0755) && errno != EEXIST) die(folder);
        snprintf(paths[i], PATH_BYTES, "%s/src_module_%04d.c", folder, i);
        int fd = do_open(paths[i], O_RDWR | O_CREAT | O_TRUNC);
        do_write(fd, content, 64);
        do_close(fd, CLOSE);
    }
}
static void prepare_listener(void) {
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address)) die("bind");
    acts[BIND]++;
    if (listen(listener, 128)) die("listen");
    acts[LISTEN]++;
    if (getsockname(listener, (struct sockaddr *)&address, &size)) die("getsockname");
}

static const struct mode {
    const char *name;
    void (*cycle)(unsigned);
    unsigned syscalls; /* of a cycle, the ones the figure `ns` is about */
} modes[] = {
    {"mix", cycle_mix, 7}, {"oc", cycle_open_close, 2}, {"w", cycle_write, 1}, {"r", cycle_read, 1},
    {"get", cycle_untraced, 1}, {"exec", cycle_exec, 3}, {"connect", cycle_connect, 4},
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static uint64_t own_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Cycles until the time is over; how many. Ahead of its rate it spins: a sleep would give the core away. `busy` is the time
 * spent in cycles alone, so that a syscall's cost can be had at a rate that keeps no ring full. */
static uint64_t drive(const struct mode *mode, double seconds, double rate, uint64_t *elapsed, uint64_t *busy) {
    uint64_t cycles = 0, begin = now(), t = begin, end = begin + (uint64_t)(seconds * 1e9);
    while (t < end) {
        uint64_t before = t;
        if (rate > 0 && (double)(cycles * mode->syscalls) >= (double)(t - begin) * 1e-9 * rate) {
            t = now();
            continue;
        }
        for (int i = 0; i < BATCH; i++) mode->cycle((unsigned)cycles++);
        t = now();
        *busy += t - before;
    }
    *elapsed = t - begin;
    return cycles;
}

static void report(const struct mode *mode, uint64_t cycles, uint64_t elapsed, uint64_t busy, uint64_t cpu) {
    char text[1024];
    uint64_t n = cycles * mode->syscalls;
    int at = snprintf(text, sizeof text, "{\"mode\":\"%s\",\"pid\":%d,\"syscalls\":%lu,\"elapsed_ns\":%lu,\"ns\":%.2f,\"rate\":%.0f,\"cpu_share\":%.3f,\"acts\":{",
                      mode->name, (int)getpid(), n, elapsed, (double)busy / (double)n, (double)n * 1e9 / (double)elapsed,
                      (double)cpu / (double)elapsed);
    acts[WRITE]++; /* this line */
    acts[CLOSE]++; /* and the end of its descriptor */
    for (int i = 0; i < KINDS; i++)
        if (acts[i]) at += snprintf(text + at, sizeof text - (size_t)at, "%s\"%s\":%lu", text[at - 1] == '{' ? "" : ",", names[i], acts[i]);
    at += snprintf(text + at, sizeof text - (size_t)at, "}}\n");
    acts[WRITE]--;
    acts[CLOSE]--;
    do_write(STDOUT_FILENO, text, (size_t)at);
    do_close(STDOUT_FILENO, CLOSE);
}

int main(int count, char **values) {
    const struct mode *mode = NULL;
    for (size_t i = 0; count > 3 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(values[1], modes[i].name)) mode = &modes[i];
    if (!mode) {
        static const char usage[] = "usage: load mix|oc|w|r|get|exec|connect SECONDS RATE [CPU] [DIRECTORY] [PROGRAM]\n";
        return write(STDERR_FILENO, usage, sizeof usage - 1) < 0 ? 1 : 64;
    }
    int cpu = count > 4 ? atoi(values[4]) : -1;
    const char *directory = count > 5 ? values[5] : ".";
    program = count > 6 ? values[6] : "";
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
    }
    if (mode->cycle == cycle_mix || mode->cycle == cycle_open_close) prepare_files(directory);
    if (mode->cycle == cycle_write) scratch = do_open("/dev/null", O_WRONLY);
    if (mode->cycle == cycle_read) scratch = do_open("/dev/zero", O_RDONLY);
    if (mode->cycle == cycle_connect) prepare_listener();
    uint64_t elapsed, busy = 0, before = own_cpu_ns();
    uint64_t cycles = drive(mode, atof(values[2]), atof(values[3]), &elapsed, &busy);
    uint64_t cpu_ns = own_cpu_ns() - before;
    if (scratch >= 0) do_close(scratch, CLOSE);
    if (listener >= 0) do_close(listener, SOCKET_CLOSE);
    report(mode, cycles, elapsed, busy, cpu_ns);
    return 0;
}
#endif
