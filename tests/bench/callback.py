"""A peer: what most people write first with BCC. Run by peers.py as `python -m tests.bench.callback OUTPUT COMM`.

A tracepoint on enter and exit of each call, a hash map between them, a fixed struct through a perf buffer with a wake-up for
each event, a Python callback with json.dumps. It is written well for what it is: the ring is large, output is buffered.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CALLS = {"openat": "(u64)args->filename", "read": "args->fd", "write": "args->fd", "close": "args->fd"}
TEXT = """
typedef unsigned short umode_t; /* of the tracepoint's format, and not among the types that the monitor needs */
struct event { u64 ts; u32 pid, tid, uid; s64 ret; u64 fd; u32 call; char comm[16]; char path[256]; };
BPF_HASH(entered, u32, u64);
BPF_PERF_OUTPUT(events);
static inline int ours(void) { char c[16]; bpf_get_current_comm(c, 16); return *(u64 *)c == COMM; }
"""
PROBE = """
TRACEPOINT_PROBE(syscalls, sys_enter_NAME) {
  if (!ours()) return 0;
  u32 tid = bpf_get_current_pid_tgid(); u64 argument = ARGUMENT; entered.update(&tid, &argument); return 0;
}
TRACEPOINT_PROBE(syscalls, sys_exit_NAME) {
  u64 id = bpf_get_current_pid_tgid(); u32 tid = id; u64 *argument = entered.lookup(&tid); if (!argument) return 0;
  struct event e = {}; e.ts = bpf_ktime_get_ns(); e.pid = id >> 32; e.tid = tid; e.uid = bpf_get_current_uid_gid();
  e.ret = args->ret; e.call = NUMBER; e.fd = *argument; bpf_get_current_comm(e.comm, sizeof e.comm);
  if (NUMBER == 0) bpf_probe_read_user_str(e.path, sizeof e.path, (void *)*argument);
  entered.delete(&tid); events.perf_submit(args, &e, sizeof e); return 0;
}
"""


def text(comm: bytes) -> str:
    """The C text for a program of this name (its first 8 bytes)."""
    probes = (
        PROBE.replace("NAME", name).replace("ARGUMENT", argument).replace("NUMBER", str(number))
        for number, (name, argument) in enumerate(CALLS.items())
    )
    return TEXT.replace("COMM", f"{int.from_bytes(comm[:8], 'little')}ull") + "".join(probes)


def main() -> None:
    """Writes events until SIGINT, then one line with the number that BCC has reported as lost."""
    from monitor.kernel import headers, import_bcc

    output, comm = Path(sys.argv[1]), os.fsencode(sys.argv[2])
    bcc: Any = import_bcc()
    with tempfile.TemporaryDirectory() as directory:
        headers.write_tree(directory)
        os.environ["BCC_KERNEL_SOURCE"] = directory
        program = bcc.BPF(text=text(comm))
    names, lost, stopped = list(CALLS), 0, False

    def on_stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    def on_lost(count: int) -> None:
        nonlocal lost
        lost += count

    signal.signal(signal.SIGINT, on_stop)
    offset = time.time() - time.monotonic()
    with output.open("w", encoding="utf-8") as log:

        def on_event(_cpu: int, data: Any, _size: int) -> None:
            event = program["events"].event(data)
            found = {
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.ts / 1e9 + offset)),
                "pid": event.pid,
                "tid": event.tid,
                "uid": event.uid,
                "comm": event.comm.decode("utf-8", "replace"),
                "syscall": names[event.call],
                "ret": event.ret,
            }
            if event.call == 0:
                found["path"] = event.path.decode("utf-8", "replace")
            else:
                found["fd"] = event.fd
            log.write(json.dumps(found) + "\n")

        program["events"].open_perf_buffer(on_event, page_cnt=1024, lost_cb=on_lost)
        log.write('"attached"\n')
        log.flush()
        while not stopped:
            program.perf_buffer_poll(timeout=100)
            log.flush()
        log.write(json.dumps({"lost": lost}) + "\n")


if __name__ == "__main__":
    main()
