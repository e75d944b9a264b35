"""Is the stored document ours? Asked when an id is taken and we do not know of having sent it. Only reads."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.ship.bulk import error_of
from monitor.sinks.elasticsearch import Connection, NoReply

_TELLING = (
    ("@timestamp",), ("event", "id"), ("event", "sequence"), ("event", "action"), ("agent", "id"), ("host", "id"),
    ("host", "boot", "id"), ("ebpf", "event"), ("ebpf", "timestamp_ns"), ("ebpf", "ret"), ("process", "entity_id"),
    ("process", "pid"), ("file", "path"), ("user", "id"),
)  # fmt: skip


def fetch(connection: Connection, index: str, identities: list[str]) -> dict[str, Any] | None:
    """The stored documents by id; those that are not there are left out. None: we may not read. Raises EsError."""
    path = f"/{index}/_mget?filter_path=docs._id,docs.found,docs._source,error.type,error.reason"
    reply = connection.perform("POST", path, orjson.dumps({"ids": identities}))
    if reply.status in (401, 403):
        return None
    if reply.status == 404:
        return {}
    try:
        docs = orjson.loads(reply.body)["docs"]
        return {doc["_id"]: doc["_source"] for doc in docs if doc.get("found")}
    except (ValueError, KeyError, TypeError):
        kind, reason = error_of(reply)
        raise NoReply(
            "compare", f"cannot fetch documents of {index}: the server answers {reply.status} {kind} {reason[:200]}"
        ) from None


def equal(line: bytes, stored: Any) -> bool:
    """Whether a stored document came from this line. An index with synthetic source gives back another form of the same."""
    ours = orjson.loads(line)
    if ours == stored:
        return True
    return all(_member(ours, path) == _member(stored, path) for path in _TELLING)


def _member(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, list) and len(document) == 1:
        return document[0]
    return document
