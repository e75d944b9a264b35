"""The catalogue's events: what sockets do.

Holds data, never behaviour.
"""

from __future__ import annotations

from monitor.events.records import EXTRA, KEY
from monitor.events.shown import CLAIM, CUT, DIRECTION, EXIT, FOLD, READS, TASK_BLOBS, TOTALS, WRITES
from monitor.model import EventType, Shown

SOCKETS: tuple[EventType, ...] = (
    EventType(48, "socket_bind", "control", "A socket got a local address.", "network", ("info",), "bind", EXIT, ("bind", "socketcall"), (),
              (*TASK_BLOBS, "address", "socket"), (CLAIM,), "socket", "address -> process", "nc -l -p PORT", FOLD),
    EventType(49, "socket_listen", "control", "A socket began to listen.", "network", ("start",), "listen", EXIT, ("listen", "socketcall"), (),
              (*TASK_BLOBS, "socket"), (), "socket", "address -> process", "nc -l -p PORT"),
    EventType(50, "socket_connect", "control", "A connection was attempted: success, failure or in progress.", "network",
              ("start", "connection"), "connection_attempted", EXIT, ("connect", "socketcall"), (), (*TASK_BLOBS, "address", "socket"),
              (Shown("ebpf.in_progress", "boolean", "the call returned before the outcome was known"), CLAIM, DIRECTION), "socket",
              "process -> host", "nc HOST PORT", failure_types=("connection", "info")),
    EventType(51, "socket_accept", "control", "A connection was accepted.", "network", ("start", "connection"),
              "connection_accepted", EXIT, ("accept", "accept4", "socketcall"), (), (*TASK_BLOBS, "socket"), (DIRECTION,), "socket", "host -> process", "nc -l -p PORT"),
    EventType(52, "socket_send", "bulk", "A process sent: the first time, or each time when folding is off.", "network",
              ("connection",), "send", EXIT, ("sendto", "sendmsg", "sendmmsg", *WRITES, "sendfile", "sendfile64", "splice", "socketcall"), (KEY, EXTRA), (), (CLAIM, *CUT),
              "socket", "process -> host", "echo x | nc HOST PORT", FOLD),
    EventType(53, "socket_receive", "bulk", "A process received: the first time, or each time when folding is off.", "network",
              ("connection",), "receive", EXIT, ("recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", *READS, "splice", "socketcall"), (KEY, EXTRA), (), (CLAIM, *CUT),
              "socket", "host -> process", "echo x | nc HOST PORT", FOLD),
    EventType(54, "socket_close", "bulk", "A socket's session ended, with the totals of what passed.", "network",
              ("end", "connection"), "disconnect_received", EXIT, ("close", "dup2", "dup3", "close_range"), TOTALS, (), CUT,
              "socket", "totals", "echo x | nc HOST PORT", FOLD),
)
