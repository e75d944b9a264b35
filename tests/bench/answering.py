"""A server that only answers: takes bulks and says that all was created. For measuring what the sender costs.

python answering.py PORT [LINES]: with LINES it notes which numbers (event.sequence, up to LINES) came how often; GET /seen tells.
"""

import re
import socketserver
import sys
import threading

from isal import igzip

IDS = re.compile(rb'^\{"create":\{"_id":"([^"]+)"\}\}$', re.MULTILINE)
SEEN = bytearray(int(sys.argv[2]) + 1 if len(sys.argv) > 2 else 0)
LOCK = threading.Lock()
META = b'{"i":{"mappings":{"_meta":{"ebpf_monitor":{"schema":1}}}}}'


def note(ids: list[bytes]) -> None:
    """Counts each number."""
    with LOCK:
        for one in ids:
            SEEN[int(one[-12:], 16)] += 1


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    rbufsize = 1 << 20

    def handle(self) -> None:
        """Requests until the client has enough."""
        while head := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            data = self.rfile.read(length)
            body = META
            if b"/_bulk" in head:
                ids = IDS.findall(igzip.decompress(data))
                if SEEN:
                    note(ids)
                items = b",".join([b'{"create":{"_id":"%b","status":201}}' % one for one in ids])
                body = b'{"errors":false,"items":[%b]}' % items
            elif b" /seen " in head:
                once = SEEN.count(1)
                body = b'{"once":%d,"again":%d}' % (once, len(SEEN) - once - SEEN.count(0))
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )


class Server(socketserver.ThreadingTCPServer):
    """One thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
