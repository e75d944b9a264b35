"""The catalogue's events: what is done to files.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.shown import CLAIM, CUT, EXIT, FOLD, KERNEL_FILE, MOVES, READS, TASK_BLOBS, TOTALS, WRITES, source
from monitor.model import EventType, Field, Shown

FILES: tuple[EventType, ...] = (
    EventType(32, "file_open", "bulk", "A file was opened.", "file", ("access",), "open", EXIT,
              ("open", "openat", "openat2", "creat", "open_by_handle_at"),
              (Field("oflags", "u64", "ebpf.flags", "keyword", "open flags", "open_flags"),), (),
              (source("file (the kernel's file object); caller: of a failed call"), CLAIM, *CUT), "file", "file -> process",
              "cat FILE", FOLD),
    EventType(33, "file_read", "bulk", "A process read from a file: the first time, or each time when folding is off.",
              "file", ("access",), "read", EXIT, (*READS, *MOVES), (Field("pad", "u64"),), (), (KERNEL_FILE, *CUT), "file", "file -> process",
              "cat FILE", FOLD),
    EventType(34, "file_write", "bulk", "A process wrote to a file: the first time, or each time when folding is off.",
              "file", ("change",), "write", EXIT, (*WRITES, *MOVES), (Field("pad", "u64"),), (), (KERNEL_FILE, *CUT), "file", "process -> file",
              "echo x > FILE", FOLD),
    EventType(35, "file_close", "bulk", "An open file's session ended, with the totals of what passed.", "file", ("access",),
              "close", EXIT, ("close", "dup2", "dup3", "close_range"), TOTALS, (), (KERNEL_FILE, *CUT), "file", "totals",
              "cat FILE", FOLD),
    EventType(36, "file_delete", "control", "A name of a file was removed.", "file", ("deletion",), "deletion", EXIT,
              ("unlink", "unlinkat"), (), (*TASK_BLOBS, "name", "base"), (source("caller"), CLAIM), "file", "process -> file", "rm FILE", FOLD),
    EventType(37, "file_rename", "control", "A file got another name.", "file", ("change",), "rename", EXIT,
              ("rename", "renameat", "renameat2"), (), (*TASK_BLOBS, "name", "base", "name2", "base2"),
              (Shown("file.Ext.original.path", "keyword", "the earlier name"), source("caller"), CLAIM), "file", "process -> file",
              "mv FILE OTHER", FOLD),
)
