"""The catalogue's events: what changes the kernel itself.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.shown import CLAIM, EXIT, FILE_SHOWN, TASK_BLOBS, source
from monitor.model import EventType, Shown

KERNEL: tuple[EventType, ...] = (
    EventType(80, "kernel_module", "control", "A kernel module was loaded or removed.", "driver", ("start",), "load_module",
              "tp_btf/sys_exit, tp_btf/module_load", ("init_module", "finit_module", "delete_module"), (), (*TASK_BLOBS, "path", "text", "text2"),
              (*FILE_SHOWN, Shown("ebpf.module.name", "keyword", "its name: the kernel's, of a loaded one; the caller's, of a removal"),
               Shown("ebpf.module.parameters", "keyword", "parameters, as the caller gave them"), Shown("ebpf.flags", "keyword", "flags of the call, hexadecimal"),
               source("file (the kernel's file object of finit_module)"), CLAIM), edge="process -> kernel", trigger="modprobe MODULE"),
    EventType(81, "kernel_bpf", "control",
              "A BPF program was loaded, pinned, attached or detached. Maps, and questions about programs, are not events.", "driver", ("start",), "bpf",
              EXIT, ("bpf",), (), (*TASK_BLOBS, "program", "text"),
              (Shown("ebpf.bpf.command", "keyword", "BPF_PROG_LOAD and others"), Shown("ebpf.bpf.program.id", "keyword", "the kernel's number of the program"),
               Shown("ebpf.bpf.program.type", "keyword", "BPF_PROG_TYPE_*, short"), Shown("ebpf.bpf.program.name", "keyword", "its name"),
               Shown("ebpf.bpf.program.tag", "keyword", "hash of its instructions, as bpftool shows it"),
               Shown("ebpf.bpf.program.attach_type", "long", "expected attach type, a number"),
               Shown("ebpf.bpf.program.attach_to", "keyword", "kernel function or tracepoint that it was loaded for"),
               Shown("ebpf.bpf.program.instructions", "long", "its length"), Shown("ebpf.bpf.link.id", "keyword", "number of the link that was made"), CLAIM),
              edge="process -> kernel", trigger="bpftool prog load FILE PATH"),
    EventType(82, "kernel_io_uring", "control", "An io_uring instance was made.", "process", ("info",), "io_uring_setup", EXIT, ("io_uring_setup",), (),
              TASK_BLOBS, (Shown("ebpf.flags", "keyword", "IORING_SETUP_SQPOLL and others, as the kernel holds them"),
                           Shown("ebpf.io_uring.entries", "long", "entries of the submission queue")), edge="process -> kernel",
              trigger="fio --ioengine=io_uring ..."),
)
