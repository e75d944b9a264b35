"""process_fork, process_exec, process_exit: known acts through every system call, exactly these documents, true facts."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Call, Script, compile_c
from tests.kernel.monitor_process import PATIENCE, Document, MonitorProcess, name_of, wall_ns

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "control_lane": "perf"}],
    indirect=True,
    ids=["ringbuf", "perf"],
)
PRIME = 7


def brief(documents: list[Document]) -> list[str]:
    return [name_of(one) for one in documents]


def lifetime_of(monitor: MonitorProcess, pid: int) -> tuple[Document, ...]:
    return tuple(monitor.lifetime(pid))


@pytest.mark.parametrize("call", ["fork", "vfork", "clone", "clone3"])
def test_each_fork_is_one_document_of_the_child_naming_its_parent(
    monitor: MonitorProcess, script: Script, call: str
) -> None:
    arguments = {"clone": (signal.SIGCHLD,), "clone3": (script.words(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)}.get(
        call, ()
    )
    made = []
    for code in range(PRIME):
        made.append(script.spawn(call, *arguments, code=code))
        script.reap(made[-1])
    parent = script.run()
    own = monitor.lifetime(parent)[-1]
    assert monitor.program(parent) == []
    for code, fork in enumerate(made):
        documents = monitor.lifetime(fork.ret)
        assert brief(documents) == ["process_fork", "process_exit"]
        born, ended = documents
        assert (born["ebpf"]["syscall"], born["ebpf"]["ret"], born["event"]["outcome"]) == (call, fork.ret, "success")
        assert (
            born["process"]["parent"]
            == {"pid": parent, "entity_id": own["process"]["entity_id"]}
            == ended["process"]["parent"]
        )
        assert born["process"]["entity_id"] == ended["process"]["entity_id"] != own["process"]["entity_id"]
        assert born["process"]["executable"] == str(script.actor) == ended["process"]["executable"]
        assert ended["process"]["exit_code"] == code
        assert fork.before - 50_000_000 <= wall_ns(born) <= fork.after + 50_000_000


def test_a_thread_is_no_fork(monitor: MonitorProcess, programs: Path) -> None:
    threads = compile_c(
        programs,
        "threads",
        r"""
        #include <pthread.h>
        static void *run(void *x) { return x; }
        int main(void) {
          pthread_t t;
          for (int i = 0; i < 7; i++) { pthread_create(&t, 0, run, 0); pthread_join(t, 0); }
          return 0;
        }
    """,
    )
    child = subprocess.Popen([threads])
    assert child.wait() == 0
    assert monitor.program(child.pid) == []


def test_threads_that_end_at_once_are_one_exit_of_their_process(monitor: MonitorProcess, programs: Path) -> None:
    """Two threads leave at the same moment, 200 times: until Linux 6.15 both may look like the last one."""
    together = compile_c(
        programs,
        "together",
        r"""
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <sched.h>
        #include <stdatomic.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static atomic_int ready;
        static void leave(void) { atomic_fetch_add(&ready, 1); while (atomic_load(&ready) < 2) sched_yield(); syscall(SYS_exit, 0); }
        static void *run(void *x) { leave(); return x; }
        int main(void) {
          for (int i = 0; i < 200; i++) {
            if (!fork()) { pthread_t t; pthread_create(&t, 0, run, 0); leave(); }
            wait(0);
          }
          return 0;
        }
    """,
    )
    parent = subprocess.Popen([together])
    assert parent.wait(60 * PATIENCE) == 0
    monitor.lifetime(parent.pid, 60)
    children = monitor.journal.born[parent.pid]
    assert len(children) == 200
    exits = [brief(monitor.journal.documents(pid, entity)).count("process_exit") for pid, entity in children]
    assert exits == [1] * 200


def test_a_fork_that_fails_is_a_document_of_the_caller_with_its_error(monitor: MonitorProcess, script: Script) -> None:
    sighand_without_vm, nobody = 0x800, 65534
    for _ in range(PRIME):
        script.call("clone", sighand_without_vm | signal.SIGCHLD)
        script.call("clone3", script.words(0), 8)
    script.call("setresuid", nobody, nobody, nobody)
    script.call("prlimit64", 0, 6, script.words(0, 0), 0)  # RLIMIT_NPROC
    script.call("fork")
    script.call("vfork")
    pid = script.run()
    found = [one for one in monitor.program(pid) if one["ebpf"]["event"] != "process_credentials"]
    assert brief(found) == ["process_fork"] * (2 * PRIME + 2)
    assert [(one["ebpf"]["syscall"], one["error"]["code"], one["event"]["outcome"]) for one in found] == [
        *[("clone", "EINVAL", "failure"), ("clone3", "EINVAL", "failure")] * PRIME,
        ("fork", "EAGAIN", "failure"),
        ("vfork", "EAGAIN", "failure"),
    ]
    assert {one["process"]["pid"] for one in found} == {pid}


def exec_children(script: Script, steps: Sequence[tuple[str, tuple[int | Call, ...]]], code: int = 0) -> list[int]:
    """One child for each exec call; their pids. The parent's descriptors are the child's."""
    forks = []
    for name, arguments in steps:
        child = script.begin_child()
        script.call(name, *arguments)
        forks.append(script.end_child(child, code=77))
        script.reap(forks[-1])
    script.run()
    return [fork.ret for fork in forks]


def test_each_exec_is_one_document_with_the_program_and_its_arguments(
    monitor: MonitorProcess, script: Script, programs: Path, place: Path
) -> None:
    noop, empty = programs / "noop", script.words(0)
    about = noop.stat()
    directory = script.call("open", script.text(programs), os.O_RDONLY | os.O_DIRECTORY)
    program = script.call("open", script.text(noop), os.O_RDONLY)
    argv = script.strings(["noop", "", "two words", ""])
    relative, at_empty_path = script.text("noop"), 0x1000
    steps: list[tuple[str, tuple[int | Call, ...]]] = []
    for _ in range(PRIME):
        steps += [
            ("execve", (script.text(noop), argv, empty)),
            ("execve", (relative, argv, empty)),
            ("execveat", (AT_FDCWD, script.text(noop), argv, empty, 0)),
            ("execveat", (directory, relative, argv, empty, 0)),
            ("execveat", (program, script.text(""), argv, empty, at_empty_path)),
        ]
    script.call("chdir", script.text(programs))
    pids = exec_children(script, steps)
    for pid, (call, arguments) in zip(pids, steps, strict=True):
        documents = monitor.lifetime(pid)
        assert brief(documents) == ["process_fork", "process_exec", "process_exit"], documents
        found = documents[1]
        if arguments[0] == AT_FDCWD:  # the kernel writes execve over the number and keeps no trace of this form
            call = "execve"
        assert (found["ebpf"]["syscall"], found["ebpf"]["ret"], found["event"]["outcome"]) == (call, 0, "success")
        process = found["process"]
        assert process["args"] == ["noop", "", "two words", ""]
        assert (process["args_count"], process["command_line"]) == (4, "noop  two words ")
        assert (process["executable"], process["name"], process["working_directory"]) == (
            str(noop),
            "noop",
            str(programs),
        )
        assert (found["file"]["path"], found["file"]["inode"]) == (str(noop), str(about.st_ino))
        assert found["file"]["device"] == f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
        assert found["file"]["mode"] == f"{about.st_mode & 0o7777:04o}"
        assert found["ebpf"]["path_source"] == "file"
        assert process["parent"]["pid"] == script.pid
        assert documents[2]["process"]["exit_code"] == 0


def test_an_exec_that_fails_has_the_claimed_path_made_absolute(
    monitor: MonitorProcess, script: Script, programs: Path, place: Path
) -> None:
    (place / "text").write_text("no program")
    (place / "text").chmod(0o755)
    (place / "plain").write_text("not executable")
    (place / "plain").chmod(0o644)
    argv, empty = script.strings(["x"]), script.words(0)
    script.call("chdir", script.text(place))
    directory = script.call("open", script.text(place), os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(PRIME):
        script.call("execve", script.text(place / "missing"), argv, empty)
        script.call("execve", script.text("missing"), argv, empty)
        script.call("execve", script.text("./plain"), argv, empty)
        script.call("execve", script.text("text"), argv, empty)
        script.call("execveat", directory, script.text("missing"), argv, empty, 0)
        script.call("execveat", AT_FDCWD, script.text("missing"), argv, empty, 0)
    pid = script.run(cwd=programs)
    found = [one for one in monitor.program(pid) if name_of(one) == "process_exec"]
    wanted = [
        ("execve", "ENOENT", "missing"),
        ("execve", "ENOENT", "missing"),
        ("execve", "EACCES", "./plain"),
        ("execve", "ENOEXEC", "text"),
        ("execveat", "ENOENT", "missing"),
        ("execveat", "ENOENT", "missing"),
    ] * PRIME
    assert [(one["ebpf"]["syscall"], one["error"]["code"], one["file"]["path"]) for one in found] == [
        (call, code, f"{place}/{name}") for call, code, name in wanted
    ]
    assert all(
        one["ebpf"]["claimed"] is True and one["ebpf"]["path_source"] == "caller" and one["event"]["type"] == ["info"]
        for one in found
    )
    assert all(one["process"]["executable"] == str(script.actor) for one in found), (
        "the process still runs its old program"
    )


def test_arguments_of_300_kb_are_cut_flagged_and_their_length_told(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    argv = [b"noop", *(b"%d-" % i + b"x" * 99_996 for i in range(3))]
    pids = exec_children(script, [("execve", (script.text(programs / "noop"), script.strings(argv), script.words(0)))])
    found = monitor.lifetime(pids[0])[1]
    whole = sum(len(one) + 1 for one in argv)
    assert (found["ebpf"]["truncated"], found["ebpf"]["original_bytes"]) == (True, whole)
    kept = "\0".join(found["process"]["args"])
    assert kept == b"\0".join(argv).decode()[: len(kept)]
    assert 8000 < len(kept) <= 8192


@pytest.mark.parametrize("size", [8190, 8191, 8192, 8193])
def test_arguments_are_whole_up_to_the_limit(
    monitor: MonitorProcess, script: Script, programs: Path, size: int
) -> None:
    argument = b"a" * (size - 6)  # "noop\0" before and a NUL behind
    pids = exec_children(
        script, [("execve", (script.text(programs / "noop"), script.strings([b"noop", argument]), script.words(0)))]
    )
    found = monitor.lifetime(pids[0])[1]
    if size <= 8192:
        assert found["process"]["args"] == ["noop", argument.decode()]
        assert "truncated" not in found["ebpf"]
    else:
        assert (found["ebpf"]["truncated"], found["ebpf"]["original_bytes"]) == (True, size)


def test_an_exec_without_arguments_has_what_the_kernel_made_of_it(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    pids = exec_children(script, [("execve", (script.text(programs / "noop"), 0, 0))])
    documents = monitor.lifetime(pids[0])
    assert brief(documents) == ["process_fork", "process_exec", "process_exit"]
    assert documents[1]["process"]["args"] == [""], "since 5.18 the kernel adds an empty argument"


def test_arguments_that_are_not_text_come_back_from_raw(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    argv = [b"noop", b"\xff\xfe", b"line\nbreak", "grüße".encode(), b'{"event":"forged"}']
    pids = exec_children(script, [("execve", (script.text(programs / "noop"), script.strings(argv), script.words(0)))])
    found = monitor.lifetime(pids[0])[1]
    assert found["process"]["args"] == ["noop", "\\xff\\xfe", "line\\x0abreak", "grüße", '{"event":"forged"}']
    from monitor import names

    assert names.original_list(found["process"]["args"], found["ebpf"]["raw"]["process_args"]) == argv


def test_a_script_s_program_is_its_interpreter(
    monitor: MonitorProcess, script: Script, programs: Path, place: Path
) -> None:
    (place / "run").write_text(f"#!{programs}/noop -x\n")
    (place / "run").chmod(0o755)
    pids = exec_children(
        script, [("execve", (script.text(place / "run"), script.strings(["run", "arg"]), script.words(0)))]
    )
    found = monitor.lifetime(pids[0])[1]
    assert found["process"]["executable"] == str(programs / "noop")
    assert found["process"]["args"] == [f"{programs}/noop", "-x", str(place / "run"), "arg"]


def test_an_exec_of_a_memfd_names_it_as_the_kernel_does(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    content = (programs / "noop").read_bytes()
    memory = script.call("memfd_create", script.text("hidden"), 0)
    script.call("write", memory, script.data(content), len(content))
    child = script.begin_child()
    script.call("execveat", memory, script.text(""), script.strings(["x"]), script.words(0), 0x1000)
    made = script.end_child(child, 77)
    script.reap(made)
    script.run()
    documents = monitor.lifetime(made.ret)
    found = next(one for one in documents if name_of(one) == "process_exec")
    assert found["process"]["executable"] == "memfd:hidden" == found["file"]["path"]
    assert documents[-1]["process"]["executable"] == "memfd:hidden"


@pytest.mark.parametrize("code", [0, 1, 2, 42, 126, 127, 128, 254, 255])
def test_an_exit_has_its_code_and_no_signal(monitor: MonitorProcess, script: Script, code: int) -> None:
    made = [script.spawn("fork", code=code) for _ in range(3)]
    reaped = [script.reap(one) for one in made]
    script.run()
    for one, end in zip(made, reaped, strict=True):
        found = monitor.lifetime(one.ret)[-1]
        assert os.waitstatus_to_exitcode(script.status(end)) == found["process"]["exit_code"] == code
        assert "signal" not in found["ebpf"]
        assert found["event"]["type"] == ["end"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1, 34, 64]
)
def test_a_death_by_signal_has_its_number_and_no_code(monitor: MonitorProcess, script: Script, number: int) -> None:
    script.call("prlimit64", 0, 4, script.words(0, 0), 0)  # no core file: that is another test's business
    child = script.begin_child()
    own = script.call("getpid")
    script.call("kill", own, number)
    made = script.end_child(child, 77)
    reaped = script.reap(made)
    script.run()
    found = monitor.lifetime(made.ret)[-1]
    assert os.WTERMSIG(script.status(reaped)) == number == found["ebpf"]["signal"]["number"]
    assert "exit_code" not in found["process"]
    assert (
        found["ebpf"]["signal"]["name"] == {34: "SIGRTMIN+2", 64: "SIGRTMAX"}.get(number)
        or found["ebpf"]["signal"]["name"] == signal.Signals(number).name
    )


THREADS = r"""
    #define _GNU_SOURCE
    #include <pthread.h>
    #include <stdlib.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static int how, first, last;
    static void *run(void *x) { usleep(20000); if (how) exit(last); syscall(SYS_exit, last); return 0; }
    int main(int c, char **v) {
      pthread_t t; how = atoi(v[1]); first = atoi(v[2]); last = atoi(v[3]);
      pthread_create(&t, 0, run, 0); syscall(SYS_exit, first);
    }
"""


@pytest.mark.parametrize(("how", "first", "last"), [(0, 3, 5), (0, 0, 9), (1, 3, 5)])
def test_a_process_whose_leader_ended_first_exits_once_with_the_code_that_wait_sees(
    monitor: MonitorProcess, programs: Path, how: int, first: int, last: int
) -> None:
    program = compile_c(programs, "leaders", THREADS)
    children = [subprocess.Popen([program, str(how), str(first), str(last)]) for _ in range(3)]
    for child in children:
        code = child.wait()
        documents = monitor.lifetime(child.pid)
        assert brief(documents)[-1] == "process_exit"
        assert Counter(brief(documents))["process_exit"] == 1
        assert documents[-1]["process"]["exit_code"] == code
        assert documents[-1]["process"]["thread"]["id"] != child.pid, "the thread that was last"
        assert documents[-1]["process"]["executable"] == str(program)


def test_an_exec_by_another_thread_is_one_exec_of_the_process(monitor: MonitorProcess, programs: Path) -> None:
    program = compile_c(
        programs,
        "thread_exec",
        r"""
        #include <pthread.h>
        #include <unistd.h>
        static char *path;
        static void *run(void *x) { execl(path, "noop", "from a thread", (char *)0); return 0; }
        int main(int c, char **v) { pthread_t t; path = v[1]; pthread_create(&t, 0, run, 0); pause(); }
    """,
    )
    child = subprocess.Popen([program, programs / "noop"])
    assert child.wait() == 0
    documents = [one for one in monitor.lifetime(child.pid) if name_of(one).startswith("process_")]
    assert [(name_of(one), one["process"].get("args")) for one in documents][-3:] == [
        ("process_exec", [str(program), str(programs / "noop")]),
        ("process_exec", ["noop", "from a thread"]),
        ("process_exit", None),
    ]
    assert len({one["process"]["entity_id"] for one in documents}) == 1
    assert documents[-1]["process"]["executable"] == str(programs / "noop")


SHORT = r"""
    #include <fcntl.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/wait.h>
    #include <unistd.h>
    int main(int c, char **v) {
      int n = atoi(v[2]); char name[64];
      if (c > 3) { close(open(v[2], O_RDONLY)); return 0; }         /* the new program's act */
      for (int i = 0; i < n; i++) {
        pid_t p = fork();
        if (!p) { close(open(v[1], O_RDONLY)); sprintf(name, "%d", i);
                 execl(v[1], "after", v[1], "/dev/null", "x", (char *)0); _exit(9); }
        int s; waitpid(p, &s, 0); if (s) return 1;
      }
      return 0;
    }
"""


SHORT_LIFE = ("process_fork", "file_open", "file_close", "process_exec", "file_open", "file_close", "process_exit")


def test_no_event_of_2000_short_lived_processes_shows_the_program_before_the_exec(
    monitor: MonitorProcess, programs: Path
) -> None:
    """Nor is one missing, but for what a kernel skips that preempts programs: the loss records count at least as many."""
    skipped = monitor.lost("preempted")
    before, after = compile_c(programs, "before", SHORT), programs / "after"
    if not after.exists():
        after.write_bytes(before.read_bytes())
        after.chmod(0o755)
    parent = subprocess.Popen([before, after, "2000"])
    assert parent.wait(60 * PATIENCE) == 0
    monitor.lifetime(parent.pid, 60)
    children = monitor.journal.born[parent.pid]
    wrong, missing = [], len(SHORT_LIFE) * 2000
    for pid, entity in children:
        documents = [one for one in monitor.journal.documents(pid, entity) if one["ebpf"]["event"] != "process_hash"]
        names = brief(documents)
        at = names.index("process_exec") if "process_exec" in names else len(names)
        programs_seen = [(one["process"].get("executable"), one["process"]["thread"]["name"]) for one in documents]
        missing -= len(names)
        life = iter(SHORT_LIFE)
        if (
            not all(name in life for name in names)
            or not set(programs_seen[:at]) <= {(str(before), "before")}
            or not set(programs_seen[at:]) <= {(str(after), "after")}
        ):
            wrong.append((names, programs_seen, brief(monitor.journal.documents(pid))))
    assert not wrong, (len(wrong), wrong[0], monitor.fresh_status()["ledger"])
    monitor.until(lambda: missing <= monitor.lost("preempted") - skipped, f"loss records of {missing} missing events")


def test_calls_through_the_32_bit_entry_are_events_by_their_own_numbers(
    monitor: MonitorProcess, script: Script, programs: Path
) -> None:
    child = script.begin_child()
    script.call32(
        "execve", script.text(programs / "missing"), script.data(struct.pack("<II", 0, 0)), script.data(bytes(8))
    )
    script.call32(
        "execve",
        script.text(programs / "noop"),
        script.data(struct.pack("<II", script.text("noop"), 0)),
        script.data(bytes(8)),
    )
    made = script.end_child(child, 77)
    reaped = script.reap(made)
    script.run()
    assert script.status(reaped) == 0
    documents = monitor.lifetime(made.ret)
    assert [(name_of(one), one["ebpf"].get("syscall"), one.get("error", {}).get("code")) for one in documents[1:]] == [
        ("process_exec", "execve", "ENOENT"),
        ("process_exec", "execve", None),
        ("process_exit", None, None),
    ]
