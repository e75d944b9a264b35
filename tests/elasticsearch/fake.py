"""A server that speaks as much of Elasticsearch as the shipper asks for, to inject faults that the real one cannot show.

Owns the documents that it accepted and the list of what it was asked; a fault is a function that replaces an answer.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

SCHEMA = {"ebpf_monitor": {"schema": 1}}


@dataclass
class Request:
    """One request as it arrived; `documents` are the (id, line) pairs of a bulk."""

    method: str
    path: str
    body: bytes
    at: float
    authorization: str = ""
    index: str = ""
    documents: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class Answer:
    """What goes back: `raw` instead of a whole HTTP reply when set; `close` ends the connection, `reset` with a reset."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    raw: bytes | None = None
    reset: bool = False
    wait_s: float = 0.0


Fault = Callable[["Fake", Request], Answer | None]


class Fake:
    """Listens on loopback; `store` maps index to id to line. `fault` may answer instead, before or after storing."""

    def __init__(
        self,
        certificate: tuple[Path, Path] | None = None,
        *,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.store: dict[str, dict[str, bytes]] = {}
        self.requests: list[Request] = []
        self.fault: Fault | None = None
        self.template: dict[str, Any] | None = SCHEMA
        self.readable = False  # whether the shipper's user may read documents
        self.received = 0  # bytes of requests, after TLS
        self.lock = threading.Lock()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # head and body are two writes: the second must not wait for the first one's ACK
            )
            timeout = 120

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                fake._serve(self)

            do_POST = do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def finish_request(self, request: Any, client_address: Any) -> None:
                if self.context is not None:
                    try:
                        request = self.context.wrap_socket(request, server_side=True)
                    except OSError:
                        return
                try:
                    super().finish_request(request, client_address)
                finally:
                    request.close()

            def handle_error(self, *_: object) -> None:
                pass

            context: ssl.SSLContext | None = None

        self._make = lambda port: Listener((host, port), Handler)
        self._context = context
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*map(str, certificate))
        self.port = 0
        self.up()

    def up(self) -> None:
        """Listens (again, on the same port)."""
        self._listener = self._make(self.port)
        self._listener.context = self._context
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Stops listening; connections that are open stay."""
        self._listener.shutdown()
        self._listener.server_close()

    def ids(self) -> list[str]:
        """Every _id of every index, sorted."""
        with self.lock:
            return sorted(identity for documents in self.store.values() for identity in documents)

    def bulks(self) -> list[Request]:
        """The bulk requests so far."""
        return [request for request in list(self.requests) if "/_bulk" in request.path]

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.received += len(body) + 1
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request(
            handler.command, handler.path, body, time.monotonic(), handler.headers.get("authorization") or ""
        )
        if "/_bulk" in request.path:
            request.index = request.path.split("/")[1]
            lines = body.split(b"\n")[:-1]
            request.documents = [
                (orjson.loads(lines[at])["create"]["_id"], lines[at + 1]) for at in range(0, len(lines), 2)
            ]
        self.requests.append(request)
        answer = self.fault(self, request) if self.fault is not None else None
        self._send(handler, self.answer(request) if answer is None else answer)

    def answer(self, request: Request) -> Answer:
        """What a server that works would say; it stores the documents of a bulk."""
        if request.documents:
            return Answer(body=orjson.dumps(self.create(request)))
        if "/_cluster/state" in request.path or "/_mapping" in request.path:
            index = (
                request.path.split("?")[0].split("/")[-1] if "_cluster" in request.path else request.path.split("/")[1]
            )
            if index not in self.store:
                return Answer(404 if "/_mapping" in request.path else 200)
            found: dict[str, Any] = {"mappings": {"_meta": self.template}} if self.template else {}
            return Answer(body=orjson.dumps({index: found} if found else {}))
        if "/_index_template" in request.path:
            about = {"index_patterns": ["*"], "priority": 1, "template": {"mappings": {"_meta": self.template}}}
            known = [{"name": "t", "index_template": about}] if self.template else []
            return Answer(body=orjson.dumps({"index_templates": known}))
        if "/_mget" in request.path:
            if not self.readable:
                return Answer(403, b'{"error":{"type":"security_exception","reason":"no read"}}')
            there = self.store.get(request.path.split("/")[1], {})
            wanted = orjson.loads(request.body)["ids"]
            docs = [
                {"_id": one, "found": one in there} | ({"_source": orjson.loads(there[one])} if one in there else {})
                for one in wanted
            ]
            return Answer(body=orjson.dumps({"docs": docs}))
        return Answer()

    def create(self, request: Request) -> dict[str, Any]:
        """Stores what is not there yet; the reply of a bulk."""
        items = []
        with self.lock:
            index = self.store.setdefault(request.index, {})
            for identity, line in request.documents:
                if identity in index:
                    error = {"type": "version_conflict_engine_exception", "reason": "document already exists"}
                    items.append({"create": {"_id": identity, "status": 409, "error": error}})
                else:
                    index[identity] = line
                    items.append({"create": {"_id": identity, "status": 201}})
        return {"errors": any(item["create"]["status"] != 201 for item in items), "items": items}

    def _send(self, handler: Any, answer: Answer) -> None:
        if answer.wait_s:
            time.sleep(answer.wait_s)
        if answer.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            handler.close_connection = True
            return
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        handler.send_header("content-type", answer.content_type)
        handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)
