"""Whether an index has our mapping, asked before its first bulk: documents never go into a mapping that the server guessed.

Needs the cluster privilege `monitor` or the index privilege `view_index_metadata`, and neither reads nor writes documents.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson

from monitor.model import SCHEMA
from monitor.ship.bulk import Trouble, error_of
from monitor.sinks.elasticsearch import Connection, EsError, NoReply, Reply, Unreachable

_RECHECK_S = 60.0
_TEMPLATES = (
    "/_index_template?filter_path=index_templates.name,index_templates.index_template.index_patterns,"
    "index_templates.index_template.priority,index_templates.index_template.data_stream,"
    "index_templates.index_template.template.mappings._meta"
)
_SETUP = "run ebpf-monitor setup-elasticsearch"


def trouble_of(error: EsError) -> Trouble:
    """Why a request brought no answer. A server that is not there, or does not answer, may come back by itself."""
    passes = isinstance(error, Unreachable | NoReply)
    return Trouble(error.check, str(error), wait=passes, unreachable=isinstance(error, Unreachable))


class Indices:
    """What is known of the indices of one cluster."""

    def __init__(self) -> None:
        self._checked: dict[str, tuple[float, bool]] = {}

    def forget(self) -> None:
        """After trouble: the server may be another one now."""
        self._checked.clear()

    def due(self, index: str) -> bool:
        """Whether `check` must be asked before a bulk to this index."""
        at, there = self._checked.get(index, (-_RECHECK_S, False))
        return not there or time.monotonic() - at >= _RECHECK_S

    def check(self, connection: Connection, index: str) -> Trouble | None:
        """None when bulks may go to this index: it has our mapping, or will be made from our template."""
        try:
            meta, there, problem = _mapping(connection, index)
            if problem is not None:
                return problem
            if there:
                problem = _judge(
                    meta, f"the index {index} exists with another mapping", "reindex or delete that index; then"
                )
            else:
                problem = _template(connection, index)
        except EsError as error:
            return trouble_of(error)
        if problem is None:
            self._checked[index] = time.monotonic(), there
            while len(self._checked) > 64:
                self._checked.pop(next(iter(self._checked)))
        return problem


def _mapping(connection: Connection, index: str) -> tuple[dict[str, Any], bool, Trouble | None]:
    """(_meta of the index's mapping, whether the index is there, why that cannot be seen)."""
    reply = connection.perform("GET", f"/{index}/_mapping?filter_path=*.mappings._meta,error.type,error.reason")
    if reply.status == 404:
        return {}, False, None
    if reply.status == 403:  # `monitor` permits another way to the same fact
        only = "filter_path=metadata.indices.*.mappings._doc._meta,metadata.indices.*.state"
        reply = connection.perform("GET", f"/_cluster/state/metadata/{index}?{only}")
        found = _object(reply)
        if reply.status == 200 and found is not None:
            one = found.get("metadata", {}).get("indices", {}).get(index)
            return (one or {}).get("mappings", {}).get("_doc", {}).get("_meta", {}), one is not None, None
    found = _object(reply)
    if reply.status != 200 or found is None:
        return {}, False, _unseen(reply, f"the mapping of {index}")
    if not found:  # there, but without any _meta: the filter leaves nothing
        return {}, True, None
    return next(iter(found.values())).get("mappings", {}).get("_meta", {}), True, None


def _template(connection: Connection, index: str) -> Trouble | None:
    reply = connection.perform("GET", _TEMPLATES)
    found = _object(reply)
    if reply.status != 200 or found is None:
        return _unseen(reply, "the index templates")
    matching = [
        one["index_template"] for one in found.get("index_templates", ())
        if any(_matches(pattern, index) for pattern in _patterns(one["index_template"]))
    ]  # fmt: skip
    if not matching:
        return Trouble("template", f"no index template for {index}: {_SETUP}", wait=False)
    best = max(matching, key=lambda one: one.get("priority") or 0)
    if "data_stream" in best:
        text = f"the template that {index} would be made from is a data stream's: choose another es_index or a higher priority"
        return Trouble("template", text, wait=False)
    meta = best.get("template", {}).get("mappings", {}).get("_meta", {})
    return _judge(meta, f"the template that {index} would be made from is not ours", "")


def _judge(meta: Any, otherwise: str, first: str) -> Trouble | None:
    ours = meta.get("ebpf_monitor") if isinstance(meta, dict) else None
    schema = ours.get("schema") if isinstance(ours, dict) else None
    if schema == SCHEMA:
        return None
    if schema is not None:
        otherwise += f" (format {schema}, this program writes {SCHEMA})"
    return Trouble("mapping", f"{otherwise}: {first} {_SETUP}".replace(":  ", ": "), wait=False)


def _unseen(reply: Reply, what: str) -> Trouble:
    kind, reason = error_of(reply)
    said = f" ({kind}: {reason[:300]})" if kind else ""
    if reply.status == 401:
        return Trouble("credentials", f"the server does not accept the credentials{said}", wait=False)
    if reply.status == 403:
        text = f"cannot see {what}{said}: grant the cluster privilege monitor, or view_index_metadata on the index"
        return Trouble("permission", text, wait=False)
    return Trouble(
        "busy",
        f"cannot see {what}: the server answers {reply.status}{said}",
        wait=reply.status in (408, 429) or reply.status >= 500,
    )


def _object(reply: Reply) -> dict[str, Any] | None:
    try:
        found = orjson.loads(reply.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _patterns(template: dict[str, Any]) -> list[str]:
    found = template.get("index_patterns", [])
    return [found] if isinstance(found, str) else list(found)


def _matches(pattern: str, index: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), index) is not None
