"""The catalogue's events: requests of io_uring that are told apart from their completion.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.shown import BY_NAME, CLAIM, EARLIER, NAMED, NAMED2, SOCKET_SHOWN, TASK_BLOBS, source
from monitor.model import EventType, Shown

URING_EVENTS: tuple[EventType, ...] = (
    EventType(100, "kernel_io_uring_request", "control",
              "A request of io_uring whose completion is suppressed, cannot be tied to it, or found the ring full.", "process", ("info",),
              "io_uring_request", "tp_btf/io_uring_submit_req, tp_btf/io_uring_cqe_overflow", (), (),
              (*TASK_BLOBS, *NAMED, *NAMED2, "path", "text", "address"),
              (Shown("ebpf.in_progress", "boolean", "told when it was accepted: what came of it is not known"), EARLIER,
               Shown("file.target_path", "keyword", "of a symbolic link: what it says"),
               Shown("ebpf.xattr.name", "keyword", "name of the attribute"), source(BY_NAME + "; file: of a descriptor"), CLAIM,
               *(shown for shown in SOCKET_SHOWN if shown.path in (
                   "source.ip", "source.port", "destination.ip", "destination.port", "ebpf.socket.family", "ebpf.socket.path",
                   "ebpf.socket.peer_path"))),
              "file", "process -> object", "a program with IOSQE_CQE_SKIP_SUCCESS"),
)
