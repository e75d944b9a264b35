"""A bulk request and what its answer means for each document. Owns the judgement; never sends and never waits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from isal import igzip

from monitor.ship.batches import Batch
from monitor.sinks.elasticsearch import NDJSON, Reply

PATH = "/_bulk?filter_path=errors,items.*._id,items.*.status,items.*.error.type,items.*.error.reason,error.type,error.reason"
HEADERS = {"content-type": NDJSON, "content-encoding": "gzip"}
_OF_THE_INDEX = {
    "cluster_block_exception", "index_closed_exception", "index_not_found_exception", "invalid_index_name_exception",
    "security_exception", "validation_exception", "unavailable_shards_exception", "process_cluster_event_timeout_exception",
}  # fmt: skip
_FULL_SHARD = re.compile(r"number of documents in the (index|shard) (can't|cannot|can not) exceed", re.IGNORECASE)
_GRANT = "grant create_doc and auto_configure on the index, or repair the credentials"
_READ_ONLY = "the index takes no documents"


@dataclass(frozen=True)
class Trouble:
    """Why nothing is delivered. `wait`: it may pass by itself (else somebody must repair something); `check` is a word for it."""

    check: str
    text: str
    wait: bool
    unreachable: bool = False


@dataclass(frozen=True)
class Rejected:
    """One document that the server refuses for what it holds; `place` in the batch."""

    place: int
    status: int
    kind: str
    reason: str


@dataclass
class Verdict:
    """What an answer means. The places of `created`, `taken`, `again` and of `rejected` are all places of the batch.

    `taken`: 409, the id is there already. `again`: to be sent once more, after `trouble` is over.
    """

    created: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    trouble: Trouble | None = None
    too_large: bool = False
    refused: bool = False
    """401 or 403: the credentials should be read again"""


def path(index: str) -> str:
    """Where a bulk for this index goes."""
    return f"/{index}{PATH}"


def body(ids: Sequence[bytes], lines: Sequence[bytes]) -> bytes:
    """Compressed: an action line before each line of the log."""
    parts: list[bytes] = [b""] * (2 * len(ids))
    parts[0::2] = [b'{"create":{"_id":"%b"}}\n' % identity for identity in ids]
    parts[1::2] = lines
    return igzip.compress(b"".join(parts), compresslevel=1)


def all_created(ids: Sequence[bytes]) -> bytes:
    """The answer in which each document was created, but for its `errors` member."""
    return b",".join([b'{"create":{"_id":"%b","status":201}}' % identity for identity in ids])


def most_reply_bytes(documents: int) -> int:
    """A longer answer is not Elasticsearch's."""
    return 65_536 + 4096 * documents


def judge(batch: Batch, reply: Reply) -> Verdict:
    """What the answer to a bulk means. Whoever sent it knows what was never answered at all."""
    if reply.status != 200:
        return _refusal(batch, reply)
    if reply.body.startswith(b'{"errors":false,"items":[') and reply.body[25:-2] == all_created(batch.ids):
        return Verdict(created=list(range(len(batch.ids))))
    every = list(range(len(batch.ids)))
    items = _items(reply.body)
    if items is None or len(items) != len(batch.ids):
        text = "the server answered a bulk with something else than a list of results"
        if items is not None:
            text = f"the server answered {len(items)} results for {len(batch.ids)} documents"
        return Verdict(again=every, trouble=Trouble("foreign_reply", f"{text}; is a proxy in between?", wait=True))
    verdict = Verdict()
    for place, (identity, item) in enumerate(zip(batch.ids, items, strict=True)):
        if item.get("_id") != identity.decode():
            text = "the server answered for other documents than were sent; is a proxy in between?"
            return Verdict(again=every, trouble=Trouble("foreign_reply", text, wait=True))
        _judge_item(verdict, place, item)
    return verdict


def _items(body: bytes) -> list[dict[str, Any]] | None:
    try:
        found = orjson.loads(body)
        items = [item["create"] for item in found["items"]]
    except (ValueError, KeyError, TypeError):
        return None
    return items if all(isinstance(item, dict) and isinstance(item.get("status"), int) for item in items) else None


def _judge_item(verdict: Verdict, place: int, item: dict[str, Any]) -> None:
    status = item["status"]
    error = item.get("error")
    kind, reason = (str(error.get("type", "")), str(error.get("reason", ""))) if isinstance(error, dict) else ("", "")
    if status == 201:
        verdict.created.append(place)
    elif status == 409:
        verdict.taken.append(place)
    elif _FULL_SHARD.search(reason):
        verdict.again.append(place)
        text = f"a shard is full ({reason}): set es_config.index_period to hour, or delete documents"
        verdict.trouble = Trouble("shard_full", text, wait=False)
    elif kind in _OF_THE_INDEX or status in (401, 403, 404):
        verdict.again.append(place)
        verdict.refused |= kind == "security_exception"
        verdict.trouble = Trouble(kind or f"status_{status}", _advice(kind, reason), wait=status >= 500)
    elif status == 429 or status >= 500 or status < 400:
        verdict.again.append(place)
        verdict.trouble = verdict.trouble or Trouble(
            "busy", f"the server takes no more at the moment ({status} {kind})", wait=True
        )
    else:
        verdict.rejected.append(Rejected(place, status, kind, reason))


def _advice(kind: str, reason: str) -> str:
    reason = reason[:500]
    if kind == "security_exception":
        return f"the server does not permit it: {reason}; {_GRANT}"
    if kind == "cluster_block_exception":
        return f"{_READ_ONLY}: {reason}; free disk space on the server, or lift the block (index.blocks.*)"
    if kind == "index_not_found_exception":
        return f"the index is not there and is not made: {reason}; is action.auto_create_index off on the server?"
    if kind == "index_closed_exception":
        return f"{_READ_ONLY}: {reason}; open the index"
    return f"{_READ_ONLY}: {reason}"


def error_of(reply: Reply) -> tuple[str, str]:
    """(type, reason) of an error body; ("", "") when it has none."""
    try:
        error = orjson.loads(reply.body)["error"]
        return str(error["type"]), str(error["reason"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def _refusal(batch: Batch, reply: Reply) -> Verdict:
    """A bulk that was refused as a whole, or that something before the server answered."""
    every = list(range(len(batch.ids)))
    kind, reason = error_of(reply)
    said = f" ({kind}: {reason[:300]})" if kind else ""
    if reply.status == 413:
        return Verdict(again=every, too_large=True)
    if reply.status == 401:
        text = f"the server does not accept the credentials{said}: repair es_config's user, password or api_key"
        return Verdict(again=every, trouble=Trouble("credentials", text, wait=False), refused=True)
    if reply.status == 403:
        text = f"the server does not permit it{said}: {_GRANT}"
        return Verdict(again=every, trouble=Trouble("permission", text, wait=False), refused=True)
    if reply.status in (408, 429) or reply.status >= 500:
        return Verdict(again=every, trouble=Trouble("busy", f"the server answers {reply.status}{said}", wait=True))
    text = f"the server answers a bulk with {reply.status}{said}; is that Elasticsearch, and is a proxy in between?"
    return Verdict(again=every, trouble=Trouble(f"status_{reply.status}", text, wait=False))
