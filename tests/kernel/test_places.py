"""A long walk through odd places: whatever a name went through, the log has the path that the kernel itself tells of the descriptor.

Renamed parents, hard links, bind mounts, chroot, pivot_root, overlayfs (also mapped to be executed), `..`, symbolic and magic links,
inodes and dentries that come again, 20 components, 4,095 bytes; as root and in a user namespace. EBPF_MONITOR_ATTACKS=20000 is the
long version.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import MonitorProcess, name_of

TRIED = int(os.environ.get("EBPF_MONITOR_ATTACKS", "401"))
LONG = 60 + TRIED / 20
KINDS = 11
pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["loads", "helpers"],
)

# Each look is an openat, then what /proc/self/fd says of the descriptor, seen from the root of the mount namespace.
WALK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#define NEED(x) do { if (!(x)) { fprintf(stderr, "line %d: %m\n", __LINE__); exit(1); } } while (0)
static int proc; static char dir[256], root[256], a[4400], b[4400];
static const char *in(const char *name) { static char all[4][4400]; static int n; n = (n + 1) % 4; snprintf(all[n], 4400, "%s/%s", dir, name); return all[n]; }
static void make(const char *path) { int f = syscall(SYS_creat, path, 0644); NEED(f >= 0 && write(f, "x", 1) == 1); close(f); }
static void put(const char *path, const char *text) { int f = syscall(SYS_open, path, O_WRONLY); NEED(f >= 0 && write(f, text, strlen(text)) > 0); close(f); }
static int look(const char *path, int how, int kind) {
  char fd[64], said[4200]; int f = syscall(SYS_openat, AT_FDCWD, path, how, 0644); if (f < 0) fprintf(stderr, "%d %s ", kind, path); NEED(f >= 0);
  sprintf(fd, "self/fd/%d", f); long n = readlinkat(proc, fd, said, sizeof said); NEED(n > 0);
  printf("%d %s%.*s\n", kind, root, (int)n, said); return f;
}
int main(int c, char **v) {
  snprintf(dir, sizeof dir, "%s", v[1]); long n = atol(v[2]), i; int user = atoi(v[3]), f, g, top, held; char line[64];
  if (user) {
    unsigned uid = 61234; NEED(!setresgid(uid, uid, uid) && !setresuid(uid, uid, uid) && !prctl(PR_SET_DUMPABLE, 1) && !unshare(CLONE_NEWUSER | CLONE_NEWNS));
    sprintf(line, "0 %u 1", uid); put("/proc/self/uid_map", line); put("/proc/self/setgroups", "deny"); put("/proc/self/gid_map", line);
  } else NEED(!unshare(CLONE_NEWNS));
  NEED(!mount("none", "/", 0, MS_REC | MS_PRIVATE, 0));
  umask(0); proc = syscall(SYS_open, "/proc", O_RDONLY | O_DIRECTORY);
  NEED(!mkdir(in("p0"), 0755) && !mkdir(in("p0/a"), 0755) && !mkdir(in("p0/a/b"), 0755)); make(in("p0/a/b/f"));
  NEED(!mkdir(in("bound"), 0755) && !mkdir(in("jail"), 0755) && !mkdir(in("jail/a"), 0755)); make(in("jail/a/f"));
  NEED(!mkdir(in("t"), 0755) && !mount("t", in("t"), "tmpfs", 0, 0));
  strcpy(a, "deep"); for (i = 0; i < 20; i++) { NEED(!mkdir(in(a), 0755)); sprintf(line, "/level%02ld", i); strcat(a, line); } strcpy(strrchr(a, '/'), "/f"); make(in(a)); char *deep = strdup(in(a));
  /* 4,095 bytes: names of 250 */
  NEED(!chdir(dir)); strcpy(b, dir); memset(a, 'n', 250); a[250] = 0;
  while (strlen(b) + 251 + 2 < 4095) { NEED(!mkdir(a, 0755) && !chdir(a)); strcat(b, "/"); strcat(b, a); }
  g = 4095 - strlen(b) - 1; memset(a, 'm', g); a[g] = 0; make(a); strcat(b, "/"); strcat(b, a); char *wide = strdup(b); NEED(strlen(wide) == 4095 && !chdir(dir));
  NEED(!symlink("p0", "s0") && !symlink("s0/a", "s1"));
  NEED(!mkdir(in("t/l"), 0755) && !mkdir(in("t/u"), 0755) && !mkdir(in("t/w"), 0755) && !mkdir(in("t/m"), 0755)); make(in("t/l/low"));
  snprintf(a, sizeof a, "lowerdir=%s/t/l,upperdir=%s/t/u,workdir=%s/t/w", dir, dir, dir);
  int overlay = !mount("overlay", in("t/m"), "overlay", 0, a);
  held = syscall(SYS_open, in("p0/a/b/f"), O_RDONLY); top = syscall(SYS_open, "/", O_RDONLY | O_DIRECTORY);
  for (i = 0; i < n; i++) {
    int kind = i % 11, odd = i / 11 % 2; f = -1;
    switch (kind) {
      case 0: NEED(!rename(odd ? "p1" : "p0", odd ? "p0" : "p1")); f = look(odd ? "p0/a/b/../b/./f" : "p1/a/../a/b/f", O_RDONLY, kind); break;
      case 1: sprintf(line, "hard%ld", i % 7); NEED(!linkat(held, "", AT_FDCWD, line, AT_EMPTY_PATH) || !link(access("p0", F_OK) ? "p1/a/b/f" : "p0/a/b/f", line)); f = look(line, O_RDWR, kind); NEED(!unlink(line)); break;
      case 2: NEED(!mount(access("p0", F_OK) ? "p1/a" : "p0/a", "bound", 0, MS_BIND, 0)); f = look("bound/b/f", O_RDONLY, kind); close(f); f = -1; NEED(!umount2("bound", 0)); break;
      case 3: NEED(!unlink("s0") && !symlink(access("p0", F_OK) ? "p1" : "p0", "s0")); f = look(odd ? "s0/a/b/f" : "s1/b/f", O_RDONLY, kind); break;
      case 4: sprintf(line, "/proc/self/fd/%d", held); f = look(odd ? line : "/proc/self/cwd/bound", O_RDONLY, kind); break;
      case 5: f = look(deep, O_RDWR, kind); break;
      case 6: f = look(wide, O_RDONLY, kind); break;
      case 7: sprintf(line, "new%lx", i * 2654435761); f = look(line, O_RDWR | O_CREAT | O_EXCL, kind); NEED(!unlink(line)); break;
      case 8: if (!overlay) break;
        sprintf(line, "t/m/%s%ld", odd ? "low" : "made", odd ? 0 : i % 5); if (odd) line[strlen(line) - 1] = 0;
        f = look(line, odd && i % 3 ? O_RDONLY : O_RDWR | O_CREAT, kind); if (!odd) NEED(write(f, "x", 1) == 1);
        char *p = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, f, 0); NEED(p != MAP_FAILED); munmap(p, 4096); break;
      case 9: strcpy(root, in("jail")); NEED(!chroot("jail") && !chdir("/")); close(look(odd ? "/a/f" : "a/../../a/f", O_RDONLY, -1)); break;
      case 10: sprintf(line, "t/%lx", i * 40503); NEED(!mkdir(line, 0755)); strcat(line, "/g"); f = look(line, O_RDWR | O_CREAT, kind); unlink(line); *strrchr(line, '/') = 0; NEED(!rmdir(line)); break;
    }
    if (*root) { *root = 0; NEED(!fchdir(top) && !chroot(".") && !chdir(dir)); }
    if (f >= 0) close(f);
  }
  NEED(!chdir("t") && !mkdir("r", 0755) && !mount("r", "r", "tmpfs", 0, 0) && !chdir("r") && !mkdir("old", 0755) && !mkdir("proc", 0755) && !mkdir("x", 0755));
  NEED(!mount("/proc", "proc", 0, MS_BIND | MS_REC, 0) && !syscall(SYS_pivot_root, ".", "old") && !chdir("/")); make("/x/f");
  for (i = 0; i < 10; i++) close(look(i % 2 ? "/x/f" : "x/../x/./f", O_RDONLY, 100));
  snprintf(b, sizeof b, "/old%s/jail/a/f", dir); close(look(b, O_RDONLY, 100));
  NEED(!umount2("/old", MNT_DETACH)); close(look("/x/f", O_RDWR, 100));
  return 0;
}
"""


@pytest.mark.parametrize("who", ["root", "user-namespace"])
def test_no_path_of_a_long_walk_is_wrong(monitor: MonitorProcess, programs: Path, place: Path, who: str) -> None:
    place.chmod(0o777)
    walk = subprocess.Popen(
        [compile_c(programs, "walk", WALK), place, str(TRIED), str(int(who != "root"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = walk.communicate(timeout=LONG * 4)
    assert walk.returncode == 0, errors
    kinds, truth = zip(*(line.split(" ", 1) for line in output.splitlines()), strict=True)
    found = monitor.program(walk.pid, LONG)
    opens = [one for one in found if name_of(one) == "file_open" and one["ebpf"]["syscall"] == "openat"]
    shown = [one["file"]["path"] for one in opens if one["event"]["outcome"] == "success"]
    assert len(shown) == len(truth) >= TRIED * (KINDS - 1) // KINDS
    wrong = [pair for pair in zip(kinds, shown, truth, strict=True) if pair[1] != pair[2]]
    assert not wrong, f"{len(wrong)} of {len(truth)} wrong: {wrong[:3]}"
    mapped = [one["file"]["path"] for one in found if name_of(one) == "file_map"]
    on_overlay = [path for kind, path in zip(kinds, truth, strict=True) if kind == "8"]
    assert on_overlay or "\toverlay\n" not in Path("/proc/filesystems").read_text()
    assert mapped[len(mapped) - len(on_overlay) :] == on_overlay
