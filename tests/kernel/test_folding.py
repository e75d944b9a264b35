"""Folding loses no operation: whatever happens to descriptors, the totals of a file and process add up exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script, compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full", "fold_interval_s": 1}], indirect=True, ids=["folding"]
)

# Every case writes known amounts to known files and says which, per file and process.
CHILD = r"""
import array, fcntl, json, os, socket, sys, threading
want = {}
def w(fd, path, n=1):
    for _ in range(n): os.write(fd, b'12345')
    k = '%s|%d' % (os.path.abspath(path), os.getpid()); want[k] = want.get(k, 0) + n
def op(p, fl=os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC): return os.open(p, fl, 0o644)
def end(): print(json.dumps(want), flush=True); os._exit(0)
def dup(): f = op('A'); w(f, 'A', 3); g = os.dup(f); w(g, 'A', 2); os.close(f); w(g, 'A'); os.close(g)
def dup2_over_used():
    f = op('A'); w(f, 'A', 2); g = op('B'); w(g, 'B'); os.dup2(g, f); w(f, 'B', 3); os.close(g); w(f, 'B'); os.close(f)
def fcntl_dup(): f = op('A'); w(f, 'A'); g = fcntl.fcntl(f, fcntl.F_DUPFD, 50); w(g, 'A', 4); os.close(g); os.close(f)
def fork_with_shared_file():
    f = op('A'); w(f, 'A', 2); p = os.fork()
    if not p: want.clear(); w(f, 'A', 3); os.close(f); g = op('B'); w(g, 'B', 2); end()
    os.waitpid(p, 0); w(f, 'A', 2); os.close(f)
def close_in_thread():
    f = op('A'); w(f, 'A', 3); t = threading.Thread(target=lambda: os.close(f)); t.start(); t.join(); g = op('B'); assert g == f; w(g, 'B', 4); os.close(g)
def close_range_and_reuse(): f = op('A'); w(f, 'A', 3); os.closerange(f, 200); g = op('B'); assert g == f; w(g, 'B', 2); os.close(g)
def close_range_of_sockets_and_reuse():
    for i in range(50):
        a, b = socket.socketpair(); a.send(b'x'); os.closerange(a.fileno(), 200); a.detach(); b.detach()
    g = op('B'); w(g, 'B', 2); os.close(g)
def passed_over_a_unix_socket():
    a, b = socket.socketpair(); p = os.fork()
    if not p:
        want.clear(); a.close(); m, anc, _, _ = b.recvmsg(10, 100); g = array.array('i', anc[0][2])[0]; w(g, 'A', 3); os.close(g); end()
    b.close(); f = op('A'); w(f, 'A', 2); a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f]))]); os.close(f); os.waitpid(p, 0)
def exec_with_cloexec():
    f = op('A'); w(f, 'A', 3); g = op('C', os.O_WRONLY | os.O_CREAT); os.set_inheritable(g, True); w(g, 'C', 2); print(json.dumps(want), flush=True)
    os.execv(sys.executable, [sys.executable, '-S', '-c', "import os,json\nf=os.open('B',os.O_WRONLY|os.O_CREAT,0o644)\nfor i in range(4): os.write(f,b'12345')\nfor i in range(3): os.write(%d,b'12345')\nprint(json.dumps({os.path.abspath('B')+'|%%d'%%os.getpid():4,os.path.abspath('C')+'|%%d'%%os.getpid():3}),flush=True); os._exit(0)" % g])
def exit_without_close(): f = op('A'); w(f, 'A', 7)
def many_files():
    for i in range(1009): f = op('m%d' % i); w(f, 'm%d' % i, 2); os.close(f)
def two_threads():
    f = op('A'); t = [threading.Thread(target=lambda: w(f, 'A', 10007)) for _ in 'ab']; [x.start() for x in t]; [x.join() for x in t]; os.close(f)
globals()[sys.argv[1]](); end()
"""
CASES = [
    "dup",
    "dup2_over_used",
    "fcntl_dup",
    "fork_with_shared_file",
    "close_in_thread",
    "close_range_and_reuse",
    "close_range_of_sockets_and_reuse",
    "passed_over_a_unix_socket",
    "exec_with_cloexec",
    "exit_without_close",
    "many_files",
    "two_threads",
]


def totals(documents: list[Document], below: Path) -> dict[str, list[int]]:
    """Path and pid -> writes and bytes by the close records."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in documents:
        path = one.get("file", {}).get("path", "")
        if name_of(one) == "file_close" and path.startswith(str(below)) and one["ebpf"]["write"]["count"]:
            row = found[f"{path}|{one['process']['pid']}"]
            row[0] += one["ebpf"]["write"]["count"]
            row[1] += one["ebpf"]["write"]["bytes"]
    return dict(found)


@pytest.mark.parametrize("case", CASES)
def test_totals_per_file_and_process_are_exact_after(monitor: MonitorProcess, place: Path, case: str) -> None:
    process = subprocess.run(
        [sys.executable, "-S", "-c", CHILD, case], cwd=place, check=True, stdout=subprocess.PIPE, timeout=60
    )
    want: dict[str, int] = defaultdict(int)
    for line in process.stdout.splitlines():
        for key, count in json.loads(line).items():
            want[key] += count
    documents = [
        one for pid in sorted({int(key.rsplit("|", 1)[1]) for key in want}) for one in monitor.lifetime(pid, 30)
    ]
    assert totals(documents, place) == {key: [count, 5 * count] for key, count in want.items()}
    first_writes = [
        (one["file"]["path"], one["process"]["pid"])
        for one in documents
        if name_of(one) == "file_write" and one["file"].get("path", "").startswith(str(place))
    ]
    assert {f"{path}|{pid}" for path, pid in first_writes} == set(want), (
        "each file's first write is an event of its own"
    )


def test_a_million_writes_of_two_threads_to_one_descriptor_are_all_counted(
    monitor: MonitorProcess, programs: Path
) -> None:
    program = compile_c(
        programs,
        "million",
        r"""
        #include <fcntl.h>
        #include <pthread.h>
        #include <unistd.h>
        static int f;
        static void *go(void *x) { for (int i = 0; i < 500000; i++) write(f, "12345", 5); return 0; }
        int main(void) {
          pthread_t t; f = open("/dev/null", O_WRONLY);
          pthread_create(&t, 0, go, 0); go(0); pthread_join(t, 0);
          close(f); return 0;
        }
    """,
    )
    process = subprocess.Popen([program])
    assert process.wait(60) == 0
    found = monitor.program(process.pid, 30)
    events = [name_of(one) for one in found]
    assert [name for name in events if name != "file_close"] == ["file_open", "file_write"]
    closes = [one["ebpf"]["write"] for one in found if name_of(one) == "file_close"]
    assert (sum(one["count"] for one in closes), sum(one["bytes"] for one in closes)) == (1_000_000, 5_000_000)


def test_sessions_that_share_a_slot_put_each_other_out_without_loss(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    count = 17_001  # more than there are slots
    script.call("prlimit64", 0, 7, script.words(20_000, 20_000), 0)
    buffer = script.room(8)
    (place / "f").touch()
    last = script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_WRONLY, 0, repeat=count)
    for descriptor in range(100, 100 + 16_500):
        script.call("write", descriptor, buffer, 5)
    monitor.lifetime(script.run(), 60)
    monitor.fresh_status()  # what the reader itself sweeps follows the exit
    found = monitor.journal.documents(script.pid)
    assert last.ret >= count
    assert totals(found, place) == {f"{place}/f|{script.pid}": [16_500, 82_500]}
    closes = [one for one in found if name_of(one) == "file_close"]
    evicted = [one for one in closes if one["ebpf"]["close"]["reason"] == "evict"]
    assert len(evicted) >= count - 16384
    assert all(one["process"]["pid"] == script.pid and one["file"]["path"] == str(place / "f") for one in evicted)


@pytest.mark.parametrize("way", ["close_range", "exec", "exit"])
def test_more_descriptors_than_one_sweep_takes_all_have_their_totals(
    monitor: MonitorProcess, script: Script, place: Path, way: str
) -> None:
    count = 601
    script.call("prlimit64", 0, 7, script.words(5000, 5000), 0)
    opened = [
        script.call("openat", AT_FDCWD, script.text(place / f"f{i}"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for i in range(count)
    ]
    for one in opened:
        script.call("write", one, script.data(b"12345"), 5, repeat=3)
    if way == "close_range":
        script.call("close_range", opened[0], 0xFFFFFFFF, 0)
    elif way == "exec":
        script.exec_again()
    pid = script.run()
    monitor.lifetime(pid, 30)
    monitor.fresh_status()  # what the reader itself sweeps follows the exit
    found = [
        one
        for one in monitor.journal.documents(pid)
        if name_of(one) == "file_close" and one.get("file", {}).get("path", "").startswith(f"{place}/")
    ]
    found = [one for one in found if one["ebpf"]["write"]["count"]]
    assert totals(found, place) == {f"{place}/f{i}|{pid}": [3, 15] for i in range(count)}
    reason = "close" if way == "close_range" else way
    # another process may take a slot meanwhile: that session is told then
    assert {one["ebpf"]["close"]["reason"] for one in found} - {"evict"} == {reason}
    assert len(found) >= count


def test_what_stays_open_is_told_each_interval_and_adds_up(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    words = [script.words(0) for _ in range(2)]
    opened = script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    buffer = script.room(8)
    script.call("write", opened, buffer, 5, repeat=11)
    script.wait(words[0])
    script.call("write", opened, buffer, 5, repeat=7)
    script.call("pread64", opened, buffer, 5, 0, repeat=3)
    script.wait(words[1])
    script.call("close", opened)
    pid = script.start()

    def intervals() -> list[Document]:
        return [
            one for one in monitor.journal.documents(pid) if one["ebpf"].get("close", {}).get("reason") == "interval"
        ]

    monitor.until(lambda: len(intervals()) == 1, "the first interval")
    script.let(words[0])
    monitor.until(lambda: len(intervals()) == 2, "the second interval")
    script.let(words[1])
    script.finish()
    found = [one for one in monitor.program(pid) if name_of(one) == "file_close"]
    assert [
        (one["ebpf"]["close"]["reason"], one["ebpf"]["write"]["count"], one["ebpf"]["read"]["count"]) for one in found
    ] == [("interval", 11, 0), ("interval", 7, 3), ("close", 0, 0)]
    assert {one["file"]["path"] for one in found} == {str(place / "f")}
    assert {one["process"]["entity_id"] for one in found} == {monitor.lifetime(pid)[0]["process"]["entity_id"]}


def test_folded_operations_stand_in_the_ledger(monitor: MonitorProcess, script: Script, place: Path) -> None:
    before = monitor.fresh_status()["ledger"]["folded"]
    opened = script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    script.call("write", opened, script.room(8), 5, repeat=1009)
    monitor.program(script.run())
    assert monitor.fresh_status()["ledger"]["folded"] - before >= 1008
